"""The latest frames that left by local ports of a memory datapath, for whoever watches."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from midonet.model.ids import PortId


@dataclass(frozen=True, slots=True)
class Delivery:
    """One frame that left. number: counts all deliveries of the agent from 0."""

    number: int
    port_id: PortId
    frame: bytes


class DeliveryLog:
    """A bounded log; the oldest entries go first."""

    def __init__(self, length: int = 1024) -> None:
        self._entries: deque[Delivery] = deque(maxlen=length)
        self._next = 0
        self._grown = asyncio.Event()

    @property
    def next_number(self) -> int:
        """Number of the delivery to come."""
        return self._next

    def add(self, port_id: PortId, frame: bytes) -> None:
        """Note a frame; the sink of a memory datapath."""
        self._entries.append(Delivery(self._next, port_id, frame))
        self._next += 1
        self._grown.set()

    def since(self, number: int, port_id: PortId | None = None) -> list[Delivery]:
        """Return deliveries from `number` on, of one port or of all."""
        return [
            entry
            for entry in self._entries
            if entry.number >= number and (port_id is None or entry.port_id == port_id)
        ]

    async def wait_since(
        self, number: int, port_id: PortId | None, timeout_s: float
    ) -> list[Delivery]:
        """Wait until `since` has something, or for `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (found := self.since(number, port_id)):
                    self._grown.clear()
                    await self._grown.wait()
                return found
        except TimeoutError:
            return []
