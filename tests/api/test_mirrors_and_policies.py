"""Mirrors, and QoS policies with their rules."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.api.conftest import Api

pytestmark = pytest.mark.parametrize("store", ["memory"], indirect=True)


async def _lan(api: Api) -> tuple[dict[str, str], dict[str, str]]:
    """Return a bridge and a port of it."""
    bridge = await api.create("/bridges")
    return bridge, await api.create(bridge["ports"], type="Bridge")


async def _put(api: Api, path: str, **body: object) -> None:
    reply = await api.http.put(path, json=body)
    assert reply.status_code == 204, reply.text


async def _delete(api: Api, uri: str) -> None:
    assert (await api.http.delete(uri)).status_code == 204


async def test_a_mirror_keeps_its_conditions_in_order(api: Api) -> None:
    _, port = await _lan(api)
    conditions = [
        {"nwProto": 17, "tpDst": {"start": 53, "end": 53}},
        {"dlSrc": "02-00-00-00-00-01", "invDlSrc": True},
        {},
    ]
    mirror = await api.create("/mirrors", toPortId=port["id"], conditions=conditions)
    first, second, third = (await api.get(mirror["uri"]))["conditions"]
    assert (first["nwProto"], first["tpDst"]) == (17, {"start": 53, "end": 53})
    assert first["fragmentPolicy"] == "header"
    assert (second["dlSrc"], second["invDlSrc"]) == ("02:00:00:00:00:01", True)
    assert third["fragmentPolicy"] == "any"
    assert (await api.get(mirror["uri"]))["toPort"] == port["uri"]


async def test_what_was_read_of_a_mirror_can_be_written(api: Api) -> None:
    _, port = await _lan(api)
    mirror = await api.create("/mirrors", toPortId=port["id"], conditions=[{"nwTos": 184}])
    read = await api.get(mirror["uri"])
    await _put(api, mirror["uri"], **read)
    assert await api.get(mirror["uri"]) == read


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        ({"dlSrc": "rubbish"}, "conditions[1].dlSrc"),
        ({"nwSrcLength": 8}, "conditions[1].nwSrcLength"),
        ({"tpSrc": {"start": 9, "end": 8}}, "conditions[1].tpSrc"),
        ({"inPorts": [str(uuid4())]}, "conditions[1].inPorts"),
        ({"traversedDevice": str(uuid4())}, "conditions[1].traversedDevice"),
    ],
)
async def test_a_condition_that_means_nothing_is_refused_by_its_place(
    api: Api, condition: dict[str, object], name: str
) -> None:
    _, port = await _lan(api)
    error = await api.refused(
        400, "POST", "/mirrors", toPortId=port["id"], conditions=[{}, condition]
    )
    assert [each["property"] for each in error["violations"]] == [name]


async def test_a_null_in_a_condition_means_the_default(api: Api) -> None:
    _, port = await _lan(api)
    given = {"invDlSrc": None, "vlan": None, "nwProto": None, "inPorts": None}
    mirror = await api.create("/mirrors", toPortId=port["id"], conditions=[given])
    [condition] = (await api.get(mirror["uri"]))["conditions"]
    assert (condition["invDlSrc"], condition["vlan"], condition["inPorts"]) == (False, 0, [])


async def test_a_mirror_needs_a_port_that_exists(api: Api) -> None:
    assert "toPortId" in (await api.refused(400, "POST", "/mirrors"))["message"]
    error = await api.refused(400, "POST", "/mirrors", toPortId=str(uuid4()))
    assert error["violations"][0]["property"] == "toPortId"


async def test_a_mirror_goes_with_its_port_and_leaves_no_trace(api: Api) -> None:
    bridge, port = await _lan(api)
    router = await api.create("/routers")
    target = await api.create(bridge["ports"], type="Bridge")
    mirror = await api.create("/mirrors", toPortId=target["id"])
    ids = [mirror["id"]]
    hooks = ("inbound", "postInFilter", "preOutFilter", "outbound")
    names = [f"{hook}MirrorIds" for hook in hooks]
    await _put(api, port["uri"], type="Bridge", **dict.fromkeys(names, ids))
    for device in (bridge, router):
        await _put(api, device["uri"], inboundMirrorIds=ids, outboundMirrorIds=ids)
    assert [(await api.get(port["uri"]))[name] for name in names] == [ids] * 4
    await _delete(api, target["uri"])
    assert (await api.http.get(mirror["uri"])).status_code == 404
    assert [(await api.get(port["uri"]))[name] for name in names] == [[]] * 4
    for device in (bridge, router):
        read = await api.get(device["uri"])
        assert (read["inboundMirrorIds"], read["outboundMirrorIds"]) == ([], [])


async def test_a_device_names_mirrors_that_exist(api: Api) -> None:
    bridge, _ = await _lan(api)
    error = await api.refused(
        400, "POST", bridge["ports"], type="Bridge", postInFilterMirrorIds=[str(uuid4())]
    )
    assert error["violations"][0]["property"] == "postInFilterMirrorIds"


async def test_a_policy_is_made_with_its_rules(api: Api) -> None:
    rules = [
        {"type": "bandwidth_limit", "max_kbps": 1000, "max_burst_kbps": 50},
        {"type": "dscp_marking", "dscp_mark": 46, "id": str(uuid4())},
    ]
    policy = await api.create("/qos_policies", tenant_id="t", rules=rules)
    [limit] = await api.get(policy["bwLimitRules"])
    [mark] = await api.get(policy["dscpRules"])
    assert (limit["maxKbps"], limit["maxBurstKb"]) == (1000, 50)
    assert (mark["dscpMark"], mark["id"]) == (46, rules[1]["id"])
    assert limit["policyId"] == mark["policyId"] == policy["id"]


async def test_a_list_of_rules_makes_a_policys_rules_these(api: Api) -> None:
    policy = await api.create("/qos_policies", rules=[{"type": "dscp_marking", "dscp_mark": 1}])
    [before] = await api.get(policy["dscpRules"])
    await _put(api, policy["uri"], name="renamed")
    assert await api.get(policy["dscpRules"]) == [before]
    await _put(api, policy["uri"], rules=[{"type": "dscp_marking", "dscp_mark": 2}])
    [after] = await api.get(policy["dscpRules"])
    assert (after["id"], after["dscpMark"]) == (before["id"], 2)
    other = {"type": "dscp_marking", "dscp_mark": 3, "id": str(uuid4())}
    await _put(api, policy["uri"], rules=[other, {"type": "bandwidth_limit", "max_kbps": 7}])
    assert [one["id"] for one in await api.get(policy["dscpRules"])] == [other["id"]]
    assert [one["maxKbps"] for one in await api.get(policy["bwLimitRules"])] == [7]
    read = await api.get(policy["uri"])
    await _put(api, policy["uri"], **read)
    assert await api.get(policy["uri"]) == read
    await _put(api, policy["uri"], rules=[])
    assert await api.get(policy["dscpRules"]) == await api.get(policy["bwLimitRules"]) == []


async def test_a_policy_has_one_rule_of_a_type(api: Api) -> None:
    policy = await api.create("/qos_policies")
    twice = [{"type": "dscp_marking", "dscp_mark": mark} for mark in (1, 2)]
    error = await api.refused(400, "PUT", policy["uri"], rules=twice)
    assert error["violations"][0]["property"] == "rules"
    await api.create(policy["dscpRules"], dscpMark=1)
    await api.refused(409, "POST", policy["dscpRules"], dscpMark=2)


@pytest.mark.parametrize("mark", [-1, 64, 256])
async def test_a_dscp_has_six_bits(api: Api, mark: int) -> None:
    policy = await api.create("/qos_policies")
    await api.refused(400, "POST", policy["dscpRules"], dscpMark=mark)
    rules = [{"type": "dscp_marking", "dscp_mark": mark}]
    await api.refused(400, "PUT", policy["uri"], rules=rules)


async def test_a_policy_that_goes_takes_its_rules_and_leaves_its_ports(api: Api) -> None:
    bridge, port = await _lan(api)
    policy = await api.create("/qos_policies", rules=[{"type": "dscp_marking", "dscp_mark": 1}])
    [mark] = await api.get(policy["dscpRules"])
    await _put(api, bridge["uri"], qosPolicyId=policy["id"])
    await _put(api, port["uri"], type="Bridge", qosPolicyId=policy["id"])
    await _delete(api, policy["uri"])
    assert (await api.http.get(mark["uri"])).status_code == 404
    assert (await api.get(bridge["uri"]))["qosPolicyId"] is None
    assert (await api.get(port["uri"]))["qosPolicyId"] is None


async def test_policies_are_listed_by_owner(api: Api) -> None:
    mine = await api.create("/qos_policies", tenant_id="me")
    await api.create("/qos_policies", tenant_id="you")
    assert [one["id"] for one in await api.get("/qos_policies?tenant_id=me")] == [mine["id"]]
