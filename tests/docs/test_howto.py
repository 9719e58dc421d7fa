"""The how-to guides do what they say: the blocks marked `bash` are run as written.

Each page gets a control node and two agents with memory datapaths of its own; what the pages take
for granted ($api, $lab, $left, $right, the functions) is made here and by the blocks of the index.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from midonet.agent.host.settings import AgentSettings
from midonet.cluster.settings import ClusterSettings
from midonet.demo.processes import free_port
from tests.docs.shell_pages import ROOT, blocks, run_script

HOWTO = ROOT / "docs" / "howto"
PAGES = sorted(path for path in HOWTO.glob("*.md") if path.name != "README.md")

LAB = """
set -e -o pipefail
trap 'kill -9 $(cat "$lab"/*.pid) 2>/dev/null || true' EXIT
midonet cluster --listen 127.0.0.1:$port 2>"$lab/cluster.log" & echo $! >"$lab/cluster.pid"
for name in left right; do
  midonet agent --datapath memory --host-name $name --state-dir "$lab/$name" \\
    2>"$lab/$name.log" & echo $! >"$lab/$name.pid"
done
"""
READY = """
host_id() { get $api/hosts | python3 -c "
import json, sys
print(next(h['id'] for h in json.load(sys.stdin) if h['name'] == '$1' and h['alive']))"; }
wait_until host_id left
wait_until host_id right
left=$(host_id left) right=$(host_id right)
"""
IN_ONE_ZONE = """
zone=$(post $api/tunnel_zones TunnelZone-v1 '{"name": "lab", "type": "vxlan"}')
post $zone/hosts TunnelZoneHost-v1 "{\\"hostId\\": \\"$left\\", \\"ipAddress\\": \\"127.0.1.1\\"}"
post $zone/hosts TunnelZoneHost-v1 "{\\"hostId\\": \\"$right\\", \\"ipAddress\\": \\"127.0.1.2\\"}"
"""


def nsdb_url(directory: Path) -> str:
    """Return the store's URL as the tutorial has it, an absolute path behind three slashes."""
    return f"sqlite:///{directory}/nsdb.sqlite"


@pytest.mark.xdist_group("tutorial")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs_as_written(page: Path, tmp_path: Path) -> None:
    port = free_port(socket.SOCK_STREAM)
    zone = "" if page.stem == "make-hosts-tunnel" else IN_ONE_ZONE
    script = "\n".join(
        (LAB, *blocks(HOWTO / "README.md", "bash"), READY, zone, *blocks(page, "bash"))
    ).replace("127.0.0.1:8182", f"127.0.0.1:{free_port(socket.SOCK_STREAM)}")
    environment = {
        "PATH": f"{ROOT}/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "lab": str(tmp_path),
        "port": str(port),
        "api": f"http://127.0.0.1:{port}/midonet-api",
        "MIDONET_NSDB": nsdb_url(tmp_path),
        "MIDONET_UNDERLAY_PORT": str(free_port(socket.SOCK_DGRAM)),
    }
    code, output = run_script(script, environment, tmp_path / "output")
    assert code == 0, output


def test_index_lists_every_page() -> None:
    index = (HOWTO / "README.md").read_text(encoding="utf-8")
    assert PAGES
    assert all(f"({page.name})" in index for page in PAGES)


def test_shown_configuration_is_valid() -> None:
    agent, cluster = blocks(HOWTO / "run-the-agent-under-systemd.md", "toml")
    assert msgspec.convert(tomllib.loads(agent), AgentSettings).nsdb.startswith("sqlite:///")
    assert msgspec.convert(tomllib.loads(cluster), ClusterSettings).listen


def test_shown_units_are_valid(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    units = blocks(HOWTO / "run-the-agent-under-systemd.md", "ini")
    assert len(units) >= 2
    for name, unit in zip(("agent", "cluster"), units, strict=False):
        path = tmp_path / f"midonet-{name}.service"
        path.write_text(unit.replace("/opt/midonet/bin/midonet", "/bin/true"), encoding="utf-8")
        done = subprocess.run(
            [verify, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
        )
        found = [line for line in done.stderr.splitlines() if f"midonet-{name}" in line]
        assert not found


def test_units_keep_state_to_themselves() -> None:
    units = blocks(HOWTO / "run-the-agent-under-systemd.md", "ini")
    assert len(units) >= 3
    for unit in units:
        assert "\nStateDirectory=" in unit
        assert "\nStateDirectoryMode=0700\n" in unit
        assert "\nUMask=0077\n" in unit


FILTERED = '{"name": "b", "inboundFilterId": "f", "id": "1"}'


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("change $uri Bridge-v4 name web", "is not JSON"),  # the quotes were forgotten
        ("change $uri Bridge-v4 name", "not 3 arguments"),
        ("change $uri Bridge-v4 name two words", "not 5 arguments"),
        ("change $uri Bridge-v4 nmae '\"web\"'", "nmae is not a field"),
        ("change $uri/absent Bridge-v4 name '\"web\"'", "404"),
        ("post $uri/absent Bridge-v4 '{}'", "501"),
    ],
)
def test_functions_write_nothing_when_they_are_misused(
    tmp_path: Path, call: str, says: str
) -> None:
    # Whether or not the shell that they are copied into minds failures.
    with recording_server(FILTERED) as (root, written):
        script = "\n".join((*blocks(HOWTO / "README.md", "bash"), f"uri={root}/bridge", call))
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert done.returncode != 0
        assert says in done.stderr
        assert written == []


def test_change_writes_the_whole_object_back(tmp_path: Path) -> None:
    with recording_server(FILTERED) as (root, written):
        script = "\n".join(
            (*blocks(HOWTO / "README.md", "bash"),
             f"change {root}/bridge Bridge-v4 name '\"it'\\''s\"'")
        )  # fmt: skip
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)}
        subprocess.run(["bash", "-c", script], env=environment, check=True, timeout=60)
        assert [json.loads(body) for body in written] == [
            {"name": "it's", "inboundFilterId": "f", "id": "1"}
        ]


@contextmanager
def recording_server(answer: str) -> Iterator[tuple[str, list[str]]]:
    """Serve one object, and note what is written to it."""
    written: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if self.path.endswith("absent") else 200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def do_PUT(self) -> None:
            written.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", written
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
