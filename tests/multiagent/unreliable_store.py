"""A store that can be away, as the agent sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from midonet.errors import UnavailableError
from midonet.model.ids import ObjectId
from midonet.nsdb.store import (
    Change,
    Follow,
    Operation,
    Session,
    SessionInfo,
    StateEntry,
    Store,
    Versioned,
    Watcher,
    WatchKey,
)

T = TypeVar("T", bound=msgspec.Struct)


class UnreliableStore:
    """Passes everything on, until `is_away` is set."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.reachable = asyncio.Event()
        self.reachable.set()

    @property
    def is_away(self) -> bool:
        return not self.reachable.is_set()

    @is_away.setter
    def is_away(self, is_away: bool) -> None:
        if is_away:
            self.reachable.clear()
        else:
            self.reachable.set()

    def check(self) -> None:
        if self.is_away:
            raise UnavailableError("the store is away")

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def get(self, kind: type[T], object_id: ObjectId) -> Versioned[T] | None:
        self.check()
        return await self.inner.get(kind, object_id)

    async def get_many(
        self, kind: type[T], object_ids: Sequence[ObjectId]
    ) -> dict[ObjectId, Versioned[T]]:
        self.check()
        return await self.inner.get_many(kind, object_ids)

    async def list_all(self, kind: type[T]) -> list[Versioned[T]]:
        self.check()
        return await self.inner.list_all(kind)

    async def list_ids(self, kind: type[msgspec.Struct]) -> list[ObjectId]:
        self.check()
        return await self.inner.list_ids(kind)

    async def referrers(
        self, kind: type[msgspec.Struct], field: str, target_id: ObjectId
    ) -> list[ObjectId]:
        self.check()
        return await self.inner.referrers(kind, field, target_id)

    async def transact(self, operations: Sequence[Operation]) -> int:
        self.check()
        return await self.inner.transact(operations)

    def watcher(self, follow: Follow | None = None) -> Watcher:
        return _Watcher(self, self.inner.watcher(follow))

    async def table(self, table: str) -> list[StateEntry]:
        self.check()
        return await self.inner.table(table)

    async def entries(self, table: str, key: str | None = None) -> list[StateEntry]:
        self.check()
        return await self.inner.entries(table, key)

    async def open_session(
        self, owner: ObjectId, *, timeout_s: float = 30.0, secret: str | None = None
    ) -> Session:
        self.check()
        return _Session(
            self, await self.inner.open_session(owner, timeout_s=timeout_s, secret=secret)
        )

    async def live_sessions(self) -> frozenset[ObjectId]:
        self.check()
        return await self.inner.live_sessions()

    async def sequence(self, name: str) -> int:
        self.check()
        return await self.inner.sequence(name)


class _Session:
    def __init__(self, store: UnreliableStore, inner: Session) -> None:
        self._store = store
        self._inner = inner

    @property
    def info(self) -> SessionInfo:
        return self._inner.info

    async def keep_alive(self) -> bool:
        self._store.check()
        return await self._inner.keep_alive()

    async def close(self) -> None:
        self._store.check()
        await self._inner.close()


class _Watcher:
    def __init__(self, store: UnreliableStore, inner: Watcher) -> None:
        self._store = store
        self._inner = inner

    def add(self, keys: Sequence[WatchKey]) -> None:
        self._inner.add(keys)

    def remove(self, keys: Sequence[WatchKey]) -> None:
        self._inner.remove(keys)

    async def changes(self) -> list[Change]:
        changes = await self._inner.changes()
        await self._store.reachable.wait()  # what is on the way waits with the connection
        return changes

    async def close(self) -> None:
        await self._inner.close()
