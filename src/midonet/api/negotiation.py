"""Media types: which one a caller sent or wants (RFC 9110 section 12).

More lenient than the original server, which refuses a missing header and a list: a missing
`Accept` or `Content-Type` means the preferred type, and a list is searched in order of quality.
"""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=2048)
def choose(accept: str | None, offered: tuple[str, ...]) -> str | None:
    """Return the offered type that `accept` asks for first, or None.

    Parameters other than `q` are ignored. Among ranges of equal quality the first counts; a
    range with a wildcard takes the first offered type it covers.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_parse(part) for part in accept.split(",")]
    refused = {kind for kind, quality in ranges if quality <= 0}
    for kind, quality in sorted(ranges, key=lambda one: -one[1]):
        if quality <= 0:
            continue
        for offer in offered:
            if offer.lower() not in refused and _covers(kind, offer.lower()):
                return offer
    return None


@lru_cache(maxsize=2048)
def is_accepted(content_type: str | None, accepted: tuple[str, ...]) -> bool:
    """Tell whether a body of `content_type` may be read; an absent header is taken on trust."""
    if content_type is None or not content_type.strip():
        return True
    kind = _parse(content_type)[0]
    return any(_covers(kind, offer.lower()) for offer in accepted)


@lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: str | None) -> bool:
    """Tell whether a reply may be gzip (RFC 9110 section 12.5.3): named, or covered by `*`."""
    if accept_encoding is None:
        return False
    codings = dict(_parse(part) for part in accept_encoding.split(","))
    named = [codings[name] for name in ("gzip", "x-gzip") if name in codings]
    return max(named, default=codings.get("*", 0.0)) > 0


def _parse(media_range: str) -> tuple[str, float]:
    kind, *parameters = media_range.split(";")
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return kind.strip().lower(), quality


def _covers(kind: str, offer: str) -> bool:
    return kind in ("*/*", "*", offer) or (kind.endswith("/*") and offer.startswith(kind[:-1]))
