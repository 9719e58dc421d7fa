"""Garbage collection under leadership: deletions that a process began and did not finish."""

from __future__ import annotations

import structlog

from midonet.nsdb import deletion
from midonet.nsdb.store import Store
from midonet.runtime.clock import Clock

_log = structlog.get_logger("collector")


async def collect(store: Store, clock: Clock, interval_s: float) -> None:
    """Finish interrupted deletions, now and every `interval_s` seconds; never returns."""
    while True:
        finished = await deletion.resume(store)
        if finished:
            _log.info("deletions_finished", count=finished)
        await clock.sleep(interval_s)
