"""Claims of this host in the network state database: where ports are, and by which keys."""

from __future__ import annotations

from typing import Protocol

from midonet.model.hosts import FloodGroup, PortLocation
from midonet.model.ids import BridgeId, HostId, PortId
from midonet.nsdb.locations import (
    KeySource,
    claim,
    claim_flood_group,
    collect_keys,
    release,
    release_flood_group,
    set_active,
)
from midonet.nsdb.store import Store


class Placement(Protocol):
    """Claims and releases the places of this host's ports and flood groups.

    Raises UnavailableError, and ConflictError when others keep claiming the same.
    """

    async def claim_port(self, port_id: PortId) -> int:
        """Record that a port is here; return its tunnel key. NotFoundError when it is gone."""
        ...

    async def set_port_active(self, port_id: PortId, *, is_active: bool) -> bool:
        """Record whether a claimed port is active; False when another host has claimed it."""
        ...

    async def release_port(self, port_id: PortId) -> None:
        """Remove the record, unless another host has claimed the port."""
        ...

    async def claim_group(self, bridge_id: BridgeId) -> int:
        """Record the flood group of a bridge here; return its tunnel key."""
        ...

    async def release_group(self, bridge_id: BridgeId) -> None:
        """Remove the record of a flood group."""
        ...


class StorePlacement:
    """Claims in the store."""

    def __init__(self, store: Store, host_id: HostId, source: KeySource) -> None:
        self._store = store
        self._host_id = host_id
        self._source = source
        self._locations: dict[PortId, PortLocation] = {}
        self._groups: dict[BridgeId, FloodGroup] = {}

    async def claim_port(self, port_id: PortId) -> int:
        """See `Placement`."""
        location = await claim(self._store, port_id, self._host_id, self._source)
        self._locations[port_id] = location
        return location.tunnel_key

    async def set_port_active(self, port_id: PortId, *, is_active: bool) -> bool:
        """See `Placement`."""
        return await set_active(self._store, self._locations[port_id], is_active=is_active)

    async def release_port(self, port_id: PortId) -> None:
        """See `Placement`."""
        location = self._locations.get(port_id)
        if location is not None:
            await release(self._store, location, self._source)
            self._locations.pop(port_id, None)

    async def claim_group(self, bridge_id: BridgeId) -> int:
        """See `Placement`."""
        group = await claim_flood_group(self._store, bridge_id, self._host_id, self._source)
        self._groups[bridge_id] = group
        return group.tunnel_key

    async def release_group(self, bridge_id: BridgeId) -> None:
        """See `Placement`."""
        group = self._groups.get(bridge_id)
        if group is not None:
            await release_flood_group(self._store, group, self._source)
            self._groups.pop(bridge_id, None)

    async def collect_keys(self) -> None:
        """Free the keys of deleted ports, after their quarantine."""
        await collect_keys(self._store, self._host_id, self._source)
