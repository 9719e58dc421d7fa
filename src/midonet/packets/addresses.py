"""Link and network addresses as the hot path carries them: plain integers with named helpers.

A MAC address is an `int` of 48 bits, an IPv4 address an `int` of 32 bits, an IPv6 address an
`int` of 128 bits, all in the order of the printed form (the first printed octet is the most
significant). The family of an address travels beside it (`IpVersion`), because the integer
alone does not tell. `IpAddress` and `IpPrefix` pair the two where they are stored or compared
across families.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import NamedTuple

from midonet.errors import DecodeError


class IpVersion(IntEnum):
    """IP version number as in the first nibble of the header (RFC 791, RFC 8200)."""

    V4 = 4
    V6 = 6

    @property
    def bits(self) -> int:
        """Width of an address of this version, in bits."""
        return 32 if self is IpVersion.V4 else 128


MAC_BROADCAST = 0xFFFF_FFFF_FFFF
MAC_MAX = MAC_BROADCAST
_RESERVED_GROUPS = 0x0180_C200_0000 >> 4


class IpAddress(NamedTuple):
    """An address with its version. `value` has 32 or 128 bits, first octet most significant."""

    version: IpVersion
    value: int

    def __str__(self) -> str:
        return format_ip(self.version, self.value)


class IpPrefix(NamedTuple):
    """A prefix: address bits (host bits kept as given) and `length` in bits."""

    version: IpVersion
    value: int
    length: int

    @property
    def network(self) -> int:
        """The address with its host bits cleared."""
        return self.value & prefix_mask(self.version, self.length)

    @property
    def address(self) -> IpAddress:
        """The address as given, without the length."""
        return IpAddress(self.version, self.value)

    def contains(self, address: IpAddress) -> bool:
        """Tell whether `address` lies in this prefix (never across versions)."""
        return address.version is self.version and (
            (address.value ^ self.value) & prefix_mask(self.version, self.length) == 0
        )

    def __str__(self) -> str:
        return f"{format_ip(self.version, self.value)}/{self.length}"


def prefix_mask(version: IpVersion, length: int) -> int:
    """Return the integer mask with `length` leading one bits for an address of `version`."""
    bits = 32 if version == 4 else 128
    return ((1 << length) - 1) << (bits - length)


def parse_mac(text: str) -> int:
    """Parse six two-digit hexadecimal octets joined by `:` or `-`.

    Raises DecodeError for anything else.
    """
    parts = text.replace("-", ":").split(":")
    if len(parts) != 6 or any(len(part) != 2 for part in parts):
        raise DecodeError(f"not a MAC address: {text!r}")
    try:
        return int(bytes(int(part, 16) for part in parts).hex(), 16)
    except ValueError:
        raise DecodeError(f"not a MAC address: {text!r}") from None


def format_mac(value: int) -> str:
    """Format a 48-bit integer as lower-case octets joined by `:`."""
    return value.to_bytes(6, "big").hex(":")


def is_multicast_mac(value: int) -> bool:
    """Tell whether the group bit is set (broadcast included), IEEE 802-2014 section 8.2.2."""
    return bool(value >> 40 & 1)


def is_reserved_group(mac: int) -> bool:
    """Tell whether a MAC is one of 01-80-C2-00-00-00 to 0F: spanning tree, pause, link
    aggregation, 802.1X, LLDP. No bridge relays a frame to them (IEEE 802.1Q-2022 table 8-1)."""
    return mac >> 4 == _RESERVED_GROUPS


def parse_ip(text: str) -> IpAddress:
    """Parse dotted IPv4 or RFC 5952 IPv6 text. Raises DecodeError for anything else."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        raise DecodeError(f"not an IP address: {text!r}") from None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None:
        raise DecodeError(f"an IPv6 address with a zone is not accepted: {text!r}")
    return IpAddress(IpVersion(parsed.version), int(parsed))


def parse_prefix(text: str) -> IpPrefix:
    """Parse `address/length`, host bits allowed. Raises DecodeError for anything else."""
    address, slash, length = text.partition("/")
    parsed = parse_ip(address)
    if not slash or not length.isascii() or not length.isdigit():
        raise DecodeError(f"not a prefix: {text!r}")
    bits = int(length)
    if bits > parsed.version.bits:
        raise DecodeError(f"prefix length out of range: {text!r}")
    return IpPrefix(parsed.version, parsed.value, bits)


def format_ip(version: IpVersion, value: int) -> str:
    """Format an address in dotted IPv4 or RFC 5952 IPv6 text."""
    if version == 4:
        return str(ipaddress.IPv4Address(value))
    return str(ipaddress.IPv6Address(value))
