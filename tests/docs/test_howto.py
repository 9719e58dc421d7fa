"""The how-to guides do what they say: the blocks marked `bash` are run as written.

Each page gets a control node and two agents with memory datapaths of its own; what the pages take
for granted ($api, $lab, $left, $right, the functions) is made here and by the blocks of the index.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tomllib
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
        "MIDONET_NSDB": f"sqlite://{tmp_path}/nsdb.sqlite",
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
