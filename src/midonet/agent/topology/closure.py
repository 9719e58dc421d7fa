"""What must be watched for the devices that matter here. Pure.

    root     -> ports bound here, requested objects, tunnel zones with their hosts, the
                cluster's settings
    port     -> its device, filter chains, groups, mirrors, QoS policy, location; at a bridge
                also the peer port's record
    bridge   -> its ports, filter chains, mirrors, QoS policy, flood groups; when a port of it is
                bound here, also the routers attached to it, and its DHCP subnets with their
                clients
    router   -> its ports, routes, filter chains, mirrors, load balancer
    balancer -> its pools, their members and VIPs, the table of the members' health
    chain    -> its rules, the chains they jump to, the ports they redirect to, the groups they
                name with the members of those of addresses
    mirror   -> the port that copies leave by, the groups it names
    policy   -> its DSCP rules

A router's port does not lead to its peer: beyond the first router devices are stubs until a
packet crosses to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

import msgspec

from midonet.agent.topology.facts import (
    ALL_ZONE_HOSTS,
    ALL_ZONES,
    Facts,
    dhcp_clients_of,
    dhcp_subnets_of,
    dscp_rules_of,
    flood_groups_of,
    health_of,
    members_of,
    members_of_pool,
    pools_of,
    ports_of_host,
    rules_of,
    vips_of,
)
from midonet.agent.topology.view import PortView
from midonet.model.chains import Chain, Condition, Rule, address_groups_of, port_groups_of
from midonet.model.coordination import CLUSTER_SETTINGS_ID, ClusterSettings
from midonet.model.devices import Bridge, Port, Route, Router
from midonet.model.dhcp import DhcpSubnet, DhcpV6Subnet
from midonet.model.groups import IpAddressGroup, PortGroup
from midonet.model.hosts import PortLocation, TunnelZone, TunnelZoneHost
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    MirrorId,
    ObjectId,
    PortGroupId,
    PortId,
    RouterId,
)
from midonet.model.load_balancer import LoadBalancer, Pool
from midonet.model.mirrors import Mirror
from midonet.model.qos import QosPolicy
from midonet.nsdb.store import (
    AllOf,
    Change,
    IdsChange,
    ObjectChange,
    ObjectKey,
    Referrers,
    Table,
    WatchKey,
)

K = TypeVar("K")

EAGER_ROUTER_LIMIT = 8
"""Most attached routers that a bridge with a port bound here brings along unasked. A bridge
with more is an external network, where the routers behind it are tenants' and not ours."""

REQUESTED_KINDS: tuple[type[msgspec.Struct], ...] = (
    Port,
    Bridge,
    Router,
    Chain,
    Mirror,
    QosPolicy,
)
"""Kinds that can be asked for by id."""

TRACKED_KINDS: tuple[type[msgspec.Struct], ...] = (*REQUESTED_KINDS, LoadBalancer)
"""Kinds that are followed with what they need."""


class PortIndex:
    """Stored ports by what they refer to."""

    def __init__(self) -> None:
        self.peered_by: dict[PortId, set[PortId]] = {}
        self.linked: dict[BridgeId, dict[PortId, PortId]] = {}
        self.local: dict[BridgeId, set[PortId]] = {}
        self.grouped: dict[PortGroupId, set[PortId]] = {}

    def replace(self, host_id: HostId, old: Port | None, new: Port | None) -> None:
        """Take a port's record out and its new one in."""
        if old is not None:
            for group_id in old.port_group_ids:
                _discard(self.grouped, group_id, old.id)
            if old.peer_port_id is not None:
                _discard(self.peered_by, old.peer_port_id, old.id)
            if old.bridge_id is not None:
                _discard(self.local, old.bridge_id, old.id)
                linked = self.linked.get(old.bridge_id, {})
                linked.pop(old.id, None)
                if not linked:
                    self.linked.pop(old.bridge_id, None)
        if new is not None:
            for group_id in new.port_group_ids:
                self.grouped.setdefault(group_id, set()).add(new.id)
            if new.peer_port_id is not None:
                self.peered_by.setdefault(new.peer_port_id, set()).add(new.id)
            if new.bridge_id is not None:
                if new.host_id == host_id:
                    self.local.setdefault(new.bridge_id, set()).add(new.id)
                if new.peer_port_id is not None:
                    self.linked.setdefault(new.bridge_id, {})[new.id] = new.peer_port_id

    def eager_peers(self, bridge_id: BridgeId) -> list[PortId]:
        """Return the peers of a bridge whose routers come along unasked."""
        linked = self.linked.get(bridge_id, {})
        if bridge_id not in self.local or len(linked) > EAGER_ROUTER_LIMIT:
            return []
        return list(linked.values())


class Sink(Protocol):
    """Where the walk puts what it finds."""

    def want(self, kind: type[msgspec.Struct], object_id: ObjectId) -> None:
        """Take an object to watch."""
        ...

    def want_list(self, key: Referrers | AllOf) -> None:
        """Take a set of ids to watch."""
        ...

    def want_table(self, key: Table) -> None:
        """Take a state table to watch."""
        ...

    def track(self, kind: type[msgspec.Struct], object_id: ObjectId) -> None:
        """Take an object to expand."""
        ...


def expand_root(facts: Facts, host_id: HostId, sink: Sink) -> None:
    """Find what is watched whatever happens."""
    for kind, key in ((TunnelZone, ALL_ZONES), (TunnelZoneHost, ALL_ZONE_HOSTS)):
        sink.want_list(key)
        for object_id in facts.ids(key) or ():
            sink.want(kind, object_id)
    sink.want(ClusterSettings, CLUSTER_SETTINGS_ID)
    local = ports_of_host(host_id)
    sink.want_list(local)
    for object_id in facts.ids(local) or ():
        sink.track(Port, object_id)


def expand_requested(facts: Facts, object_id: ObjectId, sink: Sink) -> None:
    """Find the kind of a requested object."""
    for kind in TRACKED_KINDS:
        if facts.get(kind, object_id) is not None:
            sink.track(kind, object_id)
            return
    for kind in REQUESTED_KINDS:
        sink.want(kind, object_id)


def expand(
    facts: Facts,
    index: PortIndex,
    kind: type[msgspec.Struct],
    object_id: ObjectId,
    sink: Sink,
) -> None:
    """Find what one tracked object needs, as far as its record is known."""
    sink.want(kind, object_id)
    if kind is Port:
        _expand_port(facts.get(Port, object_id), sink)
    elif kind is Bridge:
        _expand_bridge(facts, index, BridgeId(object_id), sink)
    elif kind is Router:
        _expand_router(facts, RouterId(object_id), sink)
    elif kind is LoadBalancer:
        _expand_balancer(facts, object_id, sink)
    elif kind is Mirror:
        _expand_mirror(facts.get(Mirror, object_id), sink)
    elif kind is QosPolicy:
        _expand_policy(facts, object_id, sink)
    else:
        _expand_chain(facts, object_id, sink)


def expand_member(key: Referrers, object_id: ObjectId, sink: Sink) -> None:
    """Find what one object in the list of a device or chain needs: ports are followed, the rest
    read."""
    if key.kind is Port:
        sink.track(Port, object_id)
    else:
        sink.want(key.kind, object_id)


def expand_pool(facts: Facts, pool_id: ObjectId, sink: Sink) -> None:
    """Find what a pool needs, as far as its lists are known."""
    sink.want_table(health_of(pool_id))
    for key in (members_of_pool(pool_id), vips_of(pool_id)):
        sink.want_list(key)
        for object_id in facts.ids(key) or ():
            sink.want(key.kind, object_id)


def expand_rule(rule: Rule | None, sink: Sink) -> None:
    """Find what a rule needs."""
    if rule is None:
        return
    if rule.jump_chain_id is not None:
        sink.track(Chain, rule.jump_chain_id)
    if rule.target_port_id is not None:
        sink.track(Port, rule.target_port_id)
    _expand_condition(rule.condition, sink)


def _expand_condition(condition: Condition, sink: Sink) -> None:
    for group_id in port_groups_of(condition):
        sink.want(PortGroup, group_id)
    for address_group_id in address_groups_of(condition):
        sink.want(IpAddressGroup, address_group_id)
        sink.want_table(members_of(address_group_id))


def expand_attached_routers(
    facts: Facts, index: PortIndex, bridge_id: BridgeId, sink: Sink
) -> None:
    """Find the first routers behind a bridge that has a port bound here."""
    for peer_id in index.eager_peers(bridge_id):
        peer = facts.get(Port, peer_id)
        if peer is not None and peer.router_id is not None:
            sink.track(Router, peer.router_id)


def expand_dhcp(facts: Facts, index: PortIndex, bridge_id: BridgeId, sink: Sink) -> None:
    """Find what a bridge with a port bound here serves by DHCP."""
    if bridge_id not in index.local:
        return
    for key in dhcp_subnets_of(bridge_id):
        sink.want_list(key)
        for subnet_id in facts.ids(key) or ():
            sink.want(key.kind, subnet_id)
            expand_dhcp_subnet(facts, key.kind, subnet_id, sink)


def expand_dhcp_subnet(
    facts: Facts, kind: type[msgspec.Struct], subnet_id: ObjectId, sink: Sink
) -> None:
    """Find the clients of a DHCP or DHCPv6 subnet."""
    key = dhcp_clients_of(kind, subnet_id)
    sink.want_list(key)
    for host_id in facts.ids(key) or ():
        sink.want(key.kind, host_id)


def following_keys(change: Change) -> Iterable[WatchKey]:
    """Return what will be watched because of one answer of the store, seen by itself.

    What depends on several answers is not among it: a router's port leads to its router or not,
    as the port is followed for itself or is only the peer of a bridge's port.
    """
    keys: dict[WatchKey, None] = {}
    sink = _Following(keys)
    if isinstance(change, IdsChange):
        for object_id in change.ids:
            keys[ObjectKey(change.key.kind, object_id)] = None
    elif isinstance(change, ObjectChange) and change.current is not None:
        value = change.current.value
        if isinstance(value, Rule):
            expand_rule(value, sink)
        elif isinstance(value, DhcpSubnet | DhcpV6Subnet):
            expand_dhcp_subnet(Facts(), type(value), value.id, sink)
        elif isinstance(value, Pool):
            expand_pool(Facts(), value.id, sink)
        elif isinstance(value, TRACKED_KINDS):
            facts = Facts()
            facts.put(change.key.kind, change.key.object_id, value)
            expand(facts, PortIndex(), change.key.kind, change.key.object_id, sink)
            del keys[change.key]
            if isinstance(value, Port) and value.router_id is not None:
                del keys[ObjectKey(Router, value.router_id)]
    return keys


class _Following:
    """Gathers the keys that one answer leads to."""

    def __init__(self, keys: dict[WatchKey, None]) -> None:
        self._keys = keys

    def want(self, kind: type[msgspec.Struct], object_id: ObjectId) -> None:
        self._keys[ObjectKey(kind, object_id)] = None

    def want_list(self, key: Referrers | AllOf) -> None:
        self._keys[key] = None

    def want_table(self, key: Table) -> None:
        self._keys[key] = None

    def track(self, kind: type[msgspec.Struct], object_id: ObjectId) -> None:
        self.want(kind, object_id)
        if kind is Chain:
            self.want_list(rules_of(object_id))
        elif kind is LoadBalancer:
            self.want_list(pools_of(object_id))
        elif kind is QosPolicy:
            self.want_list(dscp_rules_of(object_id))


def _expand_port(port: Port | None, sink: Sink) -> None:
    if port is None:
        return
    _expand_filters(port, sink)
    for group_id in port.port_group_ids:
        sink.want(PortGroup, group_id)
    _expand_mirrors(
        sink,
        port.inbound_mirror_ids,
        port.post_in_filter_mirror_ids,
        port.pre_out_filter_mirror_ids,
        port.outbound_mirror_ids,
    )
    if port.qos_policy_id is not None:
        sink.track(QosPolicy, port.qos_policy_id)
    if port.host_id is not None:
        sink.want(PortLocation, port.id)
    if port.router_id is not None:
        sink.track(Router, port.router_id)
    if port.bridge_id is not None:
        sink.track(Bridge, port.bridge_id)
        if port.peer_port_id is not None:
            sink.want(Port, port.peer_port_id)


def _expand_bridge(facts: Facts, index: PortIndex, bridge_id: BridgeId, sink: Sink) -> None:
    ports = Referrers(Port, "bridge_id", bridge_id)
    groups = flood_groups_of(bridge_id)
    sink.want_list(ports)
    sink.want_list(groups)
    for key in (ports, groups):
        for object_id in facts.ids(key) or ():
            expand_member(key, object_id, sink)
    bridge = facts.get(Bridge, bridge_id)
    if bridge is not None:
        _expand_filters(bridge, sink)
        _expand_mirrors(sink, bridge.inbound_mirror_ids, bridge.outbound_mirror_ids)
        if bridge.qos_policy_id is not None:
            sink.track(QosPolicy, bridge.qos_policy_id)
    expand_attached_routers(facts, index, bridge_id, sink)
    expand_dhcp(facts, index, bridge_id, sink)


def _expand_chain(facts: Facts, chain_id: ObjectId, sink: Sink) -> None:
    rules = rules_of(chain_id)
    sink.want_list(rules)
    for rule_id in facts.ids(rules) or ():
        sink.want(Rule, rule_id)
        expand_rule(facts.get(Rule, rule_id), sink)


def _expand_router(facts: Facts, router_id: RouterId, sink: Sink) -> None:
    ports = Referrers(Port, "router_id", router_id)
    routes = Referrers(Route, "router_id", router_id)
    sink.want_list(ports)
    sink.want_list(routes)
    for key in (ports, routes):
        for object_id in facts.ids(key) or ():
            expand_member(key, object_id, sink)
    router = facts.get(Router, router_id)
    if router is not None:
        _expand_filters(router, sink)
        _expand_mirrors(sink, router.inbound_mirror_ids, router.outbound_mirror_ids)
        if router.load_balancer_id is not None:
            sink.track(LoadBalancer, router.load_balancer_id)


def _expand_balancer(facts: Facts, balancer_id: ObjectId, sink: Sink) -> None:
    pools = pools_of(balancer_id)
    sink.want_list(pools)
    for pool_id in facts.ids(pools) or ():
        sink.want(Pool, pool_id)
        expand_pool(facts, pool_id, sink)


def filters_of(device: Port | Bridge | Router | PortView) -> tuple[ChainId | None, ...]:
    """Return the chains that a device or port names; None where it has none."""
    filters = (device.inbound_filter_id, device.outbound_filter_id)
    if isinstance(device, Port | PortView):
        return (
            *filters,
            device.insertion_inbound_filter_id,
            device.insertion_outbound_filter_id,
        )
    return filters


def _expand_filters(device: Port | Bridge | Router, sink: Sink) -> None:
    for chain_id in filters_of(device):
        if chain_id is not None:
            sink.track(Chain, chain_id)


def _expand_mirrors(sink: Sink, *lists: tuple[MirrorId, ...]) -> None:
    for mirror_ids in lists:
        for mirror_id in mirror_ids:
            sink.track(Mirror, mirror_id)


def _expand_mirror(mirror: Mirror | None, sink: Sink) -> None:
    if mirror is not None:
        sink.track(Port, mirror.to_port_id)
        for condition in mirror.conditions:
            _expand_condition(condition, sink)


def _expand_policy(facts: Facts, policy_id: ObjectId, sink: Sink) -> None:
    rules = dscp_rules_of(policy_id)
    sink.want_list(rules)
    for rule_id in facts.ids(rules) or ():
        expand_member(rules, rule_id, sink)


def _discard(index: dict[K, set[PortId]], key: K, port_id: PortId) -> None:
    ports = index.get(key)
    if ports is not None:
        ports.discard(port_id)
        if not ports:
            del index[key]
