"""The kernel datapath beyond the contract: restarts, upgrades, neighbours, what it leaves."""

from __future__ import annotations

import asyncio
import errno
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from midonet.agent.datapath.ebpf import AttachMode, EbpfDatapath
from midonet.agent.datapath.ebpf.injection import output_mark
from midonet.agent.datapath.ebpf.loader import OBJECT_PATH
from midonet.agent.datapath.ebpf.offload import NO_OFFLOAD
from midonet.agent.datapath.ebpf.rtnetlink import NO_ROUTE, Route, RouteNetlink
from midonet.agent.datapath.ebpf.syscalls import tcx_programs
from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment
from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.fact_filter import holds_any
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import (
    FlowProgram,
    Guards,
    InstalledProgram,
    LocalOutput,
    Output,
    Rewrite,
    TunnelOutput,
)
from midonet.agent.flows.tags import device_tag
from midonet.errors import DatapathError
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion, parse_ip
from midonet.packets.frame import parse_frame
from tests.contract.datapath_harness import eventually
from tests.contract.ebpf_harness import HASH_SEED, EbpfHarness, Tap, ebpf_harness
from tests.netns.entering import entered

IN, OUT, THIRD = (PortId(UUID(int=number)) for number in (0xA1, 0xA2, 0xA3))
FRAME = bytes(
    Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
    / IP(src="10.0.0.1", dst="10.0.0.2")
    / UDP(sport=1, dport=2)
    / Raw(b"data" * 10)
)
DST_MASK = EMPTY_MASK._replace(eth_dst=EXACT_MASK.eth_dst)
MAX_PORTS = 16


@pytest.fixture
async def harness() -> AsyncIterator[EbpfHarness]:
    async with ebpf_harness() as opened:
        for port_id in (IN, OUT):
            opened.add_port(port_id)
        yield opened


def entry(*outputs: Output, program_id: int = 1, mask_id: int = 1) -> InstalledProgram:
    key = parse_frame(FRAME, hash_seed=HASH_SEED).key
    mask = DST_MASK if mask_id else EXACT_MASK
    program = FlowProgram(IN, key, mask, outputs, guards=Guards(1, 9000), lifetime_s=30.0)
    return InstalledProgram(program_id, mask_id, mask, masked(key, mask), program)


def another(
    harness: EbpfHarness,
    *,
    state_dir: Path | None = None,
    max_programs: int = 1024,
    object_path: Path = OBJECT_PATH,
) -> EbpfDatapath:
    """Return a datapath as the next process of the same agent would make it."""
    return EbpfDatapath(
        state_dir or harness.state_dir,
        hash_seed=HASH_SEED,
        max_programs=max_programs,
        max_ports=MAX_PORTS,
        object_path=object_path,
    )


async def delivered(harness: EbpfHarness, count: int) -> None:
    await eventually(lambda: len(harness.delivered(OUT)) >= count)
    assert harness.delivered(OUT) == [FRAME] * count


async def test_programs_go_on_without_a_process_and_are_read_back(harness: EbpfHarness) -> None:
    datapath = harness.datapath
    endpoints = harness.endpoints(IpVersion.V6)
    flood = entry(
        LocalOutput(OUT),
        TunnelOutput(
            TunnelKind.GRE,
            endpoints.local,
            endpoints.peer,
            77,
            Rewrite(eth_src=5, ip_dst=0x0A000009, l4_dst=53, push_vlan=7, ttl_decrement=1),
        ),
        program_id=2,
        mask_id=0,
    )
    single = entry(LocalOutput(OUT))
    datapath.install([flood, single])
    datapath.set_delivery(5, (OUT,))
    datapath.set_delivery(6, (OUT, IN))
    harness.send(IN, FRAME)
    await delivered(harness, 1)
    await datapath.close()
    harness.send(IN, FRAME)
    await delivered(harness, 2)

    resumed = another(harness)
    await resumed.open()
    try:
        assert dict(resumed.attached()) == {
            port: harness.interface_name(port) for port in (IN, OUT)
        }
        assert dict(resumed.deliveries()) == {5: (OUT,), 6: (OUT, IN)}
        held = {found.program_id: found for found in resumed.installed()}
        assert held == {1: single, 2: flood}
        assert {i: s.packets for i, s in resumed.statistics().items()} == {2: 2}
        harness.send(IN, FRAME)
        await delivered(harness, 3)
        assert resumed.statistics()[2].packets == 3
    finally:
        await resumed.close()
        await datapath.open()


async def test_facts_of_programs_outlive_the_process(harness: EbpfHarness) -> None:
    mine, other = device_tag(UUID(int=1)), device_tag(UUID(int=2))
    made = entry(LocalOutput(OUT))
    tagged = replace(made, program=replace(made.program, tags=frozenset({mine})))
    harness.datapath.install([tagged])
    await harness.datapath.close()
    await harness.datapath.open()
    [found] = harness.datapath.installed()
    assert found.program.tags == frozenset()
    assert holds_any(found.facts, (mine,))
    assert not holds_any(found.facts, (other,))


async def test_upcalls_nobody_read_wait_for_the_next_process(harness: EbpfHarness) -> None:
    await harness.datapath.close()
    harness.send(IN, FRAME)
    await harness.datapath.open()
    async with asyncio.timeout(60):
        (upcall,) = await harness.datapath.upcalls()
    assert upcall.frame == FRAME


async def test_upcalls_of_a_port_that_was_detached_meanwhile_are_counted(
    harness: EbpfHarness,
) -> None:
    datapath, dropped = harness.datapath, (None, DropReason.UNKNOWN_INGRESS_PORT)
    async with asyncio.timeout(60):
        while dropped not in datapath.drops():
            datapath.attach(PortAttachment(IN, harness.interface_name(IN)))
            harness.send(IN, FRAME)
            datapath.detach(IN)
            harness.send(OUT, FRAME)
            assert {upcall.ingress for upcall in await datapath.upcalls()} == {OUT}


def other_build(directory: Path) -> Path:
    """Return an object that does the same and is not the same."""
    path = Path(shutil.copy(OBJECT_PATH, directory / "other.bpf.o"))
    path.write_bytes(path.read_bytes() + b"another build")
    return path


def has_mounts(directory: Path) -> bool:
    return str(directory) in Path("/proc/self/mountinfo").read_text()


class SteadySender:
    """Sends one frame after the other, each when the one before has arrived.

    In a thread, because a datapath that opens or closes does not let the loop run meanwhile.
    """

    def __init__(self, harness: EbpfHarness) -> None:
        self._harness = harness
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.arrived = 0
        self.is_lost = False

    async def __aenter__(self) -> SteadySender:
        self._thread.start()
        await self.more()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._is_stopping.set()
        await asyncio.to_thread(self._thread.join)

    async def more(self) -> None:
        """Wait until some more have arrived, or one is lost."""
        wanted = self.arrived + 20
        await eventually(lambda: self.arrived >= wanted or self.is_lost)

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            self._harness.send(IN, FRAME)
            deadline_s = time.monotonic() + 10
            while len(self._harness.delivered(OUT)) <= self.arrived:
                if time.monotonic() > deadline_s:
                    self.is_lost = True
                    return
            self.arrived += 1


@pytest.mark.parametrize("change", ["same", "build", "sizes"])
async def test_no_packet_is_lost_when_another_process_takes_over(
    harness: EbpfHarness, tmp_path: Path, change: str
) -> None:
    """The next process may bring another build of the object, or tables of other sizes."""
    harness.datapath.install([entry(LocalOutput(OUT))])
    path = OBJECT_PATH
    if change == "build":
        path = other_build(tmp_path)
    async with SteadySender(harness) as sender:
        for _ in range(3):
            await harness.datapath.close()
            await sender.more()
            successor = another(
                harness, object_path=path, max_programs=2048 if change == "sizes" else 1024
            )
            await successor.open()
            await sender.more()
            await successor.close()
            await harness.datapath.open()
        await sender.more()
    assert not sender.is_lost
    assert len(harness.delivered(OUT)) == sender.arrived
    assert [found.program_id for found in harness.datapath.installed()] == [1]
    ifindex = socket.if_nametoindex(harness.interface_name(IN))
    assert len(tcx_programs(ifindex)) == 1, "programs must not stack"


async def test_one_state_directory_serves_one_process(harness: EbpfHarness) -> None:
    with pytest.raises(DatapathError, match="another agent"):
        await another(harness).open()
    harness.datapath.install([entry(LocalOutput(OUT))])
    harness.send(IN, FRAME)
    await delivered(harness, 1)


async def test_one_namespace_serves_one_agent(harness: EbpfHarness, tmp_path: Path) -> None:
    intruder = another(harness, state_dir=tmp_path)
    try:
        with pytest.raises(DatapathError, match="another agent") as caught:
            await intruder.open()
        assert caught.value.errno == errno.EBUSY
    finally:
        await intruder.uninstall()
    harness.datapath.install([entry(LocalOutput(OUT))])
    harness.send(IN, FRAME)
    await delivered(harness, 1)


async def test_a_packet_that_cannot_be_sent_is_counted_by_its_cause(harness: EbpfHarness) -> None:
    datapath = harness.datapath
    datapath.emit(FRAME + bytes(70_000), [LocalOutput(OUT)])
    assert datapath.drops()[None, DropReason.INJECTION_FAILED] == 1
    # As if the output had been taken away after the agent sent the packet by it.
    kernel = datapath._opened()
    assert kernel.injection.send(FRAME, output_mark(4321), NO_OFFLOAD)
    await eventually(lambda: datapath.drops().get((None, DropReason.OUTPUT_GONE), 0) == 1)
    assert harness.delivered(OUT) == []


async def test_an_interface_that_disappears_is_detached(harness: EbpfHarness) -> None:
    harness.datapath.install([entry(LocalOutput(OUT))])
    harness.host.ip(f"link delete {harness.interface_name(OUT)}")
    await eventually(lambda: OUT not in harness.datapath.attached())
    harness.send(IN, FRAME)
    counted = (IN, DropReason.INTERFACE_GONE)
    await eventually(lambda: harness.datapath.drops().get(counted))
    assert harness.datapath.drops()[counted] == 1
    with pytest.raises(DatapathError) as caught:
        harness.datapath.attach(PortAttachment(OUT, harness.interface_name(OUT)))
    assert caught.value.errno == errno.ENODEV
    harness.add_port(OUT)
    harness.send(IN, FRAME)
    await delivered(harness, 1)


async def test_an_interface_that_went_unnoticed_is_detached_at_start(harness: EbpfHarness) -> None:
    await harness.datapath.close()
    harness.host.ip(f"link delete {harness.interface_name(OUT)}")
    await harness.datapath.open()
    assert set(harness.datapath.attached()) == {IN}


async def test_a_slot_given_to_another_port_does_not_inherit_its_traffic(
    harness: EbpfHarness,
) -> None:
    datapath = harness.datapath
    datapath.install([entry(LocalOutput(OUT))])
    datapath.set_delivery(9, (PortId(UUID(int=0xB000)),))
    datapath.detach(OUT)
    for number in range(MAX_PORTS - 3):
        datapath.set_delivery(100 + number, (PortId(UUID(int=0xC000 + number)),))
    with pytest.raises(DatapathError) as caught:
        datapath.set_delivery(99, (THIRD,))
    assert caught.value.errno == errno.ENOSPC, "every slot is still referred to"
    datapath.set_delivery(9, ())
    harness.add_port(THIRD)
    harness.send(IN, FRAME)
    await eventually(lambda: datapath.drops().get((IN, DropReason.PORT_NOT_ATTACHED)))
    assert harness.delivered(THIRD) == []


async def test_a_changed_underlay_route_is_followed(harness: EbpfHarness) -> None:
    endpoints = harness.endpoints(IpVersion.V4)
    harness.datapath.configure_overlay(
        OverlayConfig(
            frozenset((endpoints.local,)), frozenset((endpoints.peer,)), frozenset(("u0",))
        )
    )
    output = TunnelOutput(TunnelKind.VXLAN, endpoints.local, endpoints.peer, 9)
    harness.datapath.install([entry(output)])
    harness.host.ip("address del 192.0.2.1/24 dev u0")
    harness.host.ip("address add 192.0.2.1/32 dev lo")

    def is_without_route() -> bool:
        harness.send(IN, FRAME)
        return (IN, DropReason.NO_TUNNEL) in harness.datapath.drops()

    await eventually(is_without_route)
    harness.host.ip("route add 192.0.2.0/24 dev u0")
    harness.host.ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:0f:02 dev u0 nud permanent")

    def arrives() -> bool:
        harness.send(IN, FRAME)
        return bool(harness.sent_outer())

    await eventually(arrives)


async def test_the_next_hop_is_the_one_that_decides_every_packet(harness: EbpfHarness) -> None:
    netlink = RouteNetlink()
    towards = {
        "192.0.2.9": ("", "192.0.2.9"),
        "198.51.100.9": ("198.51.100.0/24 via 192.0.2.2", "192.0.2.2"),
        "203.0.113.9": (
            "203.0.113.0/24 nexthop via 192.0.2.2 dev u0 nexthop via 192.0.2.3 dev u0",
            None,
        ),
    }
    index = socket.if_nametoindex("u0")
    try:
        for remote, (route, next_hop) in towards.items():
            if route:
                harness.host.ip(f"route add {route}")
            found = netlink.route_towards(parse_ip(remote))
            assert found == Route(index, parse_ip(next_hop) if next_hop else None)
        harness.host.ip("route add blackhole 198.18.0.0/15")
        assert netlink.route_towards(parse_ip("198.18.0.9")) == NO_ROUTE
        own = netlink.route_towards(parse_ip("192.0.2.1"))
        assert own.next_hop is None
    finally:
        netlink.close()


async def test_a_changed_gateway_is_followed(harness: EbpfHarness) -> None:
    local, remote = parse_ip("192.0.2.1"), parse_ip("198.51.100.9")
    gateways = {"192.0.2.2": "02:00:00:00:0f:02", "192.0.2.3": "02:00:00:00:0f:03"}
    for gateway, mac in gateways.items():
        harness.host.ip(f"neighbour replace {gateway} lladdr {mac} dev u0 nud permanent")
    harness.host.ip("route add 198.51.100.0/24 via 192.0.2.2")
    harness.datapath.install([entry(TunnelOutput(TunnelKind.GRE, local, remote, 9))])

    def goes_to(mac: str) -> bool:
        harness.send(IN, FRAME)
        return bytes.fromhex(mac.replace(":", "")) in harness.next_hops(remote)

    await eventually(lambda: goes_to(gateways["192.0.2.2"]))
    harness.host.ip("route replace 198.51.100.0/24 via 192.0.2.3")
    await eventually(lambda: goes_to(gateways["192.0.2.3"]))


async def test_an_underlay_interface_that_comes_later_is_listened_on(
    harness: EbpfHarness,
) -> None:
    endpoints = harness.endpoints(IpVersion.V4)
    harness.datapath.configure_overlay(
        OverlayConfig(frozenset((endpoints.local,)), interface_names=frozenset(("late0",)))
    )
    harness.host.ip("link add late0 type veth peer name late1")
    await eventually(lambda: len(tcx_programs(socket.if_nametoindex("late0"))) == 1)


async def test_the_far_end_of_a_port_may_change_its_namespace(harness: EbpfHarness) -> None:
    """Packets take a short cut into another namespace, which would lose them in their own."""
    harness.datapath.install([entry(LocalOutput(OUT))])
    near = harness.interface_name(OUT)
    peer = near.replace("p", "w", 1)
    harness.outside.ip(f"link set {peer} netns {harness.host.name}")
    harness.host.ip(f"link set {peer} up")
    with closing(Tap(peer)) as tap:

        def arrives() -> bool:
            harness.send(IN, FRAME)
            return bool(tap.read())

        await eventually(arrives)
    harness.host.ip(f"link set {peer} netns {harness.outside.name}")
    harness.outside.ip(f"link set {peer} up")
    with entered(harness.outside):
        returned = Tap(peer)
    with closing(returned) as tap:
        await eventually(arrives)


class Router:
    """Makes the far end of a port forward what it takes for its own, and watches where to."""

    def __init__(self, harness: EbpfHarness, port_id: PortId) -> None:
        name = harness.interface_name(port_id).replace("p", "w", 1)
        self._outside = harness.outside
        self._outside.sysctl("net.ipv4.ip_forward", 1)
        self._outside.ip(
            "link add x0 type veth peer name x1",
            "link set x0 up",
            "link set x1 up arp off",
            "address add 203.0.113.1/24 dev x0",
            "neighbour add 203.0.113.9 lladdr 02:00:00:00:00:99 dev x0 nud permanent",
            "address add 10.0.0.254/24 dev " + name,
        )
        with entered(self._outside):
            self._tap = Tap("x1")
        self.mac = harness.tap(port_id).mac

    def forwarded(self) -> list[int]:
        """Return the destination ports of what it forwarded, in order."""
        return [
            parse_frame(frame).key.l4_dst
            for frame in self._tap.read()
            if frame[30:34] == bytes((203, 0, 113, 9))
        ]

    def close(self) -> None:
        self._tap.close()


@pytest.mark.parametrize("has_spoken", [False, True], ids=["silent", "has spoken"])
async def test_a_container_does_not_forward_what_is_not_for_it(
    harness: EbpfHarness, *, has_spoken: bool
) -> None:
    """It gets floods, as on any segment; only what bears its address is its own."""
    harness.add_port(THIRD)
    with closing(Router(harness, OUT)) as router:

        def frame(mac: str, number: int) -> bytes:
            link = Ether(src="02:00:00:00:00:0a", dst=mac)
            return bytes(link / IP(src="10.0.0.1", dst="203.0.113.9") / UDP(dport=number))

        def passing(number: int, mac: str, *outputs: Output) -> bytes:
            made = frame(mac, number)
            key = parse_frame(made, hash_seed=HASH_SEED).key
            program = FlowProgram(IN, key, EXACT_MASK, outputs, lifetime_s=30.0)
            entry = InstalledProgram(number, 0, EXACT_MASK, masked(key, EXACT_MASK), program)
            harness.datapath.install([entry])
            return made

        alone, flood = (LocalOutput(OUT),), (LocalOutput(THIRD), LocalOutput(OUT))
        if has_spoken:
            spoken = bytes(Ether(src=router.mac, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / Raw(b"x"))
            harness.send(OUT, spoken)
            await harness.datapath.upcalls()
        frames = [
            passing(1, "02:00:00:00:77:77", *alone),
            passing(2, "02:00:00:00:77:77", *flood),
            passing(3, router.mac, *alone),
            passing(4, router.mac, *flood),
        ]
        for each in frames:
            harness.send(IN, each)
        await eventually(lambda: 4 in router.forwarded())
        assert router.forwarded() == [3, 4]
        assert harness.delivered(OUT) == frames, "it got them all"


async def test_uninstalling_leaves_nothing(harness: EbpfHarness) -> None:
    names = [harness.interface_name(port) for port in (IN, OUT)]
    indices = [socket.if_nametoindex(name) for name in [*names, "u0"]]
    endpoints = harness.endpoints(IpVersion.V4)
    harness.datapath.configure_overlay(
        OverlayConfig(frozenset((endpoints.local,)), interface_names=frozenset(("u0",)))
    )
    assert all(len(tcx_programs(index)) == 1 for index in indices)
    await harness.datapath.uninstall()
    assert all(tcx_programs(index) == [] for index in indices)
    assert not [name for _, name in socket.if_nameindex() if name.startswith("mn-")]
    assert list(harness.state_dir.iterdir()) == []
    assert not has_mounts(harness.state_dir)


async def test_an_ended_process_can_be_uninstalled_by_another(harness: EbpfHarness) -> None:
    await harness.datapath.close()
    await another(harness).uninstall()
    assert tcx_programs(socket.if_nametoindex(harness.interface_name(IN))) == []
    assert list(harness.state_dir.iterdir()) == []


async def test_clsact_serves_where_there_is_no_tcx() -> None:
    async with ebpf_harness(attach_mode=AttachMode.CLSACT) as harness:
        assert harness.datapath.attach_mode is AttachMode.CLSACT
        for port_id in (IN, OUT):
            harness.add_port(port_id)
        endpoints = harness.endpoints(IpVersion.V4)
        harness.datapath.configure_overlay(
            OverlayConfig(
                frozenset((endpoints.local,)), frozenset((endpoints.peer,)), frozenset(("u0",))
            )
        )
        tunnel = TunnelOutput(TunnelKind.VXLAN, endpoints.local, endpoints.peer, 9)
        harness.datapath.install([entry(tunnel, LocalOutput(OUT))])
        harness.send(IN, FRAME)
        await delivered(harness, 1)
        await eventually(harness.sent_outer)
        await harness.datapath.close()
        harness.send(IN, FRAME)
        await delivered(harness, 2)
        await harness.datapath.open()
        harness.send(IN, FRAME)
        await delivered(harness, 3)
        assert tcx_programs(socket.if_nametoindex("u0")) == []
        await harness.datapath.uninstall()
        with entered(harness.host):
            shown = harness.host.run("tc", "filter", "show", "dev", "u0", "ingress")
        assert "midonet" not in shown
