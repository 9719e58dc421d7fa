"""The SCTP common header and its CRC32c (RFC 9260)."""

from __future__ import annotations

from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

_HEADER = Struct("!HHII")

SCTP_HEADER_SIZE = 12


class SctpHeader(msgspec.Struct, frozen=True, gc=False):
    """An SCTP common header, RFC 9260 section 3.1.

    ::

        +-------------------------------+-------------------------------+
        |          Source Port          |       Destination Port        |
        +-------------------------------+-------------------------------+
        |                       Verification Tag                        |
        +---------------------------------------------------------------+
        |                           Checksum                            |
        +---------------------------------------------------------------+

    checksum: the four bytes as found, read as a big-endian number.
    """

    source_port: int
    destination_port: int
    verification_tag: int = 0
    checksum: int = 0

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated."""
        if len(data) < offset + SCTP_HEADER_SIZE:
            raise DecodeError("SCTP header truncated")
        return cls(*_HEADER.unpack_from(data, offset))

    def serialise(self) -> bytes:
        """Return the 12 bytes of the header."""
        return _HEADER.pack(
            self.source_port, self.destination_port, self.verification_tag, self.checksum
        )

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return SCTP_HEADER_SIZE


def _crc_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = value >> 1 ^ (0x82F6_3B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _crc_update(value: int, data: bytes) -> int:
    table = _CRC_TABLE
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value


def crc32c(data: bytes) -> int:
    """Return the CRC32c of `data` (RFC 9260 appendix A).

    The checksum field of an SCTP packet holds it least significant byte first, computed over
    the packet with that field zero.
    """
    return _crc_update(0xFFFF_FFFF, data) ^ 0xFFFF_FFFF


def crc32c_change(difference: bytes, trailing: int) -> int:
    """Return what to xor into the CRC32c of a packet in which some bytes changed.

    difference: old xor new of the changed bytes. trailing: number of bytes behind them. As the
    CRC is linear, a wrong checksum stays wrong.
    """
    return _crc_update(_crc_update(0, difference), bytes(trailing))
