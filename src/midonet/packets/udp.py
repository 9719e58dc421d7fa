"""The UDP header (RFC 768)."""

from __future__ import annotations

from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

_HEADER = Struct("!HHHH")

UDP_HEADER_SIZE = 8


class UdpHeader(msgspec.Struct, frozen=True, gc=False):
    """A UDP header, RFC 768.

    ::

        +-------------------------------+-------------------------------+
        |          Source Port          |       Destination Port        |
        +-------------------------------+-------------------------------+
        |            Length             |           Checksum            |
        +-------------------------------+-------------------------------+

    length: bytes, this header included. checksum: as found; 0 says that there is none.
    """

    source_port: int
    destination_port: int
    length: int = UDP_HEADER_SIZE
    checksum: int = 0

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated."""
        if len(data) < offset + UDP_HEADER_SIZE:
            raise DecodeError("UDP header truncated")
        return cls(*_HEADER.unpack_from(data, offset))

    def serialise(self) -> bytes:
        """Return the 8 bytes of the header."""
        return _HEADER.pack(self.source_port, self.destination_port, self.length, self.checksum)

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return UDP_HEADER_SIZE
