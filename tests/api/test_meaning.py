"""Values that are well formed and mean nothing are refused, with property, rule and value."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.api.conftest import Api

IN_MEMORY = pytest.mark.parametrize("store", ["memory"], indirect=True)

NOT_A_HOST = [
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "ff02::1",
    "::ffff:10.0.0.1",
]
LOOPBACK = ["127.0.0.1", "127.255.0.9", "::1"]


async def refused(api: Api, path: str, name: str, value: object, **body: Any) -> dict[str, Any]:
    """Expect that a body is refused for one property, and that the error shows its value."""
    error = await api.refused(400, "POST", path, **body)
    assert error["violations"][0]["property"] == name, error
    assert str(value) in error["message"]
    return error


@pytest.mark.parametrize("address", [*NOT_A_HOST, "fe80::1"])
@IN_MEMORY
async def test_underlay_address_is_one_hosts_unicast_address(api: Api, address: str) -> None:
    zone = await api.create("/tunnel_zones", name="z", type="vxlan")
    body = {"hostId": str(await api.host(in_zone=False)), "ipAddress": address}
    await refused(api, zone["hosts"], "ipAddress", address, **body)
    assert await api.get(zone["hosts"]) == []


async def test_hosts_of_a_zone_have_addresses_of_their_own(api: Api) -> None:
    zones = [await api.create("/tunnel_zones", name=name, type="vxlan") for name in "ab"]
    hosts = [str(await api.host(in_zone=False)) for _ in range(9)]
    first = {"hostId": hosts[0], "ipAddress": "2001:db8::1"}
    await api.create(zones[0]["hosts"], **first)
    await api.create(zones[1]["hosts"], **first)
    error = await api.refused(
        409, "POST", zones[0]["hosts"], hostId=hosts[1], ipAddress="2001:DB8:0::1"
    )
    assert hosts[0] in error["message"]
    assert "2001:db8::1" in error["message"]
    replies = await asyncio.gather(
        *(
            api.http.post(zones[0]["hosts"], json={"hostId": host, "ipAddress": "192.0.2.7"})
            for host in hosts[1:]
        )
    )
    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 7


@pytest.mark.parametrize("ip", [*NOT_A_HOST, *LOOPBACK])
@IN_MEMORY
async def test_neighbour_is_one_host(api: Api, ip: str) -> None:
    bridge = await api.create("/bridges")
    await refused(api, bridge["arpTable"], "ip", ip, ip=ip, mac="02:00:00:00:00:01")


@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"])
@IN_MEMORY
async def test_table_entry_is_of_one_interface(api: Api, mac: str) -> None:
    bridge = await api.create("/bridges")
    port = await api.create(bridge["ports"], type="Bridge")
    await refused(api, bridge["arpTable"], "mac", mac, ip="10.0.0.1", mac=mac)
    for vlan in (0, 9):
        table = bridge["vlanMacTableTemplate"].replace("{vlanId}", str(vlan))
        await refused(api, table, "macAddr", mac, macAddr=mac, portId=port["id"])
    assert await api.get(bridge["macTable"]) == []
    assert await api.get(bridge["arpTable"]) == []


@pytest.mark.parametrize(
    "prefix",
    [
        *(f"{address}/24" for address in (*NOT_A_HOST[:5], "127.0.0.1")),
        *(f"{address}/64" for address in (*NOT_A_HOST[5:7], "::1")),
        "::ffff:10.0.0.1/120",
        "10.1.0.0/24",
        "10.1.0.255/24",
        "10.1.0.3/30",
        "10.1.0.1/0",
        "2001:db8::1/0",
    ],
)
@IN_MEMORY
async def test_router_port_has_an_address_that_an_interface_can_have(api: Api, prefix: str) -> None:
    router = await api.create("/routers")
    address, length = prefix.split("/")
    subnets = [prefix, "2001:db8:1::1/64"] if ":" not in prefix else [prefix, "10.9.0.1/24"]
    body = {"type": "Router", "portSubnet": subnets}
    await refused(api, router["ports"], "portSubnet", prefix, **body)
    if ":" not in prefix:
        single = {"type": "Router", "portAddress": address, "networkLength": int(length)}
        name = "portAddress" if int(length) else "networkLength"
        await refused(api, router["ports"], name, address, **single)
    assert await api.get(router["ports"]) == []
    assert await api.get(router["routes"]) == []


@pytest.mark.parametrize("prefix", ["10.1.0.0/31", "10.1.0.1/31", "10.1.0.0/32", "fe80::1/64"])
@IN_MEMORY
async def test_short_subnets_have_no_network_address(api: Api, prefix: str) -> None:
    router = await api.create("/routers")
    port = await api.create(router["ports"], type="Router", portSubnet=[prefix])
    assert port["portSubnet"] == [prefix]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"portAddress": "10.5.0.1"}, "networkLength"),
        ({"networkAddress": "10.5.0.0"}, "networkAddress"),
        ({"networkLength": 24}, "networkLength"),
        (
            {"portAddress": "10.7.0.1", "networkAddress": "10.6.0.0", "networkLength": 24},
            "networkAddress",
        ),
        ({"vlanId": 7}, "vlanId"),
    ],
)
@IN_MEMORY
async def test_parts_of_a_router_port_belong_together(
    api: Api, body: dict[str, Any], name: str
) -> None:
    router = await api.create("/routers")
    await refused(api, router["ports"], name, body[min(body)], type="Router", **body)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("portSubnet", ["10.0.0.1/24"]),
        ("portAddress", "10.0.0.1"),
        ("networkAddress", "10.0.0.0"),
        ("networkLength", 24),
        ("portMac", "02:00:00:00:00:01"),
        ("rtrPortVni", 5),
        ("offRampVxlan", True),
    ],
)
@IN_MEMORY
async def test_bridge_port_has_nothing_of_a_router_port(api: Api, name: str, value: object) -> None:
    bridge = await api.create("/bridges")
    await api.refused(400, "POST", bridge["ports"], type="Bridge", **{name: value})
    port = await api.create(bridge["ports"], type="Bridge", **{name: None})
    error = await api.refused(400, "PUT", port["uri"], **port | {name: value})
    assert error["violations"][0]["property"] == name


ROUTE = {
    "type": "Normal",
    "dstNetworkAddr": "20.0.0.0",
    "dstNetworkLength": 8,
    "srcNetworkAddr": "0.0.0.0",
    "srcNetworkLength": 0,
}
ROUTE_V6 = ROUTE | {"dstNetworkAddr": "2001:db8:9::", "srcNetworkAddr": "::"}


@pytest.mark.parametrize(
    "gateway",
    [
        "224.0.0.1",
        "127.0.0.1",
        "240.0.0.1",
        "0.0.0.9",
        "10.0.0.1",
        "10.0.0.0",
        "10.0.0.255",
        "2001:db8::1",
        "ff02::1",
        "::1",
        "::ffff:10.0.0.2",
    ],
)
async def test_gateway_is_a_neighbour(api: Api, gateway: str) -> None:
    router = await api.create("/routers")
    subnets = ["10.0.0.1/24", "2001:db8::1/64"]
    port = await api.create(router["ports"], type="Router", portSubnet=subnets)
    route = (ROUTE_V6 if ":" in gateway else ROUTE) | {"nextHopPort": port["id"]}
    before = await api.get(router["routes"])
    body = route | {"nextHopGateway": gateway}
    error = await api.refused(400, "POST", router["routes"], **body)
    assert error["violations"][0]["property"] == "nextHopGateway"
    assert await api.get(router["routes"]) == before


async def test_port_does_not_take_the_address_of_its_gateway(api: Api) -> None:
    router = await api.create("/routers")
    port = await api.create(router["ports"], type="Router", portSubnet=["10.0.0.1/24"])
    route = ROUTE | {"nextHopPort": port["id"], "nextHopGateway": "10.0.0.2"}
    await api.create(router["routes"], **route)
    for subnet in ("10.0.0.2/24", "10.0.0.1/31", "10.0.0.6/30"):
        changed = port | {"portSubnet": [subnet]}
        reply = await api.http.put(port["uri"], json=changed)
        expected = 400 if subnet == "10.0.0.2/24" else 204
        assert reply.status_code == expected, subnet


@pytest.mark.parametrize("gateway", ["0.0.0.0", "255.255.255.255", "::"])
@pytest.mark.parametrize("kind", ["Normal", "BlackHole"])
@IN_MEMORY
async def test_gateways_by_which_old_clients_say_none_are_none(
    api: Api, kind: str, gateway: str
) -> None:
    router = await api.create("/routers")
    port = await api.create(router["ports"], type="Router", portSubnet=["10.0.0.1/24"])
    route = (ROUTE_V6 if ":" in gateway else ROUTE) | {"type": kind, "nextHopPort": port["id"]}
    created = await api.create(router["routes"], **route, nextHopGateway=gateway)
    assert created["nextHopGateway"] is None


@pytest.mark.parametrize("kind", ["BlackHole", "Reject", "Local"])
@IN_MEMORY
async def test_only_a_normal_route_has_a_gateway(api: Api, kind: str) -> None:
    router = await api.create("/routers")
    port = await api.create(router["ports"], type="Router", portSubnet=["10.0.0.1/24"])
    body = ROUTE | {"type": kind, "nextHopPort": port["id"], "nextHopGateway": "10.0.0.9"}
    await refused(api, router["routes"], "nextHopGateway", "10.0.0.9", **body)


INVERSIONS = {
    "invInPorts": ("inPorts", None),
    "invOutPorts": ("outPorts", None),
    "invTraversedDevice": ("traversedDevice", None),
    "invDlType": ("dlType", 0x0800),
    "invDlSrc": ("dlSrc", "02:00:00:00:00:01"),
    "invDlDst": ("dlDst", "02:00:00:00:00:01"),
    "invNwTos": ("nwTos", 8),
    "invNwProto": ("nwProto", 6),
    "invNwSrc": ("nwSrcAddress", "10.0.0.0"),
    "invNwDst": ("nwDstAddress", "10.0.0.0"),
    "invTpSrc": ("tpSrc", {"start": 1, "end": 2}),
    "invTpDst": ("tpDst", {"start": 1, "end": 2}),
}


@pytest.mark.parametrize("flag", INVERSIONS)
@IN_MEMORY
async def test_inversion_needs_what_it_inverts(api: Api, flag: str) -> None:
    chain = await api.create("/chains")
    error = await refused(api, chain["rules"], flag, "true", type="drop", **{flag: True})
    name, value = INVERSIONS[flag]
    assert name in error["message"]
    if value is not None:
        rule = await api.create(chain["rules"], type="drop", **{flag: True, name: value})
        assert rule[flag] is True


PORTS_80 = {"start": 80, "end": 80}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("nwSrcLength", {"nwSrcLength": 24}),
        ("nwDstLength", {"nwDstLength": 0}),
        ("nwDstLength", {"nwDstLength": 24, "nwSrcAddress": "10.0.0.0"}),
        ("dlSrcMask", {"dlSrcMask": "ffff.0000.0000"}),
        ("dlDstMask", {"dlDstMask": "ffff.ffff.ffff", "dlSrc": "02:00:00:00:00:01"}),
        ("vlan", {"vlan": 5, "noVlan": True}),
        ("nwSrcAddress", {"dlType": 0x86DD, "nwSrcAddress": "10.0.0.1"}),
        ("nwDstAddress", {"dlType": 0x0800, "nwDstAddress": "2001:db8::1"}),
        ("nwDstAddress", {"dlType": 0x0806, "nwDstAddress": "2001:db8::1"}),
        ("nwDstAddress", {"dlType": 0x8847, "nwDstAddress": "10.0.0.1"}),
        ("nwProto", {"dlType": 0x0806, "nwProto": 6}),
        ("nwTos", {"dlType": 0x0806, "nwTos": 1}),
        ("tpDst", {"dlType": 0x0806, "tpDst": PORTS_80}),
        ("tpSrc", {"nwProto": 47, "tpSrc": PORTS_80}),
        ("tpDst", {"nwProto": 0, "tpDst": PORTS_80}),
        ("tpSrc", {"nwProto": 1, "tpSrc": {"start": 256, "end": 300}}),
        ("tpDst", {"nwProto": 58, "tpDst": {"start": 8080, "end": 8080}}),
        ("jumpChainId", {"jumpChainId": str(uuid4())}),
        ("traversedDevice", {"traversedDevice": str(uuid4())}),
        ("outPorts", {"outPorts": [str(uuid4())]}),
    ],
)
async def test_condition_that_means_nothing_is_refused(
    api: Api, name: str, body: dict[str, Any]
) -> None:
    chain = await api.create("/chains")
    await api.refused(400, "POST", chain["rules"], type="accept", condInvert=True, **body)
    error = await api.refused(400, "POST", chain["rules"], type="accept", **body)
    assert error["violations"][0]["property"] == name, error
    assert await api.get(chain["rules"]) == []


@pytest.mark.parametrize(
    "body",
    [
        {"nwSrcAddress": "0.0.0.0", "nwSrcLength": 0},
        {"dlType": 0x0806, "nwSrcAddress": "10.0.0.1", "nwDstAddress": "10.0.0.2"},
        {"dlType": 0x86DD, "nwSrcAddress": "10.0.0.1", "invNwSrc": True},
        {"dlType": 0x86DD, "invDlType": True, "nwSrcAddress": "10.0.0.1"},
        {"dlType": 0x0806, "nwProto": 6, "invNwProto": True},
        {"nwProto": 47, "invNwProto": True, "tpSrc": PORTS_80},
        {"nwProto": 47, "tpSrc": PORTS_80, "invTpSrc": True},
        {"nwProto": 1, "tpSrc": {"start": 8, "end": 8}, "tpDst": {"start": 0, "end": 300}},
        {"nwProto": 132, "tpDst": PORTS_80},
        {"dlDst": "01:00:00:00:00:00", "dlDstMask": "0100.0000.0000"},
        {"noVlan": True},
    ],
)
@IN_MEMORY
async def test_condition_that_means_something_is_taken(api: Api, body: dict[str, Any]) -> None:
    chain = await api.create("/chains")
    rule = await api.create(chain["rules"], type="drop", **body)
    assert {name: rule[name] for name in body} == body


async def test_chain_does_not_jump_to_itself(api: Api) -> None:
    chain = await api.create("/chains")
    body = {"type": "jump", "jumpChainId": chain["id"]}
    await refused(api, chain["rules"], "jumpChainId", chain["id"], **body)


async def test_traversed_device_may_be_of_each_kind(api: Api) -> None:
    bridge, router = await api.create("/bridges"), await api.create("/routers")
    port = await api.create(bridge["ports"], type="Bridge")
    chain = await api.create("/chains")
    for device in (bridge, router, port):
        rule = await api.create(chain["rules"], type="drop", traversedDevice=device["id"])
        assert rule["traversedDevice"] == device["id"]


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "tab\t", "\x1b[31m", "\x7f", "\x85"])
@pytest.mark.parametrize("name", ["name", "tenantId"])
@IN_MEMORY
async def test_name_has_no_control_characters(api: Api, name: str, text: str) -> None:
    for path in ("/bridges", "/routers", "/chains"):
        await api.refused(400, "POST", path, **{name: text})
        assert await api.get(path) == []
    zone = {"name": text, "type": "gre"}
    await api.refused(400, "POST", "/tunnel_zones", **zone)


@IN_MEMORY
async def test_name_may_be_in_any_language(api: Api) -> None:
    for name in ("", "синий мост", "青い橋 №1", "🌉"):
        assert (await api.create("/bridges", name=name))["name"] == name


@pytest.mark.parametrize("content", [b"", None])
async def test_empty_body_changes_nothing(api: Api, content: bytes | None) -> None:
    chain = await api.create("/chains")
    bridge = await api.create("/bridges", name="b", tenantId="t", inboundFilterId=chain["id"])
    for method, path in (("PUT", bridge["uri"]), ("POST", "/bridges")):
        reply = await api.http.request(method, path, content=content)
        assert reply.status_code == 400
        assert reply.json()["violations"] == [{"property": "body", "message": "must not be empty"}]
    assert await api.get("/bridges") == [bridge]


@IN_MEMORY
async def test_value_out_of_range_is_shown(api: Api) -> None:
    chain = await api.create("/chains")
    ports = {"start": 1, "end": 70000}
    error = await api.refused(400, "POST", chain["rules"], type="drop", tpSrc=ports)
    assert error["violations"][0]["property"] == "tpSrc.end"
    assert "70000" in error["message"]
    error = await api.refused(400, "POST", "/routers", asNumber="x" * 1000)
    assert error["violations"][0]["property"] == "asNumber"
    assert len(error["message"]) < 200
