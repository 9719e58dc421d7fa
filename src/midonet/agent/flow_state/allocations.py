"""Translated end points in use: each is one connection's towards one remote end point.

An end point that translates a source may serve any number of connections of its device as long as
they talk to different remote end points: only then can answers be told apart. What is reserved is
freed by its holder and by nobody else; a holder that is gone from here but may live on elsewhere
(its port has moved) leaves it until a time.

Nothing here reads a clock. The table has a bound; over it nothing more is reserved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator
from typing import NamedTuple

from midonet.agent.flow_state.connection import Endpoint
from midonet.agent.flow_state.pool import BLOCK_PORTS, Block
from midonet.model.ids import ObjectId
from midonet.packets.addresses import IpVersion

CAPACITY = 262_144
"""End points a host keeps by default: twice its connections."""

_NONE: frozenset[int] = frozenset()


class Allocation(NamedTuple):
    """A translated source. owner: the device; only its own allocations are apart."""

    owner: ObjectId
    protocol: int
    endpoint: Endpoint
    remote: Endpoint


class _Place(NamedTuple):
    """Where ports are apart: connections of a device from one address to one remote end point."""

    owner: ObjectId
    protocol: int
    version: IpVersion
    address: int
    remote: Endpoint


class OwnedBlock(NamedTuple):
    """A block of ports of a device."""

    owner: ObjectId
    block: Block


class AllocationTable:
    """Allocations by place and by holder."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._ports: dict[_Place, dict[int, Hashable]] = {}
        self._held: dict[Hashable, set[Allocation]] = {}
        self._in_block: Counter[OwnedBlock] = Counter()
        self._leaving: dict[Hashable, float] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Allocation]:
        return (one for held in self._held.values() for one in held)

    @property
    def is_full(self) -> bool:
        """Tell whether nothing more can be reserved."""
        return self._size >= self._capacity

    def holder(self, allocation: Allocation) -> Hashable | None:
        """Return who has an end point towards its remote one, None when it is free."""
        return self._ports.get(_place(allocation), {}).get(allocation.endpoint.port)

    def used_ports(
        self, owner: ObjectId, protocol: int, address: tuple[IpVersion, int], remote: Endpoint
    ) -> Collection[int]:
        """Return the ports of an address that are in use towards a remote end point."""
        return self._ports.get(_Place(owner, protocol, *address, remote), _NONE)

    def in_block(self, owned: OwnedBlock) -> int:
        """Return how many allocations a block has."""
        return self._in_block[owned]

    def reserve(self, allocation: Allocation, holder: Hashable) -> bool:
        """Give an end point to a holder, who may have it already; False when it is another's."""
        place, port = _place(allocation), allocation.endpoint.port
        known = self._ports.get(place, {}).get(port)
        if known is not None:
            return bool(known == holder)
        if self._size >= self._capacity:
            return False
        self._ports.setdefault(place, {})[port] = holder
        self._held.setdefault(holder, set()).add(allocation)
        self._in_block[_owned(allocation)] += 1
        self._size += 1
        return True

    def release(self, holder: Hashable) -> None:
        """Free what a holder has. One who has nothing is ignored."""
        self._leaving.pop(holder, None)
        for allocation in self._held.pop(holder, ()):
            place, owned = _place(allocation), _owned(allocation)
            ports = self._ports[place]
            del ports[allocation.endpoint.port]
            if not ports:
                del self._ports[place]
            self._in_block[owned] -= 1
            if not self._in_block[owned]:
                del self._in_block[owned]
            self._size -= 1

    def release_at(self, holder: Hashable, until_s: float) -> None:
        """Let what a holder has be free from `until_s` on, when `expire` is told so."""
        if holder in self._held:
            self._leaving[holder] = until_s

    def expire(self, now_s: float) -> None:
        """Free what was to be freed by now."""
        for holder in [one for one, until_s in self._leaving.items() if until_s <= now_s]:
            self.release(holder)


def _place(allocation: Allocation) -> _Place:
    endpoint = allocation.endpoint
    return _Place(
        allocation.owner,
        allocation.protocol,
        endpoint.version,
        endpoint.address,
        allocation.remote,
    )


def _owned(allocation: Allocation) -> OwnedBlock:
    endpoint = allocation.endpoint
    number = endpoint.port // BLOCK_PORTS
    return OwnedBlock(allocation.owner, Block(endpoint.version, endpoint.address, number))
