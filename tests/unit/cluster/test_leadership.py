"""Leadership and the duty that runs under it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest

from midonet.cluster.collector import collect
from midonet.cluster.leadership import LEADER, lead
from midonet.model.devices import Bridge
from midonet.model.ids import BridgeId
from midonet.nsdb.deletion import DELETIONS_TABLE
from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.nsdb.store import Create, PutState
from midonet.runtime.clock import ManualClock

RENEWAL_S = 10.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0)


async def opened(backend: MemoryBackend) -> MemoryStore:
    store = MemoryStore(backend)
    await store.open()
    return store


async def test_only_the_leader_does_the_duty_and_another_takes_over() -> None:
    backend = MemoryBackend()
    stores = [await opened(backend) for _ in range(2)]
    clock = ManualClock()
    active: list[int] = []

    async def duty(node: int) -> None:
        active.append(node)
        try:
            await asyncio.Event().wait()
        finally:
            active.remove(node)

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(lead(store, clock, lambda node=node: duty(node)))  # type: ignore[misc]
            for node, store in enumerate(stores)
        ]
        await until(lambda: active == [0])
        clock.advance(RENEWAL_S)
        await asyncio.sleep(0)
        assert active == [0]
        tasks[0].cancel()
        await until(tasks[0].done)
        assert active == []
        clock.advance(RENEWAL_S)
        await until(lambda: active == [1])
        tasks[1].cancel()
    assert LEADER not in await stores[0].live_sessions()
    for store in stores:
        await store.close()


async def test_lost_session_ends_the_duty_before_it_begins_again() -> None:
    backend = MemoryBackend()
    store = await opened(backend)
    clock = ManualClock()
    runs: list[str] = []

    async def duty() -> None:
        runs.append("begin")
        try:
            await asyncio.Event().wait()
        finally:
            runs.append("end")

    task = asyncio.ensure_future(lead(store, clock, duty))
    await until(lambda: runs == ["begin"])
    record = backend.tables.session(LEADER)
    assert record is not None
    session = await store.open_session(LEADER, secret=record.secret)
    await session.close()
    clock.advance(RENEWAL_S)
    await until(lambda: runs == ["begin", "end", "begin"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.close()


async def test_interrupted_deletion_is_finished() -> None:
    store = await opened(MemoryBackend())
    clock = ManualClock()
    bridge = Bridge(id=BridgeId(uuid4()))
    record = PutState(DELETIONS_TABLE, f"Bridge/{bridge.id}", "", uuid4(), is_persistent=True)
    await store.transact([Create(bridge), record])
    task = asyncio.ensure_future(collect(store, clock, 60.0))
    async with asyncio.timeout(60):
        while await store.get(Bridge, bridge.id):  # noqa: ASYNC110 - nor has the store
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.close()
