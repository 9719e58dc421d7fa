from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from midonet.agent.soft_state.outbox import Outbox, StateWrite, WriteLimits
from midonet.model.hosts import Host
from midonet.model.ids import HostId
from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.nsdb.store import Create, PutState, Store
from midonet.runtime.clock import ManualClock, SystemClock
from midonet.runtime.supervisor import Supervisor
from tests.multiagent.hosts import eventually

ME = HostId(UUID(int=1))


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = MemoryStore(MemoryBackend())
    await opened.open()
    await opened.transact([Create(Host(id=ME, name="h1"))])
    yield opened
    await opened.close()


def put(key: str, value: str, owner: HostId = ME) -> PutState:
    return PutState("mac/x/0", key, value, owner)


async def test_writes_wait_for_the_session_and_the_latest_of_a_key_wins(store: Store) -> None:
    written: list[StateWrite] = []
    outbox = Outbox(store, SystemClock(), written.append)
    async with Supervisor() as supervisor:
        supervisor.start("outbox", outbox.run)
        outbox.put(put("a", "1"))
        outbox.put(put("a", "2"))
        outbox.put(put("b", "3"))
        assert len(outbox) == 2
        await asyncio.sleep(0)
        assert await store.table("mac/x/0") == []

        await store.open_session(ME)
        outbox.resume()
        await eventually(lambda: not len(outbox))
    entries = await store.table("mac/x/0")
    assert {entry.key: entry.value for entry in entries} == {"a": "2", "b": "3"}
    assert len(written) == 2


async def test_refused_write_does_not_hold_back_the_others(store: Store) -> None:
    outbox = Outbox(store, SystemClock(), lambda _: None)
    await store.open_session(ME)
    await store.transact([PutState("mac/x/0", "a", "0", ME, epoch=7)])
    outbox.resume()
    async with Supervisor() as supervisor:
        supervisor.start("outbox", outbox.run)
        outbox.put(put("a", "1"))  # of an earlier start of this host
        outbox.put(put("b", "2"))
        await eventually(lambda: not len(outbox))
    entries = await store.table("mac/x/0")
    assert {entry.key: entry.value for entry in entries} == {"a": "0", "b": "2"}
    assert outbox.counters.refused == 1
    assert outbox.counters.written == 1


async def test_write_that_found_no_session_stays_queued_until_there_is_one(store: Store) -> None:
    written: list[StateWrite] = []
    outbox = Outbox(store, SystemClock(), written.append)
    outbox.resume()
    async with Supervisor() as supervisor:
        supervisor.start("outbox", outbox.run)
        outbox.put(put("a", "1"))
        await eventually(outbox.session_missed.is_set)
        assert len(outbox) == 1
        assert written == []
        await store.open_session(ME)
        await eventually(lambda: not len(outbox))
    [entry] = await store.table("mac/x/0")
    assert entry.value == "1"
    assert written == [put("a", "1")]


async def test_table_that_is_written_without_end_delays_no_other(store: Store) -> None:
    limits = WriteLimits(table_rate=1.0, table_burst=20)
    clock = ManualClock()
    outbox = Outbox(store, clock, lambda _: None, limits=limits)
    await store.open_session(ME)
    outbox.resume()
    for number in range(1000):
        outbox.put(put(f"k{number}", "1"))
    quiet = PutState("mac/y/0", "quiet", "1", ME)
    outbox.put(quiet)
    async with Supervisor() as supervisor:
        supervisor.start("outbox", outbox.run)
        await eventually(lambda: outbox.counters.rate_waits)
        assert [entry.key for entry in await store.table("mac/y/0")] == ["quiet"]
        assert len(await store.table("mac/x/0")) == limits.table_burst
        clock.advance(5)
        await eventually(lambda: outbox.counters.written == limits.table_burst + 6)
        assert len(await store.table("mac/x/0")) == limits.table_burst + 5


async def test_write_that_never_went_out_is_taken_back_whole(store: Store) -> None:
    outbox = Outbox(store, SystemClock(), lambda _: None)
    outbox.put(put("a", "1"))
    assert outbox.withdraw("mac/x/0", "a")
    assert not outbox.withdraw("mac/x/0", "a")
    assert len(outbox) == 0
    await store.open_session(ME)
    outbox.resume()
    async with Supervisor() as supervisor:
        supervisor.start("outbox", outbox.run)
        outbox.put(put("b", "1"))
        await eventually(lambda: not len(outbox))
        outbox.put(put("b", "2"))
        assert not outbox.withdraw("mac/x/0", "b")  # the store has an earlier one of it
