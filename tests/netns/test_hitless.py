"""Agents are killed, stopped, restarted and upgraded under traffic, and no packet is lost."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from midonet.agent.datapath.ebpf.abi import ABI_VERSION
from midonet.agent.datapath.ebpf.syscalls import tcx_programs
from midonet.demo.lab import Lab, LabHost, VirtualMachine
from midonet.demo.namespaces import run
from midonet.demo.steady_ping import steady_ping
from midonet.errors import UnavailableError
from midonet.model.hosts import TunnelKind
from tests.netns.entering import entered, packet_socket
from tests.netns.labs import (
    Network,
    answers,
    lab,
    require_pings,
    show,
    until,
    wait_ready,
)
from tests.netns.streams import steady_stream

pytestmark = pytest.mark.timeout(400)

BPF = Path(__file__).parents[2] / "bpf"
REMOTE, REMOTE6, ROUTED = "10.0.1.12", "fd00:0:1::12", "10.0.2.13"
OTHER_TTL = 99
NEXT = ABI_VERSION + 1


@dataclass(slots=True)
class Pair:
    """h1 with vm1; h2 with vm2 on the same bridge and vm3 behind the router."""

    lab: Lab
    network: Network

    def vm(self, name: str) -> VirtualMachine:
        return self.lab.machines[name]

    def warm_up(self) -> None:
        """Have the programs of the tests' traffic in place."""
        for target in (REMOTE, REMOTE6, ROUTED):
            answers(self.vm("vm1"), target)


@pytest.fixture(scope="module")
def pair(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with lab(f"{prefix}h", tmp_path_factory.mktemp("hitless")) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        first, second = made.hosts
        network.plug("vm1", first, tenant.segments[1], 11)
        network.plug("vm2", second, tenant.segments[1], 12)
        network.plug("vm3", second, tenant.segments[2], 13)
        network.wait_active()
        yield Pair(made, network)
        network.close()


def kill(host: LabHost) -> None:
    """End without a chance to do anything, be away for a second, come back."""
    host.agent.kill()
    _run_a_while(host)
    host.agent.start()
    wait_ready(host)


def _run_a_while(host: LabHost) -> None:
    """Let traffic go on without the agent, as seen in the interface's own counters."""
    before = _received(host)
    until(lambda: _received(host) > before + 100, "traffic without the agent")


def _received(host: LabHost) -> int:
    shown = json.loads(host.namespace.run("ip", "-j", "-s", "link", "show", "eth0"))
    return int(shown[0]["stats64"]["rx"]["packets"])


def stop_and_start(host: LabHost) -> None:
    """Stop cleanly, be away for a while, start."""
    assert host.agent.stop() == 0
    _run_a_while(host)
    host.agent.start()
    wait_ready(host)


def restart(host: LabHost) -> None:
    """Stop and start at once, twice."""
    for _ in range(2):
        _stop_and_start_at_once(host)


def _stop_and_start_at_once(host: LabHost) -> None:
    assert host.agent.stop() == 0
    host.agent.start()
    wait_ready(host)


def counters(host: LabHost) -> dict[tuple[str, str], int]:
    """Return packets by (port, match), as `midonet flows --json` prints them."""
    command = [sys.executable, "-m", "midonet.commands.main", "flows", "--json"]
    rows = json.loads(run([*command, "--state-dir", str(host.state_dir)]))
    return {(row["port"], json.dumps(row["match"])): row["packets"] for row in rows}


def under_traffic(
    pair: Pair,
    host: LabHost,
    action: Callable[[LabHost], None],
    *,
    keeps_counters: bool = True,
) -> None:
    """Carry out an action; no ping is lost, no stream broken, no counter falls."""
    pair.warm_up()
    vm1, vm2 = pair.vm("vm1"), pair.vm("vm2")
    before = counters(host)
    assert before
    with (
        steady_ping(vm1, REMOTE) as bridged,
        steady_ping(vm1, REMOTE6) as bridged6,
        steady_ping(vm1, ROUTED) as routed,
        steady_stream(vm1, vm2, REMOTE) as stream,
    ):
        until(lambda: stream.received > 200_000, "a stream that flows")
        action(host)
        flowed = stream.received
        until(lambda: stream.received > flowed + 200_000, "a stream that goes on flowing")
        stream.stop()
        results = {each.what: each.stop() for each in (bridged, bridged6, routed)}
    show(
        f"pings: { {what: sent for what, (sent, _) in results.items()} };"
        f" stream: {stream.received} bytes, longest pause {stream.longest_pause_s * 1000:.0f} ms,"
        f" {stream.retransmitted} segments sent again"
    )
    assert {what: lost for what, (_, lost) in results.items() if lost} == {}
    assert stream.error is None
    assert stream.is_intact
    assert stream.received == stream.sent
    if not keeps_counters:
        return
    after = counters(host)
    fallen = {
        key: (before[key], after[key])
        for key in before.keys() & after.keys()
        if after[key] < before[key]
    }
    assert fallen == {}
    assert sum(after.values()) > sum(before.values())


@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
@pytest.mark.parametrize("action", [kill, stop_and_start, restart])
def test_nothing_is_lost(pair: Pair, action: Callable[[LabHost], None], side: int) -> None:
    under_traffic(pair, pair.lab.hosts[side], action)


def test_nothing_is_lost_when_the_cluster_is_away(pair: Pair) -> None:
    def replace_cluster(host: LabHost) -> None:
        pair.lab.cluster.kill()
        _run_a_while(host)
        pair.lab.cluster.start()
        until(answers_rest, "the REST API")

    def answers_rest() -> bool:
        try:
            return bool(pair.network.tunnel_zones())
        except UnavailableError:
            return False

    under_traffic(pair, pair.lab.hosts[0], replace_cluster)


@pytest.fixture(scope="module")
def other_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a build of the object with another constant: the TTL of outer packets."""
    copy = tmp_path_factory.mktemp("build") / "bpf"
    shutil.copytree(BPF, copy)
    header = copy / "lib" / "overlay.h"
    text = header.read_text()
    assert "#define OUTER_TTL 64" in text
    header.write_text(text.replace("#define OUTER_TTL 64", f"#define OUTER_TTL {OTHER_TTL}"))
    built = copy / "other.bpf.o"
    run(["make", "-s", "-C", str(copy), f"OUTPUT={built}", str(built)], timeout_s=300)
    return built


@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
def test_nothing_is_lost_in_an_upgrade_to_another_build_and_back(
    pair: Pair, other_object: Path, side: int
) -> None:
    host = pair.lab.hosts[side]

    def run_build(path: str) -> None:
        host.agent.environment["MIDONET_AGENT_DATAPATH_OBJECT"] = path
        _stop_and_start_at_once(host)

    assert _outer_ttl(pair, host) == 64
    under_traffic(pair, host, lambda _host: run_build(str(other_object)))
    assert _outer_ttl(pair, host) == OTHER_TTL
    under_traffic(pair, host, lambda _host: run_build(""))
    assert _outer_ttl(pair, host) == 64


@pytest.fixture(scope="module")
def other_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sources of a version with another ABI: another number, and other layouts of what
    is kept and of what is only remembered."""
    copy = tmp_path_factory.mktemp("version")
    ignored = shutil.ignore_patterns("*.o", "__pycache__")
    for name in ("bpf", "src"):
        shutil.copytree(BPF.parent / name, copy / name, ignore=ignored)
    package = copy / "src" / "midonet" / "agent" / "datapath" / "ebpf"
    for path, old, new in (
        ("bpf/include/midonet_abi.h", f"ABI_VERSION = {ABI_VERSION}", f"ABI_VERSION = {NEXT}"),
        ("bpf/include/midonet_abi.h", "facts[40]", "facts[48]"),
        ("bpf/lib/maps.h", "struct delivery_hint {", "struct delivery_hint {\n\t__u64 more;"),
        (package / "abi.py", f"ABI_VERSION: Final = {ABI_VERSION}", f"ABI_VERSION: Final = {NEXT}"),
        (package / "abi.py", '("facts", "40s")', '("facts", "48s")'),
    ):
        text = (copy / path).read_text()
        assert old in text
        (copy / path).write_text(text.replace(old, new))
    (copy / "tests" / "bpf").mkdir(parents=True)
    run(["make", "-s", "-C", str(copy / "bpf")], timeout_s=60)
    return copy / "src"


def run_version(host: LabHost, sources: str) -> None:
    """Restart an agent from other sources ("" our own) and wait until it has taken over."""
    host.agent.environment["PYTHONPATH"] = sources
    _stop_and_start_at_once(host)
    until(lambda: len(_generations(host)) == 1, "the tables of one version")


def _generations(host: LabHost) -> set[str]:
    return {path.name for path in (host.state_dir / "bpf").iterdir() if "." not in path.name}


@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
def test_nothing_is_lost_in_an_upgrade_to_another_abi_version_and_back(
    pair: Pair, other_version: Path, side: int
) -> None:
    """Tables of the other version cannot be read, neither on the way up nor on the way down."""
    host = pair.lab.hosts[side]
    before = _generations(host)

    def change_to(sources: str) -> None:
        under_traffic(pair, host, lambda _: run_version(host, sources), keeps_counters=False)

    change_to(str(other_version))
    assert all(name.startswith(f"v{NEXT}-") for name in _generations(host))
    change_to("")
    assert _generations(host) == before
    names = host.namespace.run("ip", "-o", "link", "show")
    assert names.count("mn-inj") == 4, "two ends, each with its peer's name"


def _outer_ttl(pair: Pair, host: LabHost) -> int:
    """Return the TTL of the overlay packets that a host sends."""
    pair.warm_up()
    source = socket.inet_aton(host.address)
    with packet_socket(pair.lab.fabric, host.name) as taken:
        require_pings(pair.vm("vm1"), REMOTE, 2)
        while True:
            frame = taken.recv(100)
            if frame[23] == 17 and frame[26:30] == source and frame[36:38] == (6677).to_bytes(2):
                return frame[22]


def test_uninstalling_leaves_nothing(prefix: str, tmp_path: Path) -> None:
    with lab(f"{prefix}u", tmp_path / "lab") as made:
        host = made.hosts[0]
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        network.plug("vm1", host, tenant.segments[1], 11)
        network.plug("vm2", made.hosts[1], tenant.segments[1], 12)
        network.wait_active()
        answers(network.lab.machines["vm1"], REMOTE)
        network.close()
        interfaces = ("eth0", "tap-vm1")
        programs: set[int] = set()

        def has_links() -> bool:
            """A port has a filter first, and a link a little later."""
            with entered(host.namespace):
                attached = [tcx_programs(socket.if_nametoindex(name)) for name in interfaces]
            programs.update(number for numbers in attached for number in numbers)
            return all(attached)

        until(has_links, "a port program and an underlay program")
        assert len(programs) == 2
        assert programs <= _loaded_programs()
        assert host.agent.stop() == 0
        uninstall = subprocess.run(
            [*host.agent.command, "--uninstall"], capture_output=True, timeout=60, check=False
        )
        assert uninstall.returncode == 0, uninstall.stderr
        with entered(host.namespace):
            names = {name for _, name in socket.if_nameindex()}
            assert all(tcx_programs(socket.if_nametoindex(name)) == [] for name in interfaces)
        assert names == {"lo", *interfaces}
        for name in interfaces:
            assert "qdisc clsact" not in host.namespace.run("tc", "qdisc", "show", "dev", name)
        assert str(host.state_dir) not in Path("/proc/self/mountinfo").read_text()
        assert not (host.state_dir / "bpf").exists()
        until(lambda: not programs & _loaded_programs(), "the programs freed")


def _loaded_programs() -> set[int]:
    return {int(each["id"]) for each in json.loads(run(["bpftool", "-j", "prog", "show"]))}
