"""The same networks as model objects in a store, and the view that an agent makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from uuid import UUID, uuid5

import msgspec

from midonet.agent.flow_state.pool import NatPool
from midonet.agent.topology.view import (
    AdvertisingView,
    BridgeView,
    PortView,
    QosPolicyView,
    RouterView,
    RouteView,
    TopologyView,
    ViewDelta,
)
from midonet.agent.topology.watching import TopologyWatcher, WatchSettings
from midonet.model.chains import Chain, NatTarget, Rule
from midonet.model.devices import AddressPair, Bridge, Port, Route, Router, RouterAdvertising
from midonet.model.dhcp import DhcpHost, DhcpSubnet, DhcpV6Host, DhcpV6Subnet
from midonet.model.groups import IpAddressGroup, PortGroup
from midonet.model.hosts import (
    FloodGroup,
    Host,
    HostState,
    PortLocation,
    TunnelZone,
    TunnelZoneHost,
    flood_group_id,
    tunnel_zone_host_id,
)
from midonet.model.ids import ChainId, HostId, ObjectId, TunnelZoneId
from midonet.model.load_balancer import LoadBalancer, MemberHealth, Pool, PoolMember, Vip
from midonet.model.mirrors import Mirror
from midonet.model.qos import QosDscpRule, QosPolicy
from midonet.model.ranks import spread
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.store import (
    Create,
    Delete,
    DropState,
    Operation,
    PutState,
    StateTables,
    Store,
    Update,
)
from midonet.packets.addresses import IpAddress, IpPrefix, IpVersion, format_mac
from tests.worlds import World

DEADLINE_S = 60.0
UNDERLAY_MTU = 1500

Objects = dict[tuple[type[msgspec.Struct], ObjectId], msgspec.Struct]


def model_objects(world: World) -> Objects:
    """Return what an operator and the agents would have stored for a network."""
    view = world.view()
    values: list[msgspec.Struct] = []
    hosts = {view.host_id, *view.tunnels}
    hosts |= {port.host_id for port in view.ports.values() if port.host_id}
    hosts |= {host_id for host_id, _ in view.flood_groups}
    values += [Host(id=host_id, name=f"host {host_id}") for host_id in hosts]
    values += [_bridge(bridge) for bridge in view.bridges.values()]
    values += [PortGroup(id=one, stateful=flag) for one, flag in view.port_groups.items()]
    values += [IpAddressGroup(id=one, name=str(one)) for one in view.address_groups]
    for router in view.routers.values():
        values.append(_router(router))
        values += [_route(router, route) for route in router.fib]  # type: ignore[attr-defined]
    values += [_port(port) for port in view.ports.values()]
    for chain in view.chains.values():
        values += [
            Rule(
                id=rule.id,
                chain_id=chain.id,
                rank=rank,
                action=rule.action,
                condition=rule.condition,
                jump_chain_id=rule.jump_chain_id,
                nat_targets=_targets(rule.pool) if rule.pool else (),
                flow_action=rule.flow_action,
                transform=rule.transform,
                target_port_id=rule.target_port_id,
            )
            for rank, rule in zip(spread(len(chain.rules)), chain.rules, strict=True)
        ]
        values.append(Chain(id=chain.id))
    values += [
        Mirror(id=mirror.id, to_port_id=mirror.to_port_id, conditions=mirror.conditions)
        for mirror in view.mirrors.values()
    ]
    for policy in view.qos_policies.values():
        values += _qos_policy(policy)
    values += [
        PortLocation(
            id=port_id,
            host_id=location.host_id,
            tunnel_key=location.tunnel_key,
            epoch=1,
            active=location.active,
        )
        for port_id, location in view.locations.items()
    ]
    values += [
        FloodGroup(
            id=flood_group_id(host_id, bridge_id),
            host_id=host_id,
            bridge_id=bridge_id,
            tunnel_key=key,
        )
        for (host_id, bridge_id), key in view.flood_groups.items()
    ]
    values += world.balancers.objects()
    values += _tunnel_zones(view)
    values += world.dhcp.values()
    return {(type(value), value.id): value for value in values}  # type: ignore[attr-defined]


def _bridge(bridge: BridgeView) -> Bridge:
    return Bridge(
        id=bridge.id,
        admin_state_up=bridge.admin_state_up,
        inbound_filter_id=bridge.inbound_filter_id,
        outbound_filter_id=bridge.outbound_filter_id,
        inbound_mirror_ids=bridge.inbound_mirror_ids,
        outbound_mirror_ids=bridge.outbound_mirror_ids,
        qos_policy_id=bridge.qos_policy_id,
    )


def _router(router: RouterView) -> Router:
    return Router(
        id=router.id,
        admin_state_up=router.admin_state_up,
        inbound_filter_id=router.inbound_filter_id,
        outbound_filter_id=router.outbound_filter_id,
        **_nat64(router),
        inbound_mirror_ids=router.inbound_mirror_ids,
        outbound_mirror_ids=router.outbound_mirror_ids,
        load_balancer_id=router.load_balancer_id,
    )


def _nat64(router: RouterView) -> dict[str, str]:
    if router.nat64 is None:
        return {}
    (addresses,) = router.nat64.pool.ranges
    return {
        "nat64_prefix": str(IpPrefix(IpVersion.V6, router.nat64.prefix, 96)),
        "nat64_address_from": str(IpAddress(IpVersion.V4, addresses.first)),
        "nat64_address_to": str(IpAddress(IpVersion.V4, addresses.last)),
    }


def _route(router: RouterView, route: RouteView) -> Route:
    return Route(
        id=route.id,
        router_id=router.id,
        kind=route.kind,
        source=str(route.source),
        destination=str(route.destination),
        next_hop_port_id=route.next_hop_port_id,
        gateway=str(route.gateway) if route.gateway else None,
        weight=route.weight,
    )


def _port(port: PortView) -> Port:
    return Port(
        id=port.id,
        bridge_id=port.bridge_id,
        router_id=port.router_id,
        admin_state_up=port.admin_state_up,
        inbound_filter_id=port.inbound_filter_id,
        outbound_filter_id=port.outbound_filter_id,
        host_id=port.host_id,
        interface_name=f"tap{port.id.hex[:8]}" if port.host_id else None,
        peer_port_id=port.peer_port_id,
        vlan_id=port.vlan_id,
        addresses=tuple(str(prefix) for prefix in port.addresses),
        mac=format_mac(port.mac) if port.router_id else None,
        port_group_ids=port.port_group_ids,
        port_security_enabled=port.allowed_sources is not None,
        allowed_address_pairs=_pairs(port),
        inbound_mirror_ids=port.inbound_mirror_ids,
        post_in_filter_mirror_ids=port.post_in_filter_mirror_ids,
        pre_out_filter_mirror_ids=port.pre_out_filter_mirror_ids,
        outbound_mirror_ids=port.outbound_mirror_ids,
        qos_policy_id=port.qos_policy_id,
        insertion_inbound_filter_id=port.insertion_inbound_filter_id,
        insertion_outbound_filter_id=port.insertion_outbound_filter_id,
        is_service=port.is_service,
        advertising=_advertising(port.advertising),
    )


def _advertising(view: AdvertisingView | None) -> RouterAdvertising | None:
    if view is None:
        return None
    return RouterAdvertising(
        is_enabled=True,
        is_managed=view.is_managed,
        has_other=view.has_other,
        is_autonomous=view.is_autonomous,
        lifetime_s=view.lifetime_s,
        interval_s=view.interval_s,
        dns_addresses=tuple(str(IpAddress(IpVersion.V6, one)) for one in view.dns),
        domains=view.domains,
    )


def _targets(pool: NatPool) -> tuple[NatTarget, ...]:
    return tuple(
        NatTarget(
            str(IpAddress(one.version, one.first)),
            str(IpAddress(one.version, one.last)),
            one.port_first,
            one.port_last,
        )
        for one in pool.ranges
    )


def _qos_policy(policy: QosPolicyView) -> list[msgspec.Struct]:
    values: list[msgspec.Struct] = [QosPolicy(id=policy.id)]
    if policy.dscp is not None:
        rule_id = uuid5(policy.id, "dscp")
        values.append(QosDscpRule(id=rule_id, policy_id=policy.id, dscp_mark=policy.dscp))
    return values


def _pairs(port: PortView) -> tuple[AddressPair, ...]:
    pairs = port.allowed_sources.pairs if port.allowed_sources else frozenset()
    return tuple(
        AddressPair(format_mac(mac), None if prefix is None else str(prefix))
        for mac, prefix in sorted(pairs, key=str)
    )


def _tunnel_zones(view: TopologyView) -> list[msgspec.Struct]:
    """Return a zone for each tunnel, with its two ends."""
    values: list[msgspec.Struct] = []
    for host_id, tunnel in view.tunnels.items():
        zone_id = TunnelZoneId(uuid5(host_id, "zone"))
        values.append(TunnelZone(id=zone_id, name=str(zone_id), kind=tunnel.kind))
        ends = ((view.host_id, tunnel.local), (host_id, tunnel.remote))
        values += [
            TunnelZoneHost(
                id=tunnel_zone_host_id(zone_id, one),
                tunnel_zone_id=zone_id,
                host_id=one,
                address=str(address),
            )
            for one, address in ends
        ]
    return values


def members(world: World) -> dict[tuple[str, str], None]:
    """Return (table, key) of each member of the address groups."""
    return {
        (StateTables.ip_address_group(group_id), str(prefix)): None
        for group_id, group in world.view().address_groups.items()
        for prefix in group
    }


def member_changes(
    before: Iterable[tuple[str, str]], after: Iterable[tuple[str, str]]
) -> list[Operation]:
    """Return what leads from the members of one network to those of another."""
    old, new = set(before), set(after)
    owner = UUID(int=0)
    return [
        *(PutState(table, key, "", owner, is_persistent=True) for table, key in new - old),
        *(DropState(table, key, owner) for table, key in old - new),
    ]


def host_states(world: World) -> list[HostState]:
    """Return what live agents would report, the local one included."""
    view = world.view()
    states = [HostState(id=view.host_id)]
    states += [
        HostState(id=host_id, overlay_mtu_bytes=tunnel.max_inner_length)
        for host_id, tunnel in view.tunnels.items()
    ]
    return states


_BOTH_WAYS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Port: (
        "peer_port_id", "inbound_filter_id", "outbound_filter_id", "inbound_mirror_ids",
        "post_in_filter_mirror_ids", "pre_out_filter_mirror_ids", "outbound_mirror_ids",
        "qos_policy_id", "insertion_inbound_filter_id", "insertion_outbound_filter_id",
    ),
    Rule: ("jump_chain_id", "target_port_id"),
    Bridge: (
        "inbound_filter_id", "outbound_filter_id", "inbound_mirror_ids", "outbound_mirror_ids",
        "qos_policy_id",
    ),
    Router: (
        "inbound_filter_id", "outbound_filter_id", "inbound_mirror_ids", "outbound_mirror_ids",
        "load_balancer_id",
    ),
}  # fmt: skip
_ORDER = (
    Host, TunnelZone, TunnelZoneHost, PortGroup, IpAddressGroup, Chain, Rule, LoadBalancer, Pool,
    PoolMember, Vip, Bridge, Router, Port, Route, PortLocation, FloodGroup, Mirror, QosPolicy,
    QosDscpRule, DhcpSubnet, DhcpHost, DhcpV6Subnet, DhcpV6Host,
)  # fmt: skip
"""What is referred to comes before what refers to it, apart from `_BOTH_WAYS`."""


def transition(before: Objects, after: Objects) -> list[Operation]:
    """Return one transaction from the objects of one network to those of another."""
    creations: list[Operation] = []
    updates: list[Operation] = []
    releases: list[Operation] = []
    deletions: list[Operation] = []
    for kind in _ORDER:
        for key, value in after.items():
            if key[0] is kind and key not in before:
                creations.append(Create(_without_references(value)))
                updates.append(Update(value))
            elif key[0] is kind and before[key] != value:
                updates.append(Update(value))
    for kind in reversed(_ORDER):
        for key, value in before.items():
            if key[0] is kind and key not in after:
                releases.append(Update(_without_references(value)))
                deletions.append(Delete(*key))
    return [*creations, *releases, *updates, *deletions]


def _without_references(value: msgspec.Struct) -> msgspec.Struct:
    empty = {
        name: () if isinstance(getattr(value, name), tuple) else None
        for name in _BOTH_WAYS.get(type(value), ())
    }
    return msgspec.structs.replace(value, **empty) if empty else value


class StoredLane:
    """A store, and a watcher that follows it as an agent does."""

    def __init__(self, store: Store, host_id: HostId, hash_seed: int) -> None:
        self.store = store
        self.objects: Objects = {}
        self._members: dict[tuple[str, str], None] = {}
        self.deltas: list[tuple[TopologyView, ViewDelta]] = []
        self._changed = asyncio.Event()
        self._sessions: set[ObjectId] = set()
        self.watcher = TopologyWatcher(
            store,
            host_id,
            self._on_change,
            settings=WatchSettings(
                settle_s=0.05, underlay_mtu_bytes=UNDERLAY_MTU, hash_seed=hash_seed
            ),
        )

    def _on_change(self, view: TopologyView, delta: ViewDelta) -> None:
        self.deltas.append((view, delta))
        self._changed.set()

    @property
    def view(self) -> TopologyView:
        """Return the present view."""
        return self.watcher.view

    async def load(self, object_ids: tuple[ObjectId, ...]) -> bool:
        """Load objects as the agent would."""
        await self.watcher.request(object_ids)
        return True

    async def become(self, world: World) -> None:
        """Bring the store to the state of a network, in one transaction."""
        after = model_objects(world)
        await self._report(host_states(world))
        operations = transition(self.objects, after)
        operations += member_changes(self._members, members(world))
        if operations:
            await self.store.transact(operations)
        self.objects, self._members = after, members(world)
        await self._check_health(world)

    async def _check_health(self, world: World) -> None:
        """Write what the health monitor of a network's pools has found."""
        monitor = uuid5(self.view.host_id, "monitor")
        if world.balancers.members and monitor not in self._sessions:
            self._sessions.add(monitor)
            await self.store.open_session(monitor, timeout_s=3600.0)
        for member in world.balancers.members.values():
            is_ill = member.id in world.balancers.ill
            value = MemberHealth.INACTIVE if is_ill else MemberHealth.ACTIVE
            table = StateTables.member_health(member.pool_id)
            await self.store.transact([PutState(table, str(member.id), value, monitor)])

    async def _report(self, states: Iterable[HostState]) -> None:
        for state in states:
            if state.id not in self._sessions:
                self._sessions.add(state.id)
                await self.store.open_session(state.id, timeout_s=3600.0)
            value = msgspec.json.encode(state).decode()
            await self.store.transact(
                [PutState(StateTables.host_state(), str(state.id), value, state.id)]
            )

    async def after(self, revision: int) -> None:
        """Wait for a view that is later than `revision`."""
        await self.until(lambda: self.view.revision > revision)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the view meets a condition."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def caught_up(self) -> None:
        """Wait until the store's present state is in the view.

        A marker written last, which depends on nothing else, is seen together with all that
        was written before; what that newly leads to is loaded when a packet asks for it.
        """
        await _Marker(self).pass_through()


class _Marker:
    """A filterless bridge that is asked for by id: its state is in the view when it was read."""

    def __init__(self, lane: StoredLane) -> None:
        self._lane = lane
        self._id = ChainId(uuid5(lane.view.host_id, f"marker {len(lane.deltas)}"))

    async def pass_through(self) -> None:
        store, watcher = self._lane.store, self._lane.watcher
        await store.transact([Create(Chain(id=self._id))])
        await watcher.request([self._id], timeout_s=DEADLINE_S)
        await store.transact([Delete(Chain, self._id)])
        await self._lane.until(lambda: self._id not in watcher.view.chains)


@asynccontextmanager
async def stored_lane(world: World) -> AsyncIterator[StoredLane]:
    """Open an empty store with a watcher of the network's local host."""
    store = MemoryStore()
    await store.open()
    view = world.view()
    await store.transact([Create(Host(id=view.host_id, name="local"))])
    lane = StoredLane(store, view.host_id, view.hash_seed)
    lane.objects = {(Host, view.host_id): Host(id=view.host_id, name="local")}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(lane.watcher.run())
        try:
            yield lane
        finally:
            running.cancel()
    await store.close()


@asynccontextmanager
async def stored(world: World) -> AsyncIterator[StoredLane]:
    """Open a store that holds a network, and wait until its host's agent has read it."""
    async with stored_lane(world) as lane:
        await lane.become(world)
        async with asyncio.timeout(DEADLINE_S):
            await lane.watcher.wait_in_sync()
        await lane.caught_up()
        yield lane
