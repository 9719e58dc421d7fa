"""Takes store changes in: keeps the facts, follows references, notes what must be redone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from midonet.agent.topology.closure import (
    TRACKED_KINDS,
    PortIndex,
    expand,
    expand_attached_routers,
    expand_dhcp,
    expand_dhcp_subnet,
    expand_member,
    expand_pool,
    expand_requested,
    expand_root,
    expand_rule,
)
from midonet.agent.topology.facts import ALL_ZONE_HOSTS, ALL_ZONES, HOST_STATE, Facts, health_of
from midonet.model.chains import Chain, Rule
from midonet.model.coordination import ClusterSettings
from midonet.model.devices import Bridge, Port, Route, Router
from midonet.model.dhcp import DhcpHost, DhcpSubnet, DhcpV6Host, DhcpV6Subnet
from midonet.model.groups import IpAddressGroup, PortGroup
from midonet.model.hosts import FloodGroup, PortLocation, TunnelZone, TunnelZoneHost
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    IpAddressGroupId,
    ObjectId,
    PortGroupId,
    PortId,
    RouteId,
    RouterId,
)
from midonet.model.load_balancer import LoadBalancer, Pool, PoolMember, Vip
from midonet.model.qos import QosDscpRule, QosPolicy
from midonet.nsdb.store import (
    AllOf,
    Change,
    IdsChange,
    ObjectChange,
    ObjectKey,
    Referrers,
    StateEntry,
    Table,
    TableChange,
)

_Kind = type[msgspec.Struct]
_OWNERS: dict[str, _Kind] = {
    "bridge_id": Bridge,
    "router_id": Router,
    "chain_id": Chain,
    "load_balancer_id": LoadBalancer,
    "policy_id": QosPolicy,
}
"""Kind of what the listed objects belong to, by the reference that makes the list."""


_DHCP_KINDS: frozenset[_Kind] = frozenset((DhcpSubnet, DhcpHost, DhcpV6Subnet, DhcpV6Host))


class _Presence(msgspec.Struct, frozen=True):
    """What one host needs of the state of another. Its interfaces, the bulk of it, are not."""

    overlay_mtu_bytes: int = 0


@dataclass(slots=True)
class Dirty:
    """What has to be assembled again. routes: by router. hosts: whose state changed.

    members: by address group, what was told of its members: whether each is there.
    dhcp: subnets and clients, by kind and id.
    """

    objects: dict[_Kind, set[ObjectId]] = field(
        default_factory=lambda: {kind: set() for kind in TRACKED_KINDS}
    )
    routes: dict[RouterId, set[RouteId]] = field(default_factory=dict)
    dhcp: set[tuple[_Kind, ObjectId]] = field(default_factory=set)
    groups: set[ObjectId] = field(default_factory=set)
    port_groups: set[PortGroupId] = field(default_factory=set)
    members: dict[IpAddressGroupId, dict[str, bool]] = field(default_factory=dict)
    hosts: set[HostId] = field(default_factory=set)
    tunnels: bool = False
    settings: bool = False
    requested: set[ObjectId] = field(default_factory=set)


class Tracker:
    """Facts, the objects that are tracked, and what changed since the last step.

    malformed: hosts whose state cannot be understood, with the reason; they count as dead.
    """

    def __init__(self, host_id: HostId) -> None:
        self.host_id = host_id
        self.facts = Facts()
        self.dirty = Dirty()
        self.requested: set[ObjectId] = set()
        self.malformed: dict[ObjectId, str] = {}
        self.tracked: dict[_Kind, set[ObjectId]] = {kind: set() for kind in TRACKED_KINDS}
        self._index = PortIndex()
        self._rule_owner: dict[ObjectId, ChainId] = {}
        self._route_owner: dict[ObjectId, RouterId] = {}
        self._queue: list[tuple[_Kind, ObjectId]] = []
        expand_root(self.facts, host_id, self)

    # The sink of `closure`.

    def want(self, kind: _Kind, object_id: ObjectId) -> None:
        """Watch an object."""
        self.facts.want(kind, object_id)

    def want_list(self, key: Referrers | AllOf) -> None:
        """Watch a set of ids."""
        self.facts.want_list(key)

    def want_table(self, key: Table) -> None:
        """Watch a state table."""
        self.facts.want_table(key)

    def track(self, kind: _Kind, object_id: ObjectId) -> None:
        """Follow an object, soon."""
        if object_id not in self.tracked[kind]:
            self.tracked[kind].add(object_id)
            self.dirty.objects[kind].add(object_id)
            self._queue.append((kind, object_id))

    # Changes.

    def request(self, object_ids: Iterable[ObjectId]) -> None:
        """Follow objects of unknown kind."""
        for object_id in tuple(object_ids):
            self.requested.add(object_id)
            self.dirty.requested.add(object_id)
            expand_requested(self.facts, object_id, self)
        self._follow()

    def absorb(self, changes: Iterable[Change]) -> None:
        """Take answers of the store in. Those to keys that are not watched are ignored."""
        for change in changes:
            if isinstance(change, TableChange) and change.key == HOST_STATE:
                self._host_states(change.entries)
            elif not self.facts.is_watched(change.key):
                continue
            elif isinstance(change, IdsChange):
                self._ids(change)
            elif isinstance(change, TableChange):
                self._table(change)
            else:
                self._object(change)
            self._follow()

    def _follow(self) -> None:
        while self._queue:
            kind, object_id = self._queue.pop()
            expand(self.facts, self._index, kind, object_id, self)

    def _object(self, change: ObjectChange) -> None:
        kind, object_id = change.key.kind, change.key.object_id
        old = self.facts.get(kind, object_id)
        new = change.current.value if change.current is not None else None
        if self.facts.is_answered(kind, object_id) and old == new:
            return
        self.facts.put(kind, object_id, new)
        if kind is Port:
            self._index.replace(
                self.host_id,
                old if isinstance(old, Port) else None,
                new if isinstance(new, Port) else None,
            )
            self._port(PortId(object_id), old, new)
        if kind in self.tracked:
            self._tracked_object(kind, object_id)
        elif isinstance(new, Pool):
            expand_pool(self.facts, object_id, self)
            self._dirty_balancer(new.id)
        elif isinstance(new, PoolMember | Vip):
            self._dirty_balancer(new.pool_id)
        else:
            self._part(kind, object_id)

    def _tracked_object(self, kind: _Kind, object_id: ObjectId) -> None:
        if object_id in self.tracked[kind]:
            self.dirty.objects[kind].add(object_id)
            expand(self.facts, self._index, kind, object_id, self)
        if object_id in self.requested:
            self.dirty.requested.add(object_id)
            expand_requested(self.facts, object_id, self)

    def _part(self, kind: _Kind, object_id: ObjectId) -> None:
        """Note what an object that is part of another one touches."""
        if kind is Rule:
            self._rule(object_id)
        elif kind is Route:
            self._dirty_route(object_id)
        elif kind in _DHCP_KINDS:
            self.dirty.dhcp.add((kind, object_id))
        elif kind is PortLocation:
            self.dirty.objects[Port].add(object_id)
        elif kind is FloodGroup:
            self.dirty.groups.add(object_id)
        elif kind is PortGroup:
            group_id = PortGroupId(object_id)
            self.dirty.port_groups.add(group_id)
            self.dirty.objects[Port] |= self._index.grouped.get(group_id, set())
        elif kind is IpAddressGroup:
            self.dirty.members.setdefault(IpAddressGroupId(object_id), {})
        elif kind in {TunnelZone, TunnelZoneHost}:
            self.dirty.tunnels = True
        elif kind is ClusterSettings:
            self.dirty.settings = True
        elif kind is QosDscpRule:
            rule = self.facts.get(QosDscpRule, object_id)
            if rule is not None:
                self.dirty.objects[QosPolicy].add(rule.policy_id)

    def _rule(self, rule_id: ObjectId) -> None:
        expand_rule(self.facts.get(Rule, rule_id), self)
        owner = self._rule_owner.get(rule_id)
        if owner is not None:
            self.dirty.objects[Chain].add(owner)

    def _port(
        self, port_id: PortId, old: msgspec.Struct | None, new: msgspec.Struct | None
    ) -> None:
        """Note the bridges whose attached routers a port's record touches."""
        bridge_ids: set[BridgeId | None] = {
            port.bridge_id for port in (old, new) if isinstance(port, Port)
        }
        for user_id in self._index.peered_by.get(port_id, ()):
            self.dirty.objects[Port].add(user_id)
            user = self.facts.get(Port, user_id)
            if user is not None:
                bridge_ids.add(user.bridge_id)
        for bridge_id in bridge_ids:
            if bridge_id is not None and bridge_id in self.tracked[Bridge]:
                expand_attached_routers(self.facts, self._index, bridge_id, self)
                expand_dhcp(self.facts, self._index, bridge_id, self)

    def _ids(self, change: IdsChange) -> None:
        key = change.key
        old = self.facts.ids(key)
        if old == change.ids:
            return
        self.facts.put_ids(key, change.ids)
        changed = (old or frozenset()) ^ change.ids
        if isinstance(key, AllOf) or key.field == "host_id":
            expand_root(self.facts, self.host_id, self)
            self.dirty.tunnels |= key in {ALL_ZONES, ALL_ZONE_HOSTS}
            return
        if self._parts(key, change.ids):
            return
        owner_kind = _OWNERS[key.field]
        if key.target_id not in self.tracked[owner_kind]:
            return
        self.dirty.objects[owner_kind].add(key.target_id)
        for object_id in change.ids - (old or frozenset()):
            expand_member(key, object_id, self)
        if key.kind is Route:
            for route_id in changed:
                self._route_owner[route_id] = RouterId(key.target_id)
                self._dirty_route(route_id)
        elif key.kind is Rule:
            self._rule_owner.update(dict.fromkeys(changed, ChainId(key.target_id)))
        elif key.kind is FloodGroup:
            self.dirty.groups |= changed

    def _dirty_route(self, route_id: ObjectId) -> None:
        router_id = self._route_owner.get(route_id)
        if router_id is not None:
            self.dirty.routes.setdefault(router_id, set()).add(RouteId(route_id))

    def _parts(self, key: Referrers, ids: frozenset[ObjectId]) -> bool:
        """Follow a list of parts that are only read; False for another list."""
        is_of_pool, is_of_dhcp = key.field == "pool_id", key.kind in _DHCP_KINDS
        if not is_of_pool and not is_of_dhcp:
            return False
        for object_id in ids:
            self.want(key.kind, object_id)
            if is_of_dhcp and key.field == "bridge_id":
                expand_dhcp_subnet(self.facts, key.kind, object_id, self)
        if is_of_pool:
            self._dirty_balancer(key.target_id)
        return True

    def _dirty_balancer(self, pool_id: ObjectId) -> None:
        pool = self.facts.get(Pool, pool_id)
        if pool is not None and pool.load_balancer_id in self.tracked[LoadBalancer]:
            self.dirty.objects[LoadBalancer].add(pool.load_balancer_id)

    def _table(self, change: TableChange) -> None:
        changed = {text: None if entry is None else entry.value for text, entry in change.entries}
        self.facts.put_entries(change.key, changed.items())
        owner_id = UUID(change.key.table.rpartition("/")[2])
        if change.key == health_of(owner_id):
            self._dirty_balancer(owner_id)
            return
        self.dirty.members.setdefault(IpAddressGroupId(owner_id), {}).update(
            (text, value is not None) for text, value in changed.items()
        )

    def _host_states(self, entries: Iterable[tuple[str, StateEntry | None]]) -> None:
        self.facts.note_host_states()
        for key, entry in entries:
            try:
                host_id = HostId(UUID(key))
            except ValueError:
                continue
            old = self.facts.host_states.pop(host_id, None)
            new = None if entry is None else self._overlay_mtu(host_id, entry)
            if new is not None:
                self.facts.host_states[host_id] = new
            if (old is None) is not (new is None):
                self.dirty.hosts.add(host_id)
            if (old or 0) != (new or 0):
                self.dirty.tunnels = True

    def _overlay_mtu(self, host_id: HostId, entry: StateEntry) -> int | None:
        """Return what matters of a live host's state; None when it cannot be understood."""
        try:
            state = msgspec.json.decode(entry.value, type=_Presence)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.malformed[host_id] = f"state of the host: {error}"
            return None
        self.malformed.pop(host_id, None)
        return state.overlay_mtu_bytes

    # Forgetting.

    def collect(self, keep: Iterable[ObjectId]) -> dict[_Kind, set[ObjectId]]:
        """Forget all that neither the ports bound here nor `keep` lead to.

        Returns the tracked objects that are tracked no more.
        """
        kept = set(keep)
        known = set().union(*self.tracked.values()) | self.requested
        self.dirty.requested |= self.requested - kept
        self.requested = kept & known
        reach = _Reach(self.facts, self._index, self.host_id, self.requested)
        forgotten = {kind: ids - reach.tracked[kind] for kind, ids in self.tracked.items()}
        self.tracked = reach.tracked
        ports = {
            object_id: self.facts.get(Port, object_id)
            for object_id in self.facts.known(Port)
            if ObjectKey(Port, object_id) not in reach.objects
        }
        for port in ports.values():
            self._index.replace(self.host_id, port, None)
        self.facts.retain(reach.objects, reach.lists, reach.tables)
        self.request(self.requested)
        self._rule_owner = {
            rule_id: owner
            for rule_id, owner in self._rule_owner.items()
            if self.facts.is_watched(ObjectKey(Rule, rule_id))
        }
        self._route_owner = {
            route_id: owner
            for route_id, owner in self._route_owner.items()
            if self.facts.is_watched(ObjectKey(Route, route_id))
        }
        return forgotten


class _Reach:
    """Everything that is reached from the roots, found anew."""

    def __init__(
        self, facts: Facts, index: PortIndex, host_id: HostId, requested: Iterable[ObjectId]
    ) -> None:
        self.objects: set[ObjectKey] = set()
        self.lists: set[Referrers | AllOf] = set()
        self.tables: set[Table] = set()
        self.tracked: dict[_Kind, set[ObjectId]] = {kind: set() for kind in TRACKED_KINDS}
        self._queue: list[tuple[_Kind, ObjectId]] = []
        expand_root(facts, host_id, self)
        for object_id in requested:
            expand_requested(facts, object_id, self)
        while self._queue:
            kind, object_id = self._queue.pop()
            expand(facts, index, kind, object_id, self)

    def want(self, kind: _Kind, object_id: ObjectId) -> None:
        self.objects.add(ObjectKey(kind, object_id))

    def want_list(self, key: Referrers | AllOf) -> None:
        self.lists.add(key)

    def want_table(self, key: Table) -> None:
        self.tables.add(key)

    def track(self, kind: _Kind, object_id: ObjectId) -> None:
        if object_id not in self.tracked[kind]:
            self.tracked[kind].add(object_id)
            self._queue.append((kind, object_id))
