"""The shell around the assembler: one store watcher, one loop, time.

Everything happens in one event loop; `request` may be called from any task of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from midonet.agent.topology.assembler import Step, TopologyAssembler
from midonet.agent.topology.closure import following_keys
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.errors import UnavailableError
from midonet.model.ids import HostId, ObjectId
from midonet.nsdb.store import Store, Watcher

log = structlog.get_logger(__name__)

_CHANGES_AT_ONCE = 1000
"""Most changes taken in one step; other tasks run between steps."""

_ONE_ROUND_S = 10.0


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Timing and constants of the view of a host.

    settle_s: how long a change may wait for referents that seem not to exist.
    retention_s: how long a device stays loaded after its last use.
    collect_s: how often unused devices are looked for.
    retry_s: pause before the store is asked again after it was away.
    underlay_mtu_bytes, hash_seed: see `TopologyAssembler`.
    """

    settle_s: float = 1.0
    retention_s: float = 600.0
    collect_s: float = 60.0
    retry_s: float = 1.0
    underlay_mtu_bytes: int = 1500
    hash_seed: int = 0


class TopologyWatcher:
    """Keeps a `TopologyView` of what matters to one host.

    on_change: called with each new view and its delta, in order, from the loop's task or from
        a caller of `request`; must not wait.
    now: seconds on a monotonic clock.
    """

    def __init__(
        self,
        store: Store,
        host_id: HostId,
        on_change: Callable[[TopologyView, ViewDelta], None],
        *,
        settings: WatchSettings | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings or WatchSettings()
        self._on_change = on_change
        self._now = now
        self._assembler = TopologyAssembler(
            host_id,
            underlay_mtu_bytes=self._settings.underlay_mtu_bytes,
            hash_seed=self._settings.hash_seed,
        )
        self._watcher: Watcher = store.watcher(following_keys)
        self._in_use: Callable[[], Iterable[ObjectId]] = tuple
        self._keep_until: dict[ObjectId, float] = {}
        self._held_since: float | None = None
        self._collected = self._forgot = now()
        self._waiting: list[tuple[set[ObjectId], asyncio.Future[None]]] = []
        self._in_sync = asyncio.Event()
        self._reported: set[ObjectId] = set()
        self._take(self._assembler.apply())

    @property
    def view(self) -> TopologyView:
        """Return the present view."""
        return self._assembler.view

    async def wait_in_sync(self) -> None:
        """Wait until everything that matters here was read once."""
        await self._in_sync.wait()

    def set_in_use(self, in_use: Callable[[], Iterable[ObjectId]]) -> None:
        """Set who tells which objects installed programs depend on; these stay loaded."""
        self._in_use = in_use

    def set_underlay_mtu(self, mtu_bytes: int) -> None:
        """Change the MTU of the underlay, in bytes."""
        self._take(self._assembler.set_underlay_mtu(mtu_bytes))

    async def request(self, object_ids: Sequence[ObjectId], *, timeout_s: float = 5.0) -> None:
        """Load objects with what they need; return when they are in the view, or in `absent`.

        Raises UnavailableError when the store does not answer in time; loading goes on.
        """
        until = self._now() + self._settings.retention_s
        for object_id in object_ids:
            self._keep_until[object_id] = until
        self._take(self._assembler.request(object_ids))
        missing = {one for one in object_ids if not self._assembler.is_loaded(one)}
        if not missing:
            return
        waiting = (missing, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(timeout_s):
                await waiting[1]
        except TimeoutError:
            raise UnavailableError(
                f"The store did not deliver {len(missing)} objects in {timeout_s} s."
            ) from None
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def run(self) -> None:
        """Follow the store until it is closed. Cancel it to stop earlier."""
        try:
            while True:
                try:
                    async with asyncio.timeout(self._round_s()):
                        changes = await self._watcher.changes()
                except TimeoutError:
                    self._tick()
                    continue
                except UnavailableError as error:
                    log.warning("topology_store_unavailable", reason=str(error))
                    await asyncio.sleep(self._settings.retry_s)
                    continue
                if not changes:
                    return
                for start in range(0, len(changes), _CHANGES_AT_ONCE):
                    if start:
                        await asyncio.sleep(0)
                    self._take(self._assembler.apply(changes[start : start + _CHANGES_AT_ONCE]))
                self._tick()
        finally:
            await self._watcher.close()
            for _, future in self._waiting:
                future.cancel()

    def _round_s(self) -> float:
        """Return how long to wait for changes before time itself may have to be acted on."""
        if self._held_since is None:
            return min(_ONE_ROUND_S, self._settings.collect_s)
        return max(0.0, self._held_since + self._settings.settle_s - self._now())

    def _tick(self) -> None:
        now = self._now()
        if self._held_since is not None and now - self._held_since >= self._settings.settle_s:
            self._take(self._assembler.settle())
            # What still waits is not answered yet; it gets a new grace.
            self._held_since = now if self._assembler.is_holding else None
        if now - self._collected >= self._settings.collect_s:
            self._collect(now)

    def _collect(self, now: float) -> None:
        self._collected = now
        for object_id in self._in_use():
            self._keep_until[object_id] = now + self._settings.retention_s
        kept = {one: until for one, until in self._keep_until.items() if until > now}
        is_due = now - self._forgot >= self._settings.retention_s
        if is_due or len(kept) < len(self._keep_until):
            self._forgot = now
            self._keep_until = kept
            self._take(self._assembler.collect(kept))

    def _take(self, step: Step) -> None:
        self._watcher.remove(step.removed)
        self._watcher.add(step.added)
        if not self._assembler.is_holding:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = self._now()
        if self._assembler.is_in_sync:
            self._in_sync.set()
        self._report_undecodable()
        if step.delta is not None:
            self._on_change(step.view, step.delta)
            self._wake()

    def _wake(self) -> None:
        for missing, future in list(self._waiting):
            missing -= {one for one in missing if self._assembler.is_loaded(one)}
            if not missing and not future.done():
                future.set_result(None)

    def _report_undecodable(self) -> None:
        present = self._assembler.undecodable
        for object_id in present.keys() - self._reported:
            log.warning("object_not_understood", object_id=object_id, reason=present[object_id])
        self._reported = set(present)
