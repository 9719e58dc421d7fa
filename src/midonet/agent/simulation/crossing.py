"""Routers between IPv6 and IPv4 (RFC 6146): a machine with IPv6 only reaches one with IPv4 only.

What an IPv6 packet is sent to within the router's prefix stands for an IPv4 address (RFC 6052). Its
source becomes an end point of the router's addresses, as by a rule of SNAT; the binding's two ends
are of the two versions. Answers to that end point, and errors about it, go back through it. The
packet is routed as what it has become, and goes packet by packet through the agent.
"""

from __future__ import annotations

from dataclasses import replace

from midonet.agent.flow_state.allocations import Allocation
from midonet.agent.flow_state.connection import Binding, Direction, Endpoint, Side
from midonet.agent.flow_state.effects import LeaseAhead, NoteExhaustion
from midonet.agent.flow_state.sight import Sight, Standing
from midonet.agent.flow_state.source_choice import LOW_WATER, Exhausted, LeaseBlock, remote_of
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import DeepRewrite, SlowPathReason
from midonet.agent.simulation import rewriting
from midonet.agent.simulation.header import (
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_SRC,
    L4_DST,
    L4_SRC,
)
from midonet.agent.simulation.result import Await
from midonet.agent.simulation.trace import Crossed
from midonet.agent.simulation.walk import Dropped, Refusal, Walk
from midonet.agent.topology.view import Nat64View, RouterView
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FragmentKind
from midonet.packets.icmp_quote import is_icmp_error
from midonet.packets.nat64 import (
    HEADER_DIFFERENCE,
    PREFIX_LENGTH,
    FamilyChange,
    embedded,
    other_echo_type,
    other_protocol,
)

_ETH_TYPES = {IpVersion.V4: ETH_TYPE_IPV4, IpVersion.V6: ETH_TYPE_IPV6}
_ICMP = (IP_PROTO_ICMP, IP_PROTO_ICMPV6)
_IPV4_BITS = 0xFFFF_FFFF


def cross(walk: Walk, router: RouterView) -> Refusal | None:
    """Translate a packet that is for the other side; return why it stops here, if it does."""
    nat64 = router.nat64
    if nat64 is None:
        return None
    header = walk.header
    if header.read(ETH_TYPE) == ETH_TYPE_IPV6:
        if not header.within(IP_DST, nat64.prefix, PREFIX_LENGTH, 128):
            return None
        return _downwards(walk, router, nat64)
    if not nat64.pool.contains(header.read(IP_DST), 0, IP_PROTO_ICMP):
        return None
    return _upwards(walk, router, nat64)


def _downwards(walk: Walk, router: RouterView, nat64: Nat64View) -> Refusal | None:
    """Take a packet from IPv6 to IPv4."""
    untranslatable = _untranslatable(walk)
    if untranslatable is not None:
        return untranslatable
    sight = walk.sight()
    if is_icmp_error(walk.inputs.packet):
        return _cross_error(walk, router, nat64, sight, Direction.FORWARD)
    now = rewriting.tuple_now(walk)
    if now is None:
        return Dropped(DropReason.FAMILY_UNTRANSLATABLE)
    binding = _binding(router, sight, Direction.FORWARD, now)
    if binding is None:
        chosen = _choose(walk, router, nat64, sight, now)
        if not isinstance(chosen, Binding):
            return chosen
        binding = chosen
    walk.branch.bindings = (*walk.branch.bindings, binding)
    _become(walk, _below(now, binding.after, nat64))
    return None


def _upwards(walk: Walk, router: RouterView, nat64: Nat64View) -> Refusal | None:
    """Take an answer from IPv4 to IPv6; anything else to the router's addresses is its own."""
    sight = walk.sight()
    if not sight.is_return or sight.connection is None:
        return None
    if is_icmp_error(walk.inputs.packet):
        return _cross_error(walk, router, nat64, sight, Direction.RETURN)
    now = rewriting.tuple_now(walk)
    binding = None if now is None else _binding(router, sight, Direction.RETURN, now)
    if now is None or binding is None:
        return None
    untranslatable = _untranslatable(walk)
    if untranslatable is not None:
        return untranslatable
    _become(walk, _above(now, binding.before, nat64))
    return None


def _untranslatable(walk: Walk) -> Dropped | None:
    """Refuse fragments, and what has changed its version before."""
    header = walk.header
    has_changed = header.deep is not None and header.deep.family is not None
    if has_changed or header.read(IP_FRAG) != FragmentKind.NONE:
        return Dropped(DropReason.FAMILY_UNTRANSLATABLE)
    return None


def _binding(
    router: RouterView, sight: Sight, direction: Direction, now: FiveTuple
) -> Binding | None:
    known = sight.connection
    if known is None or sight.standing is not Standing.KNOWN:
        return None
    source = Endpoint(now.version, now.source, now.source_port)
    destination = Endpoint(now.version, now.destination, now.destination_port)
    for binding in known.bindings:
        if binding.owner == router.id and binding.before.version is not binding.after.version:
            is_forward = direction is Direction.FORWARD
            if binding.before == source if is_forward else binding.after == destination:
                return binding
    return None


def _choose(
    walk: Walk, router: RouterView, nat64: Nat64View, sight: Sight, now: FiveTuple
) -> Binding | Refusal:
    observed = walk.findings.observation
    may_begin = observed is not None and observed.may_begin
    if sight.is_return or sight.standing is not Standing.NEW or not may_begin:
        return Dropped(DropReason.CONNECTION_UNKNOWN, object_id=router.id)
    before = Endpoint(now.version, now.source, now.source_port)
    wanted = _below(now, before, nat64)
    seed = walk.inputs.view.hash_seed
    choice = walk.inputs.nat.choose_source(router.id, nat64.pool, wanted, seed)
    if isinstance(choice, LeaseBlock):
        return Await(choice)
    if isinstance(choice, Exhausted):
        rewriting.for_this_packet(walk, SlowPathReason.CONNECTION)
        walk.findings.effects.append(NoteExhaustion(router.id, nat64.pool))
        return Dropped(DropReason.NAT_EXHAUSTED, object_id=router.id)
    if choice.spare < LOW_WATER and choice.further is not None:
        walk.findings.effects.append(LeaseAhead(choice.further))
    allocation = Allocation(router.id, wanted.protocol, choice.endpoint, remote_of(wanted))
    walk.branch.allocations = (*walk.branch.allocations, allocation)
    return Binding(router.id, Side.SOURCE, before, choice.endpoint)


def _below(now: FiveTuple, source: Endpoint, nat64: Nat64View) -> FiveTuple:
    """Return a forward tuple in IPv4, from `source`."""
    protocol = other_protocol(now.protocol)
    port = source.port if protocol == IP_PROTO_ICMP else now.destination_port
    destination = now.destination & _IPV4_BITS
    return FiveTuple(IpVersion.V4, protocol, source.address, source.port, destination, port)


def _above(now: FiveTuple, destination: Endpoint, nat64: Nat64View) -> FiveTuple:
    """Return a return tuple in IPv6, to `destination`."""
    protocol = other_protocol(now.protocol)
    port = destination.port if protocol == IP_PROTO_ICMPV6 else now.source_port
    source = embedded(nat64.prefix, now.source)
    return FiveTuple(IpVersion.V6, protocol, source, port, destination.address, destination.port)


def _cross_error(
    walk: Walk, router: RouterView, nat64: Nat64View, sight: Sight, direction: Direction
) -> Refusal | None:
    """Translate an error about a packet of a connection, with what it quotes."""
    known, quote = sight.connection, rewriting.quote_now(walk)
    is_forward = direction is Direction.FORWARD
    if sight.standing is Standing.RELATED and known is not None and quote is not None:
        # The quoted packet went the other way, so that it is translated as an answer is here.
        back = quote.inverse()
        same = replace(sight, standing=Standing.KNOWN)
        binding = _binding(router, same, direction, back)
        if binding is not None and sight.direction is direction:
            header = walk.header
            there = (
                _below(back, binding.after, nat64)
                if is_forward
                else _above(back, binding.before, nat64)
            )
            source, destination = (
                (binding.after.address, header.values[IP_DST] & _IPV4_BITS)
                if is_forward
                else (embedded(nat64.prefix, header.values[IP_SRC]), binding.before.address)
            )
            change = FamilyChange(there.version, source, destination, there.inverse())
            _change(walk, change)
            return None
    return Dropped(DropReason.FAMILY_UNTRANSLATABLE) if is_forward else None


def _become(walk: Walk, there: FiveTuple) -> None:
    """Let the packet have this tuple, of the other version, from here on."""
    header = walk.header
    protocol = header.values[IP_PROTO]
    _change(walk, FamilyChange(there.version, there.source, there.destination))
    if protocol in _ICMP:
        kind = other_echo_type(
            IpVersion.V6 if there.version is IpVersion.V4 else IpVersion.V4, header.values[L4_SRC]
        )
        header.write(L4_SRC, kind or 0)
        header.deep = replace(header.deep or DeepRewrite(), icmp_id=there.source_port)
        header.ports = there.source_port, there.destination_port
    else:
        header.write(L4_SRC, there.source_port)
        header.write(L4_DST, there.destination_port)


def _change(walk: Walk, change: FamilyChange) -> None:
    header = walk.header
    rewriting.for_this_packet(walk, SlowPathReason.FAMILY)
    if walk.findings.steps is not None:
        before = IpVersion.V6 if change.version is IpVersion.V4 else IpVersion.V4
        ends = IpAddress(before, header.values[IP_SRC]), IpAddress(before, header.values[IP_DST])
        after = (
            IpAddress(change.version, change.source),
            IpAddress(change.version, change.destination),
        )
        walk.step(Crossed(*map(str, (*ends, *after))))
    header.write(ETH_TYPE, _ETH_TYPES[change.version])
    header.write(IP_PROTO, other_protocol(header.values[IP_PROTO]))
    header.write(IP_SRC, change.source)
    header.write(IP_DST, change.destination)
    is_shorter = change.version is IpVersion.V4
    header.length_change += -HEADER_DIFFERENCE if is_shorter else HEADER_DIFFERENCE
    header.deep = replace(header.deep or DeepRewrite(), family=change)
