"""ARP for IPv4 over Ethernet (RFC 826)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

_MESSAGE = Struct("!HHBBHHIIHII")
_SIZE = 28


class ArpOperation(IntEnum):
    """Operations that matter here; others are carried as numbers."""

    REQUEST = 1
    REPLY = 2


class ArpMessage(msgspec.Struct, frozen=True, gc=False):
    """An ARP message for Ethernet and IPv4.

    ::

         0                   1                   2                   3
        +-------------------------------+-------------------------------+
        |  hardware space               |  protocol space = 0x0800      |
        +---------------+---------------+-------------------------------+
        |  hlen = 6     |  plen = 4     |  operation                    |
        +---------------+---------------+-------------------------------+
        |  sender hardware address (6 bytes)                            |
        +                               +-------------------------------+
        |                               |  sender protocol address      |
        +-------------------------------+-------------------------------+
        |  (continued)                  |  target hardware address (6)  |
        +-------------------------------+                               +
        |                                                               |
        +---------------------------------------------------------------+
        |  target protocol address                                      |
        +---------------------------------------------------------------+

    Hardware addresses are 48-bit, protocol addresses 32-bit integers. RFC 826, "Packet format".
    Written is hardware space 1 (Ethernet); read is any whose addresses are as long, because
    receivers take others too (Linux: 6, IEEE 802).
    """

    operation: int
    sender_mac: int
    sender_ip: int
    target_mac: int
    target_ip: int

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse a message at `offset`; what follows it is ignored.

        Raises DecodeError when it is truncated or not for Ethernet and IPv4.
        """
        if len(data) < offset + _SIZE:
            raise DecodeError("ARP message truncated")
        (_, protocol, hlen, plen, operation, *addresses) = _MESSAGE.unpack_from(data, offset)
        if protocol != 0x0800 or hlen != 6 or plen != 4:
            raise DecodeError("ARP message is not for Ethernet and IPv4")
        sender_high, sender_low, sender_ip, target_high, target_low, target_ip = addresses
        return cls(
            operation,
            sender_high << 32 | sender_low,
            sender_ip,
            target_high << 32 | target_low,
            target_ip,
        )

    def serialise(self) -> bytes:
        """Return the 28 bytes of the message."""
        return _MESSAGE.pack(
            1,
            0x0800,
            6,
            4,
            self.operation,
            self.sender_mac >> 32,
            self.sender_mac & 0xFFFF_FFFF,
            self.sender_ip,
            self.target_mac >> 32,
            self.target_mac & 0xFFFF_FFFF,
            self.target_ip,
        )

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return _SIZE
