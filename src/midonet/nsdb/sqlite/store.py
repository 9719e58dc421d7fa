"""`SqliteStore`: the Store over one SQLite file, for all processes of one machine.

All SQL runs in threads: one that writes, a few that read, one that follows the commits of all
processes. Reads see every write acknowledged before, of any process.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec

from midonet.errors import UnavailableError
from midonet.model.ids import ObjectId
from midonet.nsdb import sessions
from midonet.nsdb.sqlite import reading
from midonet.nsdb.sqlite.follower import Follower
from midonet.nsdb.sqlite.notification import Notifier
from midonet.nsdb.sqlite.options import StoreOptions
from midonet.nsdb.sqlite.schema import FileUse, connect, open_companion, translated_errors
from midonet.nsdb.sqlite.tables import SqliteTables
from midonet.nsdb.sqlite.writer import Writer
from midonet.nsdb.store import (
    Follow,
    Operation,
    Session,
    SessionInfo,
    StateEntry,
    Versioned,
    Watcher,
    WatchKey,
)
from midonet.nsdb.transaction import BootTime, Transaction, prepare
from midonet.nsdb.watching import Marked, ReadAhead, StoreWatcher, WatchIndex, WatchState

T = TypeVar("T", bound=msgspec.Struct)
R = TypeVar("R")

DEFAULT_OPTIONS = StoreOptions()

_READER_THREADS = 2


class _Readers:
    """Threads that read, each with a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.check_presence: Callable[[], None] = lambda: None
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._executor = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="nsdb-reader")

    async def run(self, query: Callable[[sqlite3.Connection], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._query, query)

    def close(self) -> None:
        self._executor.shutdown(wait=True)
        for connection in self._connections:
            connection.close()

    def _query(self, query: Callable[[sqlite3.Connection], R]) -> R:
        self.check_presence()
        with translated_errors(self._path):
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = connect(self._path)
                self._connections.append(connection)
            return query(connection)


class SqliteSession:
    """A session of the embedded store."""

    def __init__(self, store: SqliteStore, info: SessionInfo) -> None:
        self._store = store
        self._info = info

    @property
    def info(self) -> SessionInfo:
        """Return identity and secret."""
        return self._info

    async def keep_alive(self) -> bool:
        """Extend the session; False when it has ended."""

        def work(transaction: Transaction, tables: SqliteTables) -> bool:
            return sessions.keep_alive(transaction, tables, self._store.now(), self._info)

        return (await self._store.run_write(work))[0]

    async def close(self) -> None:
        """End the session at once."""

        def work(transaction: Transaction, tables: SqliteTables) -> None:
            sessions.close_session(transaction, tables, self._info)

        await self._store.run_write(work)


class _Opened:
    """What an open store holds. Made and closed in a thread."""

    def __init__(
        self,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        watch_index: WatchIndex,
        options: StoreOptions,
        lost: asyncio.Event,
    ) -> None:
        with ExitStack() as undo:
            undo.callback(FileUse(path).release)
            notifier = Notifier(open_companion(path))
            undo.callback(notifier.close)
            self.readers = _Readers(path)
            undo.callback(self.readers.close)
            self.writer = Writer(path, notifier.notify, options)
            undo.callback(self.writer.close)
            follower = Follower(path, loop, watch_index, self.writer, now=options.now, lost=lost)
            undo.callback(follower.close)
            self.readers.check_presence = follower.presence.check
            self.writer.watch_presence(follower.presence.check)
            self._resources = undo.pop_all()

    def close(self) -> None:
        self._resources.close()


class SqliteStore:
    """The `Store` over the file at `path`. Belongs to the event loop that opens it."""

    def __init__(self, path: Path, options: StoreOptions = DEFAULT_OPTIONS) -> None:
        self._path = path
        self._options = options
        self._watch_index = WatchIndex()
        self._opened: _Opened | None = None
        self._lost = asyncio.Event()

    def now(self) -> BootTime:
        """Return the present moment on the clock of sessions."""
        return self._options.now()

    @property
    def watch_index(self) -> WatchIndex:
        """Return where this client's watchers register."""
        return self._watch_index

    async def open(self) -> None:
        """Open the file, creating it when absent; see `Store.open`."""
        loop = asyncio.get_running_loop()
        self._opened = await asyncio.to_thread(
            _Opened, self._path, loop, self._watch_index, self._options, self._lost
        )

    async def close(self) -> None:
        """End all watchers, finish the writes that wait, and close the file."""
        opened, self._opened = self._opened, None
        self._watch_index.close()
        if opened is not None:
            await asyncio.to_thread(opened.close)

    async def wait_lost(self) -> None:
        """Wait until the file turns out to be removed or replaced; raise StoreLostError."""
        await self._lost.wait()
        self._require_open().readers.check_presence()

    async def get(self, kind: type[T], object_id: ObjectId) -> Versioned[T] | None:
        """Return an object, or None."""
        found = await self.get_many(kind, (object_id,))
        return found.get(object_id)

    async def get_many(
        self, kind: type[T], object_ids: Sequence[ObjectId]
    ) -> dict[ObjectId, Versioned[T]]:
        """Return those that exist."""
        ids = tuple(object_ids)

        def query(connection: sqlite3.Connection) -> dict[ObjectId, Versioned[T]]:
            with reading.snapshot(connection):
                return reading.read_objects(connection, kind, ids)

        return await self._read(query)

    async def list_all(self, kind: type[T]) -> list[Versioned[T]]:
        """Return all objects of a kind, in ascending order of id."""
        return await self._read(lambda connection: reading.read_kind(connection, kind))

    async def list_ids(self, kind: type[msgspec.Struct]) -> list[ObjectId]:
        """Return the ids of all objects of a kind, ascending."""
        return await self._read(lambda connection: reading.read_ids(connection, kind))

    async def referrers(
        self, kind: type[msgspec.Struct], field: str, target_id: ObjectId
    ) -> list[ObjectId]:
        """Return ids of the objects of `kind` whose `field` names the target, ascending."""
        return await self._read(
            lambda connection: reading.read_referrers(connection, kind, field, target_id)
        )

    async def referrers_many(
        self, kind: type[msgspec.Struct], field: str, target_ids: Sequence[ObjectId]
    ) -> dict[ObjectId, list[ObjectId]]:
        """Return `referrers` of several targets; those without are missing."""

        def query(connection: sqlite3.Connection) -> dict[ObjectId, list[ObjectId]]:
            with reading.snapshot(connection):
                found = {
                    one: reading.read_referrers(connection, kind, field, one) for one in target_ids
                }
            return {target_id: ids for target_id, ids in found.items() if ids}

        return await self._read(query)

    async def transact(self, operations: Sequence[Operation]) -> int:
        """Apply all or nothing; see `Store.transact`."""
        prepared = prepare(operations)

        def work(transaction: Transaction, tables: SqliteTables) -> None:
            transaction.apply(prepared)

        return (await self.run_write(work))[1]

    def watcher(self, follow: Follow | None = None) -> Watcher:
        """Return a new watcher."""
        self._require_open()
        return StoreWatcher(self, follow)

    async def watch_state(
        self, marked: Sequence[Marked], ahead: ReadAhead | None
    ) -> tuple[WatchState, list[WatchKey]]:
        """Read the present state of watch keys and of what follows, at one revision."""
        return await self._read(
            lambda connection: reading.read_watch_state(connection, marked, ahead)
        )

    async def table(self, table: str) -> list[StateEntry]:
        """Return the winning entry of each key of a state table."""
        return await self._read(
            lambda connection: list(reading.read_winners(connection, table).values())
        )

    async def entries(self, table: str, key: str | None = None) -> list[StateEntry]:
        """Return all entries of a table, or of one key."""
        return await self._read(lambda connection: reading.read_entries(connection, table, key))

    async def open_session(
        self, owner: ObjectId, *, timeout_s: float = 30.0, secret: str | None = None
    ) -> Session:
        """Open or resume a session; see `Store.open_session`."""
        wanted = SessionInfo(owner, secret or "", timeout_s)

        def work(transaction: Transaction, tables: SqliteTables) -> SessionInfo:
            return sessions.open_session(transaction, tables, self.now(), wanted)

        info, _ = await self.run_write(work)
        return SqliteSession(self, info)

    async def live_sessions(self) -> frozenset[ObjectId]:
        """Return owners whose session is live."""
        return await self._read(
            lambda connection: sessions.live_owners(SqliteTables(connection), self.now())
        )

    async def sequence(self, name: str) -> int:
        """Return the next value of a named counter."""

        def work(_: Transaction, tables: SqliteTables) -> int:
            return tables.next_in_sequence(name)

        return (await self.run_write(work))[0]

    async def run_write(self, work: Callable[[Transaction, SqliteTables], R]) -> tuple[R, int]:
        """Run one atomic unit of writes; return its result and the revision after it."""
        return await self._require_open().writer.run(work)

    async def _read(self, query: Callable[[sqlite3.Connection], R]) -> R:
        return await self._require_open().readers.run(query)

    def _require_open(self) -> _Opened:
        if self._opened is None:
            raise UnavailableError(f"{self._path} is not open")
        return self._opened
