"""DHCPv6 messages between clients and servers, and their options (RFC 8415).

What is at hand is the payload of a UDP datagram. Messages of relay agents have another shape and
are not read here.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

DHCP6_CLIENT_PORT = 546
DHCP6_SERVER_PORT = 547
ALL_DHCP_AGENTS = 0xFF02 << 112 | 0x1_0002
"""ff02::1:2, All_DHCP_Relay_Agents_and_Servers (RFC 8415 section 7.1)."""

DUID_MAX_BYTES = 130
"""Type and at most 128 bytes (RFC 8415 section 11.1)."""

_OPTION = Struct("!HH")
_ASSOCIATION = Struct("!III")
_RELAY_MESSAGES = (12, 13)


class Dhcpv6MessageType(IntEnum):
    """Message types (RFC 8415 section 7.3)."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION_REQUEST = 11


class Dhcpv6OptionCode(IntEnum):
    """Options that this package gives a meaning to (RFC 8415 section 21, RFC 3646)."""

    CLIENT_ID = 1
    SERVER_ID = 2
    IA_NA = 3
    IA_TA = 4
    IA_ADDRESS = 5
    OPTION_REQUEST = 6
    PREFERENCE = 7
    STATUS_CODE = 13
    RAPID_COMMIT = 14
    DNS_SERVERS = 23
    DOMAIN_LIST = 24
    IA_PD = 25


class Dhcpv6Status(IntEnum):
    """Values of the status code option (RFC 8415 section 21.13)."""

    SUCCESS = 0
    NO_ADDRS_AVAIL = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    NO_PREFIX_AVAIL = 6


class Dhcpv6Option(msgspec.Struct, frozen=True, gc=False):
    """One option, RFC 8415 section 21.1.

    ::

        +-------------------------------+-------------------------------+
        |             code              |            length             |
        +-------------------------------+-------------------------------+
        |  value ...
    """

    code: int
    value: bytes = b""

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the option at `offset`. Raises DecodeError when truncated."""
        if len(data) < offset + _OPTION.size:
            raise DecodeError("DHCPv6 option truncated")
        code, length = _OPTION.unpack_from(data, offset)
        start = offset + _OPTION.size
        if len(data) < start + length:
            raise DecodeError("DHCPv6 option is longer than what holds it")
        return cls(code, bytes(data[start : start + length]))

    def serialise(self) -> bytes:
        """Return the bytes of the option."""
        return _OPTION.pack(self.code, len(self.value)) + self.value

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return _OPTION.size + len(self.value)


def parse_options(data: bytes, offset: int = 0) -> tuple[Dhcpv6Option, ...]:
    """Parse the options that take the rest of `data`. Raises DecodeError when malformed."""
    found = []
    while offset < len(data):
        option = Dhcpv6Option.parse(data, offset)
        found.append(option)
        offset += option.size
    return tuple(found)


def find_option(options: tuple[Dhcpv6Option, ...], code: int) -> bytes | None:
    """Return the value of the first option with a code, None when there is none."""
    for option in options:
        if option.code == code:
            return option.value
    return None


class Dhcpv6Message(msgspec.Struct, frozen=True):
    """A message between client and server, RFC 8415 section 8.

    ::

        +---------------+-----------------------------------------------+
        |     type      |                transaction id                 |
        +---------------+-----------------------------------------------+
        |  options ...
    """

    kind: int
    transaction_id: int
    options: tuple[Dhcpv6Option, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a message that takes all of `data`. Raises DecodeError when malformed."""
        if len(data) < 4:
            raise DecodeError("DHCPv6 message truncated")
        if data[0] in _RELAY_MESSAGES:
            raise DecodeError("DHCPv6 message of a relay agent")
        return cls(data[0], int.from_bytes(data[1:4], "big"), parse_options(data, 4))

    def serialise(self) -> bytes:
        """Return the bytes of the message."""
        head = bytes((self.kind,)) + self.transaction_id.to_bytes(3, "big")
        return head + b"".join(option.serialise() for option in self.options)


class IdentityAssociation(msgspec.Struct, frozen=True):
    """Value of IA_NA (RFC 8415 section 21.4): for whom addresses are, and which.

    ::

        +---------------------------------------------------------------+
        |                             IAID                              |
        +---------------------------------------------------------------+
        |                       T1 (s), then T2 (s)                     |
        +---------------------------------------------------------------+
        |  options ...
    """

    identity: int
    renew_s: int = 0
    rebind_s: int = 0
    options: tuple[Dhcpv6Option, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a value that takes all of `data`. Raises DecodeError when malformed."""
        if len(data) < _ASSOCIATION.size:
            raise DecodeError("DHCPv6 identity association truncated")
        identity, renew_s, rebind_s = _ASSOCIATION.unpack_from(data)
        return cls(identity, renew_s, rebind_s, parse_options(data, _ASSOCIATION.size))

    def serialise(self) -> bytes:
        """Return the bytes of the value."""
        fixed = _ASSOCIATION.pack(self.identity, self.renew_s, self.rebind_s)
        return fixed + b"".join(option.serialise() for option in self.options)

    @property
    def addresses(self) -> tuple[int, ...]:
        """Addresses of its address options. Raises DecodeError when one is malformed."""
        return tuple(
            IaAddress.parse(option.value).address
            for option in self.options
            if option.code == Dhcpv6OptionCode.IA_ADDRESS
        )


class IaAddress(msgspec.Struct, frozen=True):
    """Value of an address option (RFC 8415 section 21.6); lifetimes in seconds.

    ::

        +---------------------------------------------------------------+
        |                        IPv6 address (16)                      |
        +---------------------------------------------------------------+
        |            preferred lifetime, then valid lifetime            |
        +---------------------------------------------------------------+
        |  options ...
    """

    address: int
    preferred_s: int = 0
    valid_s: int = 0
    options: tuple[Dhcpv6Option, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a value that takes all of `data`. Raises DecodeError when malformed."""
        if len(data) < 24:
            raise DecodeError("DHCPv6 address option truncated")
        return cls(
            int.from_bytes(data[:16], "big"),
            int.from_bytes(data[16:20], "big"),
            int.from_bytes(data[20:24], "big"),
            parse_options(data, 24),
        )

    def serialise(self) -> bytes:
        """Return the bytes of the value."""
        times = self.preferred_s.to_bytes(4, "big") + self.valid_s.to_bytes(4, "big")
        rest = b"".join(option.serialise() for option in self.options)
        return self.address.to_bytes(16, "big") + times + rest
