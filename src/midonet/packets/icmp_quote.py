"""The packet quoted in an ICMP or ICMPv6 error: where it is, and whose it was.

RFC 792 quotes the IP header and 64 bits behind it, RFC 1812 and RFC 4443 as much as fits; RFC 4884
may pad the quote and append extensions. A quote is foreign data within foreign data: any length
and any header in it may lie, so that only what lies within the error counts. What cannot be
read is no quote, and the error is about nobody's packet.
"""

from __future__ import annotations

from typing import NamedTuple

from midonet.errors import DecodeError
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmpv4 import Icmpv4Type
from midonet.packets.icmpv6 import Icmpv6Type
from midonet.packets.ipv6 import PayloadLocation, locate_payload
from midonet.packets.protocols import IpProtocol

_ICMP_HEADER = 8
_PORTS = frozenset((int(IpProtocol.TCP), int(IpProtocol.UDP), int(IpProtocol.SCTP)))
_ERRORS = {
    (IpVersion.V4, int(IpProtocol.ICMP)): frozenset((3, 4, 5, 11, 12)),
    (IpVersion.V6, int(IpProtocol.ICMPV6)): frozenset((1, 2, 3, 4)),
}
_ECHO = {
    (IpVersion.V4, int(IpProtocol.ICMP)): frozenset(
        (int(Icmpv4Type.ECHO_REQUEST), int(Icmpv4Type.ECHO_REPLY))
    ),
    (IpVersion.V6, int(IpProtocol.ICMPV6)): frozenset(
        (int(Icmpv6Type.ECHO_REQUEST), int(Icmpv6Type.ECHO_REPLY))
    ),
}
_LENGTH_FIELDS = {
    IpVersion.V4: (frozenset((3, 11, 12)), 5, 4),
    IpVersion.V6: (frozenset((1, 3)), 4, 8),
}
"""By version: types with a length field (RFC 4884 section 4), its offset, its unit in bytes."""


class Quote(NamedTuple):
    """A quoted packet.

    l3_offset, l4_offset: of its headers, in bytes of the frame of the error. l4_offset is 0 when
        the quote has no eight bytes of the transport header, or was a later fragment.
    end: where the quoted bytes end. protocol, source, destination: of the quoted header.
    ports: source and destination port; the identifier of an echo twice; None when there are none.
    """

    version: IpVersion
    l3_offset: int
    l4_offset: int
    end: int
    protocol: int
    source: int
    destination: int
    ports: tuple[int, int] | None

    @property
    def is_echo(self) -> bool:
        """Tell whether an ICMP echo is quoted, whose identifier stands in both ports."""
        return self.ports is not None and self.protocol not in _PORTS

    @property
    def tuple(self) -> FiveTuple | None:
        """The five-tuple of the quoted packet, None when it shows none."""
        if self.ports is None:
            return None
        source_port, destination_port = self.ports
        return FiveTuple(
            self.version,
            self.protocol,
            self.source,
            source_port,
            self.destination,
            destination_port,
        )


def is_icmp_error(packet: ParsedFrame) -> bool:
    """Tell whether a packet is an ICMP or ICMPv6 error, whole or the first of its fragments."""
    version, key = packet.ip_version, packet.key
    if version is None or key.ip_frag == FragmentKind.LATER:
        return False
    return key.l4_src in _ERRORS.get((version, key.ip_proto), ())


def find_quote(packet: ParsedFrame) -> Quote | None:
    """Return what an error quotes; None for all else, and when it cannot be read."""
    version = packet.ip_version
    if version is None or not is_icmp_error(packet):
        return None
    frame, start = packet.frame, packet.l4_offset + _ICMP_HEADER
    end = min(len(frame), packet.l3_offset + packet.packet_length)
    kinds, field, unit = _LENGTH_FIELDS[version]
    if packet.key.l4_src in kinds:
        stated = frame[packet.l4_offset + field] * unit
        end = min(end, start + stated) if stated else end
    read = _read_ipv4 if version is IpVersion.V4 else _read_ipv6
    return read(frame, start, end)


def _read_ipv4(frame: bytes, start: int, end: int) -> Quote | None:
    if start + 20 > end or frame[start] >> 4 != 4:
        return None
    header_size = (frame[start] & 0xF) * 4
    if header_size < 20 or start + header_size > end:
        return None
    is_later = bool((frame[start + 6] << 8 | frame[start + 7]) & 0x1FFF)
    source = int.from_bytes(frame[start + 12 : start + 16], "big")
    destination = int.from_bytes(frame[start + 16 : start + 20], "big")
    l4_offset = 0 if is_later else start + header_size
    bare = Quote(IpVersion.V4, start, 0, end, frame[start + 9], source, destination, None)
    return _with_ports(frame, bare, l4_offset)


def _read_ipv6(frame: bytes, start: int, end: int) -> Quote | None:
    if start + 40 > end or frame[start] >> 4 != 6:
        return None
    source = int.from_bytes(frame[start + 8 : start + 24], "big")
    destination = int.from_bytes(frame[start + 24 : start + 40], "big")
    try:
        location = locate_payload(frame, frame[start + 6], start + 40, end)
    except DecodeError:
        location = PayloadLocation(frame[start + 6], 0, int(FragmentKind.LATER))
    l4_offset = 0 if location.fragment == FragmentKind.LATER else location.offset
    bare = Quote(IpVersion.V6, start, 0, end, location.protocol, source, destination, None)
    return _with_ports(frame, bare, l4_offset)


def _with_ports(frame: bytes, bare: Quote, l4_offset: int) -> Quote:
    """Return a quote with what it shows of the transport header at `l4_offset`, 0 for nothing."""
    if not l4_offset or l4_offset + 8 > bare.end:
        return bare
    ports = None
    if bare.protocol in _PORTS:
        ports = _word(frame, l4_offset), _word(frame, l4_offset + 2)
    elif frame[l4_offset] in _ECHO.get((bare.version, bare.protocol), ()):
        ports = _word(frame, l4_offset + 4), _word(frame, l4_offset + 4)
    return bare._replace(l4_offset=l4_offset, ports=ports)


def _word(frame: bytes, offset: int) -> int:
    return frame[offset] << 8 | frame[offset + 1]
