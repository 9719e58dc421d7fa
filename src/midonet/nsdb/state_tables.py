"""Local replicas of state tables: reads never wait, an owner writes and deletes only its own.

`TableReplica` is the replica without I/O, for components that feed many tables from one
watcher. `StateTable` is one table with a watcher of its own.

No clock travels between hosts. The age of an entry is counted from its arrival here; after a
restart everything looks new once, and the owner of an entry removes it when it expires.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar
from uuid import UUID

import msgspec

from midonet.errors import DecodeError
from midonet.model.ids import BridgeId, ObjectId, PortId, RouterId
from midonet.nsdb.store import (
    DropState,
    PutState,
    StateEntry,
    StateTables,
    Store,
    Table,
    TableChange,
)
from midonet.packets.addresses import IpAddress, format_mac, parse_ip, parse_mac

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class EntryFormat(Generic[K, V]):
    """How keys and values of a table are written. The parsers raise DecodeError."""

    parse_key: Callable[[str], K]
    format_key: Callable[[K], str]
    parse_value: Callable[[str], V]
    format_value: Callable[[V], str]


@dataclass(frozen=True, slots=True)
class EntryChange(Generic[K, V]):
    """A key whose winning value changed; None stands for no entry."""

    key: K
    old: V | None
    new: V | None


@dataclass(frozen=True, slots=True)
class _Held(Generic[V]):
    value: V
    owner: ObjectId
    arrived_s: float


class TableReplica(Generic[K, V]):
    """The winning entries of one table as they arrived here.

    malformed: how many entries were passed over because they could not be parsed.
    """

    def __init__(self, entry_format: EntryFormat[K, V]) -> None:
        self.malformed = 0
        self._format = entry_format
        self._held: dict[K, _Held[V]] = {}

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None."""
        held = self._held.get(key)
        return None if held is None else held.value

    def owner(self, key: K) -> ObjectId | None:
        """Return who wrote the entry of a key."""
        held = self._held.get(key)
        return None if held is None else held.owner

    def age_s(self, key: K, now_s: float) -> float | None:
        """Return the seconds since the entry of a key was last seen to be written."""
        held = self._held.get(key)
        return None if held is None else now_s - held.arrived_s

    def items(self) -> Mapping[K, V]:
        """Return a copy of all entries."""
        return MappingProxyType({key: held.value for key, held in self._held.items()})

    def apply(self, change: TableChange, now_s: float) -> list[EntryChange[K, V]]:
        """Take over a change; return the keys whose value is another now.

        An entry that is written again with its old value only becomes younger.
        """
        changes = []
        for key_text, entry in change.entries:
            try:
                key = self._format.parse_key(key_text)
            except DecodeError:
                self.malformed += 1
                continue
            old = self._held.pop(key, None)
            held = None if entry is None else self._parse(entry, now_s)
            if held is not None:
                self._held[key] = held
            old_value = None if old is None else old.value
            new_value = None if held is None else held.value
            if old_value != new_value:
                changes.append(EntryChange(key, old_value, new_value))
        return changes

    def _parse(self, entry: StateEntry, now_s: float) -> _Held[V] | None:
        try:
            value = self._format.parse_value(entry.value)
        except DecodeError:
            self.malformed += 1
            return None
        return _Held(value, entry.owner, now_s)


class StateTable(Generic[K, V]):
    """One state table: a replica that follows the store, and writes in the name of `owner`."""

    def __init__(
        self,
        store: Store,
        name: str,
        entry_format: EntryFormat[K, V],
        owner: ObjectId,
        now_s: Callable[[], float],
    ) -> None:
        """`now_s` returns monotonic seconds of this process."""
        self.replica = TableReplica(entry_format)
        self._store = store
        self._name = name
        self._format = entry_format
        self._owner = owner
        self._now_s = now_s
        self._watcher = store.watcher()
        self._watcher.add([Table(name)])

    def get(self, key: K) -> V | None:
        """Return the value of a key as of the last `changes`, without waiting."""
        return self.replica.get(key)

    def age_s(self, key: K) -> float | None:
        """Return how old the entry of a key is."""
        return self.replica.age_s(key, self._now_s())

    async def put(self, key: K, value: V, *, epoch: int = 0, is_persistent: bool = False) -> None:
        """Write this owner's entry; see `PutState` for what it needs.

        Raises ConflictError (no live session, or a later epoch is stored), UnavailableError.
        """
        operation = PutState(
            self._name,
            self._format.format_key(key),
            self._format.format_value(value),
            self._owner,
            epoch,
            is_persistent,
        )
        await self._store.transact([operation])

    async def remove(self, key: K, value: V | None = None) -> None:
        """Remove this owner's entry, when it has `value` (None: any). Raises UnavailableError."""
        text = None if value is None else self._format.format_value(value)
        key_text = self._format.format_key(key)
        await self._store.transact([DropState(self._name, key_text, self._owner, text)])

    async def changes(self) -> list[EntryChange[K, V]]:
        """Wait for the table to change, bring the replica up to date, return what changed.

        The first call returns with the whole table in place, at once when it is empty. After
        that an empty list means that the table was closed or only became younger.
        """
        changes: list[EntryChange[K, V]] = []
        for change in await self._watcher.changes():
            if isinstance(change, TableChange):
                changes.extend(self.replica.apply(change, self._now_s()))
        return changes

    async def close(self) -> None:
        """Stop following; a waiting `changes` returns."""
        await self._watcher.close()


class NeighbourRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The value of an entry in a router's neighbour table.

    stale_after_s, expires_after_s: ages at which the entry is asked for again and is void.
    """

    mac: str
    stale_after_s: float = 60.0
    expires_after_s: float = 90.0


def _parse_uuid(text: str) -> PortId:
    try:
        return PortId(UUID(text))
    except ValueError:
        raise DecodeError(f"not an identifier: {text!r}") from None


def _parse_neighbour(text: str) -> NeighbourRecord:
    try:
        record = msgspec.json.decode(text, type=NeighbourRecord)
    except msgspec.DecodeError as error:
        raise DecodeError(f"not a neighbour record: {error}") from error
    parse_mac(record.mac)
    return record


def _format_neighbour(record: NeighbourRecord) -> str:
    return msgspec.json.encode(record).decode()


MAC_FORMAT: EntryFormat[int, PortId] = EntryFormat(parse_mac, format_mac, _parse_uuid, str)
"""MAC address to port."""

BRIDGE_ARP_FORMAT: EntryFormat[IpAddress, int] = EntryFormat(parse_ip, str, parse_mac, format_mac)
"""IP address to MAC address."""

ROUTER_ARP_FORMAT: EntryFormat[IpAddress, NeighbourRecord] = EntryFormat(
    parse_ip, str, _parse_neighbour, _format_neighbour
)
"""IP address to neighbour record."""


def mac_table(
    store: Store, bridge_id: BridgeId, vlan: int, owner: ObjectId, now_s: Callable[[], float]
) -> StateTable[int, PortId]:
    """Return the MAC table of a bridge and VLAN (0: untagged)."""
    return StateTable(store, StateTables.mac(bridge_id, vlan), MAC_FORMAT, owner, now_s)


def bridge_arp_table(
    store: Store, bridge_id: BridgeId, owner: ObjectId, now_s: Callable[[], float]
) -> StateTable[IpAddress, int]:
    """Return the IP to MAC table of a bridge."""
    return StateTable(store, StateTables.bridge_arp(bridge_id), BRIDGE_ARP_FORMAT, owner, now_s)


def router_arp_table(
    store: Store, router_id: RouterId, owner: ObjectId, now_s: Callable[[], float]
) -> StateTable[IpAddress, NeighbourRecord]:
    """Return the neighbour table of a router."""
    return StateTable(store, StateTables.router_arp(router_id), ROUTER_ARP_FORMAT, owner, now_s)
