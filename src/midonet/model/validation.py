"""Text formats of the model and the canonical form in which they are stored.

A `TextFormat` is a name, the rule in words, and a function that returns the canonical text or
raises `DecodeError`; beside the form it may check the meaning (`midonet.model.address_rules`).
Nothing here does I/O; whether a referent exists is the store's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from midonet.errors import DecodeError, ValidationError, Violation
from midonet.model import text_patterns
from midonet.model.address_rules import unusable_host, unusable_interface, unusable_underlay
from midonet.packets.addresses import (
    IpAddress,
    IpPrefix,
    IpVersion,
    format_mac,
    is_multicast_mac,
    parse_ip,
    parse_mac,
    parse_prefix,
)

_INTERFACE_NAME = re.compile(rb"[^\s/\x00-\x1f\x7f\xa0:]{1,15}")
_SHOWN_CHARACTERS = 64
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)"
"""Pattern of names: no control characters, which would break the lines that show them."""
_CISCO_MAC = re.compile(r"[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}")


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A format of text. `name` is the format word in OpenAPI, `rule` the sentence in errors.

    unusable: returns what is wrong with the meaning of a canonical text, as a sentence, or None.
    pattern: regular expression of the form, for documents.
    """

    name: str
    rule: str
    canonical: Callable[[str], str]
    pattern: str
    unusable: Callable[[str], str | None] | None = None


def canonical_ip(text: str) -> str:
    """Return an IPv4 or IPv6 address in canonical text. Raises DecodeError."""
    return str(parse_ip(text))


def canonical_ipv4(text: str) -> str:
    """Return an IPv4 address in canonical text. Raises DecodeError."""
    parsed = parse_ip(text)
    if parsed.version is not IpVersion.V4:
        raise DecodeError(f"not an IPv4 address: {text!r}")
    return str(parsed)


def canonical_ipv6(text: str) -> str:
    """Return an IPv6 address in canonical text. Raises DecodeError."""
    parsed = parse_ip(text)
    if parsed.version is not IpVersion.V6:
        raise DecodeError(f"not an IPv6 address: {text!r}")
    return str(parsed)


def canonical_prefix(text: str) -> str:
    """Return `address/length` in canonical text, host bits kept. Raises DecodeError."""
    return str(parse_prefix(text))


def canonical_group_member(text: str) -> str:
    """Return an address or prefix as `network/length` in canonical text. Raises DecodeError."""
    prefix = parse_prefix(text) if "/" in text else _whole(parse_ip(text))
    return str(prefix._replace(value=prefix.network))


def _whole(address: IpAddress) -> IpPrefix:
    return IpPrefix(address.version, address.value, address.version.bits)


def canonical_mac(text: str) -> str:
    """Return a MAC address as lower-case octets joined by `:`. Raises DecodeError."""
    return format_mac(parse_mac(text))


def canonical_unicast_mac(text: str) -> str:
    """Return a MAC address that can belong to one interface. Raises DecodeError."""
    value = parse_mac(text)
    if value == 0 or is_multicast_mac(value):
        raise DecodeError(f"not a unicast MAC address: {text!r}")
    return format_mac(value)


def canonical_mac_mask(text: str) -> str:
    """Return a MAC mask as three dotted groups of four digits. Raises DecodeError."""
    return format_mac_mask(parse_mac_mask(text))


def parse_mac_mask(text: str) -> int:
    """Parse a MAC mask: `ffff.ffff.0000`, or colon notation. Raises DecodeError."""
    if _CISCO_MAC.fullmatch(text):
        return int(text.replace(".", ""), 16)
    return parse_mac(text)


def format_mac_mask(value: int) -> str:
    """Format a 48-bit mask as three dotted groups of four hexadecimal digits."""
    digits = f"{value:012x}"
    return f"{digits[:4]}.{digits[4:8]}.{digits[8:]}"


def canonical_interface_name(text: str) -> str:
    """Return a Linux interface name unchanged (1 to 15 octets, no space, `/` or `:`).

    Raises DecodeError. Source: dev_valid_name() in net/core/dev.c, which looks at octets and
    takes 0xa0 for a space; control characters are refused beside.
    """
    if text in (".", "..") or not _INTERFACE_NAME.fullmatch(text.encode()):
        raise DecodeError(f"not an interface name: {text!r}")
    return text


IP = TextFormat("ip", "must be an IPv4 or IPv6 address", canonical_ip, text_patterns.IP)
IPV4 = TextFormat("ipv4", "must be an IPv4 address", canonical_ipv4, text_patterns.IPV4)
IPV6 = TextFormat("ipv6", "must be an IPv6 address", canonical_ipv6, text_patterns.IPV6)
HOST_IPV4 = TextFormat(
    "ipv4",
    IPV4.rule,
    canonical_ipv4,
    text_patterns.IPV4,
    unusable=lambda text: unusable_host(parse_ip(text)),
)
HOST_IPV6 = TextFormat(
    "ipv6",
    IPV6.rule,
    canonical_ipv6,
    text_patterns.IPV6,
    unusable=lambda text: unusable_host(parse_ip(text)),
)
HOST_IP = TextFormat(
    "ip",
    IP.rule,
    canonical_ip,
    text_patterns.IP,
    unusable=lambda text: unusable_host(parse_ip(text)),
)
UNDERLAY_IP = TextFormat(
    "ip",
    IP.rule,
    canonical_ip,
    text_patterns.IP,
    unusable=lambda text: unusable_underlay(parse_ip(text)),
)
GROUP_MEMBER = TextFormat(
    "ip-or-prefix",
    "must be an IPv4 or IPv6 address, or a prefix such as 10.0.0.0/24",
    canonical_group_member,
    text_patterns.IP_OR_PREFIX,
)
PREFIX = TextFormat("prefix", "must be address/length", canonical_prefix, text_patterns.PREFIX)
INTERFACE_PREFIX = TextFormat(
    "prefix",
    "must be address/length",
    canonical_prefix,
    text_patterns.PREFIX,
    unusable=lambda text: unusable_interface(parse_prefix(text)),
)
MAC = TextFormat("mac", "must be a MAC address", canonical_mac, text_patterns.MAC)
UNICAST_MAC = TextFormat(
    "unicast-mac",
    "must be a unicast MAC address other than zero",
    canonical_unicast_mac,
    text_patterns.UNICAST_MAC,
)
MAC_MASK = TextFormat(
    "mac-mask",
    "must be a MAC mask such as ffff.ffff.ffff",
    canonical_mac_mask,
    text_patterns.MAC_MASK,
)
INTERFACE_NAME = TextFormat(
    "interface-name",
    "must be an interface name of 1 to 15 octets",
    canonical_interface_name,
    text_patterns.INTERFACE_NAME,
)


def invalid(field: str, rule: str) -> ValidationError:
    """Return the error for one broken rule."""
    return ValidationError((Violation(field, rule),))


def broken(field: str, rule: str, value: object) -> Violation:
    """Return a broken rule with the value that breaks it, cut to a line."""
    shown = msgspec.json.encode(value).decode(errors="replace")
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "..."
    return Violation(field, f"{rule}: {shown}")
