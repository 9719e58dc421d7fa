"""Waiting for an event, but not for ever, on a clock that tests may move."""

from __future__ import annotations

import asyncio

from midonet.runtime.clock import Clock


async def wait_at_most(event: asyncio.Event, clock: Clock, duration_s: float | None) -> bool:
    """Wait until the event is set; False when `duration_s` (None: no limit) ends first."""
    if event.is_set():
        return True
    if duration_s is None:
        await event.wait()
        return True
    waits = {
        asyncio.ensure_future(event.wait()),
        asyncio.ensure_future(clock.sleep(max(0.0, duration_s))),
    }
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
    return event.is_set()
