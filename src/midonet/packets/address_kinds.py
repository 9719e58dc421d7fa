"""What an address is for: the special-purpose registries of IPv4 and IPv6 (RFC 6890), as far as
a router treats their entries apart. One table for sources and destinations.

Documentation, benchmarking and private networks are routed like any other; whether they should
be is an operator's decision, made with routes.

RESERVED: 0/8, 127/8, 240/4 and with it 255.255.255.255 (RFC 1122 section 3.2.1.3, RFC 1812
section 5.3.7); ::, ::1 and ::ffff:0:0/96 (RFC 4291 section 2.5).
LINK_LOCAL: 169.254/16 (RFC 3927), fe80::/10 (RFC 4291 section 2.5.6).
MULTICAST: 224/4 (RFC 1112), ff00::/8 (RFC 4291 section 2.7).
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from midonet.packets.addresses import IpVersion


class AddressKind(Enum):
    """What an address names."""

    HOST = "host"  # a host or router; packets for it are routed
    LINK_LOCAL = "link_local"  # a host, on one link only
    MULTICAST = "multicast"  # a group
    RESERVED = "reserved"  # no host on any network; packets of it or for it are not routed


class Classified(NamedTuple):
    """proof: every address with as many leading bits in common is of the same kind."""

    kind: AddressKind
    proof: int


_BY_FIRST_OCTET = {
    0: AddressKind.RESERVED,
    127: AddressKind.RESERVED,
    **dict.fromkeys(range(224, 240), AddressKind.MULTICAST),
    **dict.fromkeys(range(240, 256), AddressKind.RESERVED),
}
_RESERVED, _MULTICAST, _HOST = AddressKind.RESERVED, AddressKind.MULTICAST, AddressKind.HOST
_PLAIN = Classified(_HOST, 8)
_IPV4 = tuple(Classified(_BY_FIRST_OCTET.get(octet, _HOST), 8) for octet in range(256))
_LINK_LOCAL_OCTET, _LINK_LOCAL_PREFIX = 169, 0xA9FE
_MAPPED = 0xFFFF
_LOWEST_HOST = 2
"""The first address of ::/96 that is neither unspecified nor loopback."""


def classified(version: IpVersion, address: int) -> Classified:
    """Return the kind of an address of 32 or 128 bits, and how many of its bits show it."""
    if version is IpVersion.V4:
        octet = address >> 24
        if octet == _LINK_LOCAL_OCTET:
            is_local = address >> 16 == _LINK_LOCAL_PREFIX
            return Classified(AddressKind.LINK_LOCAL if is_local else _HOST, 16)
        return _IPV4[octet]
    octet = address >> 120
    if octet == 0xFF:
        return Classified(_MULTICAST, 8)
    if octet == 0xFE:
        is_local = address >> 118 == 0xFE80 >> 6
        return Classified(AddressKind.LINK_LOCAL if is_local else _HOST, 10)
    if octet:
        return _PLAIN
    if address >> 96:
        return Classified(_HOST, 32)
    if address >> 32 == _MAPPED:
        return Classified(_RESERVED, 96)
    return Classified(_RESERVED if address < _LOWEST_HOST else _HOST, 128)


def address_kind(version: IpVersion, address: int) -> AddressKind:
    """Return the kind of an address."""
    return classified(version, address).kind
