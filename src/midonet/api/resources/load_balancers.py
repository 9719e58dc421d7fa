"""Load balancers, pools, pool members, VIPs and health monitors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from midonet.api.call import Call, Endpoint, Reply
from midonet.api.crud import PAGE, StoredResource, endpoints_of, nested_endpoints, require
from midonet.errors import NotFoundError, ValidationError
from midonet.model.devices import Router
from midonet.model.ids import ObjectId
from midonet.model.load_balancer import (
    HealthMonitor,
    LoadBalancer,
    MemberHealth,
    Pool,
    PoolMember,
    Vip,
)
from midonet.model.schema_load_balancers import (
    HEALTH_MONITOR,
    LOAD_BALANCER,
    POOL,
    POOL_MEMBER,
    VIP,
    HealthMonitorResource,
    LoadBalancerResource,
    PoolMemberResource,
    VipResource,
)
from midonet.model.validation import broken, invalid
from midonet.nsdb.store import Create, Operation, StateTables, Store, Update, Versioned
from midonet.packets.addresses import parse_ip

_ALL = frozenset(("LIST", "GET", "POST", "PUT", "DELETE"))


async def _create_balancer(
    call: Call, resource: LoadBalancerResource, balancer: LoadBalancer
) -> list[Operation]:
    if resource.router_id is not None:
        rule = "must be null: set the router's loadBalancerId instead"
        raise ValidationError([broken("routerId", rule, resource.router_id)])
    return [Create(balancer)]


async def _update_balancer(
    call: Call, current: Versioned[LoadBalancer], balancer: LoadBalancer
) -> list[Operation]:
    if call.body.router_id != await _router_id(call.store, balancer.id):
        raise invalid("routerId", "Router cannot be modified")
    return [Update(balancer, current.version)]


async def _router_id(store: Store, balancer_id: ObjectId) -> ObjectId | None:
    found = await store.referrers(Router, "load_balancer_id", balancer_id)
    return found[0] if found else None


async def _present_balancers(
    call: Call, balancers: Sequence[LoadBalancer]
) -> list[LoadBalancerResource]:
    found = await call.store.referrers_many(
        Router, "load_balancer_id", [balancer.id for balancer in balancers]
    )
    return [
        msgspec.structs.replace(
            LOAD_BALANCER.represented(balancer),
            router_id=next(iter(found.get(balancer.id, ())), None),
        )
        for balancer in balancers
    ]


async def _create_member(
    call: Call, resource: PoolMemberResource, member: PoolMember
) -> list[Operation]:
    await _require_one_version(call.store, member)
    return [Create(msgspec.structs.replace(member, admin_state_up=True))]


async def _update_member(
    call: Call, current: Versioned[PoolMember], member: PoolMember
) -> list[Operation]:
    await _require_one_version(call.store, member)
    return [Update(member, current.version)]


async def _create_vip(call: Call, resource: VipResource, vip: Vip) -> list[Operation]:
    await _require_one_version(call.store, vip)
    return [Create(vip)]


async def _update_vip(call: Call, current: Versioned[Vip], vip: Vip) -> list[Operation]:
    await _require_one_version(call.store, vip)
    return [Update(vip, current.version)]


async def _require_one_version(store: Store, given: PoolMember | Vip) -> None:
    """Raise ValidationError when the pool has a VIP or member of the other IP version.

    Two requests at the same time may slip through: agents pass such a member over.
    """
    version = parse_ip(given.address).version
    kinds: tuple[type[PoolMember | Vip], ...] = (Vip, PoolMember)
    for kind in kinds:
        other_ids = await store.referrers(kind, "pool_id", given.pool_id)
        # One of either kind tells: they agree among each other.
        for other in (await store.get_many(kind, other_ids[:2])).values():
            if other.value.id != given.id and parse_ip(other.value.address).version is not version:
                title = "VIP" if kind is Vip else "PoolMember"
                rule = f"must be of the IP version of {title} {other.value.id} of the same pool"
                raise ValidationError([broken("address", rule, given.address)])


async def _present_members(call: Call, members: Sequence[PoolMember]) -> list[PoolMemberResource]:
    """A member is active unless its pool's health monitor found otherwise."""
    inactive: set[str] = set()
    for pool_id in {member.pool_id for member in members}:
        for entry in await call.store.table(StateTables.member_health(pool_id)):
            if entry.value == MemberHealth.INACTIVE:
                inactive.add(entry.key)
    return [
        msgspec.structs.replace(
            POOL_MEMBER.represented(member),
            status=MemberHealth.INACTIVE if str(member.id) in inactive else MemberHealth.ACTIVE,
        )
        for member in members
    ]


async def _present_vips(call: Call, vips: Sequence[Vip]) -> list[VipResource]:
    pools = await call.store.get_many(Pool, sorted({vip.pool_id for vip in vips}))
    return [
        msgspec.structs.replace(
            VIP.represented(vip),
            load_balancer_id=pools[vip.pool_id].value.load_balancer_id
            if vip.pool_id in pools
            else None,
        )
        for vip in vips
    ]


async def _create_monitor(
    call: Call, resource: HealthMonitorResource, monitor: HealthMonitor
) -> list[Operation]:
    return [Create(msgspec.structs.replace(monitor, admin_state_up=True))]


LOAD_BALANCERS = StoredResource(
    schema=LOAD_BALANCER,
    verbs=_ALL,
    plan_create=_create_balancer,
    plan_update=_update_balancer,
    present=_present_balancers,
)
POOLS = StoredResource(schema=POOL, verbs=_ALL, filters={"hm_id": "health_monitor_id"})
POOL_MEMBERS = StoredResource(
    schema=POOL_MEMBER,
    verbs=_ALL,
    plan_create=_create_member,
    plan_update=_update_member,
    present=_present_members,
)
VIPS = StoredResource(
    schema=VIP,
    verbs=_ALL,
    plan_create=_create_vip,
    plan_update=_update_vip,
    present=_present_vips,
)
HEALTH_MONITORS = StoredResource(schema=HEALTH_MONITOR, verbs=_ALL, plan_create=_create_monitor)


def _members_below_a_balancer() -> list[Endpoint]:
    """Return the endpoints of a pool's members below the pool's load balancer."""
    below_pool = nested_endpoints(POOL, "pool_members", POOL_MEMBERS, "pool_id", "pool_id")
    return [_below_a_balancer(endpoint) for endpoint in below_pool if endpoint.method != "DELETE"]


def _below_a_balancer(endpoint: Endpoint) -> Endpoint:
    async def handle(call: Call) -> Reply:
        balancer_id = call.object_id("id", LOAD_BALANCER.title)
        await require(call.store, LOAD_BALANCER, balancer_id)
        pool_id = call.object_id("pool_id", POOL.title)
        pool = await require(call.store, POOL, pool_id)
        if pool.value.load_balancer_id != balancer_id:
            raise NotFoundError(POOL.title, pool_id)
        return await endpoint.handle(replace(call, path={**call.path, "id": str(pool_id)}))

    return replace(
        endpoint,
        path="/load_balancers/{id}/pools/{pool_id}/pool_members",
        handle=handle,
        summary=f"{endpoint.summary} of a LoadBalancer",
    )


def _vips_of_a_balancer() -> Endpoint:
    async def pages(call: Call, vip_ids: list[ObjectId]) -> Any:
        for start in range(0, len(vip_ids), PAGE):
            found = await call.store.get_many(Vip, vip_ids[start : start + PAGE])
            yield await _present_vips(call, [each.value for each in found.values()])

    async def handle(call: Call) -> Reply:
        balancer_id = call.object_id("id", LOAD_BALANCER.title)
        await require(call.store, LOAD_BALANCER, balancer_id)
        pool_ids = await call.store.referrers(Pool, "load_balancer_id", balancer_id)
        by_pool = await call.store.referrers_many(Vip, "pool_id", pool_ids)
        vip_ids = sorted(vip_id for found in by_pool.values() for vip_id in found)
        return Reply(200, pages(call, vip_ids))

    return Endpoint(
        "GET",
        "/load_balancers/{id}/vips",
        VIP,
        handle,
        "List each VIP of a LoadBalancer",
        200,
        is_collection=True,
    )


def _pools_of_a_monitor() -> Endpoint:
    nested = nested_endpoints(
        HEALTH_MONITOR, "pools", POOLS, "health_monitor_id", "health_monitor_id"
    )
    return next(endpoint for endpoint in nested if endpoint.method == "GET")


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        *endpoints_of(LOAD_BALANCERS),
        *nested_endpoints(LOAD_BALANCER, "pools", POOLS, "load_balancer_id", "load_balancer_id"),
        *_members_below_a_balancer(),
        _vips_of_a_balancer(),
        *endpoints_of(POOLS),
        *nested_endpoints(POOL, "pool_members", POOL_MEMBERS, "pool_id", "pool_id"),
        *nested_endpoints(POOL, "vips", VIPS, "pool_id", "pool_id"),
        *endpoints_of(POOL_MEMBERS),
        *endpoints_of(VIPS),
        *endpoints_of(HEALTH_MONITORS),
        _pools_of_a_monitor(),
    ]
