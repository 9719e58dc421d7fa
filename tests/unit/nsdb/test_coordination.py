"""Leases, leadership, liveness and cluster settings."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from midonet.errors import ConflictError
from midonet.model.devices import Bridge
from midonet.model.ids import BridgeId
from midonet.nsdb import leadership
from midonet.nsdb.leases import Leases
from midonet.nsdb.liveness import Liveness
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.settings import cluster_settings
from midonet.nsdb.store import Create


class TestLeases:
    async def test_a_block_has_one_owner(self, store: MemoryStore) -> None:
        leases = Leases(store, rest_s=60, now_s=lambda: 1000.0)
        owner, other = uuid4(), uuid4()
        lease = await leases.acquire("nat/1", owner)
        assert lease is not None
        assert (lease.owner, lease.epoch) == (owner, 1)
        assert await leases.acquire("nat/1", other) is None
        assert await leases.acquire("nat/1", owner) == lease
        assert await leases.acquire("nat/2", other) is not None

    async def test_of_racing_owners_one_gets_the_block(self, store: MemoryStore) -> None:
        leases = Leases(store, rest_s=60, now_s=lambda: 1000.0)
        results = await asyncio.gather(*(leases.acquire("b", uuid4()) for _ in range(8)))
        assert sum(result is not None for result in results) == 1

    async def test_a_released_block_rests_and_changes_hands(self, store: MemoryStore) -> None:
        now_s = 1000.0
        leases = Leases(store, rest_s=60, now_s=lambda: now_s)
        owner, other = uuid4(), uuid4()
        lease = await leases.acquire("b", owner)
        assert lease is not None
        assert await leases.release(lease)
        assert not await leases.release(lease)
        now_s = 1059.0
        assert await leases.acquire("b", other) is None
        now_s = 1060.0
        taken = await leases.acquire("b", other)
        assert taken is not None
        assert (taken.owner, taken.epoch) == (other, 2)
        assert not await leases.release(lease)

    async def test_the_last_owner_need_not_wait(self, store: MemoryStore) -> None:
        leases = Leases(store, rest_s=60, now_s=lambda: 1000.0)
        owner = uuid4()
        lease = await leases.acquire("b", owner)
        assert lease is not None
        await leases.release(lease)
        back = await leases.acquire("b", owner)
        assert back is not None
        assert back.epoch == 2


class TestLeadership:
    async def test_one_of_many_candidates_leads(self, store: MemoryStore) -> None:
        candidates = [uuid4() for _ in range(5)]
        for candidate in candidates:
            await store.open_session(candidate)
        terms = await asyncio.gather(
            *(leadership.campaign(store, "gc", candidate) for candidate in candidates)
        )
        assert len([term for term in terms if term is not None]) == 1

    async def test_a_candidate_needs_a_session(self, store: MemoryStore) -> None:
        with pytest.raises(ConflictError, match="session"):
            await leadership.campaign(store, "gc", uuid4())

    async def test_the_dead_are_succeeded_with_a_higher_token(self, store: MemoryStore) -> None:
        first, second = uuid4(), uuid4()
        session = await store.open_session(first)
        await store.open_session(second)
        old = await leadership.campaign(store, "gc", first)
        assert old is not None
        assert await leadership.campaign(store, "gc", second) is None
        assert await leadership.is_leading(store, old)
        await session.close()
        new = await leadership.campaign(store, "gc", second)
        assert new is not None
        assert new.fencing_token > old.fencing_token
        assert not await leadership.is_leading(store, old)
        assert not await leadership.resign(store, old)

    async def test_a_term_that_is_over_is_fenced_off(self, store: MemoryStore) -> None:
        first, second = uuid4(), uuid4()
        session = await store.open_session(first)
        await store.open_session(second)
        old = await leadership.campaign(store, "gc", first)
        assert old is not None
        await store.transact([old.fence(), Create(Bridge(id=BridgeId(uuid4())))])
        await session.close()
        await leadership.campaign(store, "gc", second)
        with pytest.raises(ConflictError):
            await store.transact([old.fence(), Create(Bridge(id=BridgeId(uuid4())))])
        assert len(await store.list_all(Bridge)) == 1

    async def test_resigning_makes_room(self, store: MemoryStore) -> None:
        first, second = uuid4(), uuid4()
        for candidate in (first, second):
            await store.open_session(candidate)
        term = await leadership.campaign(store, "gc", first)
        assert term is not None
        assert await leadership.resign(store, term)
        successor = await leadership.campaign(store, "gc", second)
        assert successor is not None
        assert successor.fencing_token == 2


async def test_liveness_follows_sessions(store: MemoryStore) -> None:
    first, second = uuid4(), uuid4()
    session = await store.open_session(first)
    liveness = Liveness(store)
    async with asyncio.timeout(60):
        assert await liveness.changes() == {first}
        await store.open_session(second)
        assert await liveness.changes() == {second}
        assert liveness.alive == {first, second}
        await session.close()
        assert await liveness.changes() == {first}
        assert liveness.alive == {second}
        await liveness.close()
        assert await liveness.changes() == frozenset()


async def test_the_first_to_ask_makes_the_settings(store: MemoryStore) -> None:
    drawn = await asyncio.gather(*(cluster_settings(store) for _ in range(8)))
    assert len({settings.hash_seed for settings in drawn}) == 1
    assert 0 <= drawn[0].hash_seed < 1 << 64
    assert await cluster_settings(store) == drawn[0]
