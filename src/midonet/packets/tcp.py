"""The TCP header (RFC 9293)."""

from __future__ import annotations

from enum import IntFlag
from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

_HEADER = Struct("!HHIIBBHHH")

TCP_HEADER_SIZE = 20
"""Size without options, in bytes."""


class TcpFlag(IntFlag):
    """Control bits (RFC 9293 section 3.1)."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


class TcpHeader(msgspec.Struct, frozen=True, gc=False):
    """A TCP header, RFC 9293 section 3.1.

    ::

         0                   1                   2                   3
        +-------------------------------+-------------------------------+
        |          Source Port          |       Destination Port        |
        +-------------------------------+-------------------------------+
        |                        Sequence Number                        |
        +---------------------------------------------------------------+
        |                    Acknowledgment Number                      |
        +-------+-------+---------------+-------------------------------+
        | Offset| Rsrvd | CWR ... FIN   |            Window             |
        +-------+-------+---------------+-------------------------------+
        |           Checksum            |         Urgent Pointer        |
        +-------------------------------+-------------------------------+
        |                    Options (0 to 40 bytes)                    |
        +---------------------------------------------------------------+

    flags: bits of TcpFlag. reserved: the four bits in front of them. options: a multiple of 4
    bytes, with their padding. checksum: as found; builders fill it in.
    """

    source_port: int
    destination_port: int
    sequence: int = 0
    acknowledgment: int = 0
    flags: int = TcpFlag.SYN
    window: int = 65535
    checksum: int = 0
    urgent_pointer: int = 0
    reserved: int = 0
    options: bytes = b""

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated or shorter than 20."""
        if len(data) < offset + TCP_HEADER_SIZE:
            raise DecodeError("TCP header truncated")
        source, destination, sequence, acknowledgment, position, flags, window, checksum, urgent = (
            _HEADER.unpack_from(data, offset)
        )
        size = (position >> 4) * 4
        if size < TCP_HEADER_SIZE or len(data) < offset + size:
            raise DecodeError("TCP options truncated")
        return cls(
            source,
            destination,
            sequence,
            acknowledgment,
            flags,
            window,
            checksum,
            urgent,
            position & 15,
            bytes(data[offset + TCP_HEADER_SIZE : offset + size]),
        )

    def serialise(self) -> bytes:
        """Return the bytes of the header."""
        fixed = _HEADER.pack(
            self.source_port,
            self.destination_port,
            self.sequence,
            self.acknowledgment,
            self.size // 4 << 4 | self.reserved,
            self.flags,
            self.window,
            self.checksum,
            self.urgent_pointer,
        )
        return fixed + self.options

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return TCP_HEADER_SIZE + len(self.options)
