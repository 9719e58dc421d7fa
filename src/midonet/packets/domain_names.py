"""Domain names on the wire (RFC 1035 section 3.1), as lists of options carry them.

Names are never compressed: RFC 3397 allows it, RFC 8415 section 10 and RFC 8106 forbid it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from midonet.errors import DecodeError

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST_NAME = 253


def parse_domain(text: str) -> str:
    """Return a domain name in lower case, without a dot at its end. Raises DecodeError.

    Labels have 1 to 63 letters, digits, hyphens and underscores (RFC 1123, RFC 8552).
    """
    name = text.removesuffix(".").lower()
    is_well_formed = all(_LABEL.fullmatch(label) for label in name.split("."))
    if not is_well_formed or len(name) > _LONGEST_NAME:
        raise DecodeError(f"not a domain name: {text!r}")
    return name


MAX_SEARCH_LIST_BYTES = 512
"""Longest search list on the wire: an advertisement or answer with it is to fit in the least MTU
of IPv6."""


def parse_search_list(texts: Iterable[str]) -> tuple[str, ...]:
    """Return domain names in lower case. Raises DecodeError for what is none, or too many."""
    names = tuple(map(parse_domain, texts))
    if len(domain_names(names)) > MAX_SEARCH_LIST_BYTES:
        raise DecodeError(f"a search list of more than {MAX_SEARCH_LIST_BYTES} bytes")
    return names


def domain_names(names: Iterable[str]) -> bytes:
    """Return well-formed names one behind the other, each with its root label."""
    return b"".join(map(_wire_form, names))


def _wire_form(name: str) -> bytes:
    labels = (label.encode("ascii") for label in name.split("."))
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
