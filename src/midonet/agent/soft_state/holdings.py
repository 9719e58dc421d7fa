"""What this host holds in shared tables because its ports taught it, within bounds. Pure.

Each entry counts for the port that taught it, for the device in whose table it is, and for the
host. At the bound of its port an entry takes the place of the port's own least recently used
one. At the bound of a device or of the host the port that holds most there gives way, so that a
port which teaches without end only ever loses its own.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from midonet.model.ids import ObjectId, PortId

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class HoldingLimits:
    """Most entries that one port teaches, that this host holds in one device's tables, and that
    it holds in all."""

    port: int = 1024
    device: int = 8192
    host: int = 65_536


DEFAULT_LIMITS = HoldingLimits()


class Bound(StrEnum):
    """Which bound an entry gave way to."""

    PORT = "port"
    DEVICE = "device"
    HOST = "host"


Place = tuple[PortId, ObjectId]
"""The port that taught an entry, and the device in whose table it is."""


class Holdings(Generic[K]):
    """Entries by place, least recently used first, with the time of their last use in s.

    evictions: how many entries gave way, by bound.
    """

    def __init__(self, limits: HoldingLimits = DEFAULT_LIMITS) -> None:
        self.evictions: Counter[Bound] = Counter()
        self._limits = limits
        self._places: dict[K, Place] = {}
        self._shares: dict[Place, OrderedDict[K, float]] = {}
        self._by_port: dict[PortId, Counter[ObjectId]] = {}
        self._by_device: dict[ObjectId, Counter[PortId]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: K) -> bool:
        return key in self._places

    def hold(self, key: K, place: Place, now_s: float) -> list[K]:
        """Take an entry in, or note its use; return the entries that gave way to it."""
        if self._places.get(key) == place:
            self._use(key, place, now_s)
            return []
        self.discard(key)
        self._places[key] = place
        self._shares.setdefault(place, OrderedDict())[key] = now_s
        port_id, device_id = place
        self._by_port.setdefault(port_id, Counter())[device_id] += 1
        self._by_device.setdefault(device_id, Counter())[port_id] += 1
        return list(self._make_room(place))

    def use(self, key: K, used_s: float) -> None:
        """Note that an entry was used; nothing happens when it is not held."""
        place = self._places.get(key)
        if place is not None:
            self._use(key, place, used_s)

    def discard(self, key: K) -> None:
        """Let go of an entry; nothing happens when it is not held."""
        place = self._places.pop(key, None)
        if place is None:
            return
        port_id, device_id = place
        share = self._shares[place]
        del share[key]
        if not share:
            del self._shares[place]
        _count_down(self._by_port, port_id, device_id)
        _count_down(self._by_device, device_id, port_id)

    def of_port(self, port_id: PortId) -> list[K]:
        """Return what a port taught."""
        devices = self._by_port.get(port_id, ())
        return [key for device_id in devices for key in self._shares[port_id, device_id]]

    def of_device(self, device_id: ObjectId) -> list[K]:
        """Return what is held in a device's tables."""
        ports = self._by_device.get(device_id, ())
        return [key for port_id in ports for key in self._shares[port_id, device_id]]

    def idle(self, limit_s: Callable[[ObjectId], float]) -> list[K]:
        """Return the entries last used at or before `limit_s(device)`, in s."""
        found: list[K] = []
        for (_, device_id), share in self._shares.items():
            until_s = limit_s(device_id)
            for key, used_s in share.items():
                if used_s > until_s:
                    break
                found.append(key)
        return found

    def _use(self, key: K, place: Place, used_s: float) -> None:
        share = self._shares[place]
        if used_s >= share[key]:
            share[key] = used_s
            share.move_to_end(key)

    def _make_room(self, place: Place) -> Iterator[K]:
        """Evict until every bound holds; the newest entry stays."""
        port_id, device_id = place
        if self._by_port[port_id].total() > self._limits.port:
            yield self._evict(Bound.PORT, ((port_id, one) for one in self._by_port[port_id]))
        devices = self._by_device[device_id]
        if devices.total() > self._limits.device:
            greatest = max(devices, key=devices.__getitem__)
            yield self._evict(Bound.DEVICE, ((greatest, device_id),))
        if len(self._places) > self._limits.host:
            most = max(self._by_port, key=lambda one: self._by_port[one].total())
            yield self._evict(Bound.HOST, ((most, one) for one in self._by_port[most]))

    def _evict(self, bound: Bound, places: Iterable[Place]) -> K:
        heads = (next(iter(self._shares[place].items())) for place in places)
        key, _ = min(heads, key=lambda head: head[1])
        self.discard(key)
        self.evictions[bound] += 1
        return key


A = TypeVar("A", bound=Hashable)
B = TypeVar("B", bound=Hashable)


def _count_down(counts: dict[A, Counter[B]], owner: A, member: B) -> None:
    counts[owner][member] -= 1
    if not counts[owner][member]:
        del counts[owner][member]
    if not counts[owner]:
        del counts[owner]
