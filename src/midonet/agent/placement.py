"""Claims of this host in the network state database: where ports are, and by which keys.

A location is replaced by compare-and-set: whoever claims a port that is recorded at another host
raises the epoch, and the former owner's late writes fail. A port keeps its tunnel key while it
stays here, across restarts.
"""

from __future__ import annotations

from typing import Protocol

from midonet.agent.state_directory import StateDirectory
from midonet.errors import ConflictError
from midonet.model.hosts import FloodGroup, PortLocation, flood_group_id
from midonet.model.ids import BridgeId, HostId, PortId
from midonet.nsdb.store import Create, Delete, Store, Update

_ATTEMPTS = 5


class Placement(Protocol):
    """Claims and releases the places of this host's ports and flood groups."""

    async def claim_port(self, port_id: PortId, *, is_active: bool) -> int:
        """Record that a port is here, and whether it is active; return its tunnel key."""
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

    def __init__(self, store: Store, host_id: HostId, state_directory: StateDirectory) -> None:
        self._store = store
        self._host_id = host_id
        self._state_directory = state_directory

    async def claim_port(self, port_id: PortId, *, is_active: bool) -> int:
        """See `Placement`. Raises ConflictError when others keep claiming the port."""
        for _ in range(_ATTEMPTS):
            found = await self._store.get(PortLocation, port_id)
            if found is not None and found.value.host_id == self._host_id:
                key, epoch = found.value.tunnel_key, found.value.epoch
            else:
                key = await self._new_key()
                epoch = found.value.epoch + 1 if found is not None else 1
            location = PortLocation(
                id=port_id, host_id=self._host_id, tunnel_key=key, epoch=epoch, active=is_active
            )
            if found is not None and found.value == location:
                return key
            operation = Update(location, found.version) if found is not None else Create(location)
            try:
                await self._store.transact([operation])
            except ConflictError:
                continue
            return key
        raise ConflictError(f"Port {port_id} is being claimed by another host.")

    async def release_port(self, port_id: PortId) -> None:
        """See `Placement`."""
        found = await self._store.get(PortLocation, port_id)
        if found is not None and found.value.host_id == self._host_id:
            try:
                await self._store.transact([Delete(PortLocation, port_id, found.version)])
            except ConflictError:
                # Its next owner was faster.
                return

    async def claim_group(self, bridge_id: BridgeId) -> int:
        """See `Placement`. Raises NotFoundError when the bridge is gone."""
        group_id = flood_group_id(self._host_id, bridge_id)
        found = await self._store.get(FloodGroup, group_id)
        if found is not None:
            return found.value.tunnel_key
        key = await self._new_key()
        group = FloodGroup(id=group_id, host_id=self._host_id, bridge_id=bridge_id, tunnel_key=key)
        await self._store.transact([Create(group)])
        return key

    async def release_group(self, bridge_id: BridgeId) -> None:
        """See `Placement`."""
        group_id = flood_group_id(self._host_id, bridge_id)
        found = await self._store.get(FloodGroup, group_id)
        if found is not None:
            await self._store.transact([Delete(FloodGroup, group_id)])

    async def _new_key(self) -> int:
        """Return a key that no location or flood group of this host has."""
        location_ids = await self._store.referrers(PortLocation, "host_id", self._host_id)
        group_ids = await self._store.referrers(FloodGroup, "host_id", self._host_id)
        locations = await self._store.get_many(PortLocation, location_ids)
        groups = await self._store.get_many(FloodGroup, group_ids)
        in_use = {each.value.tunnel_key for each in locations.values()}
        in_use |= {each.value.tunnel_key for each in groups.values()}
        return self._state_directory.next_tunnel_key(frozenset(in_use))
