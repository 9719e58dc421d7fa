"""Neighbour discovery messages and their link-layer address options (RFC 4861).

A message here is a whole ICMPv6 message from its type on. `checksum` is carried as found; who
builds a message fills it in (`midonet.packets.neighbour`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Self

import msgspec

from midonet.errors import DecodeError
from midonet.packets.addresses import IpPrefix
from midonet.packets.domain_names import domain_names

_PREFIX = Struct("!BBHI")
_ADVERTISED = Struct("!BBHBBHII")
_PREFIX_INFORMATION = Struct("!BBIII")
_RESERVED_AND_WORD = Struct("!HI")
_ON_LINK, _AUTONOMOUS = 0x80, 0x40


class NdType(IntEnum):
    """ICMPv6 types of neighbour discovery (RFC 4861 section 4)."""

    ROUTER_SOLICITATION = 133
    ROUTER_ADVERTISEMENT = 134
    NEIGHBOUR_SOLICITATION = 135
    NEIGHBOUR_ADVERTISEMENT = 136


class NdOptionKind(IntEnum):
    """Option types (RFC 4861 section 4.6, RFC 8106 section 5)."""

    SOURCE_LINK_ADDRESS = 1
    TARGET_LINK_ADDRESS = 2
    PREFIX_INFORMATION = 3
    MTU = 5
    RECURSIVE_DNS_SERVER = 25
    DNS_SEARCH_LIST = 31


class NdOption(msgspec.Struct, frozen=True, gc=False):
    """One option, RFC 4861 section 4.6.

    ::

        +---------------+---------------+-------------------------------+
        |     Type      | Length (* 8)  |              ...              |
        +---------------+---------------+-------------------------------+

    value: what follows type and length; 6 + 8 * n bytes.
    """

    kind: int
    value: bytes

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the option at `offset`. Raises DecodeError when truncated or of length 0."""
        if len(data) < offset + 8:
            raise DecodeError("ND option truncated")
        end = offset + data[offset + 1] * 8
        if end == offset or end > len(data):
            raise DecodeError("ND option has a bad length")
        return cls(data[offset], bytes(data[offset + 2 : end]))

    def serialise(self) -> bytes:
        """Return the bytes of the option."""
        return bytes((self.kind, (len(self.value) + 2) // 8)) + self.value

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return 2 + len(self.value)


def link_address_option(kind: NdOptionKind, mac: int) -> NdOption:
    """Return a source or target link-layer address option for an Ethernet address."""
    return NdOption(kind, mac.to_bytes(6, "big"))


def prefix_option(
    prefix: IpPrefix, *, is_autonomous: bool, valid_s: int, preferred_s: int
) -> NdOption:
    """Return a prefix information option of an IPv6 network on the link (RFC 4861 4.6.2).

    is_autonomous: hosts make addresses of it (RFC 4862).
    """
    flags = _ON_LINK | (_AUTONOMOUS if is_autonomous else 0)
    fixed = _PREFIX_INFORMATION.pack(prefix.length, flags, valid_s, preferred_s, 0)
    return NdOption(NdOptionKind.PREFIX_INFORMATION, fixed + prefix.network.to_bytes(16, "big"))


def mtu_option(mtu_bytes: int) -> NdOption:
    """Return an MTU option (RFC 4861 section 4.6.4)."""
    return NdOption(NdOptionKind.MTU, _RESERVED_AND_WORD.pack(0, mtu_bytes))


def dns_servers_option(addresses: Iterable[int], lifetime_s: int) -> NdOption:
    """Return a recursive DNS server option (RFC 8106 section 5.1)."""
    listed = b"".join(address.to_bytes(16, "big") for address in addresses)
    fixed = _RESERVED_AND_WORD.pack(0, lifetime_s)
    return NdOption(NdOptionKind.RECURSIVE_DNS_SERVER, fixed + listed)


def dns_search_option(names: Iterable[str], lifetime_s: int) -> NdOption:
    """Return a DNS search list option of well-formed names (RFC 8106 section 5.2)."""
    listed = domain_names(names)
    fixed = _RESERVED_AND_WORD.pack(0, lifetime_s)
    return NdOption(NdOptionKind.DNS_SEARCH_LIST, fixed + listed + bytes(-len(listed) % 8))


def find_link_address(data: bytes, start: int, end: int, kind: int) -> int | None:
    """Return the Ethernet address in the first option of `kind` between `start` and `end`.

    None when there is none, or an option before it is malformed. Never raises.
    """
    while start + 8 <= end:
        size = data[start + 1] * 8
        if size == 0 or start + size > end:
            return None
        if data[start] == kind and size == 8:
            return int.from_bytes(data[start + 2 : start + 8], "big")
        start += size
    return None


_LINK_ADDRESS_KINDS = frozenset(
    (int(NdOptionKind.SOURCE_LINK_ADDRESS), int(NdOptionKind.TARGET_LINK_ADDRESS))
)


def link_addresses(data: bytes, start: int, end: int) -> tuple[int, ...] | None:
    """Return the Ethernet address of every source and target link-layer address option.

    None when an option is malformed, or such an option is not of Ethernet. Never raises.
    """
    found = []
    while start < end:
        size = data[start + 1] * 8 if start + 2 <= end else 0
        if size == 0 or start + size > end:
            return None
        if data[start] in _LINK_ADDRESS_KINDS:
            if size != 8:
                return None
            found.append(int.from_bytes(data[start + 2 : start + 8], "big"))
        start += size
    return tuple(found)


def _parse_options(data: bytes, offset: int) -> tuple[NdOption, ...]:
    options = []
    while offset < len(data):
        option = NdOption.parse(data, offset)
        options.append(option)
        offset += option.size
    return tuple(options)


def _serialise_options(options: tuple[NdOption, ...]) -> bytes:
    return b"".join(option.serialise() for option in options)


def _link_address(options: tuple[NdOption, ...], kind: NdOptionKind) -> int | None:
    for option in options:
        if option.kind == kind and len(option.value) == 6:
            return int.from_bytes(option.value, "big")
    return None


def _parse_fixed(data: bytes, kind: NdType, size: int) -> tuple[int, int]:
    """Check type, code and size; return the checksum and the second word."""
    if len(data) < size:
        raise DecodeError("ND message truncated")
    found, code, checksum, word = _PREFIX.unpack_from(data)
    if found != kind or code != 0:
        raise DecodeError("ND message of another type or code")
    return checksum, word


class NeighbourSolicitation(msgspec.Struct, frozen=True):
    """Who has this address, RFC 4861 section 4.3.

    ::

        +---------------+---------------+-------------------------------+
        |   Type = 135  |   Code = 0    |           Checksum            |
        +---------------+---------------+-------------------------------+
        |                           Reserved                            |
        +---------------------------------------------------------------+
        |                       Target Address (16)                     |
        +---------------------------------------------------------------+
        |   Options ...
    """

    TYPE: ClassVar[NdType] = NdType.NEIGHBOUR_SOLICITATION

    target: int
    options: tuple[NdOption, ...] = ()
    checksum: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a message that takes all of `data`. Raises DecodeError when malformed."""
        checksum, _ = _parse_fixed(data, cls.TYPE, 24)
        target = int.from_bytes(data[8:24], "big")
        return cls(target, _parse_options(data, 24), checksum)

    def serialise(self) -> bytes:
        """Return the bytes of the message."""
        fixed = _PREFIX.pack(self.TYPE, 0, self.checksum, 0)
        return fixed + self.target.to_bytes(16, "big") + _serialise_options(self.options)

    @property
    def link_address(self) -> int | None:
        """Source link-layer address, if the message carries one."""
        return _link_address(self.options, NdOptionKind.SOURCE_LINK_ADDRESS)


class NeighbourAdvertisement(msgspec.Struct, frozen=True):
    """I have this address, RFC 4861 section 4.4.

    ::

        +---------------+---------------+-------------------------------+
        |   Type = 136  |   Code = 0    |           Checksum            |
        +-+-+-+---------+---------------+-------------------------------+
        |R|S|O|                     Reserved                            |
        +-+-+-+---------------------------------------------------------+
        |                       Target Address (16)                     |
        +---------------------------------------------------------------+
        |   Options ...
    """

    TYPE: ClassVar[NdType] = NdType.NEIGHBOUR_ADVERTISEMENT

    target: int
    is_router: bool = False
    is_solicited: bool = False
    is_override: bool = False
    options: tuple[NdOption, ...] = ()
    checksum: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a message that takes all of `data`. Raises DecodeError when malformed."""
        checksum, flags = _parse_fixed(data, cls.TYPE, 24)
        return cls(
            int.from_bytes(data[8:24], "big"),
            bool(flags >> 31),
            bool(flags >> 30 & 1),
            bool(flags >> 29 & 1),
            _parse_options(data, 24),
            checksum,
        )

    def serialise(self) -> bytes:
        """Return the bytes of the message."""
        flags = self.is_router << 31 | self.is_solicited << 30 | self.is_override << 29
        fixed = _PREFIX.pack(self.TYPE, 0, self.checksum, flags)
        return fixed + self.target.to_bytes(16, "big") + _serialise_options(self.options)

    @property
    def link_address(self) -> int | None:
        """Target link-layer address, if the message carries one."""
        return _link_address(self.options, NdOptionKind.TARGET_LINK_ADDRESS)


class RouterSolicitation(msgspec.Struct, frozen=True):
    """Routers, speak up, RFC 4861 section 4.1.

    ::

        +---------------+---------------+-------------------------------+
        |   Type = 133  |   Code = 0    |           Checksum            |
        +---------------+---------------+-------------------------------+
        |                           Reserved                            |
        +---------------------------------------------------------------+
        |   Options ...
    """

    TYPE: ClassVar[NdType] = NdType.ROUTER_SOLICITATION

    options: tuple[NdOption, ...] = ()
    checksum: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a message that takes all of `data`. Raises DecodeError when malformed."""
        checksum, _ = _parse_fixed(data, cls.TYPE, 8)
        return cls(_parse_options(data, 8), checksum)

    def serialise(self) -> bytes:
        """Return the bytes of the message."""
        return _PREFIX.pack(self.TYPE, 0, self.checksum, 0) + _serialise_options(self.options)

    @property
    def link_address(self) -> int | None:
        """Source link-layer address, if the message carries one."""
        return _link_address(self.options, NdOptionKind.SOURCE_LINK_ADDRESS)


class RouterAdvertisement(msgspec.Struct, frozen=True):
    """I am a router, RFC 4861 section 4.2.

    ::

        +---------------+---------------+-------------------------------+
        |   Type = 134  |   Code = 0    |           Checksum            |
        +---------------+-+-+-----------+-------------------------------+
        | Cur Hop Limit |M|O| Reserved  |       Router Lifetime (s)     |
        +---------------+-+-+-----------+-------------------------------+
        |                      Reachable Time (ms)                      |
        +---------------------------------------------------------------+
        |                      Retrans Timer (ms)                       |
        +---------------------------------------------------------------+
        |   Options ...

    flags: the eight bits of M, O and those defined later (RFC 5175), kept as they are.
    """

    TYPE: ClassVar[NdType] = NdType.ROUTER_ADVERTISEMENT

    hop_limit: int = 64
    flags: int = 0
    lifetime_s: int = 0
    reachable_ms: int = 0
    retransmit_ms: int = 0
    options: tuple[NdOption, ...] = ()
    checksum: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a message that takes all of `data`. Raises DecodeError when malformed."""
        checksum, _ = _parse_fixed(data, cls.TYPE, 16)
        _, _, _, hop_limit, flags, lifetime, reachable, retransmit = _ADVERTISED.unpack_from(data)
        options = _parse_options(data, 16)
        return cls(hop_limit, flags, lifetime, reachable, retransmit, options, checksum)

    def serialise(self) -> bytes:
        """Return the bytes of the message."""
        fixed = _ADVERTISED.pack(
            self.TYPE,
            0,
            self.checksum,
            self.hop_limit,
            self.flags,
            self.lifetime_s,
            self.reachable_ms,
            self.retransmit_ms,
        )
        return fixed + _serialise_options(self.options)

    @property
    def link_address(self) -> int | None:
        """Source link-layer address, if the message carries one."""
        return _link_address(self.options, NdOptionKind.SOURCE_LINK_ADDRESS)
