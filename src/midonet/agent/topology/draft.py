"""The next view while it is being made, and the delta between it and the last one. Pure.

The maps of a view are copied when they are first written to after a publication, so that a
change costs one shallow copy of the maps it touches and a published view never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from midonet.agent.flows.tags import (
    FlowTag,
    RouteRegion,
    bridge_neighbour_tag,
    chain_tag,
    device_tag,
    flood_group_tag,
    flood_set_tag,
    group_member_tag,
    location_tag,
    mac_tag,
    tunnel_tag,
    underlay_tag,
)
from midonet.agent.topology.address_set import AddressSet
from midonet.agent.topology.assembly import adds_denial, may_deny
from midonet.agent.topology.balancing import LoadBalancerView, changed_facts
from midonet.agent.topology.dhcp_views import BridgeDhcp, are_subnets_changed, changed_clients
from midonet.agent.topology.fib import RoutingTable
from midonet.agent.topology.underlay_addresses import NO_UNDERLAY
from midonet.agent.topology.view import (
    BridgeView,
    ChainView,
    Location,
    MirrorView,
    PortView,
    QosPolicyView,
    RouterView,
    TopologyView,
    TunnelRoute,
    ViewDelta,
)
from midonet.model.coordination import MAC_AGEING_S
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    IpAddressGroupId,
    LoadBalancerId,
    MirrorId,
    ObjectId,
    PortGroupId,
    PortId,
    QosPolicyId,
    RouterId,
)

K = TypeVar("K")
V = TypeVar("V")

_EMPTY_TABLE = RoutingTable()


class Layer(Generic[K, V]):
    """One map of the view, copied on its first write after a publication."""

    __slots__ = ("_is_shared", "current", "old")

    def __init__(self) -> None:
        self.current: dict[K, V] = {}
        self.old: dict[K, V | None] = {}
        self._is_shared = False

    def get(self, key: K) -> V | None:
        """Return the present value."""
        return self.current.get(key)

    def __contains__(self, key: K) -> bool:
        return key in self.current

    def put(self, key: K, value: V | None) -> None:
        """Set a value, or remove it when it is None."""
        if value is None and key not in self.current:
            return
        if self._is_shared:
            self.current = dict(self.current)
            self._is_shared = False
        self.old.setdefault(key, self.current.get(key))
        if value is None:
            del self.current[key]
        else:
            self.current[key] = value

    def changes(self) -> Iterator[tuple[K, V | None, V | None]]:
        """Yield (key, published value, present value) of what may differ."""
        for key, old in self.old.items():
            yield key, old, self.current.get(key)

    def publish(self) -> Mapping[K, V]:
        """Return the map as it is now and for good; the next write copies it."""
        self.old = {}
        self._is_shared = True
        return self.current


class ViewDraft:
    """Everything a view holds, with what changed since the last publication."""

    def __init__(self, host_id: HostId, hash_seed: int) -> None:
        self._host_id = host_id
        self._hash_seed = hash_seed
        self._revision = 0
        self.ports: Layer[PortId, PortView] = Layer()
        self.bridges: Layer[BridgeId, BridgeView] = Layer()
        self.routers: Layer[RouterId, RouterView] = Layer()
        self.chains: Layer[ChainId, ChainView] = Layer()
        self.mirrors: Layer[MirrorId, MirrorView] = Layer()
        self.qos_policies: Layer[QosPolicyId, QosPolicyView] = Layer()
        self.locations: Layer[PortId, Location] = Layer()
        self.tunnels: Layer[HostId, TunnelRoute] = Layer()
        self.flood_groups: Layer[tuple[HostId, BridgeId], int] = Layer()
        self.port_groups: Layer[PortGroupId, bool] = Layer()
        self.address_groups: Layer[IpAddressGroupId, AddressSet] = Layer()
        self.balancers: Layer[LoadBalancerId, LoadBalancerView] = Layer()
        self.dhcp: Layer[BridgeId, BridgeDhcp] = Layer()
        self.absent: Layer[ObjectId, bool] = Layer()
        self.underlay_addresses = NO_UNDERLAY
        self.mac_ageing_s = MAC_AGEING_S
        self.overlay_mtu_bytes = 0

    def publish(self, last: TopologyView | None) -> tuple[TopologyView, ViewDelta] | None:
        """Return the next view and its delta, or None when nothing differs from `last`."""
        delta = _DeltaBuilder(self)
        if self.underlay_addresses != (last.underlay_addresses if last else NO_UNDERLAY):
            delta.tags.add(underlay_tag(self._host_id))
        is_same = (
            last is not None
            and last.mac_ageing_s == self.mac_ageing_s
            and last.overlay_mtu_bytes == self.overlay_mtu_bytes
        )
        if not delta.tags and not delta.regions and not delta.is_silent and is_same:
            return None
        self._revision += 1
        absent = last.absent if last is not None else frozenset()
        if self.absent.old:
            absent = frozenset(self.absent.current)
            self.absent.publish()
        view = TopologyView(
            revision=self._revision,
            host_id=self._host_id,
            ports=self.ports.publish(),
            bridges=self.bridges.publish(),
            routers=self.routers.publish(),
            chains=self.chains.publish(),
            mirrors=self.mirrors.publish(),
            qos_policies=self.qos_policies.publish(),
            locations=self.locations.publish(),
            tunnels=self.tunnels.publish(),
            flood_groups=self.flood_groups.publish(),
            port_groups=self.port_groups.publish(),
            address_groups=self.address_groups.publish(),
            balancers=self.balancers.publish(),
            dhcp=self.dhcp.publish(),
            absent=absent,
            underlay_addresses=self.underlay_addresses,
            hash_seed=self._hash_seed,
            mac_ageing_s=self.mac_ageing_s,
            overlay_mtu_bytes=self.overlay_mtu_bytes,
        )
        return view, ViewDelta(
            self._revision,
            frozenset(delta.tags),
            frozenset(delta.regions),
            frozenset(delta.urgent),
        )


class _DeltaBuilder:
    """Tags of every fact that differs. is_silent: something does that no program depends on."""

    def __init__(self, draft: ViewDraft) -> None:
        self._chains = draft.chains.current
        self._ports = draft.ports.current
        self.tags: set[FlowTag] = set()
        self.regions: set[RouteRegion] = set()
        self.urgent: set[FlowTag] = set()
        self.is_silent = False
        self._devices(draft)
        self._groups(draft)
        for bridge_id, old_dhcp, dhcp in draft.dhcp.changes():
            self._dhcp(bridge_id, old_dhcp or BridgeDhcp(), dhcp or BridgeDhcp())
        for balancer_id, old_balancer, balancer in draft.balancers.changes():
            changes = changed_facts(balancer_id, old_balancer, balancer)
            self.tags |= changes.tags
            self.regions |= changes.regions
        self._places(draft)

    def _devices(self, draft: ViewDraft) -> None:
        for port_id, old_port, port in draft.ports.changes():
            if old_port != port:
                self._port(port_id, old_port, port)
                self._vlan_port(old_port, port)
        for bridge_id, old_bridge, bridge in draft.bridges.changes():
            self._bridge(bridge_id, old_bridge, bridge)
        for router_id, old_router, router in draft.routers.changes():
            self._router(router_id, old_router, router)
        for chain_id, old_chain, chain in draft.chains.changes():
            if old_chain != chain:
                self._add(chain_tag(chain_id), self._is_chain_urgent(old_chain, chain))
        for mirror_id, old_mirror, mirror in draft.mirrors.changes():
            if old_mirror != mirror:
                self._add(device_tag(mirror_id), False)
        for policy_id, old_policy, policy in draft.qos_policies.changes():
            if old_policy != policy:
                self._add(device_tag(policy_id), False)

    def _groups(self, draft: ViewDraft) -> None:
        for port_group_id, was_stateful, is_stateful in draft.port_groups.changes():
            if (was_stateful is None) is not (is_stateful is None):
                self._add(device_tag(port_group_id), is_stateful is None)
            self.is_silent = self.is_silent or was_stateful is not is_stateful
        for group_id, old, new in draft.address_groups.changes():
            if old is None or new is None:
                if old is not new:
                    self._add(device_tag(group_id), new is None)
            elif old is not new:
                self.regions.update(
                    RouteRegion(group_id, prefix.version, prefix.network, prefix.length)
                    for prefix in old.changed_members(new)
                )

    def _port(self, port_id: PortId, old: PortView | None, new: PortView | None) -> None:
        """Note what differs of a port: its memberships, and the rest of it."""
        groups = [set(port.port_group_ids) if port else set() for port in (old, new)]
        for group_id in groups[0] ^ groups[1]:
            self._add(group_member_tag(group_id, port_id), True)
        if old is not None and new is not None:
            old = replace(old, port_group_ids=new.port_group_ids)
        if old != new:
            self._add(device_tag(port_id), self._is_port_urgent(old, new))

    def _places(self, draft: ViewDraft) -> None:
        for port_id, old_location, location in draft.locations.changes():
            if old_location != location:
                self._add(location_tag(port_id), location is None)
        for host_id, old_tunnel, tunnel in draft.tunnels.changes():
            if old_tunnel != tunnel:
                self._add(tunnel_tag(host_id), False)
        for (host_id, bridge_id), old_key, key in draft.flood_groups.changes():
            if old_key != key:
                self._add(flood_group_tag(host_id, bridge_id), False)
        for object_id, was_absent, is_absent in draft.absent.changes():
            if was_absent != is_absent:
                # What kind of object it would be is not known.
                self._add(device_tag(object_id), False)
                self._add(chain_tag(object_id), False)

    def _dhcp(self, bridge_id: BridgeId, old: BridgeDhcp, new: BridgeDhcp) -> None:
        """Note clients that may be served from now on, or not any more.

        Nothing is installed of what is served, nor of any DHCPv6 message where it is served.
        """
        self.is_silent = self.is_silent or old != new
        if are_subnets_changed(old, new):
            self._add(device_tag(bridge_id), False)
        for mac in changed_clients(old, new):
            self._add(mac_tag(bridge_id, 0, mac), False)

    def _add(self, tag: FlowTag, is_urgent: bool) -> None:
        self.tags.add(tag)
        if is_urgent:
            self.urgent.add(tag)

    def _is_port_urgent(self, old: PortView | None, new: PortView | None) -> bool:
        if old is None:
            return False
        return (
            new is None
            or (old.host_id is not None and new.host_id is None)
            or (old.peer_port_id is not None and new.peer_port_id is None)
            or (new.allowed_sources is not None and old.allowed_sources != new.allowed_sources)
            or self._is_configuration_urgent(old, new)
        )

    def _is_configuration_urgent(
        self,
        old: PortView | BridgeView | RouterView,
        new: PortView | BridgeView | RouterView,
    ) -> bool:
        return (
            (old.admin_state_up and not new.admin_state_up)
            or (
                old.inbound_filter_id != new.inbound_filter_id
                and may_deny(new.inbound_filter_id, self._chains)
            )
            or (
                old.outbound_filter_id != new.outbound_filter_id
                and may_deny(new.outbound_filter_id, self._chains)
            )
        )

    def _is_chain_urgent(self, old: ChainView | None, new: ChainView | None) -> bool:
        if old is None:
            return False
        return new is None or adds_denial(old.rules, new.rules, self._chains)

    def _vlan_port(self, old: PortView | None, new: PortView | None) -> None:
        """Note bridges whose VLAN ports change: where MACs are looked up depends on them."""
        if _vlan_link(old) != _vlan_link(new):
            for port in (old, new):
                if port is not None and port.bridge_id is not None:
                    self._add(device_tag(port.bridge_id), False)

    def _bridge(self, bridge_id: BridgeId, old: BridgeView | None, new: BridgeView | None) -> None:
        if old is None or new is None:
            if old is not new:
                self._add(device_tag(bridge_id), new is None)
        elif _configuration(old) != _configuration(new):
            self._add(device_tag(bridge_id), self._is_configuration_urgent(old, new))
        elif old.mac_ageing_s != new.mac_ageing_s:
            self.is_silent = True
        old = old or BridgeView(bridge_id)
        new = new or BridgeView(bridge_id)
        if _flood_set(old) != _flood_set(new):
            self._add(flood_set_tag(bridge_id), False)
        for vlan, mac in _changed_keys(old.attachments, new.attachments):
            self._add(mac_tag(bridge_id, vlan, mac), False)
        for _, address in _changed_keys(old.attachment_by_address, new.attachment_by_address):
            self._add(bridge_neighbour_tag(bridge_id, address.version, address.value), False)

    def _router(self, router_id: RouterId, old: RouterView | None, new: RouterView | None) -> None:
        if old is None or new is None:
            if old is not new:
                self._add(device_tag(router_id), new is None)
        elif _configuration(old) != _configuration(new):
            self._add(device_tag(router_id), self._is_configuration_urgent(old, new))
        elif (old.load_balancer_id, old.nat64) != (new.load_balancer_id, new.nat64):
            self._add(device_tag(router_id), False)
        # A change of `port_ids` alone is told by the tags of the ports that came and went: the
        # router of a provider gains a port with every tenant, which concerns nobody else.
        old_fib = _table(old)
        new_fib = _table(new)
        if old_fib is not new_fib:
            self.regions.update(
                RouteRegion(router_id, prefix.version, prefix.network, prefix.length)
                for prefix in old_fib.changed_destinations(new_fib)
            )


def _flood_set(bridge: BridgeView) -> tuple[object, ...]:
    return (
        bridge.flood_port_ids,
        bridge.linked_port_ids,
        bridge.bridge_port_ids,
        bridge.vlan_ports,
    )


def _vlan_link(port: PortView | None) -> tuple[BridgeId | None, int] | None:
    if port is None or port.vlan_id == 0:
        return None
    return port.bridge_id, port.vlan_id


def _configuration(device: BridgeView | RouterView) -> tuple[object, ...]:
    return (
        device.admin_state_up,
        device.inbound_filter_id,
        device.outbound_filter_id,
        device.inbound_mirror_ids,
        device.outbound_mirror_ids,
        device.qos_policy_id if isinstance(device, BridgeView) else None,
    )


def _table(router: RouterView | None) -> RoutingTable:
    if router is not None and isinstance(router.fib, RoutingTable):
        return router.fib
    return _EMPTY_TABLE


def _changed_keys(old: Mapping[K, V], new: Mapping[K, V]) -> Iterator[K]:
    if old is new:
        return
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key):
            yield key
