"""What an address can be used for: the meaning behind a well-formed text.

Each function returns the rule that is broken, as a sentence about the property (`must not be
...`), or None. What is special is decided by `midonet.packets.address_kinds`, as in forwarding;
of subnets, RFC 3021 (/31 has no broadcast address) and RFC 4291 section 2.6.1 are heeded.
"""

from __future__ import annotations

from collections.abc import Iterable

from midonet.packets.address_kinds import AddressKind, address_kind
from midonet.packets.addresses import IpAddress, IpPrefix, IpVersion

_V4_BROADCAST = 0xFFFF_FFFF
_V4_LOOPBACK = 127
_V4_MAPPED = 0xFFFF


def unusable_host(address: IpAddress, *, is_loopback_allowed: bool = False) -> str | None:
    """Return why no single host can have this unicast address.

    is_loopback_allowed: hosts that share one machine may meet on its loopback.
    """
    kind = address_kind(address.version, address.value)
    if kind is AddressKind.MULTICAST:
        return "must not be a multicast address"
    if kind is not AddressKind.RESERVED:
        return None
    if address.value == 0:
        return "must not be the unspecified address"
    if address.version is IpVersion.V4:
        return _reserved_v4(address.value, is_loopback_allowed=is_loopback_allowed)
    if address.value >> 32 == _V4_MAPPED:
        return "must not be an IPv4-mapped address; write the IPv4 address itself"
    return None if is_loopback_allowed else "must not be the loopback address"


def _reserved_v4(value: int, *, is_loopback_allowed: bool) -> str | None:
    if value == _V4_BROADCAST:
        return "must not be the broadcast address"
    if value >> 24 == 0:
        return "must not be in 0.0.0.0/8"
    if value >> 24 == _V4_LOOPBACK:
        return None if is_loopback_allowed else "must not be a loopback address"
    return "must not be in 240.0.0.0/4, which is reserved"


def unusable_underlay(address: IpAddress) -> str | None:
    """Return why a host cannot be reached at this underlay address by the other hosts."""
    kind = address_kind(address.version, address.value)
    if address.version is IpVersion.V6 and kind is AddressKind.LINK_LOCAL:
        return "must not be a link-local address, which names no link"
    return unusable_host(address, is_loopback_allowed=True)


def unusable_in_subnet(prefix: IpPrefix) -> str | None:
    """Return why the address of `prefix` is no host's address in its own subnet.

    An IPv4 subnet of more than two addresses keeps its first for itself and its last for
    broadcast; IPv6 has neither (the first is the routers' anycast address, RFC 4291 2.6.1).
    """
    host_bits = prefix.version.bits - prefix.length
    if prefix.version is IpVersion.V6 or host_bits < 2:
        return None
    if prefix.value == prefix.network:
        return f"must not be the network address of {prefix}"
    if prefix.value == prefix.network | ((1 << host_bits) - 1):
        return f"must not be the broadcast address of {prefix}"
    return None


def unusable_interface(prefix: IpPrefix) -> str | None:
    """Return why an interface cannot have this address with this prefix length."""
    if prefix.length == 0:
        return "must have a prefix length above 0"
    return unusable_host(prefix.address) or unusable_in_subnet(prefix)


def unusable_gateway(gateway: IpAddress, interface: Iterable[IpPrefix]) -> str | None:
    """Return why no neighbour behind an interface with these addresses can be the next hop."""
    for own in interface:
        if own.address == gateway:
            return f"must not be an address of the port itself ({own})"
        if own.contains(gateway):
            rule = unusable_in_subnet(IpPrefix(own.version, gateway.value, own.length))
            if rule is not None:
                return rule
    return None
