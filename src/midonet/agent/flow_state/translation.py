"""The one translation: of headers and of what ICMP errors quote, in either direction. Pure.

A binding replaces one end point of a connection. On the forward way its `before` becomes `after`
at its side, on the return way `after` becomes `before` at the other side. An error quotes a packet
that travelled the other way, as that packet looked on this side, so that in a quote the same
replacement stands at the opposite end (RFC 5508 section 4).
"""

from __future__ import annotations

from midonet.agent.flow_state.connection import Binding, Direction, Endpoint, Side
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.protocols import IpProtocol

_ICMP = frozenset((int(IpProtocol.ICMP), int(IpProtocol.ICMPV6)))


def change(binding: Binding, direction: Direction) -> tuple[Endpoint, Endpoint]:
    """Return the end point that a binding replaces in this direction, and what by."""
    if direction is Direction.FORWARD:
        return binding.before, binding.after
    return binding.after, binding.before


def at_source(binding: Binding, direction: Direction, *, quoted: bool = False) -> bool:
    """Tell whether it is the source that is replaced; else it is the destination.

    direction: in which the packet travels. quoted: in the packet that it quotes.
    """
    is_source = binding.side is Side.SOURCE
    return is_source ^ (direction is Direction.RETURN) ^ quoted


def translate(
    packet: FiveTuple, binding: Binding, direction: Direction, *, quoted: bool = False
) -> FiveTuple | None:
    """Return the tuple as it is behind the owner of a binding; None when the binding is not its.

    quoted: `packet` is quoted in an error that travels in `direction`.
    """
    old, new = change(binding, direction)
    is_source = at_source(binding, direction, quoted=quoted)
    if endpoint(packet, at_source=is_source) != old:
        return None
    return replaced(packet, new, at_source=is_source)


def endpoint(packet: FiveTuple, *, at_source: bool) -> Endpoint:
    """Return one end point of a tuple."""
    if at_source:
        return Endpoint(packet.version, packet.source, packet.source_port)
    return Endpoint(packet.version, packet.destination, packet.destination_port)


def replaced(packet: FiveTuple, by: Endpoint, *, at_source: bool) -> FiveTuple:
    """Return a tuple with another end point; the identifier of an echo stands in both ports."""
    if at_source:
        changed = packet._replace(source=by.address, source_port=by.port)
        return changed._replace(destination_port=by.port) if packet.protocol in _ICMP else changed
    changed = packet._replace(destination=by.address, destination_port=by.port)
    return changed._replace(source_port=by.port) if packet.protocol in _ICMP else changed
