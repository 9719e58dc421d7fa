"""Named networks with packets and what must become of them, and the runner of both.

    Scenario(
        "known unicast leaves by one port",
        lambda: lan().mac_at("b", B, "p2"),
        sent("p1", udp(R), at("p2", udp(R))),
    )

Steps share what was learnt in the steps before. A verdict is compared whole: the fate, every
frame that leaves the network with its place, byte by byte, and nothing else leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from midonet.agent.decisions.tracked_connections import Settlement
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flow_state.source_choice import LeaseBlock
from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LocalOutput, Output
from midonet.agent.simulation.result import (
    Await,
    Awaited,
    Consume,
    Drop,
    FetchConnection,
    FetchFirstFragment,
    Forward,
    GeneratedPacket,
    LoadDevices,
    ResolveNeighbour,
    SimulationResult,
)
from midonet.agent.simulation.simulate import simulate_generated
from midonet.agent.topology.view import TopologyView
from midonet.model.hosts import TunnelKind
from midonet.model.ids import ObjectId
from midonet.packets.addresses import IpAddress, format_mac
from midonet.packets.frame import parse_frame
from tests.scenario.flow_states import FlowStates
from tests.worlds import DictSoftState, World

_MAX_LOADS = 30
_MAX_GENERATED = 5
_ATTEMPTS = 4


@dataclass(frozen=True, order=True)
class Leaving:
    """A frame that leaves the virtual network. place: a local port, or `kind address key`."""

    place: str
    frame: bytes

    def __repr__(self) -> str:
        return f"{self.place} <- {describe(self.frame)}"


@dataclass(frozen=True)
class Verdict:
    """What became of a packet.

    fate: forward, drop, consume or await; reason: of a drop; awaited: in words.
    """

    fate: str
    leaving: tuple[Leaving, ...] = ()
    reason: DropReason | None = None
    awaited: str = ""


@dataclass(frozen=True)
class Step:
    """A packet that enters, and its verdict. after_s: time (s) since the one before."""

    port: str
    frame: bytes
    verdict: Verdict
    after_s: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """A network and packets. make: builds the network anew.

    only_simulated: why the network cannot come out of a store; empty when it can.
    """

    name: str
    make: Callable[[], World]
    steps: tuple[Step, ...]
    only_simulated: str = ""


def scenario(
    name: str, make: Callable[[], World], *steps: Step, only_simulated: str = ""
) -> Scenario:
    """Return a scenario."""
    return Scenario(name, make, steps, only_simulated)


# Expectations.


def at(port: str, frame: bytes) -> Leaving:
    """Expect a frame at a local port."""
    return Leaving(port, frame)


def through(
    key: int, frame: bytes, *, remote: str = "192.0.2.2", kind: TunnelKind = TunnelKind.VXLAN
) -> Leaving:
    """Expect a frame in a tunnel."""
    return Leaving(f"{kind.value} {remote} {key}", frame)


def sent(port: str, frame: bytes, *leaving: Leaving) -> Step:
    """Expect outputs (and answers beside them)."""
    return Step(port, frame, Verdict("forward", tuple(sorted(leaving))))


def dropped(port: str, frame: bytes, reason: DropReason, *answers: Leaving) -> Step:
    """Expect a drop, and what the sender is told."""
    return Step(port, frame, Verdict("drop", tuple(sorted(answers)), reason))


def taken(port: str, frame: bytes, *answers: Leaving) -> Step:
    """Expect a device to take the packet, and its answers."""
    return Step(port, frame, Verdict("consume", tuple(sorted(answers))))


def later(after_s: float, step: Step) -> Step:
    """Let time (s) go by before a step."""
    return replace(step, after_s=after_s)


def waits(port: str, frame: bytes, awaited: str) -> Step:
    """Expect the packet to wait.

    `PORT ADDRESS` for a neighbour, names for devices, `first fragment` or `connection`.
    """
    return Step(port, frame, Verdict("await", awaited=awaited))


# Running.


class Lane(Protocol):
    """Where the view comes from."""

    @property
    def view(self) -> TopologyView:
        """Return the present view."""
        ...

    async def load(self, object_ids: tuple[ObjectId, ...]) -> bool:
        """Load objects; False when this lane has none to load."""
        ...


class BuiltLane:
    """A view that was built by hand."""

    def __init__(self, world: World) -> None:
        self.view = world.view()

    async def load(self, object_ids: tuple[ObjectId, ...]) -> bool:
        """Load nothing: what was not built stays unknown."""
        return False


async def run(scenario: Scenario, lane: Lane, world: World) -> None:
    """Send the packets of a scenario and compare. The soft state is that of `world`."""
    network = Network(lane, world, world.soft_state())
    for index, step in enumerate(scenario.steps):
        got = await network.judge(step)
        assert got == step.verdict, f"{scenario.name}, step {index}: {describe(step.frame)}"


@dataclass(frozen=True)
class Network:
    """A view from some lane, with soft state, connections, and the names of `world`."""

    lane: Lane
    world: World
    soft_state: DictSoftState
    flows: FlowStates = field(default_factory=FlowStates)

    @property
    def connections(self) -> ConnectionTable:
        """Return the connections that the packets have begun."""
        return self.flows.tracked.table

    async def judge(self, step: Step) -> Verdict:
        """Return the verdict on a packet; what it teaches stays."""
        self.flows.pass_time(step.after_s)
        packet = parse_frame(step.frame)
        port_id = self.world.port_id(step.port)
        judge = partial(self.flows.judge, soft_state=self.soft_state, packet=packet)
        for _ in range(_ATTEMPTS):
            result = await settled(self.lane, lambda view: judge(view, ingress=port_id))
            traced = judge(self.lane.view, ingress=port_id, trace=True)
            if not isinstance(traced, Await):
                assert not isinstance(result, Await)
                assert replace(traced, steps=()) == result, "a trace changes the outcome"
            settlement = self.flows.settle(result)
            if settlement is not Settlement.AGAIN:
                break
        else:
            return Verdict("drop", (), DropReason.UNSETTLED)
        if settlement is Settlement.REFUSED:
            return Verdict("drop", (), DropReason.CONNECTION_LIMIT)
        if isinstance(result, Await) and isinstance(result.what, FetchFirstFragment):
            fragments = self.flows.tracked.translations.fragments
            fragments.expect(result.what.datagram, self.flows.now_s)
        leaving = await self._leaving(result, packet.frame, 0)
        return _verdict(self.world, result, tuple(sorted(leaving)))

    async def _leaving(self, result: SimulationResult, frame: bytes, depth: int) -> list[Leaving]:
        if isinstance(result, Await):
            return []
        assert depth < _MAX_GENERATED, "generated packets give rise to each other"
        self.soft_state.apply(result.effects)
        leaving = []
        if isinstance(result, Forward):
            leaving = [
                Leaving(_place(self.world, output), apply_rewrite(frame, output.rewrite))
                for output in result.program.outputs
            ]
        for packet in result.generated:
            again = await settled(self.lane, partial(self._sent_on, packet))
            leaving += await self._leaving(again, packet.frame, depth + 1)
        return leaving

    def _sent_on(self, packet: GeneratedPacket, view: TopologyView) -> SimulationResult:
        sent = parse_frame(packet.frame)
        return simulate_generated(
            view,
            self.soft_state,
            sent,
            packet.egress,
            self.flows.now_s,
            router_id=packet.router_id,
            sight=packet.sight,
            is_unfiltered=packet.is_unfiltered,
        )


async def settled(
    lane: Lane, simulated: Callable[[TopologyView], SimulationResult]
) -> SimulationResult:
    """Simulate, and again after each load, until nothing more can be loaded."""
    for _ in range(_MAX_LOADS):
        result = simulated(lane.view)
        if not isinstance(result, Await) or not isinstance(result.what, LoadDevices):
            return result
        if not await lane.load(result.what.object_ids):
            return result
    raise AssertionError("loading does not come to an end")


def _place(world: World, output: Output) -> str:
    if isinstance(output, LocalOutput):
        return world.name(output.port_id)
    return f"{output.kind.value} {output.remote} {output.tunnel_key}"


def _verdict(world: World, result: SimulationResult, leaving: tuple[Leaving, ...]) -> Verdict:
    match result:
        case Forward():
            return Verdict("forward", leaving)
        case Consume():
            return Verdict("consume", leaving)
        case Drop(reason):
            return Verdict("drop", leaving, reason)
        case Await(what):
            return Verdict("await", awaited=_awaited(world, what))


def _awaited(world: World, what: Awaited) -> str:
    match what:
        case LoadDevices(object_ids):
            return " ".join(sorted(map(str, object_ids)))
        case ResolveNeighbour():
            return f"{world.name(what.port_id)} {what.address}"
        case FetchConnection():
            return "connection"
        case FetchFirstFragment():
            return "first fragment"
        case LeaseBlock(address):
            return f"ports of {IpAddress(address.version, address.address)}"


def describe(frame: bytes) -> str:
    """Return a frame in a line, for messages."""
    key = parse_frame(frame).key
    link = f"{format_mac(key.eth_src)} > {format_mac(key.eth_dst)} {key.eth_type:04x}"
    tag = f" vlan {key.vlan_tci & 0xFFF}" if key.vlan_tci else ""
    inner = f" {key.ip_src:x} > {key.ip_dst:x} proto {key.ip_proto} {key.l4_src}/{key.l4_dst}"
    return f"{link}{tag}{inner} ({len(frame)} bytes) {frame.hex()}"
