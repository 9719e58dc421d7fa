"""A network with a history, with what was installed for it, and what a packet must meet there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from midonet.agent.decisions.decisions import MAX_GENERATED_DEPTH
from midonet.agent.decisions.synthesis import synthesise_frame
from midonet.agent.decisions.tracked_connections import Settlement, TrackedConnections
from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import FlowMask
from midonet.agent.flows.plans import InstallOutcome, InstallPlan
from midonet.agent.flows.program import FlowProgram, InstalledProgram, LocalOutput, TunnelOutput
from midonet.agent.flows.table import FlowTable
from midonet.agent.flows.tags import NO_REGIONS
from midonet.agent.simulation.result import Await, Drop, Forward, SimulationResult
from midonet.agent.simulation.simulate import simulate_generated
from midonet.agent.topology.view import TopologyView
from midonet.errors import DecodeError
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.flowkey import FlowKey
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.overlay import overlay_source_port
from tests.differential.networks import LOCAL_PORTS, NetworkSource
from tests.differential.packets import Draft, PacketSource, reply_to
from tests.scenario.flow_states import FlowStates
from tests.worlds import NOW, DictSoftState, World

HASH_SEED = 0x0123_4567_89AB_CDEF


@dataclass(frozen=True)
class Sent:
    """A packet with the port where it enters."""

    port_id: PortId
    draft: Draft
    packet: ParsedFrame


@dataclass(frozen=True)
class Tunnelled:
    """An overlay packet: all that both ends agree on. source_port: 0 for GRE."""

    kind: TunnelKind
    local: object
    remote: object
    tunnel_key: int
    source_port: int
    inner: bytes


@dataclass
class Meeting:
    """What a packet meets in the datapath: an installed program, or none."""

    sent: Sent
    held: InstalledProgram | None
    passes: bool = True
    delivered: list[tuple[PortId, bytes]] = field(default_factory=list)
    tunnelled: list[Tunnelled] = field(default_factory=list)
    drop_reason: DropReason | None = None


class Case:
    """One network, the packets sent into it, and the flow table that fills on the way.

    history: packets that came before, the answers of their receivers among them. What they taught
    is in the soft state; nothing of it is in the flow table.
    """

    def __init__(
        self,
        seed: int,
        *,
        packets: int,
        history: int = 0,
        hash_seed: int = HASH_SEED,
        view_edit: Callable[[TopologyView], TopologyView] | None = None,
    ) -> None:
        random = Random(seed)
        self.seed = seed
        self.world: World = NetworkSource(random).draw()
        view = replace(self.world.view(), hash_seed=hash_seed)
        self.view: TopologyView = view_edit(view) if view_edit else view
        self.soft_state: DictSoftState = self.world.soft_state()
        self.table = FlowTable(4096, masks_per_port=random.choice((32, 32, 6, 2)))
        self._source = PacketSource(random)
        self._random = random
        self._hash_seed = hash_seed
        self._ports = [self.world.port_id(name) for name in LOCAL_PORTS]
        self._flows = FlowStates()
        self._replies: list[Sent] = []
        for _ in range(history):
            self._play()
        self.first = [self._draw_any() for _ in range(packets)]

    def _draw(self) -> Sent:
        port_id = self._random.choice(self._ports)
        draft = self._source.draw(self._gateways(port_id))
        return Sent(port_id, draft, parse_frame(draft.frame(), hash_seed=self._hash_seed))

    def _draw_any(self) -> Sent:
        """Return a packet of a new sender, or the answer to one of the history."""
        if self._replies and self._random.random() < 0.3:
            return self._random.choice(self._replies)
        return self._draw()

    def _play(self) -> None:
        """Let a packet come and go, with all that it leads to; note what its receiver answers."""
        sent = self._draw_any()
        result = self.simulate(sent)
        if self._flows.settle(result) is not Settlement.DONE:
            return
        if isinstance(result, Forward):
            for output in result.program.outputs:
                if isinstance(output, LocalOutput):
                    frame = apply_rewrite(sent.packet.frame, output.rewrite)
                    self._note_reply(output.port_id, frame)
        self._take(result, 0)

    def _note_reply(self, port_id: PortId, frame: bytes) -> None:
        draft = reply_to(frame)
        if draft is not None:
            packet = parse_frame(draft.frame(), hash_seed=self._hash_seed)
            self._replies.append(Sent(port_id, draft, packet))

    def _take(self, result: SimulationResult, depth: int) -> None:
        """Take over what a result taught, and what came of the packets it generated."""
        if isinstance(result, Await) or depth > MAX_GENERATED_DEPTH:
            return
        self.soft_state.apply(result.effects)
        for one in result.generated:
            packet = parse_frame(one.frame, hash_seed=self._hash_seed)
            again = simulate_generated(
                self.view,
                self.soft_state,
                packet,
                one.egress,
                NOW,
                router_id=one.router_id,
                sight=one.sight,
                is_unfiltered=one.is_unfiltered,
            )
            self._take(again, depth + 1)

    def _gateways(self, port_id: PortId) -> list[int]:
        """Return the MACs of the routers that a packet at a port can be routed by."""
        port = self.view.ports[port_id]
        if port.bridge_id is None:
            return [port.mac]
        return [mac for _, mac in self.view.bridges[port.bridge_id].attachments]

    def related(self, count: int) -> list[Sent]:
        """Return packets that are like earlier ones but for a field or two, at the same port."""
        found: list[Sent] = []
        while len(found) < count:
            like = self._random.choice(self.first)
            draft = self._source.mutate(like.draft)
            try:
                frame = draft.frame()
                packet = parse_frame(frame, hash_seed=self._hash_seed)
            except (DecodeError, ValueError, OverflowError):
                continue
            found.append(Sent(like.port_id, draft, packet))
        return found

    @property
    def connections(self) -> TrackedConnections:
        """What the history has begun."""
        return self._flows.tracked

    def simulate(self, sent: Sent) -> SimulationResult:
        """Return what the virtual network does with a packet."""
        return self._flows.judge(self.view, self.soft_state, sent.packet, sent.port_id)

    def install(self, sent: Sent) -> InstallPlan | None:
        """Judge a packet and take its program into the table; None when it stays out."""
        result = self.simulate(sent)
        if not isinstance(result, Forward | Drop) or result.program.slow_path is not None:
            return None
        plan = self.table.plan_install(result.program, 0, 0)
        assert isinstance(plan, InstallPlan)
        return plan

    def meet(self, sent: Sent) -> Meeting:
        """Return what the table says of a packet, with the bytes that follow from it."""
        held = self.table.lookup(sent.port_id, sent.packet.key)
        meeting = Meeting(sent, held)
        if held is None:
            return meeting
        program = held.program
        meeting.passes = passes_guards(program, sent.packet)
        if not meeting.passes:
            return meeting
        meeting.drop_reason = program.drop_reason
        for output in program.outputs:
            frame = apply_rewrite(sent.packet.frame, output.rewrite)
            if isinstance(output, LocalOutput):
                meeting.delivered.append((output.port_id, frame))
            else:
                meeting.tunnelled.append(tunnelled(output, frame, sent.packet.key.flow_hash))
        return meeting

    def explain(self, sent: Sent) -> str:
        """Return what is needed to look into a failure."""
        name = self.world.name(sent.port_id)
        return f"seed {self.seed}, port {name}, {sent.draft}, {sent.packet.frame.hex()}"


def check_hit(case: Case, sent: Sent) -> str:
    """Compare a hit with a simulation of that very packet; return hit, miss or guard."""
    meeting = case.meet(sent)
    if meeting.held is None:
        return "miss"
    if not meeting.passes:
        return "guard"
    result = case.simulate(sent)
    why = case.explain(sent)
    assert isinstance(result, Forward | Drop), f"{result} instead of a program: {why}"
    assert not result.generated, f"an answer would not be sent: {why}"
    assert same_program(meeting.held.program, result.program), (
        f"{meeting.held.program}\ninstead of\n{result.program}\n{why}"
    )
    return "hit"


def tunnelled(output: TunnelOutput, frame: bytes, flow_hash: int) -> Tunnelled:
    """Return the overlay packet of an output."""
    port = overlay_source_port(flow_hash) if output.kind is TunnelKind.VXLAN else 0
    return Tunnelled(output.kind, output.local, output.remote, output.tunnel_key, port, frame)


def passes_guards(program: FlowProgram, packet: ParsedFrame) -> bool:
    """Tell whether a packet passes the guards of a program: the contract, in one line each."""
    guards = program.guards
    if packet.ip_version is None:
        return True
    is_short = guards.max_length is None or packet.ip_length <= guards.max_length
    is_unflagged = packet.tcp_flags & guards.tcp_flags_clear == 0
    return packet.ttl > guards.ttl_above and is_short and is_unflagged


def same_program(one: FlowProgram, other: FlowProgram) -> bool:
    """Tell whether two programs do the same with their class; each is of another packet.

    What shows it may differ, and of routes the regions: of two packets of one class one may be
    shown by its port to meet no rule of a chain, the other by its address, and both are right.
    """
    if replace(one, key=other.key) == other:
        return True
    owners = ({region.owner_id for region in program.regions} for program in (one, other))
    return next(owners) == next(owners) and _without_proofs(one) == _without_proofs(other)


def _without_proofs(program: FlowProgram) -> FlowProgram:
    return replace(program, key=_ANY, mask=FlowMask._make(_ANY), regions=NO_REGIONS)


_ANY = FlowKey(0, 0)


def synthesised(sent: Sent, hash_seed: int = HASH_SEED) -> Sent | None:
    """Return the minimal packet with the same key, None when no frame has that key."""
    try:
        packet = parse_frame(synthesise_frame(sent.packet.key), hash_seed=hash_seed)
    except DecodeError:
        return None
    return Sent(sent.port_id, sent.draft, packet) if packet.key == sent.packet.key else None


def install_all(case: Case, packets: Sequence[Sent]) -> list[InstallPlan]:
    """Install what the packets lead to; return the plans that change a datapath."""
    plans = [plan for sent in packets if (plan := case.install(sent)) is not None]
    return [plan for plan in plans if plan.outcome is not InstallOutcome.UNCHANGED]
