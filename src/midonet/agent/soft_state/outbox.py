"""Writes to state tables that wait for the store.

One pending operation per (table, key), the latest wins, so that the backlog of a long outage is
bounded by the number of distinct keys, which is bounded by what this host may hold. Order
between keys is not kept; the tables need none.

The rate of writes is bounded for each table and in all, so that one port that teaches without
end delays only the writes of its own device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from midonet.errors import ConflictError, NoSessionError, UnavailableError, UserError
from midonet.nsdb.store import DropState, PutState, Store
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle

_log = structlog.get_logger("outbox")

StateWrite = PutState | DropState
_Key = tuple[str, str]

_BATCH = 200
_RETRY_S = 0.5
_SHORTEST_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """Writes per second, and the most that may go out at once, of one table and of the host."""

    table_rate: float = 200.0
    table_burst: int = 1000
    host_rate: float = 2000.0
    host_burst: int = 5000


DEFAULT_LIMITS = WriteLimits()


class _Allowance:
    """What may still go out: tokens that come back with time."""

    def __init__(self, rate: float, burst: int, now_s: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._since_s = now_s

    def refresh(self, now_s: float) -> None:
        """Take the time that has passed into account."""
        self._left = min(self._burst, self._left + (now_s - self._since_s) * self._rate)
        self._since_s = now_s

    def take(self) -> bool:
        """Take one; False when there is none."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    @property
    def wait_s(self) -> float:
        """Return in how many seconds there is one."""
        return max(0.0, (1 - self._left) / self._rate)

    @property
    def is_full(self) -> bool:
        """Tell whether there is as much as if nothing had ever been taken."""
        return self._left >= self._burst


@dataclass(slots=True)
class OutboxCounters:
    """Numbers since the start.

    written: accepted by the store. refused: refused for good, and dropped. withdrawn: taken
    back before they went out. rate_waits: how often writes waited for their table's rate.
    """

    written: int = 0
    refused: int = 0
    withdrawn: int = 0
    rate_waits: int = 0


class Outbox:
    """Carries state-table writes to the store, again and again while it is away."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        on_written: Callable[[StateWrite], None],
        *,
        on_refused: Callable[[StateWrite], None] = lambda _: None,
        limits: WriteLimits = DEFAULT_LIMITS,
    ) -> None:
        """`on_written` is called for each write once the store has it, `on_refused` for each
        that it will never take."""
        self.counters = OutboxCounters()
        self.session_missed = asyncio.Event()
        self._store = store
        self._clock = clock
        self._on_written = on_written
        self._on_refused = on_refused
        self._limits = limits
        self._pending: dict[str, dict[str, StateWrite]] = {}
        self._length = 0
        self._sent: set[_Key] = set()
        self._allowances: dict[str, _Allowance] = {}
        self._host = _Allowance(limits.host_rate, limits.host_burst, clock.now_s())
        self._throttle = Throttle(clock)
        self._wake = asyncio.Event()
        self._may_write = asyncio.Event()

    def __len__(self) -> int:
        return self._length

    def put(self, write: StateWrite) -> None:
        """Queue a write; it replaces an older one of the same key that has not gone out."""
        self._discard(write.table, write.key)
        self._pending.setdefault(write.table, {})[write.key] = write
        self._length += 1
        self._wake.set()

    def withdraw(self, table: str, key: str) -> bool:
        """Take back a queued write; False when there is none, or the store was asked for it or
        for an earlier one of the key."""
        if (table, key) in self._sent or key not in self._pending.get(table, ()):
            return False
        self._discard(table, key)
        self.counters.withdrawn += 1
        return True

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
            while self._length:
                await self._may_write.wait()
                batch = self._take_batch()
                if not batch:
                    self.counters.rate_waits += 1
                    await self._clock.sleep(self._pause_s())
                    continue
                try:
                    await self._store.transact(batch)
                except UnavailableError:
                    await self._clock.sleep(_RETRY_S)
                except NoSessionError:
                    await self._wait_for_session()
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
            except NoSessionError:
                await self._wait_for_session()
                return
            except (ConflictError, UserError) as error:
                self.counters.refused += 1
                self._complain(write, error)
                self._remove(write)
                self._on_refused(write)
            else:
                self._finish([write])

    async def _wait_for_session(self) -> None:
        """What was refused for want of a session stays queued until there is one again."""
        self.session_missed.set()
        await self._clock.sleep(_RETRY_S)

    def _take_batch(self) -> list[StateWrite]:
        """Return writes that may go out now, one of each table in turn. They stay queued."""
        now_s = self._clock.now_s()
        self._host.refresh(now_s)
        self._refresh(now_s)
        batch: list[StateWrite] = []
        turns = {table: iter(list(writes.values())) for table, writes in self._pending.items()}
        while turns and len(batch) < _BATCH:
            for table, writes in list(turns.items()):
                write = self._next(table, writes) if len(batch) < _BATCH else None
                if write is None:
                    del turns[table]
                else:
                    batch.append(write)
        self._sent.update((write.table, write.key) for write in batch)
        return batch

    def _next(self, table: str, writes: Iterator[StateWrite]) -> StateWrite | None:
        write = next(writes, None)
        if write is None:
            return None
        allowance = self._allowances.get(table)
        if allowance is None:
            limits = self._limits
            allowance = _Allowance(limits.table_rate, limits.table_burst, self._clock.now_s())
            self._allowances[table] = allowance
        return write if allowance.take() and self._host.take() else None

    def _refresh(self, now_s: float) -> None:
        for table, allowance in list(self._allowances.items()):
            allowance.refresh(now_s)
            if allowance.is_full:
                del self._allowances[table]

    def _pause_s(self) -> float:
        waits = [self._allowances[one].wait_s for one in self._pending if one in self._allowances]
        return max(self._host.wait_s, min(waits, default=0.0), _SHORTEST_PAUSE_S)

    def _finish(self, batch: list[StateWrite]) -> None:
        self.counters.written += len(batch)
        for write in batch:
            self._remove(write)
            self._on_written(write)

    def _remove(self, write: StateWrite) -> None:
        if self._pending.get(write.table, {}).get(write.key) is write:
            self._discard(write.table, write.key)
        if isinstance(write, DropState):
            self._sent.discard((write.table, write.key))

    def _discard(self, table: str, key: str) -> None:
        writes = self._pending.get(table)
        if writes is None or writes.pop(key, None) is None:
            return
        self._length -= 1
        if not writes:
            del self._pending[table]

    def _complain(self, write: StateWrite, error: Exception) -> None:
        held_back = self._throttle.allow("refused")
        if held_back is not None:
            _log.warning(
                "state_write_refused",
                table=write.table,
                key=write.key,
                error=str(error),
                held_back=held_back,
            )
