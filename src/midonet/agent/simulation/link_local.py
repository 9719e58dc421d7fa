"""The IPv6 link-local address that a router port derives from its MAC (RFC 4291 appendix A)."""

from __future__ import annotations

_PREFIX = 0xFE80 << 112
_UNIVERSAL = 0x0200_0000_0000_0000


def link_local_address(mac: int) -> int:
    """Return fe80::/64 with the modified EUI-64 of a 48-bit MAC."""
    identifier = (mac >> 24) << 40 | 0xFFFE << 24 | mac & 0xFF_FFFF
    return _PREFIX | identifier ^ _UNIVERSAL


def link_local_mac(address: int) -> int | None:
    """Return the MAC that a link-local address was derived from, None if it was not."""
    identifier = (address & 0xFFFF_FFFF_FFFF_FFFF) ^ _UNIVERSAL
    if address >> 64 != _PREFIX >> 64 or identifier >> 24 & 0xFFFF != 0xFFFE:
        return None
    return (identifier >> 40) << 24 | identifier & 0xFF_FFFF


def is_link_local(address: int) -> bool:
    """Tell whether an IPv6 address is in fe80::/10."""
    return address >> 118 == _PREFIX >> 118
