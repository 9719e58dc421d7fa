"""The product as processes: a control node and two agents, no privilege, loopback only.

Topology goes in by REST; a frame goes in at one agent and comes out at the other.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from midonet.cli import mm_ctl
from midonet.packets.addresses import parse_mac
from midonet.packets.frame import parse_frame
from tests.multiagent.hosts import mac, udp

DEADLINE_S = 30.0
VM1, VM2 = mac(1), mac(2)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true result of a condition."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {DEADLINE_S} s")


def free_port(kind: int, host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Processes:
    """Commands started on one store, all stopped at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nsdb = f"sqlite://{directory}/nsdb.db"
        self.api_port = free_port(socket.SOCK_STREAM)
        self.underlay_port = free_port(socket.SOCK_DGRAM)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.api_port}/midonet-api")

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MIDONET_")}
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "midonet.commands.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self.running[name] = process
        return process

    def start_cluster(self) -> None:
        self.start(
            "cluster", "cluster", "--nsdb", self.nsdb, "--listen", f"127.0.0.1:{self.api_port}"
        )
        wait_for(self._api_answers, "the API answers")

    def start_agent(self, name: str) -> None:
        self.start(
            name, "agent", "--nsdb", self.nsdb, "--host-name", name, "--datapath", "memory",
            "--state-dir", str(self.directory / name), "--underlay-port", str(self.underlay_port),
        )  # fmt: skip
        wait_for(lambda: self.state(name), f"agent {name} answers")

    def state(self, name: str) -> Any:
        status, text = self.command("state", "--json", "--state-dir", str(self.directory / name))
        return json.loads(text) if status == 0 else None

    def command(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "midonet.commands.main", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=DEADLINE_S,
        )
        return done.returncode, done.stdout.decode()

    def stop(self, name: str) -> int:
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(DEADLINE_S)

    def close(self) -> None:
        self.api.close()
        for process in self.running.values():
            process.kill()
            process.wait()

    def post(self, path: str, body: dict[str, Any], media: str) -> str:
        headers = {"Content-Type": f"application/vnd.org.midonet.{media}+json"}
        response = self.api.post(path, json=body, headers=headers)
        assert response.status_code == 201, response.text
        return response.headers["Location"].rpartition("/")[2]

    def _api_answers(self) -> bool:
        try:
            return self.api.get("/").status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


def active_ports(processes: Processes, name: str) -> set[str]:
    state = processes.state(name)
    return {port["id"] for port in state["ports"] if port["active"]}


def test_frame_crosses_from_one_agent_to_the_other(processes: Processes) -> None:
    processes.start_cluster()
    processes.start_agent("alpha")
    processes.start_agent("beta")
    alpha, beta = processes.state("alpha")["hostId"], processes.state("beta")["hostId"]

    zone = processes.post("/tunnel_zones", {"name": "z", "type": "vxlan"}, "TunnelZone-v1")
    for host, address in ((alpha, "127.0.9.1"), (beta, "127.0.9.2")):
        body = {"hostId": host, "ipAddress": address}
        processes.post(f"/tunnel_zones/{zone}/hosts", body, "TunnelZoneHost-v1")
    bridge = processes.post("/bridges", {"name": "b", "tenantId": "t"}, "Bridge-v4")
    ports = [
        processes.post(f"/bridges/{bridge}/ports", {"type": "Bridge"}, "Port-v3") for _ in range(2)
    ]
    body = {"portId": ports[0], "interfaceName": "tap1"}
    processes.post(f"/hosts/{alpha}/ports", body, "HostInterfacePort-v1")
    # The other port is bound at its host, as an operator there does it.
    control = str(processes.directory / "beta" / "agent.sock")
    assert mm_ctl.main(["--socket", control, "--bind-port", ports[1], "tap2"]) == 0

    wait_for(lambda: ports[0] in active_ports(processes, "alpha"), "port 1 is active")
    wait_for(lambda: ports[1] in active_ports(processes, "beta"), "port 2 is active")
    wait_for(lambda: processes.state("alpha")["peers"] == ["127.0.9.2"], "alpha knows beta")
    wait_for(lambda: processes.state("beta")["peers"] == ["127.0.9.1"], "beta knows alpha")

    directory = str(processes.directory / "beta")
    seen: list[dict[str, str]] = []

    def injected() -> bool:
        status, _ = processes.command(
            "inject", "--state-dir", str(processes.directory / "alpha"), "--port", ports[0],
            "--wait", "0.2", "--json", "--udp",
            f"smac={VM1},dmac={VM2},src=10.0.0.1,dst=10.0.0.2,sport=1000,dport=2000,data=payload",
        )  # fmt: skip
        assert status == 0
        status, text = processes.command(
            "watch-port", "--state-dir", directory, "--port", ports[1], "--recent",
            "--wait", "0.5", "--json",
        )  # fmt: skip
        seen.extend(json.loads(line) for line in text.splitlines())
        return bool(seen)

    wait_for(injected, "the frame leaves at beta")
    frame = bytes.fromhex(seen[0]["frame"])
    assert frame == udp(VM1, VM2, "10.0.0.1", "10.0.0.2")
    assert parse_frame(frame).key.eth_src == parse_mac(VM1)

    status, text = processes.command("flows", "--state-dir", str(processes.directory / "alpha"))
    assert status == 0
    assert ports[0] in text

    assert mm_ctl.main(["--socket", control, "--unbind-port", ports[1]]) == 0
    wait_for(lambda: not processes.state("beta")["ports"], "port 2 is unbound")
    assert processes.stop("alpha") == 0
    assert processes.stop("beta") == 0
    assert processes.stop("cluster") == 0


def test_agent_keeps_its_identity_and_refuses_a_twin(processes: Processes) -> None:
    processes.start_agent("alpha")
    before = processes.state("alpha")["hostId"]
    twin = processes.start(
        "twin", "agent", "--nsdb", processes.nsdb, "--datapath", "memory",
        "--state-dir", str(processes.directory / "alpha"),
    )  # fmt: skip
    assert twin.wait(DEADLINE_S) == 2
    assert "another agent is running" in (processes.directory / "twin.log").read_text()
    assert processes.stop("alpha") == 0
    processes.start_agent("alpha")
    assert processes.state("alpha")["hostId"] == before


def test_bad_command_lines_are_explained(
    processes: Processes, capfd: pytest.CaptureFixture[str]
) -> None:
    process = processes.start(
        "bad", "agent", "--nsdb", "postgres://x", "--state-dir", "/dev/null/x"
    )
    assert process.wait(DEADLINE_S) == 2
    process = processes.start("away", "flows", "--state-dir", str(processes.directory / "none"))
    assert process.wait(DEADLINE_S) == 1
    assert "no agent answers" in (processes.directory / "away.log").read_text()
    missing = str(processes.directory / "none.sock")
    assert mm_ctl.main(["--socket", missing, "--unbind-port", str(uuid4())]) == 4
    assert mm_ctl.main(["--socket", missing, "--unbind-port", "nonsense"]) == 1
    assert "not a port UUID" in capfd.readouterr().err
