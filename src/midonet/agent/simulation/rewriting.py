"""The five-tuple of a packet on its way, and translation of it: in its header, and in its quote.

Where the ports are no fields of the header (the identifier of an echo, those of the first fragment
for a later one) they go along with the branch's header.
"""

from __future__ import annotations

from dataclasses import replace

from midonet.agent.flow_state.connection import Binding, Direction, Endpoint
from midonet.agent.flow_state.translation import at_source, change, endpoint, translate
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
    IP_PROTO_SCTP,
    IP_PROTO_TCP,
    IP_PROTO_UDP,
    IP_SRC,
    L4_DST,
    L4_SRC,
)
from midonet.agent.simulation.walk import Walk
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple, five_tuple
from midonet.packets.flowkey import FragmentKind
from midonet.packets.icmp_quote import find_quote, is_icmp_error

_VERSIONS = {ETH_TYPE_IPV4: IpVersion.V4, ETH_TYPE_IPV6: IpVersion.V6}
_WITH_PORTS = frozenset((IP_PROTO_TCP, IP_PROTO_UDP, IP_PROTO_SCTP))
_ICMP = frozenset((IP_PROTO_ICMP, IP_PROTO_ICMPV6))


def for_this_packet(walk: Walk, reason: SlowPathReason) -> None:
    """Note that the outcome is for this packet only."""
    walk.findings.slow_path = walk.findings.slow_path or reason


def is_follower(walk: Walk) -> bool:
    """Tell whether the packet belongs to another one, which has the ports: it is a later fragment,
    or an ICMP error."""
    header = walk.header
    if header.read(ETH_TYPE) not in _VERSIONS:
        return False
    if header.read(IP_FRAG) == FragmentKind.LATER:
        return True
    if header.read(IP_PROTO) not in _ICMP:
        return False
    header.read(L4_SRC)
    return is_icmp_error(walk.inputs.packet)


def tuple_now(walk: Walk) -> FiveTuple | None:
    """Return the packet's tuple as it is here, None when it has none.

    The walk has asked for its connection, so that all of it is recorded already.
    """
    values = walk.header.values
    version = _VERSIONS.get(values[ETH_TYPE])
    if version is None:
        return None
    protocol = values[IP_PROTO]
    if values[IP_FRAG] == FragmentKind.LATER or protocol in _ICMP:
        ports = walk.header.ports or _ports_of(walk)
    elif protocol in _WITH_PORTS:
        ports = values[L4_SRC], values[L4_DST]
    else:
        ports = None
    if ports is None:
        return None
    return FiveTuple(version, protocol, values[IP_SRC], ports[0], values[IP_DST], ports[1])


def _ports_of(walk: Walk) -> tuple[int, int] | None:
    """Return the ports with which the packet entered, of its first fragment for a later one."""
    observed = walk.findings.observation
    if observed is not None and observed.key is not None:
        entered: FiveTuple | None = observed.key.tuple
    else:
        entered = five_tuple(walk.inputs.packet)
    return None if entered is None else (entered.source_port, entered.destination_port)


def translate_header(walk: Walk, binding: Binding, direction: Direction) -> None:
    """Write the other end point of a binding into the header."""
    _, new = change(binding, direction)
    write_endpoint(walk, new, is_source=at_source(binding, direction))


def write_endpoint(walk: Walk, new: Endpoint, *, is_source: bool) -> None:
    """Write an end point into the header of a packet that has a five-tuple."""
    header = walk.header
    now = tuple_now(walk)
    header.write(IP_SRC if is_source else IP_DST, new.address)
    if now is None:
        return
    if header.values[IP_FRAG] == FragmentKind.LATER:
        ports = now.source_port, now.destination_port
        header.ports = (new.port, ports[1]) if is_source else (ports[0], new.port)
    elif now.protocol in _ICMP:
        if new.port != now.source_port:
            for_this_packet(walk, SlowPathReason.ICMP_IDENTIFIER)
            header.deep = replace(header.deep or DeepRewrite(), icmp_id=new.port)
            header.ports = new.port, new.port
    else:
        header.write(L4_SRC if is_source else L4_DST, new.port)


def quote_now(walk: Walk) -> FiveTuple | None:
    """Return the tuple that an error quotes, as it is here; None when there is none."""
    quote = find_quote(walk.inputs.packet)
    shown = quote.tuple if quote is not None else None
    deep = walk.header.deep
    if shown is None or deep is None:
        return shown
    return FiveTuple(
        shown.version,
        shown.protocol,
        shown.source if deep.quoted_src is None else deep.quoted_src,
        shown.source_port if deep.quoted_l4_src is None else deep.quoted_l4_src,
        shown.destination if deep.quoted_dst is None else deep.quoted_dst,
        shown.destination_port if deep.quoted_l4_dst is None else deep.quoted_l4_dst,
    )


def translate_error(walk: Walk, binding: Binding, direction: Direction) -> bool:
    """Translate an error about a packet of a connection; False when the binding is not its.

    Its destination is who sent the packet, so it must be what is replaced. Its source may be
    any router on the way, which is hidden behind what the connection's end is known by
    (RFC 5508 section 4.2).
    """
    quote = quote_now(walk)
    changed = None if quote is None else translate(quote, binding, direction, quoted=True)
    if quote is None or changed is None:
        return False
    old, new = change(binding, direction)
    is_source = at_source(binding, direction)
    header = walk.header
    if not is_source and header.values[IP_DST] != old.address:
        return False
    for_this_packet(walk, SlowPathReason.ICMP_QUOTE)
    header.write(IP_SRC if is_source else IP_DST, new.address)
    source, destination = (endpoint(changed, at_source=one) for one in (True, False))
    header.deep = replace(
        header.deep or DeepRewrite(),
        quoted_src=source.address,
        quoted_l4_src=source.port,
        quoted_dst=destination.address,
        quoted_l4_dst=destination.port,
    )
    return True
