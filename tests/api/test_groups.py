"""Port groups and IP address groups: members, what is refused, what deletion does."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from midonet.model.devices import Port
from midonet.model.groups import PortGroup
from tests.api.conftest import Api

GONE = str(uuid4())


async def members(api: Api, group: dict[str, Any]) -> list[str]:
    return [one["addr"] for one in await api.get(group["addrs"])]


async def port_of(api: Api, bridge: dict[str, Any]) -> dict[str, Any]:
    return await api.create(bridge["ports"], type="Bridge")


async def test_members_are_addresses_and_prefixes_of_both_versions(api: Api) -> None:
    group = await api.create("/ip_addr_groups", name="trusted")
    for given, version, shown in (
        ("10.0.0.5", 4, "10.0.0.5"),
        ("10.1.2.3/16", "4", "10.1.0.0/16"),
        ("2001:DB8::5", 6, "2001:db8::5"),
        ("2001:db8:1::/48", None, "2001:db8:1::/48"),
        ("0.0.0.0/0", 4, "0.0.0.0/0"),
    ):
        member = await api.create(group["addrs"], addr=given, version=version)
        assert (member["addr"], member["ipAddrGroupId"]) == (shown, group["id"])
        assert member["version"] == (6 if ":" in shown else 4)
        assert await api.get(member["uri"]) == member
    assert sorted(await members(api, group)) == [
        "0.0.0.0/0", "10.0.0.5", "10.1.0.0/16", "2001:db8:1::/48", "2001:db8::5",
    ]  # fmt: skip
    removed = await api.http.delete(f"{group['uri']}/versions/6/ip_addrs/2001%3Adb8%3A%3A5")
    assert removed.status_code == 204
    assert "2001:db8::5" not in await members(api, group)
    again = await api.http.delete(f"{group['uri']}/versions/6/ip_addrs/2001:db8::5")
    assert again.status_code == 204


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "addr"),
        ({"addr": "nonsense"}, "addr"),
        ({"addr": "10.0.0.0/33"}, "addr"),
        ({"addr": "10.0.0.0/x"}, "addr"),
        ({"addr": "10.0.0.5", "version": 6}, "version"),
        ({"addr": "10.0.0.5", "version": 5}, "version"),
        ({"addr": "10.0.0.5", "version": "four"}, "version"),
    ],
)
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_a_bad_member_names_the_property(api: Api, body: dict[str, Any], name: str) -> None:
    group = await api.create("/ip_addr_groups", name="g")
    error = await api.refused(400, "POST", group["addrs"], **body)
    assert [one["property"] for one in error["violations"]] == [name]
    assert await members(api, group) == []


async def test_a_member_is_added_once(api: Api) -> None:
    group = await api.create("/ip_addr_groups", name="g")
    await api.create(group["addrs"], addr="10.0.0.0/8")
    await api.refused(409, "POST", group["addrs"], addr="10.9.9.9/8")
    await api.refused(404, "POST", f"/ip_addr_groups/{GONE}/ip_addrs", addr="10.0.0.1")
    await api.refused(400, "GET", f"{group['uri']}/versions/5/ip_addrs/10.0.0.1")
    await api.refused(400, "GET", f"{group['uri']}/versions/6/ip_addrs/10.0.0.1")
    await api.refused(404, "GET", f"{group['uri']}/versions/4/ip_addrs/10.0.0.1")


async def test_a_group_is_not_rewritten_when_a_member_comes(api: Api) -> None:
    addresses = await api.create("/ip_addr_groups", name="g")
    ports = await api.create("/port_groups")
    bridge = await api.create("/bridges")
    for number in range(3):
        await api.create(addresses["addrs"], addr=f"10.0.0.{number}")
        await api.create(ports["ports"], portId=(await port_of(api, bridge))["id"])
    group = await api.store.get(PortGroup, UUID(ports["id"]))
    assert group is not None
    assert group.version == 0


async def test_a_group_goes_with_its_members_but_not_while_a_rule_names_it(api: Api) -> None:
    group = await api.create("/ip_addr_groups", name="g")
    await api.create(group["addrs"], addr="10.0.0.1")
    chain = await api.create("/chains")
    rule = await api.create(chain["rules"], type="drop", ipAddrGroupSrc=group["id"])
    assert rule["ipAddrGroupSrc"] == group["id"]
    assert (await api.get(group["uri"]))["ruleIds"] == [rule["id"]]
    error = await api.refused(409, "DELETE", group["uri"])
    assert rule["id"] in error["message"]
    assert await members(api, group) == ["10.0.0.1"]
    assert (await api.http.delete(rule["uri"])).status_code == 204
    assert (await api.http.delete(group["uri"])).status_code == 204
    again = await api.create("/ip_addr_groups", id=group["id"], name="g")
    assert await members(api, again) == []


async def test_ports_come_into_groups_and_leave_them(api: Api) -> None:
    bridge = await api.create("/bridges")
    port, other = await port_of(api, bridge), await port_of(api, bridge)
    one = await api.create("/port_groups", name="one", tenantId="t1")
    two = await api.create("/port_groups", name="two", tenantId="t2")
    entry = await api.create(one["ports"], portId=port["id"])
    assert (entry["port"], entry["portGroup"]) == (port["uri"], one["uri"])
    await api.create(two["ports"], portId=port["id"])
    await api.create(two["ports"], portId=other["id"])
    await api.refused(409, "POST", one["ports"], portId=port["id"])
    await api.refused(400, "POST", one["ports"], portId=GONE)
    await api.refused(400, "POST", one["ports"])
    await api.refused(404, "GET", f"{one['uri']}/ports/{other['id']}")
    listed = {each["portGroupId"] for each in await api.get(port["portGroups"])}
    assert listed == {one["id"], two["id"]}
    for query, expected in (
        (f"port_id={port['id']}", {"one", "two"}),
        (f"port_id={other['id']}", {"two"}),
        (f"port_id={port['id']}&tenant_id=t1", {"one"}),
        (f"port_id={GONE}", set()),
        ("port_id=nonsense", set()),
        ("tenant_id=t2", {"two"}),
    ):
        assert {each["name"] for each in await api.get(f"/port_groups?{query}")} == expected
    assert (await api.http.delete(entry["uri"])).status_code == 204
    assert (await api.http.delete(entry["uri"])).status_code == 204
    await api.refused(404, "DELETE", f"{one['uri']}/ports/{GONE}")
    assert await api.get(one["ports"]) == []
    # Replacing a port leaves it in its groups.
    await api.http.put(port["uri"], json={"type": "Bridge", "adminStateUp": False})
    assert [each["portGroupId"] for each in await api.get(port["portGroups"])] == [two["id"]]
    assert (await api.http.delete(two["uri"])).status_code == 204
    assert await api.get(port["portGroups"]) == []
    assert (await api.http.delete(other["uri"])).status_code == 204


async def test_a_deleted_port_is_in_no_group(api: Api) -> None:
    port = await port_of(api, await api.create("/bridges"))
    group = await api.create("/port_groups")
    await api.create(group["ports"], portId=port["id"])
    assert (await api.http.delete(port["uri"])).status_code == 204
    assert await api.get(group["ports"]) == []


async def test_a_port_is_in_one_stateful_group_whose_ports_are_on_one_device(api: Api) -> None:
    bridge, elsewhere = await api.create("/bridges"), await api.create("/bridges")
    port, far = await port_of(api, bridge), await port_of(api, elsewhere)
    one = await api.create("/port_groups", name="one", stateful=True)
    two = await api.create("/port_groups", name="two", stateful=True)
    plain = await api.create("/port_groups", name="plain")
    await api.create(one["ports"], portId=port["id"])
    error = await api.refused(409, "POST", two["ports"], portId=port["id"])
    assert one["id"] in error["message"]
    error = await api.refused(409, "POST", one["ports"], portId=far["id"])
    assert "another device" in error["message"]
    await api.create(one["ports"], portId=(await port_of(api, bridge))["id"])
    await api.create(two["ports"], portId=far["id"])
    for each in (port, far):
        await api.create(plain["ports"], portId=each["id"])
    error = await api.refused(409, "PUT", plain["uri"], name="plain", stateful=True)
    assert "several devices" in error["message"]
    assert (await api.http.delete(f"{plain['uri']}/ports/{far['id']}")).status_code == 204
    error = await api.refused(409, "PUT", plain["uri"], name="plain", stateful=True)
    assert one["id"] in error["message"]
    assert (await api.http.delete(f"{one['uri']}/ports/{port['id']}")).status_code == 204
    stateful = await api.http.put(plain["uri"], json={"name": "plain", "stateful": True})
    assert stateful.status_code == 204


async def test_of_two_first_members_on_two_devices_one_is_refused(api: Api) -> None:
    ports = [await port_of(api, await api.create("/bridges")) for _ in range(6)]
    group = await api.create("/port_groups", stateful=True)
    replies = await asyncio.gather(
        *(api.http.post(group["ports"], json={"portId": port["id"]}) for port in ports)
    )
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409, 409, 409]
    listed = await api.get(group["ports"])
    assert len(listed) == 1
    stored = await api.store.get(Port, UUID(listed[0]["portId"]))
    assert stored is not None
    assert [str(one) for one in stored.value.port_group_ids] == [group["id"]]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"portGroup": GONE}, "portGroup"),
        ({"inPortGroup": GONE}, "inPortGroup"),
        ({"outPortGroup": GONE}, "outPortGroup"),
        ({"ipAddrGroupSrc": GONE}, "ipAddrGroupSrc"),
        ({"ipAddrGroupDst": GONE}, "ipAddrGroupDst"),
        ({"invInPortGroup": True}, "invInPortGroup"),
        ({"invIpAddrGroupDst": True}, "invIpAddrGroupDst"),
        ({"icmpDataSrcIpAddress": "nonsense"}, "icmpDataSrcIpAddress"),
        ({"icmpDataSrcIpLength": 8}, "icmpDataSrcIpLength"),
        ({"icmpDataDstIpAddress": "10.0.0.0", "icmpDataDstIpLength": 33}, "icmpDataDstIpLength"),
        ({"invIcmpDataDstIp": True}, "invIcmpDataDstIp"),
    ],
)
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_a_condition_that_means_nothing_is_refused(
    api: Api, body: dict[str, Any], name: str
) -> None:
    chain = await api.create("/chains")
    error = await api.refused(400, "POST", chain["rules"], type="drop", **body)
    assert [one["property"] for one in error["violations"]] == [name]
    assert await api.get(chain["rules"]) == []


async def test_conditions_are_shown_as_they_were_given(api: Api) -> None:
    ports, addresses = (
        await api.create("/port_groups"),
        await api.create("/ip_addr_groups", name="g"),
    )
    chain = await api.create("/chains")
    given = {
        "portGroup": ports["id"],
        "invPortGroup": True,
        "inPortGroup": ports["id"],
        "outPortGroup": ports["id"],
        "invOutPortGroup": True,
        "ipAddrGroupSrc": addresses["id"],
        "ipAddrGroupDst": addresses["id"],
        "invIpAddrGroupDst": True,
        "icmpDataSrcIpAddress": "10.0.0.0",
        "icmpDataSrcIpLength": 8,
        "invIcmpDataSrcIp": True,
        "icmpDataDstIpAddress": "2001:db8::1",
        "icmpDataDstIpLength": 128,
        "matchNwDstRewritten": True,
    }
    rule = await api.create(chain["rules"], type="drop", **given)
    assert {name: rule[name] for name in given} == given
    await api.refused(409, "DELETE", ports["uri"])
