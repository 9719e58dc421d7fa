"""What rules of NAT do to a packet. Each says whether it acted; one that did not is passed over.

Static translation (one address, no ports) keeps no state: it writes an address of whatever IP
packet comes, and in what an ICMP error quotes the other end, where that address stands.
"""

from __future__ import annotations

from dataclasses import replace

from midonet.agent.flows.program import DeepRewrite, SlowPathReason
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
    L4_SRC,
)
from midonet.agent.simulation.trace import Translated
from midonet.agent.simulation.walk import Refusal, Walk
from midonet.agent.topology.view import RuleView
from midonet.model.chains import RuleAction
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.flowkey import FragmentKind
from midonet.packets.icmp_quote import find_quote, is_icmp_error

_ETH_TYPES = {IpVersion.V4: ETH_TYPE_IPV4, IpVersion.V6: ETH_TYPE_IPV6}
_LINK_TYPES = frozenset((130, 131, 132, 133, 134, 135, 136, 137, 143))
"""Multicast listener and neighbour discovery: of one link, so never translated."""


def apply_nat(walk: Walk, rule: RuleView) -> bool | Refusal:
    """Translate by a rule whose condition matches; False when it cannot act on this packet."""
    pool = rule.pool
    if pool is not None:
        address = pool.static_address
        if address is not None:
            return _write_address(walk, rule, address)
    return False


def _write_address(walk: Walk, rule: RuleView, address: IpAddress) -> bool:
    header = walk.header
    if header.read(ETH_TYPE) != _ETH_TYPES[address.version] or _is_of_link(walk):
        return False
    is_dnat = rule.action is RuleAction.DNAT
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
    single_packet(walk, SlowPathReason.ICMP_QUOTE)
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


def single_packet(walk: Walk, reason: SlowPathReason) -> None:
    """Note that the outcome is for this packet only."""
    walk.findings.slow_path = walk.findings.slow_path or reason
