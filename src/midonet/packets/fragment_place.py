"""Which part of its datagram a fragment is (RFC 791 section 3.2, RFC 8200 section 4.5)."""

from __future__ import annotations

from typing import NamedTuple

from midonet.packets.addresses import IpVersion
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.protocols import IpProtocol


class FragmentPlace(NamedTuple):
    """Bytes `start` to `end` (exclusive) of the fragmentable part of a datagram.

    identification: 16 bits of IPv4, 32 of IPv6. is_last: nothing comes behind it.
    """

    identification: int
    start: int
    end: int
    is_last: bool

    @property
    def is_first(self) -> bool:
        """Tell whether the datagram begins here."""
        return self.start == 0

    def overlaps(self, other: FragmentPlace) -> bool:
        """Tell whether both cannot be true: they share bytes, or one is behind the end."""
        if self.start < other.end and other.start < self.end:
            return True
        if self.is_last and (other.is_last or other.end > self.end):
            return True
        return other.is_last and self.end > other.end


def fragment_place(packet: ParsedFrame) -> FragmentPlace | None:
    """Return the place of a fragment in its datagram, None of what is none."""
    if packet.key.ip_frag == FragmentKind.NONE:
        return None
    frame, start = packet.frame, packet.l3_offset
    end = start + packet.packet_length
    if packet.ip_version is IpVersion.V4:
        word = frame[start + 6] << 8 | frame[start + 7]
        first = (word & 0x1FFF) * 8
        size = end - start - (frame[start] & 0xF) * 4
        identification = frame[start + 4] << 8 | frame[start + 5]
        return FragmentPlace(identification, first, first + size, not word & 0x2000)
    at = _fragment_header(frame, frame[start + 6], start + 40, min(end, len(frame)))
    if at is None:
        return None
    word = frame[at + 2] << 8 | frame[at + 3]
    first = word & 0xFFF8
    identification = int.from_bytes(frame[at + 4 : at + 8], "big")
    return FragmentPlace(identification, first, first + end - at - 8, not word & 1)


def _fragment_header(frame: bytes, next_header: int, offset: int, end: int) -> int | None:
    """Return where the fragment header is; the frame has been parsed, so its headers are sound."""
    while offset + 8 <= end:
        if next_header == IpProtocol.FRAGMENT:
            return offset
        next_header, size = frame[offset], (frame[offset + 1] + 1) * 8
        offset += size
    return None
