"""What the headers of ICMP for IPv4 and of ICMPv6 have in common."""

from __future__ import annotations

from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

_HEADER = Struct("!BBHI")

ICMP_HEADER_SIZE = 8


class IcmpHeader(msgspec.Struct, frozen=True, gc=False):
    """Type, code, checksum and a word whose meaning depends on the type (RFC 792, RFC 4443)."""

    type: int
    code: int = 0
    rest: int = 0
    checksum: int = 0

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated."""
        if len(data) < offset + ICMP_HEADER_SIZE:
            raise DecodeError("ICMP header truncated")
        kind, code, checksum, rest = _HEADER.unpack_from(data, offset)
        return cls(kind, code, rest, checksum)

    def serialise(self) -> bytes:
        """Return the 8 bytes of the header."""
        return _HEADER.pack(self.type, self.code, self.checksum, self.rest)

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return ICMP_HEADER_SIZE

    @property
    def identifier(self) -> int:
        """Identifier of an echo message; meaningless in others."""
        return self.rest >> 16

    @property
    def sequence(self) -> int:
        """Sequence number of an echo message; meaningless in others."""
        return self.rest & 0xFFFF
