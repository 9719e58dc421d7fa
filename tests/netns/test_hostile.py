"""VMs, strangers and other agents that do their worst: the packet is dropped with a name, and
everybody else goes on."""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from midonet.commands.control_client import call
from midonet.demo.lab import Lab, LabHost, VirtualMachine
from midonet.demo.namespaces import wire
from midonet.demo.steady_ping import steady_ping
from midonet.demo.topology import Tenant
from midonet.model.hosts import TunnelKind
from midonet.model.schema_devices import RouteResource
from midonet.model.schema_hosts import BindingResource, HostResource
from midonet.model.schema_ports import PortResource
from tests.netns import fuzzing
from tests.netns.entering import entered, packet_socket
from tests.netns.labs import (
    DEADLINE_S,
    Network,
    agent_state,
    answers,
    drops,
    lab,
    mac_bytes,
    own_mac,
    require_pings,
    show,
    until,
    wait_dropped,
    wait_ready,
)

pytestmark = pytest.mark.timeout(400)

FLOODER = Path(__file__).with_name("flooder.py")
SOL_PACKET, PACKET_VNET_HDR = 263, 15
FRAMES = 3000
TARGETS = 50


@dataclass(slots=True)
class Victims:
    """h1: attacker and vm2 on bridge one. h2: vm3 on bridge one, vm4 on bridge two."""

    lab: Lab
    network: Network
    tenant: Tenant
    next_number: int = 20

    @property
    def hosts(self) -> list[LabHost]:
        return self.lab.hosts

    def vm(self, name: str) -> VirtualMachine:
        return self.lab.machines[name]

    def router_mac(self) -> str:
        port = self.tenant.segments[1].router_port
        found = self.network.api.get(PortResource, str(port.id))
        assert found.mac is not None
        return found.mac


@pytest.fixture(scope="module")
def built(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    with lab(f"{prefix}x", tmp_path_factory.mktemp("hostile")) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        first, second = made.hosts
        for name, host, segment, number in (
            ("attacker", first, 1, 11),
            ("vm2", first, 1, 12),
            ("vm3", second, 1, 13),
            ("vm4", second, 2, 14),
        ):
            network.plug(name, host, tenant.segments[segment], number)
        network.wait_active()
        yield Victims(made, network, tenant)
        network.close()


@pytest.fixture
def victims(built: Victims) -> Iterator[Victims]:
    """The lab. Afterwards the agents are the same processes, unhurt, and everybody is served."""
    for target in ("10.0.1.13", "10.0.2.14"):
        answers(built.vm("vm2"), target)
    pids = [host.agent.pid for host in built.hosts]
    yield built
    for host, pid in zip(built.hosts, pids, strict=True):
        host.agent.require_running()
        if host.agent.pid == pid:
            log = host.agent.log_path.read_text()
            assert "Traceback" not in log
            assert "level=error" not in log
    for source in ("vm2", "attacker"):
        for target in ("10.0.1.13", "10.0.2.14", "fd00:0:1::13", "fd00:0:2::14"):
            answers(built.vm(source), target)
            require_pings(built.vm(source), target, 2)


def all_drops(host: LabHost, *, is_overlay: bool = False) -> Counter[str]:
    """Return dropped packets by reason; is_overlay: only those that came from other hosts."""
    found: Counter[str] = Counter()
    for row in call(host.state_dir, "GET", "/drops"):
        if not is_overlay or row["port"] is None:
            found[row["reason"]] += row["packets"]
    return found


def send_all(taken: socket.socket, frames: Iterable[bytes]) -> int:
    """Send frames; those that the kernel itself refuses are left out."""
    sent = 0
    for frame in frames:
        try:
            taken.send(frame)
        except OSError:
            continue
        sent += 1
    return sent


@pytest.mark.parametrize("kind", ["noise", "mutations"])
def test_fuzzed_frames_of_a_machine(victims: Victims, kind: str) -> None:
    attacker = victims.vm("attacker")
    known = [own_mac(victims.vm(name)) for name in ("vm2", "vm3")] + [victims.router_mac()]
    own = own_mac(attacker)
    groups = ["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"]
    destinations = [mac_bytes(each) for each in (*known, own, *groups, "02:00:00:00:77:77")]
    # A machine that claims the address of another is believed, as on any segment.
    sources = [mac_bytes(each) for each in (own, *groups, "02:00:00:00:99:99", "00:00:00:00:00:00")]
    before = all_drops(attacker.host)
    with (
        steady_ping(victims.vm("vm2"), "10.0.1.13") as bystander,
        packet_socket(attacker.namespace, "eth0", eth_type=0) as out,
    ):
        for number, destination in enumerate(known):
            if kind == "noise":
                frames = fuzzing.noise(number, FRAMES // 3, destinations, sources)
            else:
                originals = fuzzing.templates(destination, own)
                frames = fuzzing.mutations(number, FRAMES // 3, originals)
            assert send_all(out, frames) > FRAMES // 4
        _, lost = bystander.stop()
    until(lambda: not agent_state(attacker.host)["counters"]["queued"], "upcalls handled")
    after = all_drops(attacker.host) - before
    show(f"{kind}: {dict(after)}")
    assert after["MALFORMED"] > 0
    assert after["INTERNAL"] == 0
    assert lost == []


def test_fuzzed_offload_headers_of_a_machine(victims: Victims) -> None:
    """Super-packets whose metadata are nonsense; the kernel refuses some of them itself."""
    attacker, seed = victims.vm("attacker"), 7
    originals = fuzzing.templates(victims.router_mac(), own_mac(attacker))
    with packet_socket(attacker.namespace, "eth0", eth_type=0) as out:
        out.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        source = random.Random(seed)
        frames = (
            struct.pack(
                "=BBHHHH",
                source.choice((0, 1)),
                source.choice((0, 1, 3, 4, 0x81)),
                source.choice((54, 66, source.randrange(200))),
                source.choice((0, 1, 536, 1400, 65535)),
                source.choice((34, 54, source.randrange(100))),
                source.choice((6, 16, source.randrange(40))),
            )
            + frame
            + bytes(source.choice((0, 3000, 20000)))
            for frame in fuzzing.mutations(seed, FRAMES, originals)
        )
        sent = send_all(out, frames)
    show(f"offload: {sent} of {FRAMES} accepted by the sender's kernel")
    assert sent > 0


# Overlay.


@contextmanager
def onto_underlay(victims: Victims, host: LabHost) -> Iterator[tuple[socket.socket, bytes]]:
    """Yield a socket of the router before a host, and the Ethernet header towards the host."""
    fabric = victims.lab.fabric
    with packet_socket(fabric, host.name, eth_type=0) as out:
        mac = own_mac(VirtualMachine("", host, host.namespace, ""))
        yield out, mac_bytes(mac) + out.getsockname()[4] + b"\x08\x00"


@pytest.mark.parametrize("is_known", [True, False], ids=["known peer", "stranger"])
def test_fuzzed_overlay_packets(victims: Victims, is_known: bool) -> None:
    first, second = victims.hosts
    keys = [port["tunnelKey"] for port in agent_state(first)["ports"]]
    source = socket.inet_aton(second.address if is_known else "172.31.1.1")
    before = all_drops(first, is_overlay=True)
    with (
        steady_ping(victims.vm("vm2"), "10.0.1.13") as bystander,
        onto_underlay(victims, first) as (out, ether),
    ):
        packets = fuzzing.overlay_packets(
            11, FRAMES, ether, (source, socket.inet_aton(first.address)), keys
        )
        assert send_all(out, packets) == FRAMES
        _, lost = bystander.stop()
    after = all_drops(first, is_overlay=True) - before
    show(f"{'known' if is_known else 'unknown'} peer: {dict(after)}")
    if is_known:
        assert after["UNKNOWN_TUNNEL_KEY"] > 100
        assert after["OVERLAY_MALFORMED"] > 100
    else:
        assert after["UNKNOWN_PEER"] > 100
        assert set(after) == {"UNKNOWN_PEER"}
    assert lost == []


MARK = b"spoofed overlay packet"
WAN = "203.0.113"


@pytest.fixture
def uplink(victims: Victims) -> Iterator[str]:
    """Give the tenant's router a way to the underlay, by a port on the first host: the router of
    the underlay forwards to every host. Yields the name of the interface at that router."""
    api, router, host = victims.network.api, victims.tenant.router, victims.hosts[0]
    fabric = victims.lab.fabric
    wire(host.namespace, "up0", fabric, "wan")
    fabric.ip(
        f"address add {WAN}.1/24 dev wan",
        *(f"route add 10.0.{segment}.0/24 via {WAN}.2" for segment in (1, 2)),
    )
    port = api.create(PortResource(kind="Router", addresses=(f"{WAN}.2/24",)), parent=router)
    routes = [
        api.create(
            RouteResource(
                kind="Normal",
                source_address="0.0.0.0",
                destination_address=destination,
                destination_length=length,
                next_hop_port_id=port.id,
                gateway=gateway,
                weight=100,
            ),
            parent=router,
        )
        for destination, length, gateway in (
            (f"{WAN}.0", 24, None),
            ("0.0.0.0", 0, f"{WAN}.1"),
        )
    ]
    api.create(
        BindingResource(port_id=port.id, interface_name="up0"),
        parent=api.get(HostResource, host.host_id),
    )
    yield "wan"
    for route in routes:
        api.delete(route)
    api.delete(port)
    fabric.ip("link del wan")


def test_machine_cannot_speak_to_the_overlay(victims: Victims, uplink: str) -> None:
    """VXLAN and GRE from a VM to hosts' addresses, as from another host, by a router that has a
    way there; and as frames to the MAC of a host."""
    attacker, (first, second) = victims.vm("attacker"), victims.hosts
    answers(attacker, "10.0.1.13")
    answers(attacker, f"{WAN}.1")
    victim, fabric = victims.vm("vm3"), victims.lab.fabric
    frames = _spoofed_packets(victims)
    before = drops(first, "UNDERLAY_SPOOF")
    with (
        packet_socket(victim.namespace, "eth0") as taken,
        packet_socket(fabric, uplink) as leaving,
        packet_socket(attacker.namespace, "eth0", eth_type=0) as out,
    ):
        for frame in frames:
            out.send(frame)
        wait_dropped(first, "UNDERLAY_SPOOF", before, least=len(frames))
        host_mac = own_mac(VirtualMachine("", second, second.namespace, ""))
        for frame in frames:
            out.send(mac_bytes(host_mac) + frame[6:])
        require_pings(attacker, "10.0.1.13")
        for each in (taken, leaving):
            assert not _holds_mark(each)
        # The way is open: only the addresses of hosts are out of bounds.
        elsewhere = frames[0][:30] + socket.inet_aton(f"{WAN}.9") + frames[0][34:]

        def is_asked_for() -> bool:
            out.send(elsewhere)  # one may be lost: the port's budget is spent on what came before
            return _arp_for(leaving, f"{WAN}.9")

        until(is_asked_for, "the router looks for a neighbour out there")


def _spoofed_packets(victims: Victims) -> list[bytes]:
    """Return what would reach a VM of the second host if that host took it for the first's."""
    attacker, victim = victims.vm("attacker"), victims.vm("vm3")
    first, second = victims.hosts
    ether = mac_bytes(victims.router_mac()) + mac_bytes(own_mac(attacker))
    inner = mac_bytes(own_mac(victim)) + mac_bytes(own_mac(attacker)) + b"\x88\xb5" + MARK * 3
    made = []
    for key in [port["tunnelKey"] for port in agent_state(second)["ports"]]:
        vxlan = struct.pack("!HHHHII", 50000, 6677, 16 + len(inner), 0, 0x0800_0000, key << 8)
        for protocol, head in ((17, vxlan), (47, struct.pack("!HHI", 0x2000, 0x6558, key))):
            for source in (first.address, "10.0.1.11"):
                for host in (first, second):
                    ends = socket.inet_aton(source), socket.inet_aton(host.address)
                    packet = fuzzing.ipv4(*ends, protocol, head + inner)
                    made.append(ether + b"\x08\x00" + packet)
    return made


def _received(taken: socket.socket) -> Iterator[bytes]:
    taken.setblocking(False)
    while True:
        try:
            yield taken.recv(2048)
        except BlockingIOError:
            return


def _holds_mark(taken: socket.socket) -> bool:
    return any(MARK in frame for frame in _received(taken))


def _arp_for(taken: socket.socket, address: str) -> bool:
    wanted = socket.inet_aton(address)
    return any(frame[12:14] == b"\x08\x06" and wanted in frame for frame in _received(taken))


# Floods.


@contextmanager
def flood(
    victims: Victims, what: str, *, seconds: float = 60, rate: int = 20_000, size: int = 60
) -> Iterator[subprocess.Popen[str]]:
    """Have the attacker send what nobody has seen before while the block lasts."""
    gateway = victims.router_mac().replace(":", "")
    attacker = victims.vm("attacker")
    arguments = [what, gateway, str(seconds), str(rate), str(size)]
    process = subprocess.Popen(
        attacker.namespace.enter([sys.executable, str(FLOODER), *arguments]),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_answers_ms(
    source: VirtualMachine, addresses: Iterable[str], wait_s: float = DEADLINE_S
) -> list[float]:
    """Ping each address once; return how long the answers took, infinitely if none came."""
    with ping_socket(source) as out:
        took = []
        for number, address in enumerate(addresses):
            head = struct.pack("!BBHHH", 8, 0, 0, 0x4D4E, number)
            total = sum(struct.unpack("!4H", head))
            total = (total & 0xFFFF) + (total >> 16)
            started = time.perf_counter()
            out.sendto(head[:2] + struct.pack("!H", ~total & 0xFFFF) + head[4:], (address, 0))
            took.append(_wait_for_echo(out, number, started, wait_s))
        return took


@contextmanager
def ping_socket(source: VirtualMachine) -> Iterator[socket.socket]:
    with entered(source.namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with made:
        yield made


def _wait_for_echo(out: socket.socket, number: int, started: float, wait_s: float) -> float:
    while (left := started + wait_s - time.perf_counter()) > 0:
        out.settimeout(left)
        try:
            answer = out.recv(200)
        except TimeoutError:
            break
        if answer[20] == 0 and answer[24:28] == struct.pack("!HH", 0x4D4E, number):
            return (time.perf_counter() - started) * 1000
    return math.inf


NewAddresses = Callable[[int], list[str]]


@pytest.fixture
def new_addresses(victims: Victims) -> Iterator[NewAddresses]:
    """Return addresses of vm4, behind the router, that vm2 has never spoken to.

    The router knows them already: vm3 has.
    """
    namespace, added = victims.vm("vm4").namespace, list[str]()

    def make(count: int) -> list[str]:
        first = victims.next_number
        victims.next_number += count
        made = [f"10.0.2.{number}" for number in range(first, first + count)]
        added.extend(made)
        namespace.ip(*(f"address add {address}/24 dev eth0" for address in made))
        assert max(first_answers_ms(victims.vm("vm3"), made)) < math.inf
        return made

    yield make
    namespace.ip(*(f"address del {address}/24 dev eth0" for address in added))


@pytest.mark.parametrize("what", ["destinations", "addresses", "sources"])
def test_flood_does_not_slow_first_packets_of_others(
    victims: Victims, new_addresses: NewAddresses, what: str
) -> None:
    attacker = victims.network.ports["attacker"].id
    assert attacker is not None
    addresses = new_addresses(TARGETS)
    before = drops(victims.hosts[0], "UPCALL_RATE", attacker)
    calm = sorted(first_answers_ms(victims.vm("vm2"), addresses[: TARGETS // 2]))
    with flood(victims, what):
        until(
            lambda: drops(victims.hosts[0], "UPCALL_RATE", attacker) > before + 1000,
            "the flood has used up its budget",
        )
        took = sorted(first_answers_ms(victims.vm("vm2"), addresses[TARGETS // 2 :]))
    show(
        f"first packets beside a flood of {what}: median {statistics.median(took):.1f} ms,"
        f" worst {took[-1]:.1f} ms; without: median {statistics.median(calm):.1f} ms,"
        f" worst {calm[-1]:.1f} ms"
    )
    assert took[-1] < math.inf, "one was not answered; how soon is what `make bench` measures"
    until(lambda: not agent_state(victims.hosts[0])["counters"]["queued"], "the flood handled")


def test_full_ring(victims: Victims) -> None:
    """The agent stands still while upcalls arrive."""
    host = victims.hosts[0]
    before = drops(host, "UPCALL_RING_FULL")
    os.kill(host.agent.pid, signal.SIGSTOP)
    try:
        with steady_ping(victims.vm("vm2"), "10.0.1.13") as bystander:
            with flood(victims, "destinations", seconds=4, size=1400) as flooding:
                flooding.communicate(timeout=100)
            _, lost = bystander.stop()
    finally:
        os.kill(host.agent.pid, signal.SIGCONT)
    wait_dropped(host, "UPCALL_RING_FULL", before)
    assert lost == []


def test_misses_while_the_agent_is_away(victims: Victims, new_addresses: NewAddresses) -> None:
    host, addresses = victims.hosts[0], new_addresses(2)
    host.agent.kill()
    try:
        with flood(victims, "destinations", seconds=2) as flooding:
            assert first_answers_ms(victims.vm("vm2"), addresses, wait_s=1) == [math.inf] * 2
            flooding.communicate(timeout=30)
    finally:
        host.agent.start()
    wait_ready(host)
    for address in addresses:
        answers(victims.vm("vm2"), address)


@pytest.fixture
def small_table(victims: Victims) -> Iterator[None]:
    """The agent of h1 with room for 24 programs; its datapath is made anew for it."""
    _replace_datapath(victims.hosts[0], "24")
    yield
    _replace_datapath(victims.hosts[0], None)


def _replace_datapath(host: LabHost, max_programs: str | None) -> None:
    """Uninstalling leaves the ports' interfaces down; who wants them again brings them up."""
    ports = [port["interface"] for port in agent_state(host)["ports"]]
    host.agent.stop()
    subprocess.run(
        [*host.agent.command, "--uninstall"], check=True, timeout=60, capture_output=True
    )
    for name in ports:
        host.namespace.ip(f"link set {name} up")
    host.agent.environment.pop("MIDONET_AGENT_MAX_PROGRAMS", None)
    if max_programs is not None:
        host.agent.environment["MIDONET_AGENT_MAX_PROGRAMS"] = max_programs
    host.agent.start()
    wait_ready(host)


def test_full_class_table(victims: Victims, small_table: None, new_addresses: NewAddresses) -> None:
    """More destinations than programs: the least recently used make room, all are answered."""
    vm2, addresses = victims.vm("vm2"), new_addresses(TARGETS)
    took = first_answers_ms(vm2, addresses)
    assert max(took) < math.inf, "one was not answered"
    assert agent_state(victims.hosts[0])["counters"]["programs"] <= 24
    with flood(victims, "addresses", rate=2000):
        took = sorted(first_answers_ms(vm2, addresses))
    show(
        f"full table beside a flood: median {statistics.median(took):.1f}, worst {took[-1]:.1f} ms"
    )
    assert took[-1] < math.inf, "one was not answered"
