"""Who is alive: the owners of live sessions, followed without asking the store each time."""

from __future__ import annotations

from uuid import UUID

from midonet.model.ids import ObjectId
from midonet.nsdb.store import StateTables, Store, Table, TableChange


class Liveness:
    """The owners (hosts and control processes) whose session is live."""

    def __init__(self, store: Store) -> None:
        self._watcher = store.watcher()
        self._watcher.add([Table(StateTables.sessions())])
        self._alive: frozenset[ObjectId] = frozenset()

    @property
    def alive(self) -> frozenset[ObjectId]:
        """Return who was alive as of the last `changes`."""
        return self._alive

    async def changes(self) -> frozenset[ObjectId]:
        """Wait until somebody comes or goes; return whose liveness changed.

        The first call returns at once with all who are alive. An empty set: closed, or nobody.
        """
        alive = set(self._alive)
        for change in await self._watcher.changes():
            if isinstance(change, TableChange):
                for owner_text, entry in change.entries:
                    (alive.discard if entry is None else alive.add)(UUID(owner_text))
        changed = self._alive ^ alive
        self._alive = frozenset(alive)
        return frozenset(changed)

    async def close(self) -> None:
        """Stop following; a waiting `changes` returns."""
        await self._watcher.close()
