"""The product as processes: a control node and two agents, no privilege, loopback only.

Topology goes in by REST; a frame goes in at one agent and comes out at the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from midonet.cli import mm_ctl
from midonet.packets.addresses import parse_mac
from midonet.packets.frame import parse_frame
from tests.multiagent.hosts import mac, udp
from tests.multiagent.processes import DEADLINE_S, Processes, wait_for

VM1, VM2 = mac(1), mac(2)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


def test_frame_crosses_from_one_agent_to_the_other(processes: Processes) -> None:
    processes.start_cluster()
    processes.start_agent("alpha")
    processes.start_agent("beta")
    alpha, beta = processes.state("alpha")["hostId"], processes.state("beta")["hostId"]

    processes.tunnel_zone({alpha: "127.0.9.1", beta: "127.0.9.2"})
    ports = processes.bridge_ports(2)
    processes.bind(alpha, ports[0], "tap1")
    # The other port is bound at its host, as an operator there does it.
    control = str(processes.directory / "beta" / "agent.sock")
    assert mm_ctl.main(["--socket", control, "--bind-port", ports[1], "tap2"]) == 0

    wait_for(lambda: ports[0] in processes.active_ports("alpha"), "port 1 is active")
    wait_for(lambda: ports[1] in processes.active_ports("beta"), "port 2 is active")
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
