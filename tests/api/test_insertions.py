"""L2 insertions, and the rules that they come to; rules that redirect."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.api.conftest import Api

pytestmark = pytest.mark.parametrize("store", ["memory"], indirect=True)

MAC = "02:00:00:00:00:01"


async def _ports(api: Api, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    bridge = await api.create("/bridges")
    return bridge, [await api.create(bridge["ports"], type="Bridge") for _ in range(count)]


async def _insert(
    api: Api, port: dict[str, Any], service: dict[str, Any], **more: object
) -> dict[str, Any]:
    return await api.create(
        "/l2insertions",
        **{"portId": port["id"], "srvPortId": service["id"], "mac": MAC, "vlan": 7, **more},
    )


async def _chains(api: Api) -> dict[str, list[dict[str, Any]]]:
    """Return the rules of all chains by name."""
    return {one["name"]: await api.get(one["rules"]) for one in await api.get("/chains")}


async def test_an_insertion_comes_to_rules_of_both_ports(api: Api) -> None:
    _, (port, service) = await _ports(api, 2)
    insertion = await _insert(api, port, service, failOpen=True)
    chains = await _chains(api)
    inbound, outbound = f"InboundRedirect{port['id']}", f"OutboundRedirect{port['id']}"
    served = f"InboundRedirect{service['id']}"
    assert set(chains) == {inbound, outbound, served}
    assert [rule["type"] for rule in chains[inbound]] == ["accept", *["l2_transform"] * 2]
    back, first = chains[inbound][1:]
    assert (back["vlan"], back["popVlan"], back["ingress"]) == (1 << 13 | 7, True, True)
    assert back["targetPortId"] == port["id"]
    assert (first["dlSrc"], first["pushVlan"], first["failOpen"]) == (MAC, 1 << 13 | 7, True)
    assert first["targetPortId"] == service["id"]
    assert [rule["pushVlan"] for rule in chains[outbound]] == [0, 2 << 13 | 7]
    assert [rule["jumpChainName"] for rule in chains[served]] == [inbound, outbound]
    assert (await api.get(port["uri"]))["insertionIds"] == [insertion["id"]]
    assert (await api.get(service["uri"]))["insertionIds"] == []


async def test_an_insertion_that_goes_leaves_nothing(api: Api) -> None:
    _, (port, service) = await _ports(api, 2)
    insertion = await _insert(api, port, service)
    assert (await api.http.delete(insertion["uri"])).status_code == 204
    assert await _chains(api) == {}
    assert (await api.get(port["uri"]))["insertionIds"] == []
    assert (await api.http.delete(insertion["uri"])).status_code == 204


async def test_services_follow_their_positions(api: Api) -> None:
    _, (port, first, second) = await _ports(api, 3)
    late = await _insert(api, port, first, position=2)
    await _insert(api, port, second, position=1, vlan=8)

    async def entry() -> str:
        rules = (await _chains(api))[f"InboundRedirect{port['id']}"]
        target: str = rules[-1]["targetPortId"]
        return target

    assert await entry() == second["id"]
    read = await api.get(late["uri"])
    assert (await api.http.put(late["uri"], json=read | {"position": 0})).status_code == 204
    assert await entry() == first["id"]


@pytest.mark.parametrize("goes", ["service", "port", "bridge"])
async def test_what_is_deleted_takes_its_insertions_and_their_rules(api: Api, goes: str) -> None:
    bridge, (port, service) = await _ports(api, 2)
    _, (other_service,) = await _ports(api, 1)
    insertion = await _insert(api, port, service)
    stays = await _insert(api, port, other_service, vlan=8, position=1)
    gone = {"service": service, "port": port, "bridge": bridge}[goes]
    assert (await api.http.delete(gone["uri"])).status_code == 204
    assert (await api.http.get(insertion["uri"])).status_code == 404
    chains = await _chains(api)
    if goes != "service":
        assert chains == {}
        return
    assert (await api.get(stays["uri"]))["id"] == stays["id"]
    rules = [rule for one in chains.values() for rule in one]
    targets = {rule["targetPortId"] for rule in rules if rule["type"] == "l2_transform"}
    assert targets == {port["id"], other_service["id"]}


async def test_ports_have_one_part_only(api: Api) -> None:
    _, (port, service, third) = await _ports(api, 3)
    await _insert(api, port, service)
    for one, two in ((port, service), (service, third), (third, port)):
        body = {"portId": one["id"], "srvPortId": two["id"], "mac": MAC, "vlan": 9}
        await api.refused(409, "POST", "/l2insertions", **body)
    router = await api.create("/routers")
    routed = await api.create(router["ports"], type="Router")
    for bad in (routed["id"], third["id"], str(uuid4())):
        body = {"portId": third["id"], "srvPortId": bad, "mac": MAC}
        error = await api.refused(400, "POST", "/l2insertions", **body)
        assert error["violations"][0]["property"] == "srvPortId"


async def test_a_service_of_several_ports_needs_vlans(api: Api) -> None:
    _, (one, two, service) = await _ports(api, 3)
    first = await _insert(api, one, service, vlan=0)
    body = {"portId": two["id"], "srvPortId": service["id"], "mac": "02:00:00:00:00:02"}
    await api.refused(409, "POST", "/l2insertions", **body, vlan=5)
    read = await api.get(first["uri"])
    assert (await api.http.put(first["uri"], json=read | {"vlan": 4})).status_code == 204
    await api.create("/l2insertions", **body, vlan=5)
    assert (await api.http.put(first["uri"], json=read | {"vlan": 0})).status_code == 409


async def test_insertions_are_listed_by_port(api: Api) -> None:
    _, (one, two, service) = await _ports(api, 3)
    first = await _insert(api, one, service)
    second = await _insert(api, two, service, mac="02:00:00:00:00:02")

    async def listed(query: str) -> set[str]:
        return {each["id"] for each in await api.get(f"/l2insertions?{query}")}

    assert await listed(f"port={one['id']}") == {first["id"]}
    assert await listed(f"srv_port={service['id']}") == {first["id"], second["id"]}
    assert await listed(f"srv_port={one['id']}") == set()


async def test_the_chains_of_insertions_are_theirs(api: Api) -> None:
    _, (port, service) = await _ports(api, 2)
    await _insert(api, port, service)
    for chain in await api.get("/chains"):
        reply = await api.http.delete(chain["uri"])
        assert reply.status_code == 409, reply.text


async def test_a_port_keeps_its_insertions_when_it_is_written(api: Api) -> None:
    _, (port, service) = await _ports(api, 2)
    insertion = await _insert(api, port, service)
    reply = await api.http.put(port["uri"], json={"type": "Bridge", "adminStateUp": False})
    assert reply.status_code == 204
    assert (await api.get(port["uri"]))["insertionIds"] == [insertion["id"]]
    await api.refused(409, "DELETE", (await api.get("/chains"))[0]["uri"])


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ({"flowAction": "continue"}, "flowAction"),
        ({}, "flowAction"),
        ({"flowAction": "redirect"}, "targetPortId"),
        ({"flowAction": "accept", "ingress": True}, "ingress"),
        ({"flowAction": "accept", "pushVlan": 1 << 12}, "pushVlan"),
        ({"type": "accept", "popVlan": True}, "popVlan"),
    ],
)
async def test_a_rule_that_redirects_nowhere_is_refused(
    api: Api, rule: dict[str, object], name: str
) -> None:
    chain = await api.create("/chains")
    body = {"type": "l2_transform", **rule}
    error = await api.refused(400, "POST", chain["rules"], **body)
    assert name in {each["property"] for each in error["violations"]}


async def test_a_rule_redirects_to_a_port_that_exists_and_loses_one_that_goes(api: Api) -> None:
    _, (port,) = await _ports(api, 1)
    chain = await api.create("/chains")
    body = {"type": "l2_transform", "flowAction": "redirect", "pushVlan": 5}
    error = await api.refused(400, "POST", chain["rules"], **body, targetPortId=str(uuid4()))
    assert error["violations"][0]["property"] == "targetPortId"
    rule = await api.create(chain["rules"], **body, targetPortId=port["id"], failOpen=True)
    assert (rule["targetPortId"], rule["failOpen"], rule["pushVlan"]) == (port["id"], True, 5)
    assert (await api.http.delete(port["uri"])).status_code == 204
    assert (await api.get(rule["uri"]))["targetPortId"] is None
