"""Writes to state tables that wait for the store.

One pending operation per (table, key), the latest wins, so that the backlog of a long outage is
bounded by the number of distinct keys. Order between keys is not kept; the tables need none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from midonet.errors import ConflictError, UnavailableError, UserError
from midonet.nsdb.store import DropState, PutState, Store
from midonet.runtime.clock import Clock

_log = structlog.get_logger("outbox")

StateWrite = PutState | DropState

_BATCH = 200
_RETRY_S = 0.5


class Outbox:
    """Carries state-table writes to the store, again and again while it is away."""

    def __init__(
        self, store: Store, clock: Clock, on_written: Callable[[StateWrite], None]
    ) -> None:
        """`on_written` is called for each write once the store has it."""
        self._store = store
        self._clock = clock
        self._on_written = on_written
        self._pending: dict[tuple[str, str], StateWrite] = {}
        self._wake = asyncio.Event()
        self._may_write = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, write: StateWrite) -> None:
        """Queue a write; it replaces an older one of the same key that has not gone out."""
        self._pending.pop((write.table, write.key), None)
        self._pending[(write.table, write.key)] = write
        self._wake.set()

    def resume(self) -> None:
        """Let writes go out; a session is live. Initially they are held back."""
        self._may_write.set()

    def pause(self) -> None:
        """Hold writes back; there is no session to which they could belong."""
        self._may_write.clear()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                await self._may_write.wait()
                batch = list(self._pending.values())[:_BATCH]
                try:
                    await self._store.transact(batch)
                except UnavailableError:
                    await self._clock.sleep(_RETRY_S)
                except (ConflictError, UserError):
                    await self._one_by_one(batch)
                else:
                    self._finish(batch)

    async def _one_by_one(self, batch: list[StateWrite]) -> None:
        """Keep one refused write from holding back the others."""
        for write in batch:
            try:
                await self._store.transact([write])
            except UnavailableError:
                return
            except (ConflictError, UserError) as error:
                _log.warning(
                    "state_write_refused", table=write.table, key=write.key, error=str(error)
                )
            self._finish([write])

    def _finish(self, batch: list[StateWrite]) -> None:
        for write in batch:
            if self._pending.get((write.table, write.key)) is write:
                del self._pending[(write.table, write.key)]
            self._on_written(write)
