"""Extra DHCP options: from a name or number and a text to a code and its bytes. Pure.

Names are those that Neutron and dnsmasq use, codes and formats those of RFC 2132, RFC 3397
(domain search), RFC 3442 (classless routes), RFC 3361 (SIP servers), RFC 5859 (TFTP servers).
What a server decides for each message (its type, the lease, what is requested) is not an option
that can be set.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from midonet.errors import DecodeError
from midonet.packets.addresses import IpPrefix, IpVersion, parse_ip, parse_prefix
from midonet.packets.domain_names import domain_names, parse_domain

NEXT_SERVER = 0
"""Stands for the field `siaddr`, which is no option: where the boot file is."""

MAX_OPTION_BYTES = 1024
"""Longest value: what the smallest client takes is less, so that more could never be sent."""

_HEXADECIMAL = re.compile(r"0[xX](?:[0-9a-fA-F]{2})+|[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2})+")
_SEPARATOR = re.compile(r"[\s,]+")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

Format = Callable[[str], bytes]


class EncodedOption(NamedTuple):
    """An option as it goes on the wire. code: 1 to 254, or NEXT_SERVER."""

    code: int
    value: bytes


def encode_option(name: str, value: str) -> EncodedOption:
    """Return the option that a name or a decimal number, and a text, stand for.

    Raises DecodeError for an option that is not known or is the server's own, and for a text that
    is not of its format.
    """
    code = _code(name.strip().lower())
    encoded = _FORMATS.get(code, _any_bytes)(value.strip())
    if len(encoded) > MAX_OPTION_BYTES:
        raise DecodeError(f"the value of DHCP option {name!r} is longer than {MAX_OPTION_BYTES}")
    return EncodedOption(code, encoded)


def classless_routes(routes: list[tuple[IpPrefix, int]]) -> bytes:
    """Return the value of option 121: destinations and their next hops (RFC 3442)."""
    pieces = []
    for destination, gateway in routes:
        significant = (destination.length + 7) // 8
        network = destination.network.to_bytes(4, "big")[:significant]
        pieces.append(bytes((destination.length,)) + network + gateway.to_bytes(4, "big"))
    return b"".join(pieces)


def _code(name: str) -> int:
    if name.isascii() and name.isdigit() and len(name) <= 3:
        code = int(name)
        if not 0 < code < 255:
            raise DecodeError("a DHCP option has a number from 1 to 254")
    else:
        found = _CODES.get(name)
        if found is None:
            raise DecodeError(f"not the name or number of a DHCP option: {name!r}")
        code = found
    if code in _OF_THE_SERVER:
        raise DecodeError(f"DHCP option {code} is decided for each message")
    return code


# Formats. Each takes a text without blanks at its ends and raises DecodeError.


def _words(text: str) -> list[str]:
    found = [word for word in _SEPARATOR.split(text) if word]
    if not found:
        raise DecodeError("an empty list")
    return found


def _ipv4(text: str) -> bytes:
    address = parse_ip(text)
    if address.version is not IpVersion.V4:
        raise DecodeError(f"not an IPv4 address: {text!r}")
    return address.value.to_bytes(4, "big")


def _addresses(text: str) -> bytes:
    return b"".join(map(_ipv4, _words(text)))


def _one_address(text: str) -> bytes:
    return _ipv4(text)


def _address_pairs(text: str) -> bytes:
    """Pairs of addresses; `network/length` stands for a network and its mask."""
    pieces = []
    for word in _words(text):
        if "/" in word:
            prefix = _v4_prefix(word)
            mask = ((1 << prefix.length) - 1) << (32 - prefix.length)
            pieces.append(prefix.network.to_bytes(4, "big") + mask.to_bytes(4, "big"))
        else:
            pieces.append(_ipv4(word))
    found = b"".join(pieces)
    if len(found) % 8:
        raise DecodeError("addresses come in pairs here")
    return found


def _v4_prefix(text: str) -> IpPrefix:
    prefix = parse_prefix(text)
    if prefix.version is not IpVersion.V4:
        raise DecodeError(f"not an IPv4 prefix: {text!r}")
    return prefix


def _number(size: int, *, is_signed: bool = False) -> Format:
    def encode(text: str) -> bytes:
        digits = text.removeprefix("-")
        if not digits.isascii() or not digits.isdigit() or len(digits) > 10:
            raise DecodeError(f"not a number: {text!r}")
        try:
            return int(text).to_bytes(size, "big", signed=is_signed)
        except OverflowError:
            raise DecodeError(f"does not fit in {size} bytes: {text!r}") from None

    return encode


def _boolean(text: str) -> bytes:
    word = text.lower()
    if word in _TRUE:
        return b"\1"
    if word in _FALSE:
        return b"\0"
    raise DecodeError(f"neither true nor false: {text!r}")


def _text(text: str) -> bytes:
    if not text or not text.isprintable():
        raise DecodeError("empty or with control characters")
    return text.encode()


def _domains(text: str) -> bytes:
    return domain_names(map(parse_domain, _words(text)))


def _routes(text: str) -> bytes:
    words = _words(text)
    if len(words) % 2:
        raise DecodeError("destinations and next hops come in pairs")
    pairs = zip(words[::2], words[1::2], strict=True)
    return classless_routes(
        [(_v4_prefix(there), int.from_bytes(_ipv4(hop), "big")) for there, hop in pairs]
    )


def _sip_servers(text: str) -> bytes:
    words = _words(text)
    try:
        return b"\1" + b"".join(map(_ipv4, words))
    except DecodeError:
        return b"\0" + domain_names(map(parse_domain, words))


def _hexadecimal(text: str) -> bytes:
    if not _HEXADECIMAL.fullmatch(text):
        raise DecodeError(f"not hexadecimal octets: {text!r}")
    return bytes.fromhex(text.removeprefix("0x").removeprefix("0X").replace(":", ""))


def _any_bytes(text: str) -> bytes:
    """Of an option whose format is not known here: hexadecimal octets, else the text itself."""
    return _hexadecimal(text) if _HEXADECIMAL.fullmatch(text) else _text(text)


_OF_THE_SERVER = frozenset((50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 61, 80, 82, 118))

_CODES: dict[str, int] = {
    "netmask": 1, "subnet-mask": 1, "time-offset": 2, "router": 3, "time-server": 4,
    "dns-server": 6, "domain-name-servers": 6, "log-server": 7, "cookie-server": 8,
    "lpr-server": 9, "impress-server": 10, "resource-location-server": 11, "hostname": 12,
    "host-name": 12, "boot-file-size": 13, "merit-dump": 14, "domain-name": 15,
    "swap-server": 16, "root-path": 17, "extension-path": 18, "ip-forward-enable": 19,
    "non-local-source-routing": 20, "policy-filter": 21, "max-datagram-reassembly": 22,
    "default-ttl": 23, "path-mtu-aging-timeout": 24, "path-mtu-plateau-table": 25, "mtu": 26,
    "interface-mtu": 26, "all-subnets-local": 27, "broadcast": 28, "perform-mask-discovery": 29,
    "mask-supplier": 30, "router-discovery": 31, "router-solicitation": 32, "static-route": 33,
    "trailer-encapsulation": 34, "arp-timeout": 35, "ethernet-encap": 36, "tcp-ttl": 37,
    "tcp-keepalive": 38, "tcp-keepalive-garbage": 39, "nis-domain": 40, "nis-server": 41,
    "ntp-server": 42, "vendor-encap": 43, "netbios-ns": 44, "netbios-dd": 45,
    "netbios-nodetype": 46, "netbios-scope": 47, "x-windows-fs": 48, "x-windows-dm": 49,
    "requested-address": 50, "lease-time": 51, "option-overload": 52, "message-type": 53,
    "server-identifier": 54, "parameter-request": 55, "message": 56, "max-message-size": 57,
    "t1": 58, "t2": 59, "vendor-class": 60, "client-id": 61, "nis+-domain": 64,
    "nis+-server": 65, "tftp-server": 66, "tftp-server-name": 66, "bootfile-name": 67,
    "mobile-ip-home": 68, "smtp-server": 69, "pop3-server": 70, "nntp-server": 71,
    "www-server": 72, "finger-server": 73, "irc-server": 74, "user-class": 77,
    "rapid-commit": 80, "fqdn": 81, "agent-id": 82, "client-arch": 93,
    "client-interface-id": 94, "client-machine-id": 97, "posix-timezone": 100,
    "tzdb-timezone": 101, "subnet-select": 118, "domain-search": 119, "sip-server": 120,
    "classless-static-route": 121, "classless-static-routes": 121, "vendor-id-encap": 125,
    "tftp-server-address": 150, "classless-static-route-ms": 249,
    "server-ip-address": NEXT_SERVER,
}  # fmt: skip

_FORMATS: dict[int, Format] = {
    NEXT_SERVER: _one_address,
    2: _number(4, is_signed=True),
    12: _text,
    14: _text,
    15: _text,
    21: _address_pairs,
    33: _address_pairs,
    39: _boolean,
    40: _text,
    47: _text,
    60: _text,
    64: _text,
    66: _text,
    67: _text,
    100: _text,
    101: _text,
    119: _domains,
    120: _sip_servers,
    121: _routes,
    249: _routes,
    **dict.fromkeys((17, 18), _text),
    **dict.fromkeys((13, 22, 26, 93), _number(2)),
    **dict.fromkeys((23, 37, 46), _number(1)),
    **dict.fromkeys((24, 35, 38), _number(4)),
    **dict.fromkeys((19, 20, 27, 29, 30, 31, 34, 36), _boolean),
    **dict.fromkeys((1, 16, 28, 32), _one_address),
    **dict.fromkeys((3, 4, 6, 7, 8, 9, 10, 11, 41, 42, 44, 45, 48, 49, 65), _addresses),
    **dict.fromkeys((68, 69, 70, 71, 72, 73, 74, 150), _addresses),
}
