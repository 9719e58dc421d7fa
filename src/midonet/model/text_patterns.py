"""Patterns of text formats for documents: what JSON Schema can say of what the parsers take.

Regular expressions in the common subset of ECMA 262 and Python. Everything a pattern matches has
the right form; an IPv6 address with an embedded IPv4 address is taken beside.
"""

from __future__ import annotations

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_GROUP = "[0-9a-fA-F]{1,4}"
_HEX2 = "[0-9a-fA-F]{2}"
_MAC = f"({_HEX2}[:-]){{5}}{_HEX2}"


def _ipv6() -> str:
    """Return a pattern of RFC 4291 section 2.2, forms 1 and 2."""
    forms = [f"({_GROUP}:){{7}}{_GROUP}"]
    for left in range(8):
        before = "" if left == 0 else f"{_GROUP}(:{_GROUP}){{{left - 1}}}"
        most_right = 7 - left
        after = "" if most_right == 0 else f"({_GROUP}(:{_GROUP}){{0,{most_right - 1}}})?"
        forms.append(f"{before}::{after}")
    return "|".join(forms)


_END = r"$(?!\n)"
IPV4 = f"^{_IPV4}{_END}"
IPV6 = f"^({_ipv6()}){_END}"
IP = f"^({_IPV4}|{_ipv6()}){_END}"
PREFIX = (
    f"^({_IPV4}/(3[0-2]|[12][0-9]|[1-9])|({_ipv6()})/(12[0-8]|1[01][0-9]|[1-9][0-9]|[1-9])){_END}"
)
IP_OR_PREFIX = (
    f"^({_IPV4}(/(3[0-2]|[12]?[0-9]))?|({_ipv6()})(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?){_END}"
)
MAC = f"^{_MAC}{_END}"
UNICAST_MAC = f"^(?!(00[:-]){{5}}00)[0-9a-fA-F][02468aceACE][:-]({_HEX2}[:-]){{4}}{_HEX2}{_END}"
MAC_MASK = rf"^(([0-9a-fA-F]{{4}}\.){{2}}[0-9a-fA-F]{{4}}|{_MAC}){_END}"
INTERFACE_NAME = rf"^(?!\.\.?$)[!-.0-9;-~]{{1,15}}{_END}"
