"""When router ports advertise unasked, and at which ports of a host that is heard."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import pytest

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.decisions.advertiser import (
    INITIAL_COUNT,
    INITIAL_INTERVAL_S,
    MOST_AT_A_TIME,
    Advertiser,
)
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.model.ids import PortId
from midonet.packets.frame import parse_frame
from midonet.packets.nd import RouterAdvertisement
from midonet.runtime.clock import ManualClock
from tests.scenario.routed_networks import edge, networks
from tests.worlds import World


def said(packets: list[GeneratedPacket]) -> list[RouterAdvertisement]:
    """Return the messages of packets."""
    frames = [parse_frame(packet.frame) for packet in packets]
    return [
        RouterAdvertisement.parse(one.frame[one.l4_offset : one.l3_offset + one.packet_length])
        for one in frames
    ]


class Run:
    """An advertiser and what it says as time goes on."""

    def __init__(self, world: World) -> None:
        self.clock = ManualClock()
        self.advertiser = Advertiser(self.clock, Random(7))
        self.world = world
        self.advertiser.follow(world.view())

    def now(self) -> list[GeneratedPacket]:
        return list(self.advertiser.due())

    def change(self, world: World) -> None:
        self.world = world
        self.advertiser.follow(world.view())

    def times(self, span_s: float, step_s: float = 0.5) -> list[float]:
        """Return when something is said in the time to come."""
        found = []
        for _ in range(int(span_s / step_s)):
            found += [self.clock.now_s()] * len(self.now())
            self.clock.advance(step_s)
        return found


def test_a_port_that_begins_is_heard_thrice_and_then_now_and_then() -> None:
    run = Run(networks().advertise("g1", interval_s=300))
    times = run.times(2000)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap <= INITIAL_INTERVAL_S + 1 for gap in gaps[: INITIAL_COUNT - 1])
    assert all(0.33 * 300 - 1 <= gap <= 301 for gap in gaps[INITIAL_COUNT:])
    assert len(set(gaps[INITIAL_COUNT:])) > 1, "the times are spread"


def test_what_is_new_is_said_at_once_and_the_same_is_not() -> None:
    run = Run(networks().advertise("g1", interval_s=1800))
    (first,) = run.now()
    assert first.is_local
    run.change(networks().advertise("g1", interval_s=1800))
    assert run.now() == []
    run.change(networks().advertise("g1", interval_s=1800, is_managed=True))
    (changed,) = run.now()
    assert changed.frame != first.frame


def test_a_port_that_ends_says_once_that_it_is_no_router() -> None:
    run = Run(networks().advertise("g1"))
    assert [message.lifetime_s for message in said(run.now())] == [1800]
    run.change(networks())
    assert [message.lifetime_s for message in said(run.now())] == [0]
    assert run.times(60) == []
    run.change(networks().advertise("g1"))
    run.change(World())  # it is gone: nobody is left to speak
    assert run.times(60) == []


@pytest.mark.parametrize(
    "world",
    [
        networks(),
        networks().advertise("g1").set_up("r", False),
        networks().advertise("g1").set_up("g1", False),
        networks().advertise("g1").unlink("g1"),
        edge().advertise("far"),  # bound at another host
    ],
    ids=["not configured", "router down", "port down", "not linked", "elsewhere"],
)
def test_who_cannot_be_heard_says_nothing(world: World) -> None:
    assert Run(world).times(60) == []


def test_many_ports_take_turns() -> None:
    world = World().router("r").bridge("b")
    for index in range(3 * MOST_AT_A_TIME):
        mac = f"02:bb:00:00:01:{index:02x}"
        world.port(f"g{index}", on="r", mac=mac, addresses=(f"fd00:{index:x}::1/64",))
        world.attach(f"g{index}", "b").advertise(f"g{index}", interval_s=1800)
    run = Run(world)
    heard = [packet.egress for _ in range(3) for packet in run.now()]
    assert len(heard) == len(set(heard)) == 3 * MOST_AT_A_TIME
    assert run.now() == []


async def test_a_host_tells_the_machines_at_its_own_ports() -> None:
    clock = ManualClock()
    underlay = InProcessUnderlay()
    datapath = MemoryDatapath(underlay, clock=clock)
    left: list[tuple[PortId, bytes]] = []
    datapath.subscribe(lambda port_id, frame: left.append((port_id, frame)))
    world = networks().advertise("g1").port("far", on="n1", host="h2")
    view = world.view()
    for name in ("vm1", "vm2", "vm3"):
        datapath.attach(PortAttachment(world.port_id(name), f"tap{name}"))
    requested: list[object] = []
    soft_state = SoftStateReplica(view.host_id, clock, lambda write: None)
    decisions = Decisions(view.host_id, datapath, clock, soft_state, requested.extend)
    await datapath.open()
    # Of two bridges one is not known: nobody here is behind it, and it is not asked for.
    unknown = {one: view.bridges[one] for one in view.bridges if one != world.id("n2")}
    decisions.view = replace(view, bridges=unknown)
    loop = PacketLoop(datapath, decisions, clock, lambda: None)
    loop.tick()
    (sent,) = {frame for _, frame in left}
    assert {port_id for port_id, _ in left} == {world.port_id("vm1"), world.port_id("vm3")}
    assert parse_frame(sent).key.l4_src == 134
    assert underlay.undeliverable == 0, "other hosts tell their own machines"
    assert requested == []
    loop.tick()
    assert len(left) == 2
