"""The prefix behind which a router shows IPv4: what is taken, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Api

GOOD = {
    "nat64Prefix": "2001:db8:64::/96",
    "nat64AddressFrom": "192.0.2.1",
    "nat64AddressTo": "192.0.2.9",
}


async def test_router_shows_ipv4_behind_a_prefix(api: Api) -> None:
    router = await api.create("/routers", **GOOD)
    assert {name: router[name] for name in GOOD} == GOOD
    plain = await api.create("/routers")
    assert {plain[name] for name in GOOD} == {None}
    single = await api.create("/routers", **{**GOOD, "nat64AddressTo": None})
    assert single["nat64AddressTo"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nat64Prefix": None}, "nat64AddressFrom: needs nat64Prefix"),
        ({"nat64Prefix": "2001:db8::/64"}, "must be an IPv6 network of 96 bits"),
        ({"nat64Prefix": "10.0.0.0/24"}, "must be an IPv6 network of 96 bits"),
        ({"nat64Prefix": "2001:db8:64::1/96"}, "must be 0 behind its 96 bits"),
        ({"nat64Prefix": "nonsense"}, "nat64Prefix"),
        ({"nat64AddressFrom": None}, "nat64AddressFrom: is required with nat64Prefix"),
        ({"nat64AddressFrom": "2001:db8::1"}, "nat64AddressFrom: must be an IPv4 address"),
        ({"nat64AddressFrom": "224.0.0.1"}, "must not be a multicast address"),
        ({"nat64AddressTo": "192.0.2.0"}, "must not be below nat64AddressFrom"),
    ],
)
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_what_means_nothing_is_refused(
    api: Api, change: dict[str, Any], message: str
) -> None:
    error = await api.refused(400, "POST", "/routers", **{**GOOD, **change})
    assert message in error["message"]
