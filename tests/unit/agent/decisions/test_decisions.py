from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

import pytest

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.parking import AWAIT_LIMIT_S
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flows.classification import EXACT_MASK
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import InstalledProgram
from midonet.agent.flows.tags import device_tag, mac_tag
from midonet.agent.simulation.simulate import LIFETIME_S
from midonet.agent.soft_state.holdings import DEFAULT_LIMITS, HoldingLimits
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.soft_state.outbox import StateWrite
from midonet.agent.soft_state.replica import NEIGHBOUR_STALE_S, SoftStateReplica
from midonet.agent.topology.view import BridgeView, Location, PortView, TopologyView
from midonet.errors import DatapathError
from midonet.model.ids import BridgeId, HostId, ObjectId, PortId, RouterId
from midonet.packets.addresses import parse_ip
from midonet.packets.build import Envelope, udp_frame
from midonet.packets.frame import parse_frame
from midonet.runtime.clock import ManualClock
from tests.scenario.frames import R1, R2, V4, A, B, mac, udp
from tests.scenario.routed_networks import edge

ME = HostId(UUID(int=1))
BRIDGE = BridgeId(UUID(int=2))
HERE, THERE = PortId(UUID(int=3)), PortId(UUID(int=4))
MAC_1, MAC_2 = 0x020000000001, 0x020000000002


class Shell:
    """Decisions and their loop on a memory datapath, with time in the test's hand."""

    def __init__(
        self,
        mac_limits: HoldingLimits = DEFAULT_LIMITS,
        datapath: type[MemoryDatapath] = MemoryDatapath,
    ) -> None:
        self.clock = ManualClock()
        self.datapath = datapath(InProcessUnderlay(), clock=self.clock)
        self.requested: list[ObjectId] = []
        self.written: list[StateWrite] = []
        self.left: list[tuple[PortId, bytes]] = []
        soft_state = SoftStateReplica(ME, self.clock, self.written.append)
        self.decisions = Decisions(
            ME,
            self.datapath,
            self.clock,
            soft_state,
            self.requested.extend,
            mac_limits=mac_limits,
        )
        self.loop = PacketLoop(self.datapath, self.decisions, self.clock, lambda: None)
        self.datapath.subscribe(lambda port_id, frame: self.left.append((port_id, frame)))
        for port_id, name in ((HERE, "tap1"), (THERE, "tap2")):
            self.datapath.attach(PortAttachment(port_id, name))
        self.decisions.view = TopologyView(
            1,
            ME,
            ports={port: PortView(port, bridge_id=BRIDGE, host_id=ME) for port in (HERE, THERE)},
            locations={HERE: Location(ME, 1, True), THERE: Location(ME, 2, True)},
        )

    async def open(self) -> Shell:
        await self.datapath.open()
        return self

    def show_bridge(self, **fields: object) -> None:
        bridge = BridgeView(BRIDGE, flood_port_ids=(HERE, THERE), **fields)  # type: ignore[arg-type]
        self.decisions.view = replace(self.decisions.view, bridges={BRIDGE: bridge})
        self.decisions.programs.change(frozenset({device_tag(BRIDGE)}))
        self.decisions.release_parked()

    async def send(self, *frames: bytes, port_id: PortId = HERE) -> None:
        for frame in frames:
            self.datapath.receive(port_id, frame)
        for upcall in await self.datapath.upcalls(10_000):
            self.decisions.enqueue(upcall)
        self.work()

    def work(self) -> None:
        while self.loop.decide_batch():
            pass

    def drops(self, reason: DropReason) -> int:
        return self.datapath.drops().get((HERE, reason), 0)


def frame(destination: int = MAC_2, *, ttl: int = 64) -> bytes:
    envelope = Envelope(MAC_1, destination, parse_ip("10.0.0.1"), parse_ip("10.0.0.2"), ttl=ttl)
    return udp_frame(envelope, 1000, 2000)


@pytest.fixture
async def shell() -> Shell:
    return await Shell().open()


async def test_packet_waits_for_its_device_and_goes_on(shell: Shell) -> None:
    await shell.send(frame())
    assert shell.requested == [BRIDGE]
    assert shell.left == []
    shell.show_bridge()
    shell.work()
    assert shell.left == [(THERE, frame())]
    assert len(shell.decisions.parking) == 0


async def test_device_that_does_not_come_is_a_named_drop(shell: Shell) -> None:
    await shell.send(frame())
    shell.clock.advance(AWAIT_LIMIT_S)
    shell.loop.tick()
    assert shell.drops(DropReason.AWAIT_TIMEOUT) == 1


async def test_waiting_room_of_a_port_is_bounded(shell: Shell) -> None:
    await shell.send(*(frame(destination) for destination in range(2, 2 * 200, 2)))
    waiting = len(shell.decisions.parking)
    assert 0 < waiting < 199
    assert shell.drops(DropReason.AWAIT_QUEUE_FULL) == 199 - waiting


async def test_packets_of_one_class_are_decided_on_once(shell: Shell) -> None:
    shell.show_bridge()
    await shell.send(*(frame() for _ in range(20)))
    assert len(shell.left) == 20
    assert shell.decisions.counters.duplicates == 19
    assert len(shell.decisions.programs.table) == 1


async def test_packets_of_a_port_that_is_gone_are_not_decided_on(shell: Shell) -> None:
    shell.show_bridge()
    shell.datapath.receive(HERE, frame())
    for upcall in await shell.datapath.upcalls(10):
        shell.decisions.enqueue(upcall)
    shell.datapath.detach(HERE)
    shell.decisions.forget_port(HERE)
    shell.work()
    assert shell.left == []
    assert shell.decisions.counters.simulations == 0
    assert dict(shell.datapath.drops()) == {}


async def test_programs_that_lead_to_a_port_go_with_it(shell: Shell) -> None:
    shell.show_bridge()
    await shell.send(frame(), port_id=THERE)
    assert [port_id for port_id, _ in shell.left] == [HERE]
    assert len(list(shell.datapath.installed())) == 1
    shell.datapath.detach(HERE)
    shell.decisions.forget_port(HERE)
    assert list(shell.datapath.installed()) == []


async def test_program_that_the_datapath_has_lost_is_put_back(shell: Shell) -> None:
    shell.show_bridge()
    await shell.send(frame())
    shell.datapath.remove(list(shell.datapath.installed()))
    await shell.send(frame())
    assert shell.left == [(THERE, frame())] * 2
    assert len(list(shell.datapath.installed())) == 1
    assert dict(shell.datapath.drops()) == {}


async def test_mask_goes_with_its_last_program(shell: Shell) -> None:
    """Else the datapath tries it for every packet, and its list fills up."""
    shell.show_bridge()
    await shell.send(frame(), frame(ttl=63))
    classifier = shell.datapath._ports[HERE].classifier
    assert len(classifier.masks) == 2
    shell.clock.advance(LIFETIME_S + 1)
    shell.loop.tick()
    assert list(shell.datapath.installed()) == []
    assert list(classifier.masks.values()) == [EXACT_MASK]


async def test_packet_whose_time_to_live_is_over_crosses_a_bridge(shell: Shell) -> None:
    """No program is for it: each one comes up, and is forwarded."""
    shell.show_bridge()
    for count in (1, 2, 3):
        await shell.send(frame(ttl=0))
        assert shell.left == [(THERE, frame(ttl=0))] * count
    await shell.send(frame(), frame(ttl=0))
    assert shell.left[3:] == [(THERE, frame()), (THERE, frame(ttl=0))]
    assert dict(shell.datapath.drops()) == {}


async def test_program_of_changed_facts_takes_the_place_of_the_old_one(shell: Shell) -> None:
    shell.show_bridge()
    await shell.send(frame())
    shell.show_bridge(admin_state_up=False)
    shell.work()
    [after] = shell.datapath.installed()
    assert after.program.drop_reason is DropReason.DEVICE_DOWN
    shell.datapath.receive(HERE, frame())
    assert shell.drops(DropReason.DEVICE_DOWN) == 1


async def test_program_that_cannot_be_judged_in_time_is_removed(shell: Shell) -> None:
    shell.show_bridge()
    await shell.send(frame())
    shell.decisions.view = replace(shell.decisions.view, bridges={})
    shell.decisions.programs.change(frozenset({device_tag(BRIDGE)}))
    shell.work()
    assert len(list(shell.datapath.installed())) == 1
    shell.clock.advance(0.6)
    shell.loop.tick()
    assert list(shell.datapath.installed()) == []


async def test_urgent_change_removes_what_cannot_be_judged(shell: Shell) -> None:
    shell.show_bridge()
    await shell.send(frame())
    shell.decisions.view = replace(shell.decisions.view, bridges={})
    shell.decisions.programs.change(frozenset(), urgent=frozenset({device_tag(BRIDGE)}))
    shell.work()
    assert list(shell.datapath.installed()) == []


async def test_urgent_change_leaves_no_moment_without_a_program_whose_verdict_stays(
    shell: Shell,
) -> None:
    shell.show_bridge()
    await shell.send(frame())
    urgent = frozenset({device_tag(BRIDGE)})
    for _ in range(5):
        shell.decisions.programs.change(frozenset(), urgent=urgent)
        shell.datapath.receive(HERE, frame())
        shell.loop.decide_batch()
        shell.datapath.receive(HERE, frame())
    assert len(shell.left) == 11
    assert shell.decisions.counters.upcalls == 1


async def test_urgent_change_is_judged_before_what_waits(shell: Shell) -> None:
    shell.show_bridge()
    await shell.send(*(frame(2 * number) for number in range(1, 40)))
    bridge = replace(shell.decisions.view.bridges[BRIDGE], admin_state_up=False)
    shell.decisions.programs.change(frozenset({device_tag(BRIDGE)}))
    shell.decisions.view = replace(shell.decisions.view, bridges={BRIDGE: bridge})
    shell.decisions.programs.change(frozenset(), urgent=frozenset({mac_tag(BRIDGE, 0, 78)}))
    shell.loop.decide_batch()
    allowed = {
        entry.program.key.eth_dst
        for entry in shell.datapath.installed()
        if entry.program.drop_reason is None
    }
    assert 78 not in allowed
    assert 76 in allowed, "nor was it all done at once"


async def test_programs_expire_a_few_at_a_time(shell: Shell) -> None:
    shell.show_bridge()
    await shell.send(*(frame(2 * number) for number in range(1, 200)))
    shell.clock.advance(61)
    held = len(shell.decisions.programs.table)
    shell.loop.tick()
    assert 0 < len(shell.decisions.programs.table) < held
    shell.work()
    assert len(shell.decisions.programs.table) == 0


async def test_traffic_in_the_datapath_keeps_a_mac_learnt(shell: Shell) -> None:
    shell.show_bridge(mac_ageing_s=15)
    await shell.send(frame())
    soft_state = shell.decisions.soft_state
    for _ in range(15):
        shell.clock.advance(2)
        shell.datapath.receive(HERE, frame())
        shell.loop.tick()
        shell.work()
    assert soft_state.mac_port(BRIDGE, 0, MAC_1) == HERE
    for _ in range(10):
        shell.clock.advance(2)
        shell.loop.tick()
        shell.work()
    assert soft_state.mac_port(BRIDGE, 0, MAC_1) is None


async def test_full_queue_is_a_named_drop(shell: Shell) -> None:
    shell.show_bridge()
    shell.decisions.queue._port_limit = 5
    await shell.send(*(frame(destination) for destination in range(2, 22, 2)))
    assert shell.drops(DropReason.UPCALL_RING_FULL) == 5
    assert len(shell.left) == 5


class Routed(Shell):
    """Router `r` between port `a`, where packets enter, and `far`, with both neighbours known."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world = edge().tunnel("h2", max_inner_length=1400)
        self.a = world.port_id("a")
        self.datapath.attach(PortAttachment(self.a, "tapa"))
        self.decisions.view = world.view()
        for address, its_mac in ((V4.host(1, 5), A), (V4.host(3, 5), B)):
            self.decisions.soft_state.learn_neighbour(
                LearnNeighbour(RouterId(world.id("r")), parse_ip(address), mac(its_mac))
            )


@pytest.mark.parametrize(
    ("refused", "icmp_type"),
    [
        ({"ttl": 1}, 11),
        ({"size": 1400, "df": True}, 3),
    ],
    ids=["ttl", "length"],
)
async def test_queued_packet_that_fails_the_guard_of_its_class_is_answered(
    refused: dict[str, object], icmp_type: int
) -> None:
    shell = await Routed().open()
    route = (V4.host(1, 5), V4.host(3, 5))
    good, bad = udp(route, (A, R1)), udp(route, (A, R1), **refused)  # type: ignore[arg-type]
    # Both wait in the queue before either is decided on.
    await shell.send(good, bad, port_id=shell.a)
    [(port_id, told)] = shell.left
    assert port_id == shell.a
    answer = parse_frame(told)
    assert (answer.key.ip_proto, answer.key.l4_src) == (1, icmp_type)
    assert len(shell.decisions.programs.table) == 1
    assert not [reason for _, reason in shell.datapath.drops() if reason is DropReason.INTERNAL]


class FullDatapath(MemoryDatapath):
    """Has no room for another program."""

    def install(self, entries: Iterable[InstalledProgram]) -> None:
        raise DatapathError("the output table is full", errno=errno.ENOSPC)


async def test_class_without_room_stays_on_the_slow_path() -> None:
    shell = Shell(datapath=FullDatapath)
    await shell.open()
    shell.show_bridge()
    for number in range(1, 4):
        await shell.send(frame())
        assert shell.left == [(THERE, frame())] * number
    assert shell.decisions.programs.refused == 3
    assert len(shell.decisions.programs.table) == 0
    assert dict(shell.datapath.drops()) == {}


async def test_drop_without_room_is_counted_by_its_reason() -> None:
    shell = Shell(datapath=FullDatapath)
    await shell.open()
    shell.show_bridge(admin_state_up=False)
    await shell.send(frame(), frame())
    assert dict(shell.datapath.drops()) == {(HERE, DropReason.DEVICE_DOWN): 2}


@pytest.mark.parametrize("is_used", [True, False], ids=["used", "unused"])
async def test_neighbour_that_programs_send_to_is_asked_for_again(is_used: bool) -> None:
    """When its entry gets old, and while no packet for it comes up."""
    shell = await Routed().open()
    b = PortId(edge().id("b"))
    shell.datapath.attach(PortAttachment(b, "tapb"))
    packet = udp((V4.host(2, 5), V4.host(1, 5)), (B, R2))
    shell.clock.advance(20)
    await shell.send(packet, port_id=b)
    assert [port_id for port_id, _ in shell.left] == [shell.a]
    shell.left.clear()
    while shell.clock.now_s() < 1000 + NEIGHBOUR_STALE_S + 4:
        shell.clock.advance(2)
        if is_used:
            shell.datapath.receive(b, packet)
        shell.loop.tick()
        shell.work()
    questions = [frame for _, frame in shell.left if parse_frame(frame).arp is not None]
    assert bool(questions) is is_used
