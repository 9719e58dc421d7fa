"""Representations of load balancers, pools, pool members, VIPs and health monitors."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar
from uuid import UUID

from msgspec import Meta, Struct, field

from midonet.model.load_balancer import (
    BalancedProtocol,
    BalancingMethod,
    HealthMonitor,
    LoadBalancer,
    MemberHealth,
    MonitorKind,
    Pool,
    PoolMember,
    SessionPersistence,
    Vip,
)
from midonet.model.schema import (
    CREATE_ONLY,
    READ_ONLY,
    REQUIRED,
    MediaType,
    ResourceSchema,
    copy_fields,
    link_to,
    text,
)
from midonet.model.validation import HOST_IP, invalid

P = TypeVar("P", PoolMember, Vip)

ServicePort = Annotated[int, Meta(ge=0, le=0xFFFF)]
Seconds = Annotated[int, Meta(ge=0, le=0x7FFF_FFFF)]


class LoadBalancerResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A set of pools with their VIPs. A router answers for them that names the load balancer.

    router_id: the router whose `loadBalancerId` this is. It is set there: null in a POST, and
        as it was read in a PUT.
    admin_state_up: one that is down leaves packets to its VIPs to the router.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/load_balancers/{id}")] = None
    router_id: UUID | None = None
    admin_state_up: bool = True
    router: Annotated[str | None, link_to("/routers/{router_id}")] = None
    pools: Annotated[str | None, link_to("/load_balancers/{id}/pools")] = None
    vips: Annotated[str | None, link_to("/load_balancers/{id}/vips")] = None


class PoolResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """Members that share out the connections to the pool's VIPs.

    protocol: TCP or UDP, of the VIPs and the members; kept by a PUT.
    method: members get new connections in proportion to their weights.
    session_persistence: SOURCE_IP binds a client to one member at each VIP of the pool.
    admin_state_up: the VIPs of a pool that is down take no new connection.
    health_monitor_id: how the members are checked; null for not at all.
    status: always ACTIVE.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/pools/{id}")] = None
    load_balancer_id: UUID | None = None
    health_monitor_id: UUID | None = None
    method: Annotated[BalancingMethod, REQUIRED] = field(
        default=BalancingMethod.ROUND_ROBIN, name="lbMethod"
    )
    protocol: Annotated[BalancedProtocol, CREATE_ONLY] = BalancedProtocol.TCP
    session_persistence: SessionPersistence | None = None
    admin_state_up: bool = True
    status: Annotated[MemberHealth, READ_ONLY] = MemberHealth.ACTIVE
    load_balancer: Annotated[str | None, link_to("/load_balancers/{load_balancer_id}")] = None
    health_monitor: Annotated[str | None, link_to("/health_monitors/{health_monitor_id}")] = None
    pool_members: Annotated[str | None, link_to("/pools/{id}/pool_members")] = None
    vips: Annotated[str | None, link_to("/pools/{id}/vips")] = None


class PoolMemberResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A server behind the VIPs of a pool.

    pool_id: required, unless the URI names the pool.
    address: of the IP version of the pool's VIPs and other members; kept by a PUT.
    port: that the server listens on; 0 keeps the VIP's. Kept by a PUT.
    weight: its share of new connections, in proportion to the other members'.
    admin_state_up: a member that is down gets no new connection and keeps those that it has,
        unless the client is bound to it by its address. True at first, whatever is posted.
    status: ACTIVE, or INACTIVE when a health monitor found it so.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/pool_members/{id}")] = None
    pool_id: UUID | None = None
    address: Annotated[str, CREATE_ONLY, REQUIRED, text(HOST_IP)] = ""
    port: Annotated[ServicePort, CREATE_ONLY] = field(default=0, name="protocolPort")
    weight: Annotated[int, Meta(ge=1, le=0x7FFF_FFFF)] = 1
    admin_state_up: bool = True
    status: Annotated[MemberHealth, READ_ONLY] = MemberHealth.ACTIVE
    pool: Annotated[str | None, link_to("/pools/{pool_id}")] = None


class VipResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """An address and port at which a router answers for a pool.

    pool_id: required, unless the URI names the pool.
    address: of the IP version of the pool's members.
    port: of TCP or UDP, as the pool says.
    session_persistence: SOURCE_IP binds a client to one member by its address.
    admin_state_up: packets to a VIP that is down are left to the router.
    load_balancer_id: that of the pool.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/vips/{id}")] = None
    load_balancer_id: Annotated[UUID | None, READ_ONLY] = None
    pool_id: UUID | None = None
    address: Annotated[str, REQUIRED, text(HOST_IP)] = ""
    port: ServicePort = field(default=0, name="protocolPort")
    session_persistence: SessionPersistence | None = None
    admin_state_up: bool = True
    load_balancer: Annotated[str | None, link_to("/load_balancers/{load_balancer_id}")] = None
    pool: Annotated[str | None, link_to("/pools/{pool_id}")] = None


class HealthMonitorResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """How the members of pools are checked.

    kind: TCP: a connection is opened.
    delay_s: time between two checks of a member, in seconds.
    timeout_s: time to wait for an answer, in seconds.
    max_retries: failures in a row that make a member inactive.
    admin_state_up: true at first, whatever is posted.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/health_monitors/{id}")] = None
    kind: Annotated[MonitorKind, REQUIRED] = field(default=MonitorKind.TCP, name="type")
    delay_s: Seconds = field(default=0, name="delay")
    timeout_s: Seconds = field(default=0, name="timeout")
    max_retries: Annotated[int, Meta(ge=0, le=0x7FFF_FFFF)] = 0
    admin_state_up: bool = True
    pools: Annotated[str | None, link_to("/health_monitors/{id}/pools")] = None


def pool_member_to_model(resource: PoolMemberResource, current: PoolMember | None) -> PoolMember:
    """Return the stored form. Raises ValidationError."""
    return _in_pool(resource, resource.pool_id, PoolMember, current)


def vip_to_model(resource: VipResource, current: Vip | None) -> Vip:
    """Return the stored form. Raises ValidationError."""
    return _in_pool(resource, resource.pool_id, Vip, current)


def _in_pool(
    resource: PoolMemberResource | VipResource,
    pool_id: UUID | None,
    kind: type[P],
    current: P | None,
) -> P:
    if pool_id is None:
        raise invalid("poolId", "is needed, as the URI names no pool")
    stored: P = copy_fields(resource, kind, current)
    return stored


LOAD_BALANCER: ResourceSchema[Any] = ResourceSchema(
    title="LoadBalancer",
    representation=LoadBalancerResource,
    kind=LoadBalancer,
    media=MediaType("LoadBalancer", (1,)),
    collection="load_balancers",
    root_keys=("loadBalancers", "loadBalancerTemplate"),
)
POOL: ResourceSchema[Any] = ResourceSchema(
    title="Pool",
    parent_link="pools",
    representation=PoolResource,
    kind=Pool,
    media=MediaType("Pool", (1,)),
    collection="pools",
    root_keys=("pools", "poolTemplate"),
)
POOL_MEMBER: ResourceSchema[Any] = ResourceSchema(
    title="PoolMember",
    parent_link="pool_members",
    representation=PoolMemberResource,
    kind=PoolMember,
    media=MediaType("PoolMember", (1,)),
    collection="pool_members",
    root_keys=("poolMembers", "poolMemberTemplate"),
    to_model=pool_member_to_model,
)
VIP: ResourceSchema[Any] = ResourceSchema(
    title="VIP",
    parent_link="vips",
    representation=VipResource,
    kind=Vip,
    media=MediaType("VIP", (1,)),
    collection="vips",
    root_keys=("vips", "vipTemplate"),
    to_model=vip_to_model,
)
HEALTH_MONITOR: ResourceSchema[Any] = ResourceSchema(
    title="HealthMonitor",
    representation=HealthMonitorResource,
    kind=HealthMonitor,
    media=MediaType("HealthMonitor", (1,)),
    collection="health_monitors",
    root_keys=("healthMonitors", "healthMonitorTemplate"),
)
