"""DHCP messages (RFC 2131) and their options (RFC 2132, RFC 3396).

What is at hand is the payload of a UDP datagram. The legacy fields `sname` and `file` are kept
as they are; when the sender says that they hold options (option 52, overload), their options are
among the others and the fields are empty.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

DHCP_SERVER_PORT = 67
DHCP_CLIENT_PORT = 68

BOOTREQUEST = 1
BOOTREPLY = 2
ETHERNET = 1
"""Hardware type of Ethernet (RFC 1700)."""

BROADCAST_FLAG = 0x8000
"""The client takes no unicast before it has an address (RFC 2131 section 2)."""

_FIXED = Struct("!BBBBIHHIIII16s64s128s")
_MAGIC = bytes((99, 130, 83, 99))
_OPTIONS_AT = _FIXED.size + len(_MAGIC)
_PAD, _OVERLOAD, _END = 0, 52, 255
_LONGEST = 255

SMALLEST_MESSAGE_BYTES = 300
"""Relays and old clients take no less; zeros fill it up (RFC 1542 section 2.1)."""


class DhcpMessageType(IntEnum):
    """Values of option 53 (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class DhcpOptionCode(IntEnum):
    """Options that this package gives a meaning to (RFC 2132, RFC 3397, RFC 3442)."""

    SUBNET_MASK = 1
    ROUTERS = 3
    DNS_SERVERS = 6
    MTU = 26
    BROADCAST_ADDRESS = 28
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_IDENTIFIER = 54
    PARAMETER_LIST = 55
    MAX_MESSAGE_SIZE = 57
    CLASSLESS_ROUTES = 121


class DhcpOption(msgspec.Struct, frozen=True, gc=False):
    """One option: its code, 1 to 254, and its value of any length."""

    code: int
    value: bytes = b""


class Dhcpv4Message(msgspec.Struct, frozen=True):
    """A DHCP message, RFC 2131 section 2.

    ::

        +---------------+---------------+---------------+---------------+
        |      op       |     htype     |     hlen      |     hops      |
        +---------------+---------------+---------------+---------------+
        |                              xid                              |
        +-------------------------------+-------------------------------+
        |             secs              |             flags             |
        +-------------------------------+-------------------------------+
        |                ciaddr, yiaddr, siaddr, giaddr                 |
        +---------------------------------------------------------------+
        |           chaddr (16), sname (64), file (128)                 |
        +---------------------------------------------------------------+
        |  99 130 83 99, options ...

    hardware_address: the whole field of 16 bytes, of which hardware_length count.
    options: each code once, in the order of its first appearance. An option that comes in
        pieces is their concatenation (RFC 3396 section 5).
    """

    operation: int
    transaction_id: int
    hardware_address: bytes = bytes(16)
    hardware_type: int = ETHERNET
    hardware_length: int = 6
    hops: int = 0
    seconds: int = 0
    flags: int = 0
    client_address: int = 0
    your_address: int = 0
    next_server: int = 0
    relay_address: int = 0
    server_name: bytes = bytes(64)
    boot_file: bytes = bytes(128)
    options: tuple[DhcpOption, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a message with its end option in `data`. Raises DecodeError when malformed."""
        if len(data) < _OPTIONS_AT:
            raise DecodeError("DHCP message truncated")
        if data[_FIXED.size : _OPTIONS_AT] != _MAGIC:
            raise DecodeError("BOOTP message without DHCP options")
        (
            operation, hardware_type, hardware_length, hops, transaction_id, seconds, flags,
            client, your, next_server, relay, hardware_address, server_name, boot_file,
        ) = _FIXED.unpack_from(data)  # fmt: skip
        if hardware_length > len(hardware_address):
            raise DecodeError("DHCP hardware address is longer than its field")
        found: dict[int, bytes] = {}
        _gather(data, _OPTIONS_AT, found)
        overload = _overload(found)
        if overload & 1:
            _gather(boot_file, 0, found, is_overloaded=True)
            boot_file = bytes(128)
        if overload & 2:
            _gather(server_name, 0, found, is_overloaded=True)
            server_name = bytes(64)
        return cls(
            operation, transaction_id, hardware_address, hardware_type, hardware_length, hops,
            seconds, flags, client, your, next_server, relay, server_name, boot_file,
            tuple(DhcpOption(code, value) for code, value in found.items()),
        )  # fmt: skip

    def serialise(self) -> bytes:
        """Return the bytes of the message, options longer than 255 bytes in pieces."""
        fixed = _FIXED.pack(
            self.operation, self.hardware_type, self.hardware_length, self.hops,
            self.transaction_id, self.seconds, self.flags, self.client_address,
            self.your_address, self.next_server, self.relay_address, self.hardware_address,
            self.server_name, self.boot_file,
        )  # fmt: skip
        options = b"".join(map(serialise_option, self.options))
        return fixed + _MAGIC + options + bytes((_END,))

    def option(self, code: int) -> bytes | None:
        """Return the value of an option, None when it is not there."""
        for one in self.options:
            if one.code == code:
                return one.value
        return None

    def number(self, code: int, size: int) -> int | None:
        """Return an option of `size` bytes as a number; None when it is not there.

        Raises DecodeError when it has another size.
        """
        value = self.option(code)
        if value is None:
            return None
        if len(value) != size:
            raise DecodeError(f"DHCP option {code} is not {size} bytes long")
        return int.from_bytes(value, "big")


def serialise_option(option: DhcpOption) -> bytes:
    """Return the bytes of an option, in pieces when it is longer than 255 bytes."""
    value, pieces = option.value, []
    for start in range(0, max(1, len(value)), _LONGEST):
        piece = value[start : start + _LONGEST]
        pieces.append(bytes((option.code, len(piece))) + piece)
    return b"".join(pieces)


def room_for_options(message_size: int) -> int:
    """Return how many bytes of options a message has room for, its end option not counted.

    message_size: of the IP packet with 20 and 8 bytes of headers, as option 57 counts it.
    """
    return message_size - 28 - _OPTIONS_AT - 1


def _overload(found: dict[int, bytes]) -> int:
    value = found.pop(_OVERLOAD, None)
    if value is None:
        return 0
    if len(value) != 1 or value[0] not in (1, 2, 3):
        raise DecodeError("DHCP option overload has no meaning")
    return value[0]


def _gather(data: bytes, at: int, found: dict[int, bytes], *, is_overloaded: bool = False) -> None:
    """Enter the options from `at` on. Overload says nothing in the fields that it speaks of."""
    while at < len(data):
        code = data[at]
        at += 1
        if code == _PAD:
            continue
        if code == _END:
            return
        if at >= len(data) or at + 1 + data[at] > len(data):
            raise DecodeError("DHCP option truncated")
        end = at + 1 + data[at]
        if code != _OVERLOAD or not is_overloaded:
            found[code] = found.get(code, b"") + data[at + 1 : end]
        at = end
    raise DecodeError("DHCP options without an end")
