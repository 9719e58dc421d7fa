"""Random transactions against a plain model, with a watcher that must converge to it."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midonet.errors import ConflictError, NotFoundError, ReferencedError
from midonet.model.devices import Bridge, Port
from midonet.model.ids import BridgeId, ObjectId, PortId
from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import (
    AllOf,
    Check,
    Create,
    Delete,
    DropState,
    IdsChange,
    ObjectChange,
    ObjectKey,
    Operation,
    PutState,
    Referrers,
    StateEntry,
    Store,
    Table,
    TableChange,
    Update,
    Watcher,
    WatchKey,
)
from midonet.nsdb.transaction import object_id_of

BRIDGES = [BridgeId(UUID(int=number)) for number in range(1, 4)]
PORTS = [PortId(UUID(int=number)) for number in range(11, 16)]
OWNERS = [UUID(int=number) for number in (21, 22)]
TABLE_KEYS = ["k1", "k2"]
WATCHED: list[WatchKey] = [
    *(ObjectKey(Bridge, one) for one in BRIDGES),
    *(ObjectKey(Port, one) for one in PORTS),
    *(Referrers(Port, "bridge_id", one) for one in BRIDGES),
    *(Referrers(Port, "peer_port_id", one) for one in PORTS),
    AllOf(Bridge),
    AllOf(Port),
    Table("t"),
]

_versions = st.none() | st.integers(0, 2)
_bridges = st.builds(Bridge, id=st.sampled_from(BRIDGES), name=st.sampled_from(["a", "b"]))
_ports = st.builds(
    Port,
    id=st.sampled_from(PORTS),
    bridge_id=st.sampled_from(BRIDGES),
    peer_port_id=st.none() | st.sampled_from(PORTS),
)
_values: st.SearchStrategy[msgspec.Struct] = _bridges | _ports
_ids: st.SearchStrategy[tuple[type[msgspec.Struct], ObjectId]] = st.tuples(
    st.just(Bridge), st.sampled_from(BRIDGES)
) | st.tuples(st.just(Port), st.sampled_from(PORTS))
_operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Create, _values),
    st.builds(Create, _values),
    st.builds(Update, _values, _versions),
    st.builds(lambda key, version: Delete(key[0], key[1], version), _ids, _versions),
    st.builds(lambda key, version: Check(key[0], key[1], version), _ids, _versions),
    st.builds(
        PutState,
        st.just("t"),
        st.sampled_from(TABLE_KEYS),
        st.sampled_from(["x", "y"]),
        st.sampled_from(OWNERS),
        st.just(0),
        st.just(True),
    ),
    st.builds(
        DropState,
        st.just("t"),
        st.sampled_from(TABLE_KEYS),
        st.sampled_from(OWNERS),
        st.none() | st.sampled_from(["x", "y"]),
    ),
)
_transactions = st.lists(st.lists(_operations, min_size=1, max_size=4), max_size=25)

_Key = tuple[type[msgspec.Struct], ObjectId]


@dataclass
class Model:
    """What the store must hold, kept in the most obvious way."""

    objects: dict[_Key, tuple[msgspec.Struct, int]] = field(default_factory=dict)
    entries: dict[tuple[str, ObjectId], str] = field(default_factory=dict)
    order: list[tuple[str, ObjectId]] = field(default_factory=list)

    def transact(self, operations: list[Operation]) -> bool:
        """Apply operations, or nothing; tell which."""
        trial = Model(dict(self.objects), dict(self.entries), list(self.order))
        if not all(trial._apply(operation) for operation in operations):
            return False
        if not trial._is_sound():
            return False
        self.objects, self.entries, self.order = trial.objects, trial.entries, trial.order
        return True

    def _apply(self, operation: Operation) -> bool:
        match operation:
            case Create(value):
                key: _Key = (type(value), object_id_of(value))
                if key in self.objects:
                    return False
                self.objects[key] = (value, 0)
            case Update(value, version):
                key = (type(value), object_id_of(value))
                if not self._is_at(key, version):
                    return False
                self.objects[key] = (value, self.objects[key][1] + 1)
            case Delete(kind, object_id, version):
                if not self._is_at((kind, object_id), version):
                    return False
                del self.objects[kind, object_id]
            case Check(kind, object_id, version):
                return self._is_at((kind, object_id), version)
            case PutState():
                place = (operation.key, operation.owner)
                self.entries[place] = operation.value
                self.order = [one for one in self.order if one != place] + [place]
            case DropState():
                place = (operation.key, operation.owner)
                if operation.value in (None, self.entries.get(place)):
                    self.entries.pop(place, None)
                    self.order = [one for one in self.order if one != place]
        return True

    def _is_at(self, key: _Key, version: int | None) -> bool:
        return key in self.objects and version in (None, self.objects[key][1])

    def _is_sound(self) -> bool:
        peers = [port.peer_port_id for port in self.ports() if port.peer_port_id is not None]
        return (
            all((Bridge, port.bridge_id) in self.objects for port in self.ports())
            and all((Port, peer) in self.objects for peer in peers)
            and len(set(peers)) == len(peers)
        )

    def ports(self) -> list[Port]:
        return [value for value, _ in self.objects.values() if isinstance(value, Port)]

    def ids(self, kind: type[msgspec.Struct]) -> frozenset[ObjectId]:
        return frozenset(object_id for one, object_id in self.objects if one is kind)

    def winners(self) -> dict[str, str]:
        return {key: self.entries[key, owner] for key, owner in self.order}

    def state_of(self, key: WatchKey) -> object:
        """Return what a watcher of `key` must have been told last."""
        match key:
            case ObjectKey():
                return self.objects.get((key.kind, key.object_id))
            case Referrers():
                return frozenset(
                    port.id for port in self.ports() if getattr(port, key.field) == key.target_id
                )
            case AllOf():
                return self.ids(key.kind)
            case Table():
                return self.winners()


class Told:
    """What a watcher has told, folded."""

    def __init__(self, watcher: Watcher) -> None:
        self.state: dict[WatchKey, object] = {}
        self._watcher = watcher

    async def follow(self) -> None:
        for change in await self._watcher.changes():
            match change:
                case ObjectChange():
                    current = change.current
                    self.state[change.key] = current and (current.value, current.version)
                case IdsChange():
                    self.state[change.key] = change.ids
                case TableChange():
                    entries = self.state.setdefault(change.key, {})
                    assert isinstance(entries, dict)
                    for key, entry in change.entries:
                        _fold(entries, key, entry)


def _fold(entries: dict[str, str], key: str, entry: StateEntry | None) -> None:
    if entry is None:
        del entries[key]
    else:
        entries[key] = entry.value


async def run(stores: list[Store], transactions: list[list[Operation]]) -> None:
    """Apply transactions by turns, compare what can be read, then what was told."""
    for store in stores:
        await store.open()
    try:
        watcher = stores[0].watcher()
        watcher.add(WATCHED)
        told, model = Told(watcher), Model()
        for number, operations in enumerate(transactions):
            store = stores[number % len(stores)]
            is_expected = model.transact(operations)
            try:
                await store.transact(operations)
                is_done = True
            except (ConflictError, NotFoundError, ReferencedError):
                is_done = False
            assert is_done == is_expected
            if number == len(transactions) // 2 and not told.state:
                async with asyncio.timeout(60):
                    await told.follow()
        await compare(stores[-1], model)
        async with asyncio.timeout(60):
            while any(key not in told.state for key in WATCHED) or any(
                told.state[key] != model.state_of(key) for key in WATCHED
            ):
                await told.follow()
    finally:
        for store in stores:
            await store.close()


async def compare(store: Store, model: Model) -> None:
    """Check every way of reading against the model."""
    for kind in (Bridge, Port):
        listed = await store.list_all(kind)
        assert [object_id_of(one.value) for one in listed] == sorted(model.ids(kind))
        for one in listed:
            assert model.objects[kind, object_id_of(one.value)] == (one.value, one.version)
    for key in WATCHED:
        if isinstance(key, Referrers):
            expected = model.state_of(key)
            found = await store.referrers(key.kind, key.field, key.target_id)
            assert frozenset(found) == expected
            assert found == sorted(found)
    winners = {entry.key: entry.value for entry in await store.table("t")}
    assert winners == model.winners()
    entries = {(entry.key, entry.owner): entry.value for entry in await store.entries("t")}
    assert entries == model.entries


@given(_transactions)
def test_memory_agrees_with_the_model(transactions: list[list[Operation]]) -> None:
    backend = MemoryBackend()
    asyncio.run(run([MemoryStore(backend), MemoryStore(backend)], transactions))


@pytest.mark.timeout(300)
@settings(max_examples=40)
@given(_transactions)
def test_sqlite_agrees_with_the_model(transactions: list[list[Operation]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "nsdb.db"
        asyncio.run(run([SqliteStore(path), SqliteStore(path)], transactions))
