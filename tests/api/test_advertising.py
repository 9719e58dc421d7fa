"""Router advertisements among the properties of ports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Api

DEFAULTS = {
    "raEnabled": False,
    "raManaged": False,
    "raOtherConfig": False,
    "raAutonomous": True,
    "raLifetimeSeconds": 1800,
    "raIntervalSeconds": 600,
    "raDnsServerAddrs": [],
    "raDomainSearch": [],
}


async def test_a_port_advertises_nothing_unless_it_is_told_to(api: Api) -> None:
    router, bridge = await api.create("/routers"), await api.create("/bridges")
    for device, kind in ((router, "Router"), (bridge, "Bridge")):
        port = await api.create(device["ports"], type=kind)
        assert {name: port[name] for name in DEFAULTS} == DEFAULTS


async def test_properties_are_kept_while_a_port_does_not_advertise(api: Api) -> None:
    router = await api.create("/routers")
    chosen = {
        "raManaged": True,
        "raAutonomous": False,
        "raLifetimeSeconds": 0,
        "raIntervalSeconds": 4,
        "raDnsServerAddrs": ["2001:db8::53"],
        "raDomainSearch": ["example.org"],
    }
    port = await api.create(router["ports"], type="Router", **chosen)
    assert {name: port[name] for name in chosen} == chosen
    changed = await api.http.put(port["uri"], json=port | {"raEnabled": True})
    assert changed.status_code == 204
    shown = await api.get(port["uri"])
    assert {name: shown[name] for name in chosen} == chosen
    assert shown["raEnabled"] is True


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("Bridge", {"raEnabled": True}, "raEnabled"),
        ("Router", {"raLifetimeSeconds": 9001}, "raLifetimeSeconds"),
        ("Router", {"raLifetimeSeconds": 599}, "raLifetimeSeconds"),
        ("Router", {"raIntervalSeconds": 3}, "raIntervalSeconds"),
        ("Router", {"raIntervalSeconds": 1801}, "raIntervalSeconds"),
        ("Router", {"raDnsServerAddrs": ["192.0.2.53"]}, "raDnsServerAddrs"),
        ("Router", {"raDnsServerAddrs": ["ff02::1"]}, "raDnsServerAddrs"),
        ("Router", {"raDnsServerAddrs": ["2001:db8::1"] * 17}, "raDnsServerAddrs"),
        ("Router", {"raDomainSearch": ["a b"]}, "raDomainSearch"),
        ("Router", {"raDomainSearch": [f"{'x' * 60}.org"] * 9}, "raDomainSearch"),
    ],
)
async def test_what_cannot_be_advertised_is_refused(
    api: Api, kind: str, body: dict[str, Any], field: str
) -> None:
    device = await api.create("/routers" if kind == "Router" else "/bridges")
    error = await api.refused(400, "POST", device["ports"], type=kind, **body)
    assert error["violations"][0]["property"] == field
