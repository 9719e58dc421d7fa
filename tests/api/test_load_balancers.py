"""What the contract says of load balancers beside create, read, update and delete."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from midonet.nsdb.store import PutState, StateTables
from tests.api.conftest import ROOT, Api

IN_MEMORY = pytest.mark.parametrize("store", ["memory"], indirect=True)
MEMBER = {"address": "10.0.0.11", "protocolPort": 8080}
VIP = {"address": "192.0.2.80", "protocolPort": 80}
MISSING = "6a1f3d5e-0000-4000-8000-000000000001"


async def pool_of(api: Api, **body: Any) -> dict[str, Any]:
    balancer = await api.create("/load_balancers")
    return await api.create(balancer["pools"], lbMethod="ROUND_ROBIN", **body)


async def test_root_document_leads_to_all_of_them(api: Api) -> None:
    root = await api.get("/")
    keys = {
        "loadBalancers": "load_balancers",
        "pools": "pools",
        "poolMembers": "pool_members",
        "vips": "vips",
        "healthMonitors": "health_monitors",
    }
    for key, segment in keys.items():
        assert root[key] == f"{ROOT}/{segment}"
        assert root[f"{key[:-1]}Template"] == f"{ROOT}/{segment}/{{id}}"


async def test_defaults_of_each_kind(api: Api) -> None:
    pool = await pool_of(api)
    shown = {"protocol": "TCP", "status": "ACTIVE", "adminStateUp": True, "lbMethod": "ROUND_ROBIN"}
    assert pool | shown == pool
    member = await api.create(pool["poolMembers"], address="10.0.0.11")
    assert member | {"weight": 1, "protocolPort": 0, "status": "ACTIVE"} == member
    vip = await api.create(pool["vips"], address="192.0.2.80")
    assert vip | {"protocolPort": 0, "sessionPersistence": None, "adminStateUp": True} == vip
    monitor = await api.create("/health_monitors", type="TCP")
    assert monitor | {"delay": 0, "timeout": 0, "maxRetries": 0, "adminStateUp": True} == monitor


async def test_a_balancer_is_attached_by_its_router_only(api: Api) -> None:
    router = await api.create("/routers")
    error = await api.refused(400, "POST", "/load_balancers", routerId=router["id"])
    assert router["id"] in error["message"]
    balancer = await api.create("/load_balancers")
    assert (balancer["routerId"], balancer["router"]) == (None, None)
    attached = await api.http.put(router["uri"], json=router | {"loadBalancerId": balancer["id"]})
    assert attached.status_code == 204
    shown = await api.get(balancer["uri"])
    assert (shown["routerId"], shown["router"]) == (router["id"], router["uri"])
    assert (await api.get(router["uri"]))["loadBalancer"] == balancer["uri"]
    other = await api.create("/routers")
    for wrong in (None, other["id"]):
        error = await api.refused(400, "PUT", balancer["uri"], **(shown | {"routerId": wrong}))
        assert "Router cannot be modified" in error["message"]
    down = await api.http.put(balancer["uri"], json=shown | {"adminStateUp": False})
    assert down.status_code == 204
    assert (await api.get(balancer["uri"]))["adminStateUp"] is False
    assert [one["routerId"] for one in await api.get("/load_balancers")] == [router["id"]]


async def test_a_balancer_is_at_one_router_and_keeps_it(api: Api) -> None:
    balancer = await api.create("/load_balancers")
    router = await api.create("/routers", loadBalancerId=balancer["id"])
    await api.refused(409, "POST", "/routers", loadBalancerId=balancer["id"])
    await api.refused(400, "POST", "/routers", loadBalancerId=MISSING)
    error = await api.refused(409, "DELETE", router["uri"])
    assert balancer["id"] in error["message"]
    assert (await api.http.delete(balancer["uri"])).status_code == 204
    assert (await api.get(router["uri"]))["loadBalancerId"] is None
    assert (await api.http.delete(router["uri"])).status_code == 204


async def test_deleting_a_balancer_takes_all_below_it_along(api: Api) -> None:
    monitor = await api.create("/health_monitors", type="TCP")
    pool = await pool_of(api, healthMonitorId=monitor["id"])
    member = await api.create(pool["poolMembers"], **MEMBER)
    vip = await api.create(pool["vips"], **VIP)
    assert (await api.http.delete(pool["loadBalancer"])).status_code == 204
    for gone in (pool, member, vip):
        await api.refused(404, "GET", gone["uri"])
    assert await api.get(monitor["pools"]) == []


async def test_deleting_a_monitor_leaves_the_pool(api: Api) -> None:
    monitor = await api.create("/health_monitors", type="TCP")
    pool = await pool_of(api, healthMonitorId=monitor["id"])
    assert [one["id"] for one in await api.get(monitor["pools"])] == [pool["id"]]
    assert (await api.http.delete(monitor["uri"])).status_code == 204
    assert (await api.get(pool["uri"]))["healthMonitorId"] is None


async def test_pools_are_listed_by_monitor(api: Api) -> None:
    monitor = await api.create("/health_monitors", type="TCP")
    checked = await pool_of(api, healthMonitorId=monitor["id"])
    await pool_of(api)
    assert [one["id"] for one in await api.get(f"/pools?hm_id={monitor['id']}")] == [checked["id"]]
    assert len(await api.get("/pools")) == 2


async def test_members_below_a_balancer(api: Api) -> None:
    pool, other = await pool_of(api), await pool_of(api)
    below = f"/load_balancers/{pool['loadBalancerId']}/pools"
    path = f"{below}/{pool['id']}/pool_members"
    member = await api.create(path, **MEMBER)
    assert member["poolId"] == pool["id"]
    assert await api.get(path) == await api.get(pool["poolMembers"]) == [member]
    for wrong in (
        f"{below}/{other['id']}/pool_members",
        f"{below}/{MISSING}/pool_members",
        f"/load_balancers/{MISSING}/pools/{pool['id']}/pool_members",
    ):
        await api.refused(404, "GET", wrong)
        await api.refused(404, "POST", wrong, **MEMBER)


async def test_vips_of_a_balancer_are_those_of_its_pools(api: Api) -> None:
    pool, other = await pool_of(api), await pool_of(api)
    second = await api.create(
        f"/load_balancers/{pool['loadBalancerId']}/pools", lbMethod="ROUND_ROBIN"
    )
    vips = [
        await api.create(one["vips"], address="192.0.2.80", protocolPort=port)
        for one, port in ((pool, 80), (second, 443))
    ]
    await api.create(other["vips"], **VIP)
    path = f"/load_balancers/{pool['loadBalancerId']}/vips"
    assert sorted(one["id"] for one in await api.get(path)) == sorted(one["id"] for one in vips)
    assert {one["loadBalancerId"] for one in vips} == {pool["loadBalancerId"]}
    await api.refused(405, "POST", path, **VIP)
    await api.refused(404, "GET", f"/load_balancers/{MISSING}/vips")


@pytest.mark.parametrize("segment", ["vips", "pool_members"])
async def test_pool_of_a_vip_or_member_must_exist(api: Api, segment: str) -> None:
    error = await api.refused(400, "POST", f"/{segment}", **MEMBER)
    assert error["violations"] == [
        {"property": "poolId", "message": "is needed, as the URI names no pool"}
    ]
    error = await api.refused(400, "POST", f"/{segment}", poolId=MISSING, **MEMBER)
    assert error["violations"][0]["property"] == "poolId"
    await api.refused(404, "POST", f"/pools/{MISSING}/{segment}", **MEMBER)
    await api.refused(404, "GET", f"/pools/{MISSING}/{segment}")


@pytest.mark.parametrize(
    ("segment", "name", "value"),
    [
        ("pools", "lbMethod", None),
        ("pools", "lbMethod", "LEAST_CONNECTIONS"),
        ("pools", "protocol", "HTTP"),
        ("pools", "sessionPersistence", "HTTP_COOKIE"),
        ("pools", "loadBalancerId", MISSING),
        ("pools", "healthMonitorId", MISSING),
        ("pool_members", "address", None),
        ("pool_members", "address", "10.0.0.256"),
        ("pool_members", "address", "224.0.0.1"),
        ("pool_members", "address", "0.0.0.0"),
        ("pool_members", "address", "127.0.0.1"),
        ("pool_members", "address", "::ffff:10.0.0.1"),
        ("pool_members", "protocolPort", -1),
        ("pool_members", "protocolPort", 65536),
        ("pool_members", "weight", 0),
        ("pool_members", "weight", 1 << 31),
        ("vips", "address", None),
        ("vips", "address", "a name"),
        ("vips", "address", "255.255.255.255"),
        ("vips", "protocolPort", 65536),
        ("vips", "sessionPersistence", "COOKIE"),
        ("health_monitors", "type", None),
        ("health_monitors", "type", "HTTP"),
        ("health_monitors", "delay", -1),
        ("health_monitors", "maxRetries", 1 << 31),
    ],
)
@IN_MEMORY
async def test_bad_value_is_refused_by_name(
    api: Api, segment: str, name: str, value: object
) -> None:
    pool = await pool_of(api)
    body = {
        "pools": {"lbMethod": "ROUND_ROBIN"},
        "pool_members": MEMBER | {"poolId": pool["id"]},
        "vips": VIP | {"poolId": pool["id"]},
        "health_monitors": {"type": "TCP"},
    }[segment]
    before = await api.get(f"/{segment}")
    error = await api.refused(400, "POST", f"/{segment}", **(body | {name: value}))
    assert name in error["message"], error
    assert await api.get(f"/{segment}") == before


async def test_members_and_monitors_begin_up(api: Api) -> None:
    pool = await pool_of(api)
    member = await api.create(pool["poolMembers"], **MEMBER, adminStateUp=False)
    monitor = await api.create("/health_monitors", type="TCP", adminStateUp=False)
    for created in (member, monitor):
        assert created["adminStateUp"] is True
        put = await api.http.put(created["uri"], json=created | {"adminStateUp": False})
        assert put.status_code == 204
        assert (await api.get(created["uri"]))["adminStateUp"] is False


async def test_update_of_a_member_keeps_where_it_is(api: Api) -> None:
    pool = await pool_of(api)
    member = await api.create(pool["poolMembers"], **MEMBER)
    changed = {"address": "10.0.0.99", "protocolPort": 1, "status": "INACTIVE", "weight": 7}
    assert (await api.http.put(member["uri"], json=member | changed)).status_code == 204
    assert await api.get(member["uri"]) == member | {"weight": 7}


async def test_vip_may_move_to_another_pool_and_address(api: Api) -> None:
    pool, other = await pool_of(api), await pool_of(api)
    vip = await api.create(pool["vips"], **VIP)
    moved = vip | {"poolId": other["id"], "address": "192.0.2.81", "protocolPort": 443}
    assert (await api.http.put(vip["uri"], json=moved)).status_code == 204
    assert await api.get(pool["vips"]) == []
    shown = (await api.get(other["vips"]))[0]
    assert (shown["address"], shown["protocolPort"]) == ("192.0.2.81", 443)
    assert shown["loadBalancerId"] == other["loadBalancerId"]


async def test_vips_and_members_of_a_pool_are_of_one_ip_version(api: Api) -> None:
    pool, other = await pool_of(api), await pool_of(api)
    vip = await api.create(pool["vips"], **VIP)
    error = await api.refused(400, "POST", pool["poolMembers"], address="2001:db8::1")
    assert vip["id"] in error["message"]
    assert "2001:db8::1" in error["message"]
    member = await api.create(other["poolMembers"], address="2001:DB8:0::11")
    assert member["address"] == "2001:db8::11"
    error = await api.refused(400, "POST", other["vips"], **VIP)
    assert member["id"] in error["message"]
    await api.refused(400, "PUT", vip["uri"], **(vip | {"poolId": other["id"]}))
    # The only one of a pool may change its version.
    alone = vip | {"address": "2001:db8::80"}
    assert (await api.http.put(vip["uri"], json=alone)).status_code == 204


async def test_status_of_a_member_is_what_its_monitor_found(api: Api) -> None:
    pool = await pool_of(api)
    members = [
        await api.create(pool["poolMembers"], address=f"10.0.0.{host}") for host in (11, 12, 13)
    ]
    table, owner = StateTables.member_health(UUID(pool["id"])), uuid4()
    session = await api.store.open_session(owner)
    found = zip(members, ("INACTIVE", "ACTIVE", "nonsense"), strict=True)
    await api.store.transact(
        [PutState(table, member["id"], value, owner) for member, value in found]
    )
    shown = {one["id"]: one["status"] for one in await api.get(pool["poolMembers"])}
    assert [shown[one["id"]] for one in members] == ["INACTIVE", "ACTIVE", "ACTIVE"]
    assert (await api.get(members[0]["uri"]))["status"] == "INACTIVE"
    # Nobody who is away says that a member is ill.
    await session.close()
    assert (await api.get(members[0]["uri"]))["status"] == "ACTIVE"


async def test_health_goes_with_the_pool(api: Api) -> None:
    pool = await pool_of(api)
    member = await api.create(pool["poolMembers"], **MEMBER)
    table, owner = StateTables.member_health(UUID(pool["id"])), uuid4()
    await api.store.open_session(owner)
    await api.store.transact([PutState(table, member["id"], "INACTIVE", owner)])
    assert (await api.http.delete(pool["uri"])).status_code == 204
    assert await api.store.table(table) == []


@pytest.mark.parametrize(
    "segment", ["load_balancers", "pools", "pool_members", "vips", "health_monitors"]
)
async def test_deleting_what_is_not_there_is_no_error(api: Api, segment: str) -> None:
    assert (await api.http.delete(f"/{segment}/{MISSING}")).status_code == 204
    await api.refused(404, "GET", f"/{segment}/{MISSING}")
