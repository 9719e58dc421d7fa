from __future__ import annotations

import asyncio
import itertools

from midonet.runtime.clock import ManualClock
from midonet.runtime.supervisor import Backoff, OnFailure, Supervisor


async def test_failed_task_is_counted_and_starts_again_after_a_growing_pause() -> None:
    clock = ManualClock()
    runs: list[float] = []
    succeeded = asyncio.Event()

    async def flaky() -> None:
        runs.append(clock.now_s())
        if len(runs) < 4:
            raise ValueError("not yet")
        succeeded.set()

    async with Supervisor(clock, Backoff(first_s=1, most_s=2)) as supervisor:
        supervisor.start("flaky", flaky)
        while not succeeded.is_set():
            await asyncio.sleep(0)
            if clock._sleepers:
                clock.advance(0.5)
        assert supervisor.failures["flaky"] == 3
    assert [round(b - a) for a, b in itertools.pairwise(runs)] == [1, 2, 2]


async def test_fatal_failure_wakes_the_waiter() -> None:
    async def broken() -> None:
        raise ValueError("cannot go on")

    async with Supervisor() as supervisor:
        supervisor.start("broken", broken, OnFailure.STOP_ALL)
        await asyncio.wait_for(supervisor.wait(), 60)
        assert isinstance(supervisor.fatal, ValueError)


async def test_leaving_cancels_what_still_runs() -> None:
    cleaned = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with Supervisor() as supervisor:
        supervisor.start("forever", forever)
        await asyncio.sleep(0)
    assert cleaned.is_set()
