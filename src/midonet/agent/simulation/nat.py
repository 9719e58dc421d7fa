"""What rules of NAT do to a packet. Each says whether it acted; one that did not is passed over.

Static translation (one address, no ports) keeps no state: it writes an address of whatever IP
packet comes, and in what an ICMP error quotes the other end, where that address stands.

Dynamic translation is a binding of the packet's connection. It acts on the forward way, and its
reverse on the way back, only for the device that owns the binding. What begins no connection is
not translated: a packet of a protocol without ports is passed over, one that belongs to a
connection that nobody knows is dropped, so that it does not leave as it is.
"""

from __future__ import annotations

from dataclasses import replace

from midonet.agent.flow_state.connection import Binding, Direction, Endpoint, Side
from midonet.agent.flow_state.pool import NatPool
from midonet.agent.flow_state.sight import Sight, Standing
from midonet.agent.flow_state.translation import endpoint, translate
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import DeepRewrite, SlowPathReason
from midonet.agent.simulation import rewriting
from midonet.agent.simulation.header import (
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    FLOW_HASH,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_PROTO_UDP,
    IP_SRC,
    L4_SRC,
)
from midonet.agent.simulation.source_binding import choose_source
from midonet.agent.simulation.trace import Translated
from midonet.agent.simulation.walk import Dropped, Refusal, Walk
from midonet.agent.topology.view import RuleView
from midonet.model.chains import RuleAction
from midonet.model.ids import ObjectId
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FragmentKind
from midonet.packets.icmp_quote import find_quote, is_icmp_error

_ETH_TYPES = {IpVersion.V4: ETH_TYPE_IPV4, IpVersion.V6: ETH_TYPE_IPV6}
_LINK_TYPES = frozenset((130, 131, 132, 133, 134, 135, 136, 137, 143))
"""Multicast listener and neighbour discovery: of one link, so never translated."""

_SIDES = {
    RuleAction.SNAT: Side.SOURCE,
    RuleAction.REV_SNAT: Side.SOURCE,
    RuleAction.DNAT: Side.DESTINATION,
    RuleAction.REV_DNAT: Side.DESTINATION,
}


def apply_nat(walk: Walk, rule: RuleView) -> bool | Refusal:
    """Translate by a rule whose condition matches; False when it cannot act on this packet."""
    pool = rule.pool
    if pool is None:
        return _reverse(walk, rule)
    address = pool.static_address
    if address is not None:
        return _write_address(walk, rule, address)
    if walk.header.read(ETH_TYPE) != _ETH_TYPES[pool.version]:
        return False
    return _forward(walk, rule, pool)


# Static.


def _write_address(walk: Walk, rule: RuleView, address: IpAddress) -> bool:
    header = walk.header
    if header.read(ETH_TYPE) != _ETH_TYPES[address.version] or _is_of_link(walk):
        return False
    is_dnat = rule.action is RuleAction.DNAT
    if is_dnat and _is_about_quote(rule):
        return _write_quoted_destination(walk, rule, address)
    field = IP_DST if is_dnat else IP_SRC
    before = header.values[field]
    if header.values[IP_PROTO] in (IP_PROTO_ICMP, IP_PROTO_ICMPV6):
        _write_quoted_address(walk, is_dnat=is_dnat, before=before, after=address.value)
    header.write(field, address.value)
    if is_dnat:
        walk.branch.dst_rewritten = True
    if walk.findings.steps is not None:
        old = IpAddress(address.version, before)
        walk.step(Translated(rule.id, walk.branch.device_id, rule.action, str(old), str(address)))
    return True


def _is_about_quote(rule: RuleView) -> bool:
    """Tell whether a rule is for errors, by what they quote: the header is another rule's."""
    condition = rule.condition
    return condition.icmp_data_src is not None or condition.icmp_data_dst is not None


def _write_quoted_destination(walk: Walk, rule: RuleView, address: IpAddress) -> bool:
    """Translate what an error quotes, and leave its header alone."""
    quote = find_quote(walk.inputs.packet)
    condition = rule.condition
    if quote is None or condition.icmp_data_dst is None or condition.icmp_data_dst_inverted:
        return False
    rewriting.for_this_packet(walk, SlowPathReason.ICMP_QUOTE)
    walk.header.deep = replace(walk.header.deep or DeepRewrite(), quoted_dst=address.value)
    if walk.findings.steps is not None:
        old = IpAddress(address.version, quote.destination)
        reason = "in what is quoted"
        walk.step(
            Translated(rule.id, walk.branch.device_id, rule.action, str(old), str(address), reason)
        )
    return True


def _is_of_link(walk: Walk) -> bool:
    header = walk.header
    return (
        header.read(IP_PROTO) == IP_PROTO_ICMPV6
        and header.read(IP_FRAG) != FragmentKind.LATER
        and header.read(L4_SRC) in _LINK_TYPES
    )


def _write_quoted_address(walk: Walk, *, is_dnat: bool, before: int, after: int) -> None:
    """Carry a static translation into what an error quotes: the packet went the other way."""
    header, packet = walk.header, walk.inputs.packet
    header.read(IP_FRAG)
    if header.values[IP_FRAG] == FragmentKind.LATER:
        return
    header.read(L4_SRC)
    if not is_icmp_error(packet):
        return
    rewriting.for_this_packet(walk, SlowPathReason.ICMP_QUOTE)
    quote = find_quote(packet)
    if quote is None:
        return
    deep = header.deep or DeepRewrite()
    if is_dnat:
        source = quote.source if deep.quoted_src is None else deep.quoted_src
        if source == before:
            header.deep = replace(deep, quoted_src=after)
    else:
        destination = quote.destination if deep.quoted_dst is None else deep.quoted_dst
        if destination == before:
            header.deep = replace(deep, quoted_dst=after)


# Dynamic.


def _forward(walk: Walk, rule: RuleView, pool: NatPool) -> bool | Refusal:
    """Use the connection's binding, or choose one for a connection that begins."""
    device_id = walk.branch.device_id
    sight = walk.sight()
    if device_id is None or sight.is_return:
        return False
    if is_icmp_error(walk.inputs.packet):
        return _translate_known(walk, rule, device_id, sight)
    if walk.header.values[IP_FRAG] == FragmentKind.LATER:
        return _translate_known(walk, rule, device_id, sight)
    now = rewriting.tuple_now(walk)
    if now is None:
        return False
    if _translate_known(walk, rule, device_id, sight):
        return True
    if sight.standing is Standing.KNOWN and not _may_begin_again(sight, now):
        return False
    observed = walk.findings.observation
    if sight.standing is Standing.UNKNOWN or (observed is not None and not _may_choose(walk)):
        return Dropped(DropReason.CONNECTION_UNKNOWN, object_id=rule.id)
    if rule.action is RuleAction.DNAT:
        return _choose_destination(walk, rule, pool, now)
    return _choose_source(walk, rule, pool, now)


def _may_begin_again(sight: Sight, now: FiveTuple) -> bool:
    """Tell whether a connection that began without this translation may have it still."""
    known = sight.connection
    return now.protocol == IP_PROTO_UDP and known is not None and not known.is_answered


def _may_choose(walk: Walk) -> bool:
    observed = walk.findings.observation
    if observed is None or walk.inputs.is_generated:
        return False
    return observed.may_begin or observed.sight.standing is Standing.KNOWN


def _choose_destination(
    walk: Walk, rule: RuleView, pool: NatPool, now: FiveTuple
) -> bool | Refusal:
    before = endpoint(now, at_source=False)
    after = pool.destination(before, walk.inputs.packet.key[FLOW_HASH])
    if now.protocol in (IP_PROTO_ICMP, IP_PROTO_ICMPV6):
        after = after._replace(port=before.port)
    _bind(walk, rule, Binding(_owner(walk), Side.DESTINATION, before, after), "chosen now")
    return True


def _choose_source(walk: Walk, rule: RuleView, pool: NatPool, now: FiveTuple) -> bool | Refusal:
    chosen = choose_source(walk, _owner(walk), pool, now, rule.id)
    if not isinstance(chosen, tuple):
        return chosen
    binding, choice = chosen
    _bind(walk, rule, binding, f"chosen now, at {choice.candidates} tried")
    return True


def _owner(walk: Walk) -> ObjectId:
    return walk.branch.device_id or walk.inputs.ingress


def _bind(walk: Walk, rule: RuleView, binding: Binding, reason: str) -> None:
    """Translate by a binding on the forward way, and keep it for the connection."""
    walk.branch.bindings = (*walk.branch.bindings, binding)
    _act(walk, rule, binding, Direction.FORWARD, reason)


def _translate_known(walk: Walk, rule: RuleView, device_id: ObjectId, sight: Sight) -> bool:
    """Translate by the binding of the packet's connection that this device owns, if it fits."""
    known = sight.connection
    if known is None or sight.standing in (Standing.NEW, Standing.UNKNOWN):
        return False
    side = _SIDES[rule.action]
    bindings = known.bindings if sight.direction is Direction.FORWARD else known.bindings[::-1]
    for binding in bindings:
        if binding.owner == device_id and binding.side is side:
            if is_icmp_error(walk.inputs.packet):
                if rewriting.translate_error(walk, binding, sight.direction):
                    _report(walk, rule, binding, sight.direction, "what it quotes is translated")
                    return True
                continue
            now = rewriting.tuple_now(walk)
            if now is not None and translate(now, binding, sight.direction) is not None:
                if sight.direction is Direction.FORWARD:
                    walk.branch.bindings = (*walk.branch.bindings, binding)
                _act(walk, rule, binding, sight.direction, "of its connection")
                return True
    return False


def _reverse(walk: Walk, rule: RuleView) -> bool | Refusal:
    """Undo on the way back what this device chose."""
    device_id = walk.branch.device_id
    sight = walk.sight()
    observed = walk.findings.observation
    if sight.standing is Standing.NEW and observed is not None and observed.key is not None:
        # A datagram to a translated address is an answer, or nothing at all.
        is_datagram = observed.key.tuple.protocol == IP_PROTO_UDP
        walk.findings.observation = replace(observed, may_be_answer=is_datagram)
    if device_id is None or not sight.is_return or sight.connection is None:
        return False
    return _translate_known(walk, rule, device_id, sight)


def _act(walk: Walk, rule: RuleView, binding: Binding, direction: Direction, reason: str) -> None:
    rewriting.translate_header(walk, binding, direction)
    if rule.action in (RuleAction.DNAT, RuleAction.REV_SNAT):
        walk.branch.dst_rewritten = True
    _report(walk, rule, binding, direction, reason)


def _report(
    walk: Walk, rule: RuleView, binding: Binding, direction: Direction, reason: str
) -> None:
    if walk.findings.steps is not None:
        ends = _text(binding.before), _text(binding.after)
        before, after = ends if direction is Direction.FORWARD else ends[::-1]
        walk.step(Translated(rule.id, binding.owner, rule.action, before, after, reason))


def _text(end: Endpoint) -> str:
    address = IpAddress(end.version, end.address)
    return f"[{address}]:{end.port}" if end.version is IpVersion.V6 else f"{address}:{end.port}"
