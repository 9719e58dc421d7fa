"""The API root as a caller sees it, behind proxies too."""

from __future__ import annotations

import re
from functools import lru_cache

AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""Host name or address with an optional port, as in a Host header."""


@lru_cache(maxsize=256)
def base_uri(
    scheme: str,
    server: tuple[str, int] | None,
    host: str | None,
    forwarded: tuple[str | None, str | None, str | None],
    prefix: str,
) -> str:
    """Return the absolute URI of the API root, no slash at the end.

    forwarded: X-Forwarded-Proto, -Host and -Port; of a list the first, which the outermost
    proxy wrote. What is not an authority is ignored, so that a header cannot write into links.
    """
    proto, forwarded_host, port = (_first(value) for value in forwarded)
    if proto in ("http", "https"):
        scheme = proto
    authority = next(
        (each for each in (forwarded_host, host) if each and AUTHORITY.fullmatch(each)), None
    )
    if authority is None:
        name, number = server or ("localhost", 8181)
        authority = f"[{name}]:{number}" if ":" in name else f"{name}:{number}"
    if port is not None and port.isascii() and port.isdigit() and len(port) <= 5:
        name = re.sub(r":[0-9]+$", "", authority)
        is_default = (scheme, port) in (("http", "80"), ("https", "443"))
        authority = name if is_default else f"{name}:{port}"
    return f"{scheme}://{authority}{prefix}"


def _first(value: str | None) -> str | None:
    return None if value is None else value.split(",")[0].strip()
