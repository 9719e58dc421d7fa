"""Media types that callers send and want."""

from __future__ import annotations

import pytest

from midonet.api.base_uri import base_uri
from midonet.api.negotiation import choose, is_accepted

OFFERED = ("application/vnd.org.midonet.Port-v4+json", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, OFFERED[0]),
        ("", OFFERED[0]),
        ("*/*", OFFERED[0]),
        ("application/*", OFFERED[0]),
        ("application/json", OFFERED[1]),
        ("Application/JSON; charset=utf-8", OFFERED[1]),
        ("application/vnd.org.midonet.Port-v4+json;version=1", OFFERED[0]),
        ("text/html, application/json;q=0.1", OFFERED[1]),
        ("application/json;q=0.1, application/vnd.org.midonet.Port-v4+json;q=0.5", OFFERED[0]),
        ("application/json;q=0, */*", OFFERED[0]),
        ("application/vnd.org.midonet.Port-v9+json", None),
        ("text/*", None),
        ("application/json;q=0", None),
        ("application/json;q=x", None),
        (",;,", None),
    ],
)
def test_chosen_type(accept: str | None, chosen: str | None) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        (None, True),
        ("application/json; charset=utf-8", True),
        ("application/vnd.org.midonet.Port-v4+json", True),
        ("*/*", True),
        ("text/plain", False),
        ("application/vnd.org.midonet.Bridge-v4+json", False),
    ],
)
def test_accepted_content_type(content_type: str | None, accepted: bool) -> None:
    assert is_accepted(content_type, OFFERED) is accepted


@pytest.mark.parametrize(
    ("host", "forwarded", "expected"),
    [
        ("h:1", (None, None, None), "http://h:1/api"),
        ("[::1]:80", (None, None, None), "http://[::1]:80/api"),
        (None, (None, None, None), "http://[fe80::1]:8181/api"),
        ("h", ("https", "a.b:2, c", None), "https://a.b:2/api"),
        ("h:1", ("https", None, "443"), "https://h/api"),
        ("h:1", (None, None, "8080"), "http://h:8080/api"),
        ("h", ("javascript", "a b", "x"), "http://h/api"),
        ("h/../x", (None, None, None), "http://[fe80::1]:8181/api"),
    ],
)
def test_base_uri(
    host: str | None, forwarded: tuple[str | None, str | None, str | None], expected: str
) -> None:
    assert base_uri("http", ("fe80::1", 8181), host, forwarded, "/api") == expected
