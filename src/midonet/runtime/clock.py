"""Clocks: passed to whatever asks for the time, so that tests move it by hand.

Monotonic seconds are for timers; boot-time nanoseconds (CLOCK_BOOTTIME) also run while the
machine is suspended and are the clock of kernel timestamps.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def now_s(self) -> float:
        """Return monotonic seconds."""
        ...

    def boot_ns(self) -> int:
        """Return boot-time nanoseconds."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Wait; zero or less only yields to other tasks."""
        ...


class SystemClock:
    """The clocks of the operating system."""

    def now_s(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def boot_ns(self) -> int:
        """Return boot-time nanoseconds (clock_gettime(2), CLOCK_BOOTTIME)."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    async def sleep(self, duration_s: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(max(0.0, duration_s))


class ManualClock:
    """A clock that stands still until `advance` moves it."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now_s = start_s
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        """Return the time set by hand, in seconds."""
        return self._now_s

    def boot_ns(self) -> int:
        """Return the same instant in nanoseconds."""
        return round(self._now_s * 1e9)

    async def sleep(self, duration_s: float) -> None:
        """Wait until `advance` has moved past the end."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        wake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + duration_s, next(self._order), wake))
        await wake

    def advance(self, duration_s: float) -> None:
        """Move on, and wake those whose time has come, earliest first."""
        self._now_s += duration_s
        while self._sleepers and self._sleepers[0][0] <= self._now_s:
            _, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                wake.set_result(None)
