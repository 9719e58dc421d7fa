"""Packets that wait for something the simulation does not know yet.

Bounded per port and in total; each waits at most 5 s. When the awaited thing comes, the packets
go back to the queue and are simulated again from the start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from midonet.agent.simulation.result import Awaited
from midonet.model.ids import PortId
from midonet.runtime.clock import Clock

T = TypeVar("T")

AWAIT_LIMIT_S = 5.0
"""Longest time a packet waits."""


@dataclass(frozen=True, slots=True)
class Parked(Generic[T]):
    """A packet in waiting. port_id: of the quota it counts against."""

    port_id: PortId
    item: T
    until_s: float


class Parking(Generic[T]):
    """Waiting packets by what they wait for."""

    def __init__(self, clock: Clock, port_limit: int = 128, total_limit: int = 4096) -> None:
        self._clock = clock
        self._port_limit = port_limit
        self._total_limit = total_limit
        self._places: dict[Awaited, list[Parked[T]]] = {}
        self._by_port: Counter[PortId] = Counter()

    def __len__(self) -> int:
        return self._by_port.total()

    def park(self, port_id: PortId, item: T, what: Awaited) -> bool:
        """Let a packet wait; False when too many do already."""
        if self._by_port[port_id] >= self._port_limit or len(self) >= self._total_limit:
            return False
        until_s = self._clock.now_s() + AWAIT_LIMIT_S
        self._places.setdefault(what, []).append(Parked(port_id, item, until_s))
        self._by_port[port_id] += 1
        return True

    def awaited(self) -> list[Awaited]:
        """Return what is waited for."""
        return list(self._places)

    def release(self, has_come: Callable[[Awaited], bool]) -> list[Parked[T]]:
        """Return, oldest first, the packets whose awaited thing has come."""
        released: list[Parked[T]] = []
        for what in [what for what in self._places if has_come(what)]:
            released.extend(self._places.pop(what))
        self._leave(released)
        return released

    def expire(self) -> list[Parked[T]]:
        """Return the packets that have waited too long."""
        now_s = self._clock.now_s()
        expired: list[Parked[T]] = []
        for what, parked in list(self._places.items()):
            expired.extend(place for place in parked if place.until_s <= now_s)
            remaining = [place for place in parked if place.until_s > now_s]
            if remaining:
                self._places[what] = remaining
            else:
                del self._places[what]
        self._leave(expired)
        return expired

    def _leave(self, gone: list[Parked[T]]) -> None:
        for place in gone:
            self._by_port[place.port_id] -= 1
            if not self._by_port[place.port_id]:
                del self._by_port[place.port_id]
