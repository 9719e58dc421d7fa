"""DHCP subnets and clients through REST: names in paths, conflicts, refusals, deletion."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from midonet.model.dhcp import DhcpHost, DhcpSubnet, DhcpV6Host, DhcpV6Subnet
from tests.api.conftest import Api

SUBNET = {"subnetPrefix": "10.0.1.0", "subnetLength": 24}
SUBNET_V6 = {"prefix": "2001:db8:1::", "prefixLength": 64}


async def made(api: Api) -> dict[str, Any]:
    """Return a bridge."""
    return await api.create("/bridges", name="b")


async def test_a_subnet_is_named_by_its_network(api: Api) -> None:
    bridge = await made(api)
    body = {"subnetPrefix": "10.0.1.77", "subnetLength": 24}
    created = await api.http.post(bridge["dhcpSubnets"], json=body)
    assert created.headers["location"] == f"{bridge['uri']}/dhcp/10.0.1.0_24"
    shown = await api.get(f"{bridge['uri']}/dhcp/10.0.1.9_24")
    assert (shown["subnetPrefix"], shown["subnetLength"]) == ("10.0.1.0", 24)
    assert shown["dnsServerAddrs"] is None
    assert shown["opt121Routes"] == []
    assert shown["enabled"] is True
    assert "id" not in shown
    for name in ("10.0.1.0_25", "10.0.1.0", "nonsense_24", "10.0.1.0_240", "2001:db8::_24"):
        await api.refused(404, "GET", f"{bridge['uri']}/dhcp/{name}")


@pytest.mark.parametrize(
    ("collection", "body"), [("dhcpSubnets", SUBNET), ("dhcpSubnet6s", SUBNET_V6)]
)
async def test_a_bridge_has_a_subnet_once(api: Api, collection: str, body: dict[str, Any]) -> None:
    bridge, other = await made(api), await made(api)
    await api.create(bridge[collection], **body)
    await api.create(other[collection], **body)
    await api.refused(409, "POST", bridge[collection], **body)
    replies = await asyncio.gather(
        *(api.http.post(other["dhcpSubnets"], json=SUBNET | {"subnetLength": 25}) for _ in range(5))
    )
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409, 409]


async def test_a_subnet_may_change_its_prefix_and_keeps_its_clients(api: Api) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnets"], **SUBNET)
    await api.create(bridge["dhcpSubnets"], subnetPrefix="10.0.2.0", subnetLength=24)
    await api.create(subnet["hosts"], macAddr="02:00:00:00:00:05", ipAddr="10.0.1.5")
    await api.refused(409, "PUT", subnet["uri"], **SUBNET | {"subnetPrefix": "10.0.2.0"})
    changed = await api.http.put(subnet["uri"], json=SUBNET | {"subnetLength": 16})
    assert changed.status_code == 204
    await api.refused(404, "GET", subnet["uri"])
    moved = await api.get(f"{bridge['uri']}/dhcp/10.0.0.0_16")
    (client,) = await api.get(moved["hosts"])
    assert client["uri"] == f"{bridge['uri']}/dhcp/10.0.0.0_16/hosts/02:00:00:00:00:05"


async def test_a_client_is_named_by_its_mac_however_it_is_written(api: Api) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnets"], **SUBNET)
    created = await api.http.post(subnet["hosts"], json={"macAddr": "02-AA-00-00-00-0F"})
    assert created.headers["location"] == f"{subnet['hosts']}/02:aa:00:00:00:0f"
    for name in ("02:AA:00:00:00:0F", "02-aa-00-00-00-0f"):
        assert (await api.get(f"{subnet['hosts']}/{name}"))["macAddr"] == "02:aa:00:00:00:0f"
    await api.refused(404, "GET", f"{subnet['hosts']}/02aa0000000f")
    await api.refused(409, "POST", subnet["hosts"], macAddr="02:aa:00:00:00:0F")


async def test_a_client_may_change_its_mac(api: Api) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnets"], **SUBNET)
    first = await api.create(subnet["hosts"], macAddr="02:00:00:00:00:05", ipAddr="10.0.1.5")
    await api.create(subnet["hosts"], macAddr="02:00:00:00:00:06", ipAddr="10.0.1.6")
    await api.refused(409, "PUT", first["uri"], macAddr="02:00:00:00:00:06", ipAddr="10.0.1.7")
    changed = await api.http.put(
        first["uri"], json={"macAddr": "02:00:00:00:00:07", "ipAddr": "10.0.1.7"}
    )
    assert changed.status_code == 204
    await api.refused(404, "GET", first["uri"])
    listed = await api.get(subnet["hosts"])
    assert sorted((one["macAddr"], one["ipAddr"]) for one in listed) == [
        ("02:00:00:00:00:06", "10.0.1.6"),
        ("02:00:00:00:00:07", "10.0.1.7"),
    ]


async def test_a_client_id_is_written_with_dashes_in_paths(api: Api) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnet6s"], **SUBNET_V6)
    duid = "00:03:00:01:02:AA:00:00:00:0F"
    created = await api.http.post(
        subnet["hosts"], json={"clientId": duid, "fixedAddress": "2001:db8:1::f"}
    )
    assert created.headers["location"] == f"{subnet['hosts']}/00-03-00-01-02-aa-00-00-00-0f"
    assert subnet["hosts"] == f"{subnet['uri']}/hostsV6"
    assert (await api.get(created.headers["location"]))["clientId"] == duid.lower()
    await api.refused(409, "POST", subnet["hosts"], clientId=duid)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"subnetPrefix": "10.0.1", "subnetLength": 24}, "subnetPrefix"),
        ({"subnetPrefix": "2001:db8::", "subnetLength": 24}, "subnetPrefix"),
        ({"subnetPrefix": "10.0.1.0", "subnetLength": 33}, "subnetLength"),
        (SUBNET | {"defaultGateway": "0.0.0.0"}, "defaultGateway"),
        (SUBNET | {"serverAddr": "224.0.0.1"}, "serverAddr"),
        (SUBNET | {"dnsServerAddrs": ["10.0.1.2", "x"]}, "dnsServerAddrs"),
        (SUBNET | {"interfaceMTU": 65537}, "interfaceMTU"),
        (SUBNET | {"opt121Routes": [{"destinationPrefix": "10.0.0.0"}]}, "opt121Routes[0].gateway"),
        (SUBNET | {"opt121Routes": [{"gatewayAddr": "10.0.1.3"}]}, "opt121Routes[0].destination"),
        (
            SUBNET | {"opt121Routes": [{"destinationPrefix": "10.0.0.0", "destinationLength": 40}]},
            "opt121Routes",
        ),
    ],
)
async def test_a_subnet_that_makes_no_sense_is_refused(
    api: Api, body: dict[str, Any], field: str
) -> None:
    bridge = await made(api)
    error = await api.refused(400, "POST", bridge["dhcpSubnets"], **body)
    assert error["violations"][0]["property"].startswith(field)
    assert await api.get(bridge["dhcpSubnets"]) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"macAddr": "ff:ff:ff:ff:ff:ff"}, "macAddr"),
        ({"ipAddr": "10.0.2.5"}, "ipAddr"),
        ({"ipAddr": "10.0.1.0"}, "ipAddr"),
        ({"ipAddr": "10.0.1.255"}, "ipAddr"),
        ({"ipAddr": "2001:db8::5"}, "ipAddr"),
        ({"name": "a\nb"}, "name"),
        ({"extraDhcpOpts": [{"optName": "no-such-option", "optValue": "1"}]}, "extraDhcpOpts[0]"),
        ({"extraDhcpOpts": [{"optName": "255", "optValue": "1"}]}, "extraDhcpOpts[0]"),
        ({"extraDhcpOpts": [{"optName": "message-type", "optValue": "5"}]}, "extraDhcpOpts[0]"),
        ({"extraDhcpOpts": [{"optName": "mtu", "optValue": "70000"}]}, "extraDhcpOpts[0]"),
        ({"extraDhcpOpts": [{"optName": "router", "optValue": "fd00::1"}]}, "extraDhcpOpts[0]"),
    ],
)
async def test_a_client_that_makes_no_sense_is_refused(
    api: Api, body: dict[str, Any], field: str
) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnets"], **SUBNET)
    good = {"macAddr": "02:00:00:00:00:05", "ipAddr": "10.0.1.5"}
    error = await api.refused(400, "POST", subnet["hosts"], **good | body)
    assert error["violations"][0]["property"].startswith(field)
    assert await api.get(subnet["hosts"]) == []


@pytest.mark.parametrize(
    "client_id", ["", "00", "00:03", "0003:0001", "00:03:xx", "00:" * 130 + "0"]
)
async def test_what_is_no_client_id_is_refused(api: Api, client_id: str) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnet6s"], **SUBNET_V6)
    error = await api.refused(400, "POST", subnet["hosts"], clientId=client_id)
    assert error["violations"][0]["property"] == "clientId"


async def test_what_a_bridge_gave_goes_with_it(api: Api) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnets"], **SUBNET)
    subnet6 = await api.create(bridge["dhcpSubnet6s"], **SUBNET_V6)
    for number in range(1, 4):
        mac = f"02:00:00:00:00:0{number}"
        await api.create(subnet["hosts"], macAddr=mac, ipAddr=f"10.0.1.{number}")
        await api.create(subnet6["hosts"], clientId=mac, fixedAddress=f"2001:db8:1::{number}")
    assert (await api.http.delete(bridge["uri"])).status_code == 204
    for kind in (DhcpSubnet, DhcpHost, DhcpV6Subnet, DhcpV6Host):
        assert await api.store.list_ids(kind) == []


async def test_a_new_client_rewrites_no_other_object(api: Api) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnets"], **SUBNET)
    (before,) = await api.store.list_all(DhcpSubnet)
    await api.create(subnet["hosts"], macAddr="02:00:00:00:00:05", ipAddr="10.0.1.5")
    assert await api.store.list_all(DhcpSubnet) == [before]


async def test_a_write_on_an_old_version_is_refused(api: Api) -> None:
    bridge = await made(api)
    subnet = await api.create(bridge["dhcpSubnets"], **SUBNET)
    tag = (await api.http.get(subnet["uri"])).headers["etag"]
    headers = {"If-Match": tag}
    assert (await api.http.put(subnet["uri"], json=SUBNET, headers=headers)).status_code == 204
    assert (await api.http.put(subnet["uri"], json=SUBNET, headers=headers)).status_code == 412
    assert (await api.http.request("DELETE", subnet["uri"], headers=headers)).status_code == 412
