"""A store in the memory of one process, for tests, what-if simulation and single-process use.

Clients that share a `MemoryBackend` see each other's writes at once, also from different event
loops. Content is encoded as in the durable stores, so that what cannot be stored fails alike.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, assert_never

import msgspec

from midonet.errors import UnavailableError
from midonet.model.ids import ObjectId
from midonet.nsdb import codec, sessions
from midonet.nsdb.store import (
    AllOf,
    Follow,
    ObjectKey,
    Operation,
    Referrers,
    Session,
    SessionInfo,
    StateEntry,
    Table,
    Versioned,
    Watcher,
    WatchKey,
)
from midonet.nsdb.transaction import (
    BootTime,
    IndexEntry,
    Mark,
    SessionRecord,
    StoredObject,
    TableKey,
    Transaction,
    prepare,
    winner,
)
from midonet.nsdb.watching import (
    Marked,
    ReadAhead,
    StoreWatcher,
    WatchIndex,
    WatchState,
    read_levels,
)

T = TypeVar("T", bound=msgspec.Struct)
_Undo = Callable[[], None]


class _MemoryTables:
    """`Tables` in dicts, with an undo log for the unit in progress."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[ObjectId, StoredObject]] = {}
        self.states: dict[str, dict[str, dict[ObjectId, StateEntry]]] = {}
        self.counters: dict[str, int] = {}
        self._sessions: dict[ObjectId, SessionRecord] = {}
        self._referrers: dict[tuple[str, ObjectId], dict[IndexEntry, None]] = {}
        self._references: dict[tuple[str, ObjectId], frozenset[IndexEntry]] = {}
        self._ephemeral: dict[ObjectId, dict[TableKey, None]] = {}
        self._undo: list[_Undo] = []

    def commit(self) -> None:
        self._undo.clear()

    def roll_back(self) -> None:
        while self._undo:
            self._undo.pop()()

    def object(self, kind: str, object_id: ObjectId) -> StoredObject | None:
        return self.objects.get(kind, {}).get(object_id)

    def put_object(self, kind: str, object_id: ObjectId, stored: StoredObject) -> None:
        rows = self.objects.setdefault(kind, {})
        before = rows.get(object_id)
        rows[object_id] = stored
        if before is None:
            self._undo.append(lambda: _drop(rows, object_id))
        else:
            self._undo.append(lambda: _set(rows, object_id, before))

    def remove_object(self, kind: str, object_id: ObjectId) -> None:
        rows = self.objects[kind]
        before = rows.pop(object_id)
        self._undo.append(lambda: _set(rows, object_id, before))

    def index_entries_of(self, kind: str, source_id: ObjectId) -> frozenset[IndexEntry]:
        return self._references.get((kind, source_id), frozenset())

    def change_index(self, removed: Iterable[IndexEntry], added: Iterable[IndexEntry]) -> None:
        removed, added = frozenset(removed), frozenset(added)
        self._apply_index(removed, added)
        self._undo.append(lambda: self._apply_index(added, removed))

    def _apply_index(self, removed: frozenset[IndexEntry], added: frozenset[IndexEntry]) -> None:
        for entry in removed:
            del self._referrers[entry.target_kind, entry.target_id][entry]
        for entry in added:
            target = (entry.target_kind, entry.target_id)
            self._referrers.setdefault(target, {})[entry] = None
        for source in {(entry.kind, entry.source_id) for entry in removed | added}:
            held = self._references.get(source, frozenset()) - removed
            new = frozenset(entry for entry in added if (entry.kind, entry.source_id) == source)
            self._references[source] = held | new
            if not self._references[source]:
                del self._references[source]

    def referrer(self, target_kind: str, target_id: ObjectId) -> IndexEntry | None:
        return next(iter(self._referrers.get((target_kind, target_id), ())), None)

    def count_referrers(self, entry: IndexEntry) -> int:
        return len(
            list(self.referrers(entry.target_kind, entry.target_id, entry.kind, entry.field))
        )

    def referrers(
        self, target_kind: str, target_id: ObjectId, kind: str, field: str
    ) -> Iterator[ObjectId]:
        for entry in self._referrers.get((target_kind, target_id), ()):
            if entry.kind == kind and entry.field == field:
                yield entry.source_id

    def state_entry(self, table: str, key: str, owner: ObjectId) -> StateEntry | None:
        return self.states.get(table, {}).get(key, {}).get(owner)

    def put_state(self, entry: StateEntry) -> None:
        before = self.state_entry(entry.table, entry.key, entry.owner)
        self._set_state(entry)
        if before is None:
            self._undo.append(lambda: self._drop_state(entry.table, entry.key, entry.owner))
        else:
            self._undo.append(lambda: self._set_state(before))

    def remove_state(self, table: str, key: str, owner: ObjectId) -> None:
        before = self.states[table][key][owner]
        self._drop_state(table, key, owner)
        self._undo.append(lambda: self._set_state(before))

    def _set_state(self, entry: StateEntry) -> None:
        self.states.setdefault(entry.table, {}).setdefault(entry.key, {})[entry.owner] = entry
        place = TableKey(entry.table, entry.key)
        if entry.is_persistent:
            self._ephemeral.get(entry.owner, {}).pop(place, None)
        else:
            self._ephemeral.setdefault(entry.owner, {})[place] = None

    def _drop_state(self, table: str, key: str, owner: ObjectId) -> None:
        owners = self.states[table][key]
        del owners[owner]
        if not owners:
            del self.states[table][key]
        if not self.states[table]:
            del self.states[table]
        self._ephemeral.get(owner, {}).pop(TableKey(table, key), None)

    def entries_below(self, name: str) -> list[StateEntry]:
        return [
            entry
            for table, keys in self.states.items()
            if table == name or table.startswith(f"{name}/")
            for owners in keys.values()
            for entry in owners.values()
        ]

    def ephemeral_keys(self, owner: ObjectId) -> list[TableKey]:
        return list(self._ephemeral.get(owner, ()))

    def session(self, owner: ObjectId) -> SessionRecord | None:
        return self._sessions.get(owner)

    def sessions(self) -> list[SessionRecord]:
        return list(self._sessions.values())

    def put_session(self, record: SessionRecord) -> None:
        before = self._sessions.get(record.owner)
        self._sessions[record.owner] = record
        if before is None:
            self._undo.append(lambda: _drop(self._sessions, record.owner))
        else:
            self._undo.append(lambda: _set(self._sessions, record.owner, before))

    def remove_session(self, owner: ObjectId) -> None:
        before = self._sessions.pop(owner)
        self._undo.append(lambda: _set(self._sessions, owner, before))


_K = TypeVar("_K")
_V = TypeVar("_V")


def _set(rows: dict[_K, _V], key: _K, row: _V) -> None:
    rows[key] = row


def _drop(rows: dict[_K, _V], key: _K) -> None:
    del rows[key]


class MemoryBackend:
    """The content that the clients of one memory store share. Safe to use from several threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tables = _MemoryTables()
        self.revision = 0
        self._clients: set[MemoryStore] = set()

    @staticmethod
    def now() -> BootTime:
        """Return the clock of sessions: monotonic seconds of this process."""
        return BootTime("", time.monotonic())

    def join(self, client: MemoryStore) -> None:
        """Let a client hear of changes."""
        with self.lock:
            self._clients.add(client)

    def leave(self, client: MemoryStore) -> None:
        """Undo `join`."""
        with self.lock:
            self._clients.discard(client)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run one atomic unit: kept and told to all clients, or undone when it raises."""
        with self.lock:
            transaction = Transaction(self.tables, self.revision + 1, self.now())
            is_done = False
            try:
                yield transaction
                is_done = True
            finally:
                if is_done:
                    self.tables.commit()
                else:
                    self.tables.roll_back()
            if transaction.marks:
                self.revision += 1
                for client in list(self._clients):
                    client.deliver(transaction.marks)

    def next_deadline_s(self) -> float | None:
        """Return when the first session expires, on the clock of `now`."""
        return min((record.deadline.seconds for record in self.tables.sessions()), default=None)

    def deadlines_moved(self) -> None:
        """Tell all clients that a session was opened."""
        with self.lock:
            for client in list(self._clients):
                client.sessions_changed()


class MemorySession:
    """A session of a memory store."""

    def __init__(self, backend: MemoryBackend, info: SessionInfo) -> None:
        self._backend = backend
        self._info = info

    @property
    def info(self) -> SessionInfo:
        """Return identity and secret."""
        return self._info

    async def keep_alive(self) -> bool:
        """Extend the session; False when it has ended."""
        backend = self._backend
        with backend.transaction() as transaction:
            return sessions.keep_alive(transaction, backend.tables, backend.now(), self._info)

    async def close(self) -> None:
        """End the session at once."""
        with self._backend.transaction() as transaction:
            sessions.close_session(transaction, self._backend.tables, self._info)


class MemoryStore:
    """The `Store` over a `MemoryBackend`. Belongs to the event loop that opens it."""

    def __init__(self, backend: MemoryBackend | None = None) -> None:
        self._backend = MemoryBackend() if backend is None else backend
        self._watch_index = WatchIndex()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reap_timer: asyncio.TimerHandle | None = None

    @property
    def watch_index(self) -> WatchIndex:
        """Return where this client's watchers register."""
        return self._watch_index

    async def open(self) -> None:
        """Join the backend."""
        self._loop = asyncio.get_running_loop()
        self._backend.join(self)
        self._arm_reaper()

    async def wait_lost(self) -> None:
        """Wait until cancelled: memory is not taken away."""
        await asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Leave the backend and end all watchers."""
        self._backend.leave(self)
        self._loop = None
        if self._reap_timer is not None:
            self._reap_timer.cancel()
            self._reap_timer = None
        self._watch_index.close()

    def deliver(self, marks: Iterable[Mark]) -> None:
        """Hear of a change, from any thread."""
        self._call(self._watch_index.dispatch, frozenset(marks))

    def sessions_changed(self) -> None:
        """Hear that a session was opened, from any thread."""
        self._call(self._arm_reaper)

    async def get(self, kind: type[T], object_id: ObjectId) -> Versioned[T] | None:
        """Return an object, or None."""
        stored = self._opened().tables.object(codec.kind_name(kind), object_id)
        return None if stored is None else _versioned(kind, stored)

    async def get_many(
        self, kind: type[T], object_ids: Sequence[ObjectId]
    ) -> dict[ObjectId, Versioned[T]]:
        """Return those that exist."""
        with self._opened().lock:
            rows = self._backend.tables.objects.get(codec.kind_name(kind), {})
            return {one: _versioned(kind, rows[one]) for one in object_ids if one in rows}

    async def list_all(self, kind: type[T]) -> list[Versioned[T]]:
        """Return all objects of a kind, in ascending order of id."""
        with self._opened().lock:
            rows = self._backend.tables.objects.get(codec.kind_name(kind), {})
            return [_versioned(kind, rows[object_id]) for object_id in sorted(rows)]

    async def list_ids(self, kind: type[msgspec.Struct]) -> list[ObjectId]:
        """Return the ids of all objects of a kind, ascending."""
        with self._opened().lock:
            return sorted(self._backend.tables.objects.get(codec.kind_name(kind), {}))

    async def referrers(
        self, kind: type[msgspec.Struct], field: str, target_id: ObjectId
    ) -> list[ObjectId]:
        """Return ids of the objects of `kind` whose `field` names the target, ascending."""
        with self._opened().lock:
            return sorted(self._referrers(kind, field, target_id))

    async def referrers_many(
        self, kind: type[msgspec.Struct], field: str, target_ids: Sequence[ObjectId]
    ) -> dict[ObjectId, list[ObjectId]]:
        """Return `referrers` of several targets; those without are missing."""
        with self._opened().lock:
            found = {one: sorted(self._referrers(kind, field, one)) for one in target_ids}
        return {target_id: ids for target_id, ids in found.items() if ids}

    async def transact(self, operations: Sequence[Operation]) -> int:
        """Apply all or nothing; see `Store.transact`."""
        prepared = prepare(operations)
        await asyncio.sleep(0)
        backend = self._opened()
        with backend.transaction() as transaction:
            transaction.apply(prepared)
        return backend.revision

    def watcher(self, follow: Follow | None = None) -> Watcher:
        """Return a new watcher."""
        self._opened()
        return StoreWatcher(self, follow)

    async def watch_state(
        self, marked: Sequence[Marked], ahead: ReadAhead | None
    ) -> tuple[WatchState, list[WatchKey]]:
        """Read the present state of watch keys and of what follows."""
        await asyncio.sleep(0)

        def read(level: Sequence[Marked], state: WatchState) -> None:
            for one in level:
                self._read_watch(one, state)

        with self._opened().lock:
            return read_levels(marked, ahead, read)

    async def table(self, table: str) -> list[StateEntry]:
        """Return the winning entry of each key of a state table."""
        with self._opened().lock:
            return list(self._winners(table).values())

    async def entries(self, table: str, key: str | None = None) -> list[StateEntry]:
        """Return all entries of a table, or of one key."""
        with self._opened().lock:
            keys = self._backend.tables.states.get(table, {})
            return [
                entry
                for name in sorted(keys)
                if key in (None, name)
                for entry in keys[name].values()
            ]

    async def open_session(
        self, owner: ObjectId, *, timeout_s: float = 30.0, secret: str | None = None
    ) -> Session:
        """Open or resume a session; see `Store.open_session`."""
        backend = self._opened()
        wanted = SessionInfo(owner, secret or "", timeout_s)
        with backend.transaction() as transaction:
            info = sessions.open_session(transaction, backend.tables, backend.now(), wanted)
        backend.deadlines_moved()
        return MemorySession(backend, info)

    async def live_sessions(self) -> frozenset[ObjectId]:
        """Return owners whose session is live."""
        with self._opened().lock:
            return sessions.live_owners(self._backend.tables, self._backend.now())

    async def sequence(self, name: str) -> int:
        """Return the next value of a named counter."""
        with self._opened().lock:
            counters = self._backend.tables.counters
            counters[name] = counters.get(name, 0) + 1
            return counters[name]

    def _opened(self) -> MemoryBackend:
        if self._loop is None:
            raise UnavailableError("the memory store is not open")
        return self._backend

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            self._backend.leave(self)
        elif loop is asyncio._get_running_loop():
            function(*arguments)
        else:
            loop.call_soon_threadsafe(function, *arguments)

    def _arm_reaper(self) -> None:
        """Set the timer for the first session to expire; every open client has one."""
        if self._loop is None:
            return
        if self._reap_timer is not None:
            self._reap_timer.cancel()
            self._reap_timer = None
        with self._backend.lock:
            deadline_s = self._backend.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._backend.now().seconds)
            self._reap_timer = self._loop.call_later(delay_s, self._reap)

    def _reap(self) -> None:
        self._reap_timer = None
        with self._backend.transaction() as transaction:
            sessions.reap(transaction, self._backend.tables, self._backend.now())
        self._arm_reaper()

    def _referrers(
        self, kind: type[msgspec.Struct], field: str, target_id: ObjectId
    ) -> Iterator[ObjectId]:
        target_kind = codec.target_kind_name(kind, field)
        return self._backend.tables.referrers(target_kind, target_id, kind.__name__, field)

    def _winners(self, table: str) -> dict[str, StateEntry]:
        keys = self._backend.tables.states.get(table, {})
        winners = {key: winner(keys[key].values()) for key in sorted(keys)}
        return {key: entry for key, entry in winners.items() if entry is not None}

    def _read_watch(self, one: Marked, state: WatchState) -> None:
        tables = self._backend.tables
        match one:
            case ObjectKey():
                stored = tables.object(codec.kind_name(one.kind), one.object_id)
                if stored is not None:
                    state.objects[one] = (stored.revision, _versioned(one.kind, stored))
            case Table():
                state.tables[one] = self._winners(one.table)
            case TableKey():
                entries = tables.states.get(one.table, {}).get(one.key, {})
                state.table_keys[one] = winner(entries.values())
            case Referrers():
                found = self._referrers(one.kind, one.field, one.target_id)
                state.ids[one] = frozenset(found)
            case AllOf():
                state.ids[one] = frozenset(tables.objects.get(codec.kind_name(one.kind), ()))
            case _:
                assert_never(one)


def _versioned(kind: type[T], stored: StoredObject) -> Versioned[T]:
    return Versioned(codec.decode(kind, stored.body), stored.version)


_BACKENDS: dict[str, MemoryBackend] = {}


def shared_backend(name: str) -> MemoryBackend:
    """Return this process's backend of that name, made at the first call."""
    return _BACKENDS.setdefault(name, MemoryBackend())
