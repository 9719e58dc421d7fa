"""A queue that serves its ports in turn.

One port's flood of new destinations makes that port wait for itself only: each port has its own
bounded queue, and the queues are served round robin, one packet a turn.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from midonet.model.ids import PortId

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Bounded queues by port. `port_limit` and `total_limit` are in items."""

    def __init__(self, port_limit: int = 1024, total_limit: int = 65536) -> None:
        self._port_limit = port_limit
        self._total_limit = total_limit
        self._queues: dict[PortId, deque[T]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, port_id: PortId, item: T) -> bool:
        """Append an item; False when the port's queue, or the whole, is full."""
        queue = self._queues.get(port_id)
        if self._length >= self._total_limit or (
            queue is not None and len(queue) >= self._port_limit
        ):
            return False
        if queue is None:
            queue = self._queues[port_id] = deque()
        queue.append(item)
        self._length += 1
        return True

    def take(self) -> T | None:
        """Return the oldest item of the port whose turn it is, or None when all are empty."""
        if not self._length:
            return None
        port_id = next(iter(self._queues))
        queue = self._queues.pop(port_id)
        item = queue.popleft()
        self._length -= 1
        if queue:
            self._queues[port_id] = queue
        return item

    def drop_port(self, port_id: PortId) -> int:
        """Forget the items of a port; return how many there were."""
        queue = self._queues.pop(port_id, None)
        count = len(queue) if queue is not None else 0
        self._length -= count
        return count
