"""Build ICMP and ICMPv6 errors about a packet. When to send one is not decided here."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from midonet.errors import InternalError
from midonet.packets.build import Envelope, icmp_frame
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmp_header import ICMP_HEADER_SIZE
from midonet.packets.icmpv4 import Icmpv4Header, Icmpv4Type, Icmpv4UnreachableCode
from midonet.packets.icmpv6 import Icmpv6Header, Icmpv6Type, Icmpv6UnreachableCode
from midonet.packets.ipv4 import IPV4_HEADER_SIZE
from midonet.packets.ipv6 import IPV6_HEADER_SIZE

_IPV4_ERROR_MAX = 576
"""Largest ICMP error packet in bytes (RFC 1812 section 4.3.2.3)."""
_IPV6_ERROR_MAX = 1280
"""Largest ICMPv6 error packet in bytes, the minimum MTU (RFC 4443 section 2.4 c)."""
_IPV4_ERROR_TOS = 0xC0
"""Precedence "internetwork control" (RFC 1812 section 4.3.2.5)."""


class IcmpError(StrEnum):
    """What an error says, whatever the IP version."""

    NO_ROUTE = "no_route"
    ADDRESS_UNREACHABLE = "address_unreachable"
    PORT_UNREACHABLE = "port_unreachable"
    PROHIBITED = "prohibited"
    TOO_BIG = "too_big"
    TIME_EXCEEDED = "time_exceeded"


_IPV4_CODES = {
    IcmpError.NO_ROUTE: (Icmpv4Type.DESTINATION_UNREACHABLE, Icmpv4UnreachableCode.NETWORK),
    IcmpError.ADDRESS_UNREACHABLE: (
        Icmpv4Type.DESTINATION_UNREACHABLE,
        Icmpv4UnreachableCode.HOST,
    ),
    IcmpError.PORT_UNREACHABLE: (Icmpv4Type.DESTINATION_UNREACHABLE, Icmpv4UnreachableCode.PORT),
    IcmpError.PROHIBITED: (
        Icmpv4Type.DESTINATION_UNREACHABLE,
        Icmpv4UnreachableCode.COMMUNICATION_PROHIBITED,
    ),
    IcmpError.TOO_BIG: (
        Icmpv4Type.DESTINATION_UNREACHABLE,
        Icmpv4UnreachableCode.FRAGMENTATION_NEEDED,
    ),
    IcmpError.TIME_EXCEEDED: (Icmpv4Type.TIME_EXCEEDED, 0),
}
_IPV6_CODES = {
    IcmpError.NO_ROUTE: (Icmpv6Type.DESTINATION_UNREACHABLE, Icmpv6UnreachableCode.NO_ROUTE),
    IcmpError.ADDRESS_UNREACHABLE: (
        Icmpv6Type.DESTINATION_UNREACHABLE,
        Icmpv6UnreachableCode.ADDRESS,
    ),
    IcmpError.PORT_UNREACHABLE: (Icmpv6Type.DESTINATION_UNREACHABLE, Icmpv6UnreachableCode.PORT),
    IcmpError.PROHIBITED: (
        Icmpv6Type.DESTINATION_UNREACHABLE,
        Icmpv6UnreachableCode.ADMINISTRATIVELY_PROHIBITED,
    ),
    IcmpError.TOO_BIG: (Icmpv6Type.PACKET_TOO_BIG, 0),
    IcmpError.TIME_EXCEEDED: (Icmpv6Type.TIME_EXCEEDED, 0),
}


def icmp_error(
    error: IcmpError, offending: ParsedFrame, envelope: Envelope, *, mtu_bytes: int = 0
) -> bytes:
    """Return the frame of an error that quotes as much of the offending packet as may be.

    envelope: of the error; `midonet.packets.build.answering(offending, ip_src=...)` makes the
    usual one. Its TOS is replaced on IPv4 (precedence 6). mtu_bytes: for TOO_BIG, the next
    hop's (RFC 1191 section 4, RFC 4443 section 3.2).
    Raises InternalError when the offending frame is not IP of the envelope's version.
    """
    if offending.ip_version != envelope.ip_src.version:
        raise InternalError("ICMP error about a packet of another kind")
    mtu = mtu_bytes if error is IcmpError.TOO_BIG else 0
    if envelope.is_ipv6:
        kind, code = _IPV6_CODES[error]
        quote = _quote(offending, _IPV6_ERROR_MAX - IPV6_HEADER_SIZE - ICMP_HEADER_SIZE)
        return icmp_frame(envelope, Icmpv6Header(kind, code, mtu), quote)
    kind4, code4 = _IPV4_CODES[error]
    quote = _quote(offending, _IPV4_ERROR_MAX - IPV4_HEADER_SIZE - ICMP_HEADER_SIZE)
    header = Icmpv4Header(kind4, code4, min(mtu, 0xFFFF))
    return icmp_frame(replace(envelope, tos=_IPV4_ERROR_TOS), header, quote)


def _quote(offending: ParsedFrame, limit: int) -> bytes:
    """Return the start of the offending packet, without Ethernet padding."""
    start = offending.l3_offset
    return offending.frame[start : start + min(limit, offending.packet_length)]
