"""ICMPv6 (RFC 4443). Neighbour discovery messages are in `midonet.packets.nd`."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

_HEADER = Struct("!BBHI")

ICMPV6_HEADER_SIZE = 8


class Icmpv6Type(IntEnum):
    """Message types that matter here (RFC 4443 section 2.1)."""

    DESTINATION_UNREACHABLE = 1
    PACKET_TOO_BIG = 2
    TIME_EXCEEDED = 3
    PARAMETER_PROBLEM = 4
    ECHO_REQUEST = 128
    ECHO_REPLY = 129


class Icmpv6UnreachableCode(IntEnum):
    """Codes of destination unreachable (RFC 4443 section 3.1)."""

    NO_ROUTE = 0
    ADMINISTRATIVELY_PROHIBITED = 1
    ADDRESS = 3
    PORT = 4


class Icmpv6Header(msgspec.Struct, frozen=True, gc=False):
    """The first eight bytes of an ICMPv6 message, RFC 4443 sections 2.1, 3 and 4.

    ::

        +---------------+---------------+-------------------------------+
        |     Type      |     Code      |           Checksum            |
        +---------------+---------------+-------------------------------+
        |  echo: identifier             |  echo: sequence number        |
        |  packet too big: MTU (32 bits); other errors: unused          |
        +-------------------------------+-------------------------------+

    rest: the second word. checksum: as found; it covers a pseudo header, builders fill it in.
    """

    type: int
    code: int = 0
    rest: int = 0
    checksum: int = 0

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated."""
        if len(data) < offset + ICMPV6_HEADER_SIZE:
            raise DecodeError("ICMPv6 header truncated")
        kind, code, checksum, rest = _HEADER.unpack_from(data, offset)
        return cls(kind, code, rest, checksum)

    def serialise(self) -> bytes:
        """Return the 8 bytes of the header."""
        return _HEADER.pack(self.type, self.code, self.checksum, self.rest)

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return ICMPV6_HEADER_SIZE

    @property
    def identifier(self) -> int:
        """Identifier of an echo message; meaningless in others."""
        return self.rest >> 16

    @property
    def sequence(self) -> int:
        """Sequence number of an echo message; meaningless in others."""
        return self.rest & 0xFFFF

    @property
    def mtu_bytes(self) -> int:
        """MTU of a packet-too-big message, in bytes; meaningless in others."""
        return self.rest

    @property
    def is_error(self) -> bool:
        """Tell whether the message is an error, which no error may answer (section 2.4)."""
        return self.type < 128
