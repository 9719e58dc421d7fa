"""Which ports are bound to this host, as the network state database says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from midonet.errors import UnavailableError
from midonet.model.devices import Port
from midonet.model.ids import HostId, ObjectId, PortId
from midonet.nsdb.store import (
    Change,
    IdsChange,
    ObjectChange,
    ObjectKey,
    Referrers,
    Store,
    WatchKey,
)
from midonet.runtime.clock import Clock

_RETRY_S = 1.0


class LocalPorts:
    """Follows the ports whose `host_id` is this host's."""

    def __init__(self, store: Store, host_id: HostId, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._key = Referrers(Port, "host_id", host_id)
        self._host_id = host_id
        self._ids: frozenset[ObjectId] | None = None
        self._ports: dict[ObjectId, Port | None] = {}
        self.changed = asyncio.Event()

    @property
    def bound(self) -> Mapping[PortId, Port] | None:
        """The bound ports; None until they have all been read once."""
        if self._ids is None or any(port_id not in self._ports for port_id in self._ids):
            return None
        return {
            port.id: port
            for port in self._ports.values()
            if port is not None and port.host_id == self._host_id and port.interface_name
        }

    def interface_names(self) -> frozenset[str]:
        """Return the interfaces that bound ports name; none until they have been read."""
        ports = (self.bound or {}).values()
        return frozenset(port.interface_name for port in ports if port.interface_name)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        watcher = self._store.watcher()
        try:
            watcher.add([self._key])
            while True:
                try:
                    changes = await watcher.changes()
                except UnavailableError:
                    await self._clock.sleep(_RETRY_S)
                    continue
                if not changes:
                    return
                removed, added = self._apply(changes)
                watcher.remove(removed)
                watcher.add(added)
                if self.bound is not None:
                    self.changed.set()
        finally:
            await watcher.close()

    def _apply(self, changes: list[Change]) -> tuple[list[WatchKey], list[WatchKey]]:
        removed: list[WatchKey] = []
        added: list[WatchKey] = []
        for change in changes:
            if isinstance(change, IdsChange):
                before = self._ids or frozenset()
                removed.extend(ObjectKey(Port, port_id) for port_id in before - change.ids)
                added.extend(ObjectKey(Port, port_id) for port_id in change.ids - before)
                for port_id in before - change.ids:
                    self._ports.pop(port_id, None)
                self._ids = change.ids
            elif isinstance(change, ObjectChange):
                value = change.current.value if change.current is not None else None
                if self._ids is not None and change.key.object_id in self._ids:
                    self._ports[change.key.object_id] = value if isinstance(value, Port) else None
        return removed, added
