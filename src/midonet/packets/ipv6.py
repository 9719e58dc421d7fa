"""IPv6: the fixed header, the fragment header, and the walk over extension headers (RFC 8200)."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, Self

import msgspec

from midonet.errors import DecodeError
from midonet.packets.flowkey import FragmentKind
from midonet.packets.protocols import IpProtocol

_FIXED = Struct("!IHBBQQQQ")
_FRAGMENT = Struct("!BBHI")
_LOW = 0xFFFF_FFFF_FFFF_FFFF
_EXTENSION_HEADERS = (0, 43, 44, 60)  # hop-by-hop, routing, fragment, destination options

IPV6_HEADER_SIZE = 40
MAX_EXTENSION_HEADERS = 6
"""Extension headers walked; one more makes the packet malformed."""
MAX_EXTENSION_BYTES = 1024
"""Bytes of extension headers walked; more make the packet malformed.

Keeps the transport header inside any copy of 2048 bytes, so that a cut copy of a packet and
the whole packet have the same key.
"""


class Ipv6Header(msgspec.Struct, frozen=True, gc=False):
    """The fixed IPv6 header, RFC 8200 section 3.

    ::

         0                   1                   2                   3
        +-------+---------------+---------------------------------------+
        |Version| Traffic Class |           Flow Label                  |
        +-------+---------------+-------+---------------+---------------+
        |         Payload Length        |  Next Header  |   Hop Limit   |
        +-------------------------------+---------------+---------------+
        |                     Source Address (16)                       |
        +---------------------------------------------------------------+
        |                     Destination Address (16)                  |
        +---------------------------------------------------------------+

    payload_length: bytes behind this header, extension headers included.
    """

    source: int
    destination: int
    next_header: int
    payload_length: int = 0
    hop_limit: int = 64
    traffic_class: int = 0
    flow_label: int = 0

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated or not version 6."""
        if len(data) < offset + IPV6_HEADER_SIZE:
            raise DecodeError("IPv6 header truncated")
        (word, payload_length, next_header, hop_limit, *addresses) = _FIXED.unpack_from(
            data, offset
        )
        if word >> 28 != 6:
            raise DecodeError("IPv6 header has another version")
        return cls(
            addresses[0] << 64 | addresses[1],
            addresses[2] << 64 | addresses[3],
            next_header,
            payload_length,
            hop_limit,
            word >> 20 & 0xFF,
            word & 0xF_FFFF,
        )

    def serialise(self) -> bytes:
        """Return the 40 bytes of the header."""
        return _FIXED.pack(
            6 << 28 | self.traffic_class << 20 | self.flow_label,
            self.payload_length,
            self.next_header,
            self.hop_limit,
            self.source >> 64,
            self.source & _LOW,
            self.destination >> 64,
            self.destination & _LOW,
        )

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return IPV6_HEADER_SIZE


class FragmentHeader(msgspec.Struct, frozen=True, gc=False):
    """The fragment header, RFC 8200 section 4.5.

    ::

        +---------------+---------------+-------------------------+---+-+
        |  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
        +---------------+---------------+-------------------------+---+-+
        |                         Identification                        |
        +---------------------------------------------------------------+

    fragment_offset: in bytes, a multiple of 8.
    """

    next_header: int
    fragment_offset: int
    more_fragments: bool
    identification: int

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated."""
        if len(data) < offset + 8:
            raise DecodeError("IPv6 fragment header truncated")
        next_header, _, position, identification = _FRAGMENT.unpack_from(data, offset)
        return cls(next_header, position & 0xFFF8, bool(position & 1), identification)

    def serialise(self) -> bytes:
        """Return the 8 bytes of the header, reserved bits zero."""
        return _FRAGMENT.pack(
            self.next_header, 0, self.fragment_offset | self.more_fragments, self.identification
        )

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return 8


class ExtensionHeader(msgspec.Struct, frozen=True, gc=False):
    """A hop-by-hop, routing or destination options header, RFC 8200 sections 4.3, 4.4, 4.6.

    ::

        +---------------+---------------+-------------------------------+
        |  Next Header  |  Hdr Ext Len  |                               |
        +---------------+---------------+                               +
        |                          body                                 |
        +---------------------------------------------------------------+

    body: everything behind the two first bytes; 6 + 8 * Hdr Ext Len bytes.
    """

    next_header: int
    body: bytes

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated."""
        if len(data) < offset + 8:
            raise DecodeError("IPv6 extension header truncated")
        end = offset + (data[offset + 1] + 1) * 8
        if len(data) < end:
            raise DecodeError("IPv6 extension header truncated")
        return cls(data[offset], bytes(data[offset + 2 : end]))

    def serialise(self) -> bytes:
        """Return the bytes of the header."""
        return bytes((self.next_header, len(self.body) // 8)) + self.body

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return 2 + len(self.body)


class PayloadLocation(NamedTuple):
    """What follows the IP headers of a packet.

    protocol: last next-header value met. offset: where that header starts.
    fragment: a FragmentKind. fragment_offset: in bytes; 0 unless it is a later one. A later
    fragment has no transport header: what is at `offset` is a piece of a payload, and `protocol`
    is the next header that its fragment header names.
    """

    protocol: int
    offset: int
    fragment: int
    fragment_offset: int = 0


def locate_payload(frame: bytes, next_header: int, offset: int, end: int) -> PayloadLocation:
    """Walk the extension headers from `offset` (behind the fixed header) up to `end`.

    Walked are hop-by-hop, routing, destination options and one fragment header, wherever they
    stand; any other value ends the walk, known or not. Raises DecodeError when a header is
    truncated, a second fragment header is met, or there are more than MAX_EXTENSION_HEADERS
    or MAX_EXTENSION_BYTES of them.
    """
    fragment = FragmentKind.NONE
    is_fragment_seen = False
    position = 0
    start = offset
    for _ in range(MAX_EXTENSION_HEADERS):
        if next_header == IpProtocol.FRAGMENT:
            if is_fragment_seen or offset + 8 > end:
                raise DecodeError("IPv6 fragment header truncated or repeated")
            is_fragment_seen = True
            size = 8
            position = frame[offset + 2] << 8 | frame[offset + 3]
            if position & 0xFFF8:
                fragment = FragmentKind.LATER
            elif position & 1:
                fragment = FragmentKind.FIRST
        elif next_header in (0, 43, 60):  # hop-by-hop, routing, destination options
            if offset + 8 > end:
                raise DecodeError("IPv6 extension header truncated")
            size = (frame[offset + 1] + 1) * 8
        else:
            return PayloadLocation(next_header, offset, fragment)
        next_header = frame[offset]
        offset += size
        if offset > end or offset - start > MAX_EXTENSION_BYTES:
            raise DecodeError("IPv6 extension headers truncated or too long")
        if fragment == FragmentKind.LATER:
            return PayloadLocation(next_header, offset, fragment, position & 0xFFF8)
    if next_header not in _EXTENSION_HEADERS:
        return PayloadLocation(next_header, offset, fragment)
    raise DecodeError("too many IPv6 extension headers")
