"""Ports, routes, links and bindings: the rules that the schema alone does not tell."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.api.conftest import Api


async def routed(api: Api, **port: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    router = await api.create("/routers")
    return router, await api.create(router["ports"], type="Router", **port)


async def destinations(api: Api, router: dict[str, Any]) -> set[str]:
    return {
        f"{route['dstNetworkAddr']}/{route['dstNetworkLength']}"
        for route in await api.get(router["routes"])
    }


async def test_local_routes_follow_the_addresses_of_a_port(api: Api) -> None:
    router, port = await routed(api, portSubnet=["10.0.0.1/24", "2001:DB8::1/64"])
    assert port["portSubnet"] == ["10.0.0.1/24", "2001:db8::1/64"]
    assert await destinations(api, router) == {"10.0.0.1/32", "2001:db8::1/128"}
    changed = port | {"portSubnet": ["10.0.0.2/24"]}
    assert (await api.http.put(port["uri"], json=changed)).status_code == 204
    assert await destinations(api, router) == {"10.0.0.2/32"}
    assert (await api.get(port["uri"]))["portMac"] == port["portMac"]


async def test_port_with_ipv6_only_has_no_single_address(api: Api) -> None:
    _, port = await routed(api, portSubnet=["2001:db8::1/64"])
    assert (port["portAddress"], port["networkAddress"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("portSubnet", ["10.0.0.1"]),
        ("portSubnet", ["10.0.0.1/33"]),
        ("portSubnet", ["10.0.0.1/24", "10.0.1.1/24"]),
        ("portSubnet", ["224.0.0.1/24"]),
        ("portSubnet", ["::/64"]),
        ("portSubnet", ["fe80::1%eth0/64"]),
        ("portAddress", "2001:db8::1"),
        ("networkLength", 33),
        ("portMac", "01:00:5e:00:00:01"),
        ("portMac", "zz:00:00:00:00:01"),
        ("rtrPortVni", 0x1000000),
        ("interfaceName", "a name"),
        ("type", "router"),
        ("type", "Vxlan"),
    ],
)
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_bad_port_property_is_named(api: Api, name: str, value: object) -> None:
    router = await api.create("/routers")
    body = {"type": "Router", name: value}
    error = await api.refused(400, "POST", router["ports"], **body)
    assert error["violations"][0]["property"].startswith(name)


async def test_type_of_port_must_fit_its_device(api: Api) -> None:
    bridge = await api.create("/bridges")
    router, port = await routed(api)
    assert (
        "Not a bridge port."
        in (await api.refused(400, "POST", bridge["ports"], type="Router"))["message"]
    )
    await api.refused(400, "POST", router["ports"], type="InteriorBridge")
    await api.refused(400, "PUT", port["uri"], type="Bridge")


async def test_linking_joins_both_sides_or_neither(api: Api) -> None:
    bridge = await api.create("/bridges")
    first, second = [await api.create(bridge["ports"], type="Bridge") for _ in range(2)]
    _, router_port = await routed(api)
    await api.refused(409, "POST", first["link"], peerId=first["id"])
    await api.refused(409, "POST", first["link"], peerId=second["id"])
    await api.refused(400, "POST", first["link"], peerId=str(uuid4()))
    assert (await api.http.post(first["link"], json={"peerId": router_port["id"]})).is_success
    assert (await api.get(router_port["uri"]))["peerId"] == first["id"]
    error = await api.refused(409, "POST", second["link"], peerId=router_port["id"])
    assert error["message"].startswith("Ports are not linkable")
    assert [port["id"] for port in await api.get(bridge["peerPorts"])] == [router_port["id"]]
    for _ in range(2):
        assert (await api.http.delete(router_port["link"])).status_code == 204
    assert (await api.get(first["uri"]))["peerId"] is None


async def test_put_links_and_binds_only_what_was_free(api: Api) -> None:
    bridge = await api.create("/bridges")
    port = await api.create(bridge["ports"], type="Bridge")
    _, router_port = await routed(api)
    peered = port | {"peerId": router_port["id"]}
    assert (await api.http.put(port["uri"], json=peered)).status_code == 204
    assert (await api.get(router_port["uri"]))["peerId"] == port["id"]
    assert (await api.http.put(port["uri"], json=port)).status_code == 204
    assert (await api.get(port["uri"]))["peerId"] == router_port["id"]
    free = await api.create(bridge["ports"], type="Bridge")
    host_id = await api.host()
    bound = free | {"hostId": str(host_id), "interfaceName": "tap0"}
    assert (await api.http.put(free["uri"], json=bound)).status_code == 204
    assert len(await api.get(f"/hosts/{host_id}/ports")) == 1
    await api.refused(400, "PUT", free["uri"], type="Bridge", hostId=str(host_id))


async def test_created_port_may_be_peered_at_once(api: Api) -> None:
    _, router_port = await routed(api)
    bridge = await api.create("/bridges")
    port = await api.create(bridge["ports"], type="Bridge", peerId=router_port["id"])
    assert (await api.get(router_port["uri"]))["peerId"] == port["id"]


async def test_binding_conflicts_are_refused(api: Api) -> None:
    bridge = await api.create("/bridges")
    first, second = [await api.create(bridge["ports"], type="Bridge") for _ in range(2)]
    homeless = await api.host("homeless", in_zone=False)
    host_id = await api.host()
    binding = {"portId": first["id"], "interfaceName": "tap0"}
    await api.refused(409, "POST", f"/hosts/{homeless}/ports", **binding)
    bindings = f"/hosts/{host_id}/ports"
    bound = await api.create(bindings, **binding)
    assert bound["host"].endswith(str(host_id))
    shown = await api.get(first["uri"])
    assert (shown["hostId"], shown["interfaceName"]) == (str(host_id), "tap0")
    assert shown["hostInterfacePort"] == bound["uri"]
    await api.refused(409, "POST", bindings, portId=first["id"], interfaceName="tap1")
    await api.refused(409, "POST", bindings, portId=second["id"], interfaceName="tap0")
    _, router_port = await routed(api)
    await api.refused(409, "POST", first["link"], peerId=router_port["id"])
    await api.refused(400, "POST", bindings, portId=str(uuid4()), interfaceName="tap9")
    assert (await api.http.delete(bound["uri"])).status_code == 204
    assert (await api.get(first["uri"]))["hostId"] is None
    assert await api.get(bindings) == []


async def test_of_two_bindings_of_one_interface_at_once_one_is_refused(api: Api) -> None:
    bridge = await api.create("/bridges")
    ports = [await api.create(bridge["ports"], type="Bridge") for _ in range(4)]
    host_id = await api.host()
    replies = await asyncio.gather(
        *(
            api.http.post(
                f"/hosts/{host_id}/ports", json={"portId": port["id"], "interfaceName": "tap0"}
            )
            for port in ports
        )
    )
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409]
    assert len(await api.get(f"/hosts/{host_id}/ports")) == 1


async def test_linked_port_cannot_be_bound(api: Api) -> None:
    bridge = await api.create("/bridges")
    _, router_port = await routed(api)
    port = await api.create(bridge["ports"], type="Bridge", peerId=router_port["id"])
    host_id = await api.host()
    body = {"portId": port["id"], "interfaceName": "tap0"}
    await api.refused(409, "POST", f"/hosts/{host_id}/ports", **body)


ROUTE = {
    "type": "Normal",
    "dstNetworkAddr": "0.0.0.0",
    "dstNetworkLength": 0,
    "srcNetworkAddr": "0.0.0.0",
    "srcNetworkLength": 0,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "Fip64"),
        ("dstNetworkAddr", "x"),
        ("dstNetworkAddr", None),
        ("dstNetworkAddr", "2001:db8::"),
        ("dstNetworkLength", 33),
        ("dstNetworkLength", 129),
        ("nextHopGateway", "fe80::1"),
        ("nextHopPort", None),
        ("weight", -1),
    ],
)
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_bad_route_is_refused(api: Api, name: str, value: object) -> None:
    router, port = await routed(api)
    body = ROUTE | {"nextHopPort": port["id"]} | {name: value}
    await api.refused(400, "POST", router["routes"], **body)
    assert await api.get(router["routes"]) == []


async def test_next_hop_must_be_a_port_of_the_router(api: Api) -> None:
    router, _ = await routed(api)
    _, other = await routed(api)
    error = await api.refused(400, "POST", router["routes"], **ROUTE, nextHopPort=other["id"])
    assert error["violations"][0]["property"] == "nextHopPort"
    await api.refused(400, "POST", router["routes"], **ROUTE, nextHopPort=str(uuid4()))
    blackhole = await api.create(router["routes"], **ROUTE | {"type": "BlackHole"})
    assert blackhole["nextHopPort"] is None
    nested = f"{router['routes']}/{blackhole['id']}"
    assert (await api.http.delete(nested)).status_code == 204
    assert await api.get(router["routes"]) == []


async def test_port_security_is_kept_by_clients_that_do_not_know_it(api: Api) -> None:
    bridge = await api.create("/bridges")
    plain = await api.create(bridge["ports"], type="Bridge")
    assert (plain["portSecurityEnabled"], plain["allowedAddressPairs"]) == (False, [])
    pairs = [
        {"macAddress": "02:00:00:00:00:01", "ipAddress": "10.0.0.5"},
        {"macAddress": "02:00:00:00:00:01", "ipAddress": "2001:db8::/64"},
        {"macAddress": "02:00:00:00:00:02", "ipAddress": None},
    ]
    given = [
        {"macAddress": "02-00-00-00-00-01", "ipAddress": "10.0.0.5/32"},
        {"macAddress": "02:00:00:00:00:01", "ipAddress": "2001:DB8::7/64"},
        {"macAddress": "02:00:00:00:00:02"},
        pairs[0],
    ]
    port = await api.create(
        bridge["ports"], type="Bridge", portSecurityEnabled=True, allowedAddressPairs=given
    )
    assert (port["portSecurityEnabled"], port["allowedAddressPairs"]) == (True, pairs)
    assert (await api.http.put(port["uri"], json={"type": "Bridge"})).status_code == 204
    after = await api.get(port["uri"])
    assert (after["portSecurityEnabled"], after["allowedAddressPairs"]) == (True, pairs)
    body = {"type": "Bridge", "portSecurityEnabled": False, "allowedAddressPairs": []}
    assert (await api.http.put(port["uri"], json=body)).status_code == 204
    after = await api.get(port["uri"])
    assert (after["portSecurityEnabled"], after["allowedAddressPairs"]) == (False, [])


@pytest.mark.parametrize("pair", [
    {},
    {"macAddress": None},
    {"ipAddress": "10.0.0.5"},
    {"macAddress": "nonsense"},
    {"macAddress": "ff:ff:ff:ff:ff:ff"},
    {"macAddress": "00:00:00:00:00:00"},
    {"macAddress": "02:00:00:00:00:01", "ipAddress": "nonsense"},
    {"macAddress": "02:00:00:00:00:01", "ipAddress": "10.0.0.5/33"},
])  # fmt: skip
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_a_bad_address_pair_is_refused(api: Api, pair: dict[str, object]) -> None:
    bridge = await api.create("/bridges")
    error = await api.refused(
        400, "POST", bridge["ports"], type="Bridge", allowedAddressPairs=[pair]
    )
    assert error["violations"][0]["property"].startswith("allowedAddressPairs")
    assert await api.get(bridge["ports"]) == []


@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_port_security_is_for_bridge_ports_and_has_a_bound(api: Api) -> None:
    bridge, router = await api.create("/bridges"), await api.create("/routers")
    pair = {"macAddress": "02:00:00:00:00:01"}
    for field, value in (("portSecurityEnabled", True), ("allowedAddressPairs", [pair])):
        error = await api.refused(400, "POST", router["ports"], type="Router", **{field: value})
        assert error["violations"][0]["property"] == field
    many = [{**pair, "ipAddress": f"10.0.{n // 256}.{n % 256}"} for n in range(257)]
    await api.refused(400, "POST", bridge["ports"], type="Bridge", allowedAddressPairs=many)
    await api.create(bridge["ports"], type="Bridge", allowedAddressPairs=many[:256])
