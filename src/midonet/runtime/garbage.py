"""Keeps the collector's full passes out of the way of work that must not wait.

A full pass walks over everything that lives, and a large table makes that hundreds of milliseconds.
What has lived through a young pass is therefore set aside (`gc.freeze`), where no automatic pass
looks; what dies there is freed by its reference count as ever. Only cycles that die there stay, so
everything is looked at now and then, when nothing else is to be done.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from midonet.runtime.clock import Clock

STEP_S = 0.25
"""Between two steps. What is made in that time is what a step looks at."""

FULL_S = 600.0
"""At least this long between two full passes."""


class GarbageCollection:
    """Collects in steps. is_idle: tells whether nobody would wait for a full pass now."""

    def __init__(self, clock: Clock, is_idle: Callable[[], bool]) -> None:
        self._clock = clock
        self._is_idle = is_idle
        self._next_full_s = clock.now_s() + FULL_S

    async def run(self) -> None:
        """Collect until cancelled."""
        try:
            while True:
                self.step()
                await self._clock.sleep(STEP_S)
        finally:
            gc.unfreeze()

    def step(self) -> None:
        """Collect what is young and set the rest aside; now and then, and while idle, all."""
        gc.collect(1)
        if self._clock.now_s() >= self._next_full_s and self._is_idle():
            gc.unfreeze()
            gc.collect()
            self._next_full_s = self._clock.now_s() + FULL_S
        gc.freeze()
