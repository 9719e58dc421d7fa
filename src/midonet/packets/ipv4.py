"""The IPv4 header (RFC 791)."""

from __future__ import annotations

from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError
from midonet.packets.checksum import internet_checksum

_HEADER = Struct("!BBHHHBBHII")

IPV4_HEADER_SIZE = 20
"""Size without options, in bytes."""


class Ipv4Header(msgspec.Struct, frozen=True, gc=False):
    """An IPv4 header, RFC 791 section 3.1.

    ::

         0                   1                   2                   3
        +-------+-------+---------------+-------------------------------+
        |Version|  IHL  |Type of Service|          Total Length         |
        +-------+-------+---------------+-----+-------------------------+
        |         Identification        |Flags|      Fragment Offset    |
        +---------------+---------------+-----+-------------------------+
        |  Time to Live |    Protocol   |         Header Checksum       |
        +---------------+---------------+-------------------------------+
        |                       Source Address                          |
        +---------------------------------------------------------------+
        |                    Destination Address                        |
        +---------------------------------------------------------------+
        |                    Options (0 to 40 bytes)                    |
        +---------------------------------------------------------------+

    total_length: bytes, this header included. fragment_offset: in bytes, a multiple of 8.
    options: a multiple of 4 bytes, with their padding. The checksum is not kept: it is written
    anew by `serialise` and not verified by `parse`.
    """

    source: int
    destination: int
    protocol: int
    total_length: int
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0
    ttl: int = 64
    options: bytes = b""

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`.

        Raises DecodeError when it is truncated, of another version, or shorter than 20 bytes.
        """
        if len(data) < offset + IPV4_HEADER_SIZE:
            raise DecodeError("IPv4 header truncated")
        version_ihl, tos, total, identification, flags, ttl, protocol, _, source, destination = (
            _HEADER.unpack_from(data, offset)
        )
        size = (version_ihl & 15) * 4
        if version_ihl >> 4 != 4 or size < IPV4_HEADER_SIZE:
            raise DecodeError("IPv4 header has another version or is too short")
        if len(data) < offset + size:
            raise DecodeError("IPv4 options truncated")
        return cls(
            source,
            destination,
            protocol,
            total,
            tos,
            identification,
            bool(flags & 0x4000),
            bool(flags & 0x2000),
            (flags & 0x1FFF) * 8,
            ttl,
            bytes(data[offset + IPV4_HEADER_SIZE : offset + size]),
        )

    def serialise(self) -> bytes:
        """Return the bytes of the header with its checksum."""
        header = bytearray(
            _HEADER.pack(
                0x40 | self.size // 4,
                self.tos,
                self.total_length,
                self.identification,
                self.dont_fragment << 14 | self.more_fragments << 13 | self.fragment_offset // 8,
                self.ttl,
                self.protocol,
                0,
                self.source,
                self.destination,
            )
        )
        header += self.options
        header[10:12] = internet_checksum(header).to_bytes(2, "big")
        return bytes(header)

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return IPV4_HEADER_SIZE + len(self.options)
