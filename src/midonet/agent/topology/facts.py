"""What the store has answered so far, raw. Pure.

A fact is *watched* from the moment it is wanted and *answered* once the first change for it has
come. Absence and the empty set are answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

import msgspec

from midonet.model.chains import Rule
from midonet.model.devices import Port
from midonet.model.dhcp import DhcpHost, DhcpSubnet, DhcpV6Host, DhcpV6Subnet
from midonet.model.hosts import FloodGroup, TunnelZone, TunnelZoneHost
from midonet.model.ids import HostId, ObjectId
from midonet.model.load_balancer import Pool, PoolMember, Vip
from midonet.model.qos import QosDscpRule
from midonet.nsdb.store import AllOf, ObjectKey, Referrers, StateTables, Table, WatchKey

T = TypeVar("T", bound=msgspec.Struct)

HOST_STATE = Table(StateTables.host_state())
ALL_ZONES = AllOf(TunnelZone)
ALL_ZONE_HOSTS = AllOf(TunnelZoneHost)


def ports_of_host(host_id: HostId) -> Referrers:
    """Return the key of the list of ports bound to a host."""
    return Referrers(Port, "host_id", host_id)


def flood_groups_of(bridge_id: ObjectId) -> Referrers:
    """Return the key of the list of flood groups of a bridge."""
    return Referrers(FloodGroup, "bridge_id", bridge_id)


def members_of(group_id: ObjectId) -> Table:
    """Return the key of the table of members of an IP address group."""
    return Table(StateTables.ip_address_group(group_id))


def rules_of(chain_id: ObjectId) -> Referrers:
    """Return the key of the list of rules of a chain."""
    return Referrers(Rule, "chain_id", chain_id)


def pools_of(balancer_id: ObjectId) -> Referrers:
    """Return the key of the list of pools of a load balancer."""
    return Referrers(Pool, "load_balancer_id", balancer_id)


def members_of_pool(pool_id: ObjectId) -> Referrers:
    """Return the key of the list of members of a pool."""
    return Referrers(PoolMember, "pool_id", pool_id)


def vips_of(pool_id: ObjectId) -> Referrers:
    """Return the key of the list of VIPs of a pool."""
    return Referrers(Vip, "pool_id", pool_id)


def health_of(pool_id: ObjectId) -> Table:
    """Return the key of the table of the health of a pool's members."""
    return Table(StateTables.member_health(pool_id))


def dscp_rules_of(policy_id: ObjectId) -> Referrers:
    """Return the key of the list of DSCP rules of a QoS policy."""
    return Referrers(QosDscpRule, "policy_id", policy_id)


def dhcp_subnets_of(bridge_id: ObjectId) -> tuple[Referrers, Referrers]:
    """Return the keys of the lists of DHCP and DHCPv6 subnets of a bridge."""
    return (
        Referrers(DhcpSubnet, "bridge_id", bridge_id),
        Referrers(DhcpV6Subnet, "bridge_id", bridge_id),
    )


def dhcp_clients_of(subnet_kind: type[msgspec.Struct], subnet_id: ObjectId) -> Referrers:
    """Return the key of the list of clients of a DHCP or DHCPv6 subnet."""
    kind = DhcpHost if subnet_kind is DhcpSubnet else DhcpV6Host
    return Referrers(kind, "subnet_id", subnet_id)


class MissingMember(Enum):
    """Why the objects of a list are not all there."""

    ABSENT = "absent"
    UNKNOWN = "unknown"


class Facts:
    """Answers by kind and id, and the watch keys still to be asked or dropped.

    host_states: the hosts that are alive, with the largest inner packet in bytes that each
        reported, 0 for unknown.
    """

    def __init__(self) -> None:
        self._watched: dict[type[msgspec.Struct], set[ObjectId]] = {}
        self._objects: dict[type[msgspec.Struct], dict[ObjectId, msgspec.Struct | None]] = {}
        self._watched_lists: set[Referrers | AllOf] = set()
        self._lists: dict[Referrers | AllOf, frozenset[ObjectId]] = {}
        self._watched_tables: set[Table] = set()
        self._tables: dict[Table, dict[str, str]] = {}
        self.host_states: dict[HostId, int] = {}
        self._unanswered = 1
        self._is_host_state_known = False
        self._to_add: list[WatchKey] = [HOST_STATE]
        self._to_remove: list[WatchKey] = []

    def want(self, kind: type[msgspec.Struct], object_id: ObjectId) -> None:
        """Watch an object."""
        watched = self._watched.setdefault(kind, set())
        if object_id not in watched:
            watched.add(object_id)
            self._unanswered += 1
            self._to_add.append(ObjectKey(kind, object_id))

    def want_list(self, key: Referrers | AllOf) -> None:
        """Watch a set of ids."""
        if key not in self._watched_lists:
            self._watched_lists.add(key)
            self._unanswered += 1
            self._to_add.append(key)

    def want_table(self, key: Table) -> None:
        """Watch a state table."""
        if key not in self._watched_tables:
            self._watched_tables.add(key)
            self._unanswered += 1
            self._to_add.append(key)

    def is_watched(self, key: WatchKey) -> bool:
        """Tell whether an answer for the key is still of interest."""
        if isinstance(key, ObjectKey):
            return key.object_id in self._watched.get(key.kind, ())
        if isinstance(key, Table):
            return key in self._watched_tables
        return key in self._watched_lists

    def is_answered(self, kind: type[msgspec.Struct], object_id: ObjectId) -> bool:
        """Tell whether the object, or its absence, is known."""
        return object_id in self._objects.get(kind, ())

    def is_absent(self, kind: type[msgspec.Struct], object_id: ObjectId) -> bool:
        """Tell whether the object is known not to exist."""
        objects = self._objects.get(kind, {})
        return object_id in objects and objects[object_id] is None

    def get(self, kind: type[T], object_id: ObjectId | None) -> T | None:
        """Return an object; None when it is absent, unknown or no id is given."""
        if object_id is None:
            return None
        found = self._objects.get(kind, {}).get(object_id)
        return found if isinstance(found, kind) else None

    def members(self, kind: type[T], ids: Iterable[ObjectId]) -> list[T] | MissingMember:
        """Return listed objects; ABSENT when one is known not to exist, else UNKNOWN when one is
        not answered."""
        objects = self._objects.get(kind, {})
        found: list[T] = []
        is_complete = True
        for object_id in ids:
            value = objects.get(object_id, MissingMember.UNKNOWN)
            if value is None:
                return MissingMember.ABSENT
            if isinstance(value, kind):
                found.append(value)
            else:
                is_complete = False
        return found if is_complete else MissingMember.UNKNOWN

    def known(self, kind: type[msgspec.Struct]) -> list[ObjectId]:
        """Return the ids of a kind that are answered."""
        return list(self._objects.get(kind, ()))

    def put(
        self, kind: type[msgspec.Struct], object_id: ObjectId, value: msgspec.Struct | None
    ) -> None:
        """Note an answer."""
        objects = self._objects.setdefault(kind, {})
        self._unanswered -= object_id not in objects
        objects[object_id] = value

    def ids(self, key: Referrers | AllOf) -> frozenset[ObjectId] | None:
        """Return a set of ids, None when it is not answered."""
        return self._lists.get(key)

    def put_ids(self, key: Referrers | AllOf, ids: frozenset[ObjectId]) -> None:
        """Note an answer."""
        self._unanswered -= key not in self._lists
        self._lists[key] = ids

    def entries(self, key: Table) -> Mapping[str, str] | None:
        """Return the present entries of a watched table, None when they are not answered."""
        return self._tables.get(key)

    def put_entries(self, key: Table, changed: Iterable[tuple[str, str | None]]) -> None:
        """Note the values of entries of a table; None for those that are gone."""
        self._unanswered -= key not in self._tables
        present = self._tables.setdefault(key, {})
        for text, value in changed:
            if value is None:
                present.pop(text, None)
            else:
                present[text] = value

    def note_host_states(self) -> None:
        """Note that the table of host states is answered."""
        self._unanswered -= not self._is_host_state_known
        self._is_host_state_known = True

    @property
    def is_complete(self) -> bool:
        """Tell whether every watched fact is answered."""
        return not self._unanswered

    def retain(
        self,
        objects: Iterable[ObjectKey],
        lists: Iterable[Referrers | AllOf],
        tables: Iterable[Table],
    ) -> None:
        """Forget every fact that is not among the given ones."""
        kept: dict[type[msgspec.Struct], set[ObjectId]] = {}
        for key in objects:
            kept.setdefault(key.kind, set()).add(key.object_id)
        for kind, watched in self._watched.items():
            for object_id in watched - kept.get(kind, set()):
                watched.discard(object_id)
                self._unanswered -= not self.is_answered(kind, object_id)
                self._objects.get(kind, {}).pop(object_id, None)
                self._to_remove.append(ObjectKey(kind, object_id))
        for list_key in self._watched_lists - set(lists):
            self._watched_lists.discard(list_key)
            self._unanswered -= self._lists.pop(list_key, None) is None
            self._to_remove.append(list_key)
        for table in self._watched_tables - set(tables):
            self._watched_tables.discard(table)
            self._unanswered -= self._tables.pop(table, None) is None
            self._to_remove.append(table)

    def take_watch_changes(self) -> tuple[tuple[WatchKey, ...], tuple[WatchKey, ...]]:
        """Return the keys to add and the keys to remove since the last call."""
        added, removed = tuple(self._to_add), tuple(self._to_remove)
        self._to_add, self._to_remove = [], []
        return added, removed
