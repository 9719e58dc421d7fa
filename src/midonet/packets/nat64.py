"""Translation of packets between IPv6 and IPv4 (RFC 7915), addresses by a /96 prefix (RFC 6052).

Whole TCP, UDP, echo and ICMP error packets; an error is translated with the packet that it quotes.
IPv4 options and IPv6 extension headers are left behind (RFC 7915 sections 4.1 and 5.1). Checksums
are carried over, so that wrong ones stay wrong; those of errors are computed anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from midonet.errors import DecodeError
from midonet.packets.addresses import IpVersion
from midonet.packets.checksum import (
    internet_checksum,
    pseudo_header_sum,
    transport_checksum,
    updated_checksum,
)
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmp_quote import Quote, find_quote, is_icmp_error
from midonet.packets.ipv4 import Ipv4Header
from midonet.packets.ipv6 import Ipv6Header
from midonet.packets.protocols import EtherType, IpProtocol

PREFIX_LENGTH = 96
HEADER_DIFFERENCE = 20
"""Bytes by which an IPv6 header is longer than an IPv4 header without options."""

_TCP, _UDP = int(IpProtocol.TCP), int(IpProtocol.UDP)
_ICMP, _ICMPV6 = int(IpProtocol.ICMP), int(IpProtocol.ICMPV6)
_CHECKSUM_AT = {_TCP: 16, _UDP: 6}
_ECHO_TO_V4 = {128: 8, 129: 0}
_ECHO_TO_V6 = {8: 128, 0: 129}
_PSEUDO_BITS = 272
_UNFRAGMENTED = 1260
"""IPv4 packets up to this size may be fragmented on their way (RFC 7915 section 5.1)."""
_IPV6_ERROR_MAX = 1280
_HOST_UNREACHABLE, _PORT_UNREACHABLE, _PROHIBITED = (3, 1), (3, 3), (3, 10)
_UNREACHABLE_TO_V4 = {
    0: _HOST_UNREACHABLE,
    1: _PROHIBITED,
    2: _HOST_UNREACHABLE,
    3: _HOST_UNREACHABLE,
    4: _PORT_UNREACHABLE,
}
_UNREACHABLE_TO_V6 = {
    **dict.fromkeys((0, 1, 5, 6, 7, 8, 11, 12), (1, 0)),
    3: (1, 4),
    **dict.fromkeys((9, 10, 13, 15), (1, 1)),
}


@dataclass(frozen=True, slots=True)
class FamilyChange:
    """What a packet becomes in the other IP version.

    quoted: tuple of the packet that an error quotes, as it is then; None of other packets.
    """

    version: IpVersion
    source: int
    destination: int
    quoted: FiveTuple | None = None


def embedded(prefix: int, address: int) -> int:
    """Return the IPv6 address that stands for an IPv4 address in a /96 prefix."""
    return prefix >> 32 << 32 | address


def other_protocol(protocol: int) -> int:
    """Return the protocol number in the other IP version."""
    return {_ICMP: _ICMPV6, _ICMPV6: _ICMP}.get(protocol, protocol)


def other_echo_type(version: IpVersion, kind: int) -> int | None:
    """Return the type of an echo message in the other version, None of another message.

    version: the one that `kind` is of.
    """
    return (_ECHO_TO_V4 if version is IpVersion.V6 else _ECHO_TO_V6).get(kind)


def change_family(packet: ParsedFrame, change: FamilyChange) -> bytes:
    """Return the frame with the packet in the other IP version; link header and tags stay.

    Raises DecodeError for what cannot be translated: a fragment, another protocol, an error
    that has no counterpart.
    """
    end = packet.l3_offset + packet.packet_length
    if packet.key.ip_frag != FragmentKind.NONE or end > len(packet.frame):
        raise DecodeError("only whole packets change their IP version")
    protocol = packet.key.ip_proto
    segment = bytearray(packet.frame[packet.l4_offset : end])
    if protocol in _CHECKSUM_AT:
        _carry_checksum(segment, protocol, packet, change)
    elif is_icmp_error(packet):
        segment = _error(packet, change)
    else:
        _echo(segment, packet, change)
    link = packet.frame[: packet.l3_offset - 2]
    kind = EtherType.IPV4 if change.version is IpVersion.V4 else EtherType.IPV6
    header = _header(change, other_protocol(protocol), len(segment), packet.key.ip_tos, packet.ttl)
    return link + kind.to_bytes(2, "big") + header + bytes(segment)


def _header(change: FamilyChange, protocol: int, size: int, tos: int, ttl: int) -> bytes:
    if change.version is IpVersion.V6:
        return Ipv6Header(change.source, change.destination, protocol, size, ttl, tos).serialise()
    total = HEADER_DIFFERENCE + size
    return Ipv4Header(
        change.source,
        change.destination,
        protocol,
        total,
        tos=tos,
        dont_fragment=total > _UNFRAGMENTED,
        ttl=ttl,
    ).serialise()


def _carry_checksum(
    segment: bytearray, protocol: int, packet: ParsedFrame, change: FamilyChange
) -> None:
    at = _CHECKSUM_AT[protocol]
    checksum = int.from_bytes(segment[at : at + 2], "big")
    if protocol == _UDP and checksum == 0:
        # IPv6 wants one (RFC 8200 section 8.1); the whole datagram is at hand.
        if change.version is IpVersion.V6:
            new = transport_checksum(segment, change.source, change.destination, protocol)
            segment[at : at + 2] = new.to_bytes(2, "big")
        return
    old = packet.key.ip_src + packet.key.ip_dst
    new = updated_checksum(checksum, old, change.source + change.destination, _PSEUDO_BITS)
    if protocol == _UDP and new == 0:
        new = 0xFFFF
    segment[at : at + 2] = new.to_bytes(2, "big")


def _echo(segment: bytearray, packet: ParsedFrame, change: FamilyChange) -> None:
    source = IpVersion.V6 if change.version is IpVersion.V4 else IpVersion.V4
    kind = other_echo_type(source, packet.key.l4_src)
    if packet.key.ip_proto not in (_ICMP, _ICMPV6) or kind is None:
        raise DecodeError("a packet that has no counterpart in the other IP version")
    before, after = packet.key.l4_src << 8, kind << 8
    size = len(segment)
    if change.version is IpVersion.V4:
        before += pseudo_header_sum(packet.key.ip_src, packet.key.ip_dst, _ICMPV6, size)
    else:
        after += pseudo_header_sum(change.source, change.destination, _ICMPV6, size)
    checksum = updated_checksum(int.from_bytes(segment[2:4], "big"), before, after, _PSEUDO_BITS)
    segment[0] = kind
    segment[2:4] = checksum.to_bytes(2, "big")


def _error(packet: ParsedFrame, change: FamilyChange) -> bytearray:
    quote = find_quote(packet)
    if quote is None or change.quoted is None or quote.ports is None:
        raise DecodeError("an error that quotes nothing to translate")
    start = packet.l4_offset
    kind, code = packet.key.l4_src, packet.key.l4_dst
    rest = int.from_bytes(packet.frame[start + 4 : start + 8], "big")
    to_v4 = change.version is IpVersion.V4
    kind, code, rest = (_error_to_v4 if to_v4 else _error_to_v6)(kind, code, rest)
    inner = _quoted(packet.frame, quote, change.quoted)
    if not to_v4:
        inner = inner[: _IPV6_ERROR_MAX - 48]
    message = bytearray((kind, code, 0, 0)) + rest.to_bytes(4, "big") + inner
    if to_v4:
        checksum = internet_checksum(message)
    else:
        checksum = transport_checksum(message, change.source, change.destination, _ICMPV6)
    message[2:4] = checksum.to_bytes(2, "big")
    return message


def _error_to_v4(kind: int, code: int, rest: int) -> tuple[int, int, int]:
    """Return type, code and second word in IPv4 (RFC 7915 section 5.2)."""
    if kind == 1 and code in _UNREACHABLE_TO_V4:
        return (*_UNREACHABLE_TO_V4[code], 0)
    if kind == 2:
        return 3, 4, min(max(rest - HEADER_DIFFERENCE, 68), 0xFFFF)
    if kind == 3:
        return 11, code, 0
    if kind == 4 and code == 1:
        return 3, 2, 0
    raise DecodeError("an ICMPv6 error without counterpart")


def _error_to_v6(kind: int, code: int, rest: int) -> tuple[int, int, int]:
    """Return type, code and second word in IPv6 (RFC 7915 section 4.2)."""
    if kind == 3 and code in _UNREACHABLE_TO_V6:
        return (*_UNREACHABLE_TO_V6[code], 0)
    if kind == 3 and code == 4:
        return 2, 0, max((rest & 0xFFFF) + HEADER_DIFFERENCE, _IPV6_ERROR_MAX)
    if kind == 3 and code == 2:
        return 4, 1, 6
    if kind == 11:
        return 3, code, 0
    raise DecodeError("an ICMP error without counterpart")


def _quoted(frame: bytes, quote: Quote, wanted: FiveTuple) -> bytes:
    """Return a quoted packet in the other version, as far as it was quoted."""
    segment = bytearray(frame[quote.l4_offset : quote.end])
    start = quote.l3_offset
    if quote.version is IpVersion.V4:
        tos, ttl = frame[start + 1], frame[start + 8]
        whole = int.from_bytes(frame[start + 2 : start + 4], "big")
        size = whole - (quote.l4_offset - start)
    else:
        tos = int.from_bytes(frame[start : start + 2], "big") >> 4 & 0xFF
        ttl = frame[start + 7]
        whole = int.from_bytes(frame[start + 4 : start + 6], "big")
        size = whole - (quote.l4_offset - start - 40)
    change = FamilyChange(wanted.version, wanted.source, wanted.destination)
    if quote.is_echo:
        kind = other_echo_type(quote.version, segment[0])
        if kind is None:
            raise DecodeError("a quoted message that is no echo")
        old_id = int.from_bytes(segment[4:6], "big")
        before = (segment[0] << 8) + old_id
        after = (kind << 8) + wanted.source_port
        if quote.version is IpVersion.V6:
            before += pseudo_header_sum(quote.source, quote.destination, _ICMPV6, size)
        else:
            after += pseudo_header_sum(wanted.source, wanted.destination, _ICMPV6, size)
        checksum = updated_checksum(
            int.from_bytes(segment[2:4], "big"), before, after, _PSEUDO_BITS
        )
        segment[0] = kind
        segment[2:4] = checksum.to_bytes(2, "big")
        segment[4:6] = wanted.source_port.to_bytes(2, "big")
    else:
        ports = int.from_bytes(segment[:2], "big") + int.from_bytes(segment[2:4], "big")
        segment[:4] = (wanted.source_port << 16 | wanted.destination_port).to_bytes(4, "big")
        at = _CHECKSUM_AT.get(quote.protocol)
        checksum = int.from_bytes(segment[at : at + 2], "big") if at is not None else 0
        if at is not None and at + 2 <= len(segment) and (checksum or quote.protocol == _TCP):
            old = quote.source + quote.destination + ports
            new = wanted.source + wanted.destination + wanted.source_port
            new += wanted.destination_port
            changed = updated_checksum(checksum, old, new, _PSEUDO_BITS)
            if quote.protocol == _UDP:
                changed = changed or 0xFFFF
            segment[at : at + 2] = changed.to_bytes(2, "big")
    header = _header(change, other_protocol(quote.protocol), max(size, 0) & 0xFFFF, tos, ttl)
    return header + bytes(segment)
