"""The two entries of simulation, and the loop that takes a packet from step to step.

A simulation does no I/O, reads no clock and changes nothing: it says what should happen. What
is not known yet is said as well (`Await`); the shell obtains it and starts again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

import msgspec

from midonet.agent.flow_state.connection import ConnectionKey, Direction
from midonet.agent.flow_state.effects import ConfirmConnection, ConnectionEffect, KillConnection
from midonet.agent.flow_state.fragments import NO_FRAGMENTS, FragmentReader
from midonet.agent.flow_state.nat_reader import ALL_FREE, NatReader
from midonet.agent.flow_state.reader import NO_CONNECTIONS, ConnectionReader, Without
from midonet.agent.flow_state.sight import Sight, Standing
from midonet.agent.flow_state.source_choice import LeaseBlock
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import FlowMask, quantise
from midonet.agent.flows.program import FlowProgram, Guards, Output, SlowPathReason
from midonet.agent.flows.tags import NO_REGIONS
from midonet.agent.simulation.confirming import connection_effects, leads_elsewhere
from midonet.agent.simulation.dhcp_server import serve_dhcp
from midonet.agent.simulation.emission import grouped_outputs
from midonet.agent.simulation.port import (
    emit_unfiltered,
    enter_port,
    leave_port,
    leave_redirected,
)
from midonet.agent.simulation.port_security import is_of_stranger
from midonet.agent.simulation.result import (
    Await,
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
from midonet.agent.simulation.router import originate
from midonet.agent.simulation.trace import (
    Answered,
    BeganConnection,
    EndedConnection,
    FollowsCopy,
    MetRule,
    Waits,
    WasDropped,
)
from midonet.agent.simulation.walk import (
    MAX_COPIES,
    MAX_DEVICES,
    MAX_OUTPUTS,
    Dropped,
    Ended,
    Findings,
    Inputs,
    Outcome,
    ToEgress,
    ToFlood,
    ToIngress,
    ToRedirected,
    Walk,
)
from midonet.agent.soft_state.reading import SoftState
from midonet.agent.topology.view import MirrorView, PortView, TopologyView
from midonet.model.ids import PortId, RouterId
from midonet.packets.addresses import IpAddress
from midonet.packets.frame import ParsedFrame, key_flow_hash

LIFETIME_S = 60.0
"""Hard lifetime of a program."""

ERROR_LIFETIME_S = 5.0
"""Hard lifetime of a program for what is likely to change soon."""

_SHORT_LIVED = frozenset(
    (
        DropReason.MALFORMED,
        DropReason.UNKNOWN_INGRESS_PORT,
        DropReason.LOOP_LIMIT,
        DropReason.PORT_UNPLUGGED,
        DropReason.MISSING_DEVICE,
        DropReason.MISSING_CHAIN,
        DropReason.MISSING_GROUP,
        DropReason.CHAIN_LIMIT,
        DropReason.HAIRPIN,
        DropReason.NO_ROUTE,
        DropReason.BLACKHOLE_ROUTE,
        DropReason.TTL_EXCEEDED,
        DropReason.LOCAL_NOT_HANDLED,
        DropReason.NEIGHBOUR_UNRESOLVED,
        DropReason.MTU_EXCEEDED,
        DropReason.NO_LOCATION,
        DropReason.SERVICE_DOWN,
        DropReason.NO_TUNNEL,
        DropReason.COPY_LIMIT,
        DropReason.RULE_LIMIT,
        DropReason.CONNECTION_UNKNOWN,
    )
)


def simulate(
    view: TopologyView,
    soft_state: SoftState,
    packet: ParsedFrame,
    ingress: PortId,
    now: float,
    *,
    connections: ConnectionReader = NO_CONNECTIONS,
    nat: NatReader = ALL_FREE,
    fragments: FragmentReader = NO_FRAGMENTS,
    must_ask: bool = False,
    trace: bool = False,
) -> SimulationResult:
    """Return what the virtual network does with a packet that enters at a port of this host.

    now: seconds on a monotonic clock. connections: those that are known, read when something on
    the way asks which one the packet belongs to, or at once if `must_ask`. nat: end points that
    are free, asked when a translation has to be chosen. fragments: datagrams whose first fragment
    is known. trace: collect steps, for people to read.
    """
    packet = _with_hash(view, packet)
    walk = Walk(
        Inputs(
            view,
            soft_state,
            packet,
            ingress,
            now,
            connections=connections,
            nat=nat,
            fragments=fragments,
        ),
        trace=trace,
    )
    if must_ask:
        walk.sight()
    result = _enter(walk)
    dead = None if isinstance(result, Await) else leads_elsewhere(walk)
    if dead is None:
        return result
    # As if it had been over before this packet came.
    before = walk
    walk = Walk(replace(before.inputs, connections=Without(connections, dead)), trace=trace)
    if before.findings.steps is not None:
        walk.findings.steps = before.findings.steps
        walk.step(EndedConnection(dead.forward, is_dead=True))
    result = _enter(walk)
    if isinstance(result, Await):
        return result
    return replace(result, effects=(KillConnection(dead), *result.effects))


def _enter(walk: Walk) -> SimulationResult:
    port = walk.port(walk.inputs.ingress)
    if isinstance(port, PortView):
        # Nobody is told what the client whose MAC he forges is told; the port will drop him.
        served = None if is_of_stranger(walk, port) else serve_dhcp(walk, port)
        return _run(walk, served or ToIngress(port))
    return _run(walk, Dropped(DropReason.UNKNOWN_INGRESS_PORT) if _is_gone(port) else port)


def simulate_generated(
    view: TopologyView,
    soft_state: SoftState,
    packet: ParsedFrame,
    egress: PortId,
    now: float,
    *,
    router_id: RouterId | None = None,
    sight: Sight | None = None,
    is_unfiltered: bool = False,
    trace: bool = False,
) -> SimulationResult:
    """Return where a frame goes that a device sends out by its port `egress`.

    router_id: of the router that routes the frame first; sight: what it is to the connections
    that are known; is_unfiltered: see `GeneratedPacket` for all of them.
    The result is for this one frame and must not be installed.
    """
    packet = _with_hash(view, packet)
    inputs = Inputs(view, soft_state, packet, egress, now, is_generated=True, sight=sight)
    walk = Walk(inputs, trace=trace)
    walk.findings.slow_path = SlowPathReason.GENERATED
    port = walk.port(egress)
    if not isinstance(port, PortView):
        return _run(walk, port)
    if is_unfiltered:
        return _run(walk, emit_unfiltered(walk, port))
    return _run(walk, ToEgress(port) if router_id is None else originate(walk, port, router_id))


def _is_gone(outcome: Outcome) -> bool:
    return isinstance(outcome, Dropped)


def _with_hash(view: TopologyView, packet: ParsedFrame) -> ParsedFrame:
    """Return the packet with its flow hash, which the datapath may have computed already."""
    if packet.key.flow_hash:
        return packet
    key = packet.key._replace(flow_hash=key_flow_hash(packet.key, view.hash_seed))
    return msgspec.structs.replace(packet, key=key)


def _run(walk: Walk, first: Outcome) -> SimulationResult:
    """Take the packet to the end of its way, then the copies that mirrors made of it."""
    awaited = _follow(walk, first)
    if awaited is None and walk.copies_made:
        awaited = _follow_copies(walk)
    if awaited is None:
        return _finish(walk)
    return awaited if walk.findings.steps is None else _awaiting(walk, awaited)


def _follow(walk: Walk, first: Outcome) -> Await | None:
    """Take every branch to its end, depth first, in the order of flooded ports.

    Return what must be waited for, instead of all that.
    """
    outcome = first
    while True:
        # Told apart by type in the order of frequency: this loop runs for every port passed.
        if isinstance(outcome, ToEgress):
            outcome = leave_port(walk, outcome.port)
            continue
        if isinstance(outcome, ToIngress):
            outcome = enter_port(walk, outcome.port, is_bounced=outcome.is_bounced)
            continue
        if isinstance(outcome, ToRedirected):
            outcome = leave_redirected(walk, outcome.port, fail_open=outcome.fail_open)
            continue
        if isinstance(outcome, Await):
            if not walk.branch.copy or isinstance(outcome.what, LoadDevices):
                return outcome
            # Nobody is asked on account of a copy, and no packet waits for one.
            outcome = Dropped(DropReason.NEIGHBOUR_UNRESOLVED)
        if isinstance(outcome, ToFlood):
            too_many = walk.follow(outcome.ports, outcome.bridge.id)
            if too_many is not None:
                outcome = too_many
                continue
        elif isinstance(outcome, Dropped):
            _drop(walk, outcome)
        else:
            _end(walk, outcome)
        port = walk.next_branch()
        if port is None:
            return None
        outcome = ToEgress(port)


def _follow_copies(walk: Walk) -> Await | None:
    """Take copies to their ends. Past a bound they all are given up, never the packet itself."""
    own = walk.findings
    before = len(own.steps or ())
    walk.findings = Findings(steps=own.steps, observation=own.observation)
    while (mirror := walk.next_copy()) is not None:
        awaited = _follow(walk, _send_copy(walk, mirror))
        if awaited is not None:
            return awaited
    if walk.copies_made > MAX_COPIES:
        walk.give_up(DropReason.COPY_LIMIT)
    if own.steps is not None:
        # What devices would answer is sent to nobody.
        told = own.steps[before:]
        own.steps[before:] = [one for one in told if not isinstance(one.event, Answered)]
    own.add_copies(walk.findings)
    walk.findings = own
    return None


def _send_copy(walk: Walk, mirror: MirrorView) -> Outcome:
    if walk.findings.steps is not None:
        walk.step(FollowsCopy(mirror.id, mirror.to_port_id))
    if walk.copies_made > MAX_COPIES:
        return Dropped(DropReason.COPY_LIMIT, is_final=True, object_id=mirror.id)
    if walk.branch.devices > MAX_DEVICES:
        return Dropped(DropReason.LOOP_LIMIT, object_id=mirror.id)
    port = walk.port(mirror.to_port_id)
    return ToEgress(port) if isinstance(port, PortView) else port


def _end(walk: Walk, ended: Ended) -> None:
    match ended:
        case Ended.TAKEN:
            walk.findings.taken = True
        case Ended.DELIVERED:
            pass  # its output is among the findings
        case _:
            assert_never(ended)


def _drop(walk: Walk, dropped: Dropped) -> None:
    walk.findings.drops.append(dropped.reason)
    if walk.findings.steps is not None:
        _trace_drop(walk, dropped)
    if dropped.is_final:
        walk.give_up(dropped.reason)


def _trace_drop(walk: Walk, dropped: Dropped) -> None:
    port = walk.branch.egress_port or walk.branch.ingress_port
    place_id = port.id if port is not None else walk.inputs.ingress
    object_id = dropped.object_id
    if object_id is None and dropped.reason is DropReason.REJECTED:
        met = [one.event for one in walk.findings.steps or () if isinstance(one.event, MetRule)]
        object_id = met[-1].rule_id if met else None
    walk.step(WasDropped(dropped.reason, place_id, object_id))


def _awaiting(walk: Walk, outcome: Await) -> Await:
    what = outcome.what
    match what:
        case LoadDevices(object_ids):
            walk.step(Waits(object_ids=object_ids))
        case ResolveNeighbour():
            walk.step(Waits(address=what.address))
        case FetchConnection(key):
            walk.step(Waits(connection=key))
        case FetchFirstFragment():
            walk.step(Waits(is_fragment=True))
        case LeaseBlock(address):
            walk.step(Waits(address=IpAddress(address.version, address.address), is_port=True))
        case _:
            assert_never(what)
    return Await(what, tuple(walk.findings.steps or ()))


def _finish(walk: Walk) -> SimulationResult:
    observed = walk.findings.observation
    if observed is not None and observed.awaits_first is not None:
        return _awaiting(walk, Await(FetchFirstFragment(observed.awaits_first)))
    _end_stray(walk)
    outputs = grouped_outputs(walk)
    if len(outputs) > MAX_OUTPUTS:
        _give_up_outputs(walk)
        return _finish(walk)
    own_outputs = any(not entry.copy for entry in walk.findings.outputs)
    fetched = _to_fetch(walk, has_outputs=own_outputs)
    if fetched is not None:
        return _awaiting(walk, Await(fetched))
    effects, generated = (*_connection_effects(walk), *walk.findings.effects), _generated(walk)
    steps = tuple(walk.findings.steps) if walk.findings.steps is not None else ()
    if any(isinstance(effect, KillConnection) for effect in effects):
        walk.findings.slow_path = SlowPathReason.CONNECTION
    if outputs:
        # What a device takes or answers beside the outputs must come up each time.
        if (generated or walk.findings.taken) and walk.findings.slow_path is None:
            walk.findings.slow_path = SlowPathReason.ANSWERED
        return Forward(_program(walk, outputs, None, _own_drop(walk)), effects, generated, steps)
    if walk.findings.taken:
        return Consume(generated, effects, steps)
    reason = walk.findings.drops[0] if walk.findings.drops else DropReason.INTERNAL
    return Drop(reason, _program(walk, (), reason, reason), effects, generated, steps)


def _to_fetch(walk: Walk, *, has_outputs: bool) -> FetchConnection | None:
    """Return the connection that others may know, when the outcome depends on it.

    What could begin a connection and is let pass needs nobody's help; what would be dropped may be
    an answer that came by another way than the question left.
    """
    observed = walk.findings.observation
    if observed is not None and observed.about is not None:
        return FetchConnection(observed.about) if observed.should_wait else None
    if observed is None or observed.key is None:
        return None
    should_wait = observed.should_wait
    if observed.may_be_answer and not has_outputs and not walk.findings.taken:
        now_s = walk.inputs.now
        should_wait = walk.inputs.connections.should_wait(observed.key, now_s)
    return FetchConnection(observed.key) if should_wait else None


def _end_stray(walk: Walk) -> None:
    """Drop a fragment that follows nothing, or contradicts others of its datagram."""
    observed = walk.findings.observation
    if observed is not None and observed.stray is not None:
        reason = observed.stray[0]
        walk.findings.give_up(reason)
        if walk.findings.steps is not None:
            walk.step(WasDropped(reason, walk.inputs.ingress, None))


def _connection_effects(walk: Walk) -> tuple[ConnectionEffect, ...]:
    if walk.findings.observation is None:
        return ()
    effects = tuple(connection_effects(walk))
    if walk.findings.steps is not None:
        for effect in effects:
            if isinstance(effect, ConfirmConnection):
                begun = effect.connection
                walk.step(BeganConnection(begun.forward, begun.returns))
            elif isinstance(effect, KillConnection):
                walk.step(EndedConnection(effect.connection.forward, is_dead=False))
    return effects


def _generated(walk: Walk) -> tuple[GeneratedPacket, ...]:
    """Return what devices made; an answer is about the packet's connection, and travels back."""
    generated = tuple(walk.findings.generated)
    observed = walk.findings.observation
    if not generated or observed is None or observed.sight.connection is None:
        return generated
    about = observed.sight
    back = Sight(
        Standing.RELATED,
        Direction.FORWARD if about.is_return else Direction.RETURN,
        about.connection,
    )
    return tuple(replace(one, sight=back) if one.sight is None else one for one in generated)


def _give_up_outputs(walk: Walk) -> None:
    """Leave out the copies of mirrors when there are too many outputs; without any, all of it."""
    own = [entry for entry in walk.findings.outputs if not entry.copy]
    if len(own) == len(walk.findings.outputs):
        walk.give_up(DropReason.COPY_LIMIT)
    else:
        walk.findings.outputs = own


def _own_drop(walk: Walk) -> DropReason | None:
    """Return why the packet itself was dropped, when only copies of it leave the network."""
    findings = walk.findings
    if findings.taken or not findings.drops or any(not one.copy for one in findings.outputs):
        return None
    return findings.drops[0]


def _program(
    walk: Walk,
    outputs: tuple[Output, ...],
    reason: DropReason | None,
    own_drop: DropReason | None,
) -> FlowProgram:
    return FlowProgram(
        ingress=walk.inputs.ingress,
        key=walk.inputs.packet.key,
        mask=quantise(FlowMask._make(walk.header.mask)),
        outputs=outputs,
        drop_reason=reason,
        guards=Guards(
            walk.findings.ttl_above, walk.findings.max_length, walk.findings.tcp_flags_clear
        ),
        tags=frozenset(walk.findings.tags),
        regions=frozenset(walk.findings.regions) or NO_REGIONS,
        learned=tuple(walk.findings.learned.values()),
        lifetime_s=ERROR_LIFETIME_S if own_drop in _SHORT_LIVED else LIFETIME_S,
        slow_path=walk.findings.slow_path,
        connection=_connection_key(walk) if outputs else None,
    )


def _connection_key(walk: Walk) -> ConnectionKey | None:
    """Return the key under which the connection is that all packets of the class belong to."""
    observed = walk.findings.observation
    if observed is None or (
        observed.sight.standing is not Standing.KNOWN and not observed.may_begin
    ):
        return None
    return observed.key
