"""Following the tables of soft state in the store: those that the replica asks for."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from midonet.agent.flows.tags import FlowTag
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.agent.topology.view import TopologyView
from midonet.errors import UnavailableError
from midonet.nsdb.store import Store, TableChange
from midonet.runtime.clock import Clock

_RETRY_S = 1.0


class TableFollower:
    """Owns the store watcher of the replica's tables."""

    def __init__(
        self,
        store: Store,
        replica: SoftStateReplica,
        clock: Clock,
        on_facts: Callable[[frozenset[FlowTag]], None],
        on_round: Callable[[], None],
    ) -> None:
        """`on_facts` takes the tags of one table's changed facts; `on_round` is called when all
        changes that came together have been taken in."""
        self._watcher = store.watcher()
        self._replica = replica
        self._clock = clock
        self._on_facts = on_facts
        self._on_round = on_round

    def follow_view(self, view: TopologyView) -> None:
        """Watch the tables of the devices in a view, and no others."""
        self._replica.watch_devices(view.bridges, view.routers)
        devices: frozenset[UUID] = frozenset((*view.bridges, *view.routers))
        self._watcher.remove(self._replica.retain_devices(devices))
        self.watch_new()

    def watch_new(self) -> None:
        """Watch the tables that were asked for and are not watched yet."""
        tables = self._replica.take_unwatched()
        if tables:
            self._watcher.add(tables)

    async def run(self) -> None:
        """Take changes in until closed."""
        while True:
            try:
                changes = await self._watcher.changes()
            except UnavailableError:
                await self._clock.sleep(_RETRY_S)
                continue
            if not changes:
                return
            for change in changes:
                if isinstance(change, TableChange):
                    self._on_facts(self._replica.apply(change))
            self._on_round()

    async def close(self) -> None:
        """Stop watching; `run` returns."""
        await self._watcher.close()
