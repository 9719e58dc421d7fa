"""Claims of this host in the network state database: where ports are, and by which keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from midonet.errors import MidoNetError
from midonet.model.hosts import FloodGroup, PortLocation
from midonet.model.ids import BridgeId, HostId, PortId
from midonet.nsdb.locations import (
    KeySource,
    claim_flood_group,
    collect_keys,
    own_places,
    place_ports,
    release,
    release_flood_group,
)
from midonet.nsdb.store import Store


@dataclass(frozen=True, slots=True)
class Place:
    """What is recorded of a port here."""

    tunnel_key: int
    is_active: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded of this host. groups: tunnel keys of flood groups by bridge."""

    ports: Mapping[PortId, Place]
    groups: Mapping[BridgeId, int]


class Placement(Protocol):
    """Claims and releases the places of this host's ports and flood groups.

    Raises UnavailableError, and ConflictError when others keep claiming the same.
    """

    async def read(self) -> Recorded:
        """Return what is recorded of this host."""
        ...

    async def place(self, wanted: Mapping[PortId, bool]) -> Mapping[PortId, Place | MidoNetError]:
        """Record that ports are here, each active or not; return the places, or why not.

        What is recorded so already stays as it is.
        """
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

    async def read(self) -> Recorded:
        """See `Placement`."""
        self._locations, self._groups = await own_places(self._store, self._host_id)
        return Recorded(
            {port_id: _place(location) for port_id, location in self._locations.items()},
            {bridge_id: group.tunnel_key for bridge_id, group in self._groups.items()},
        )

    async def place(self, wanted: Mapping[PortId, bool]) -> Mapping[PortId, Place | MidoNetError]:
        """See `Placement`."""
        done = await place_ports(self._store, self._host_id, wanted, self._source)
        self._locations.update(
            {one: location for one, location in done.items() if isinstance(location, PortLocation)}
        )
        return {
            one: _place(location) if isinstance(location, PortLocation) else location
            for one, location in done.items()
        }

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


def _place(location: PortLocation) -> Place:
    return Place(location.tunnel_key, location.active)
