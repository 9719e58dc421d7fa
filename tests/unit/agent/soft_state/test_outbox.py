from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from midonet.agent.soft_state.outbox import Outbox, StateWrite
from midonet.model.hosts import Host
from midonet.model.ids import HostId
from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.nsdb.store import Create, PutState, Store
from midonet.runtime.clock import SystemClock
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
    outbox.resume()
    async with Supervisor() as supervisor:
        supervisor.start("outbox", outbox.run)
        outbox.put(put("a", "1", HostId(UUID(int=99))))  # no session of that owner
        outbox.put(put("b", "2"))
        await eventually(lambda: not len(outbox))
    assert [entry.key for entry in await store.table("mac/x/0")] == ["b"]
