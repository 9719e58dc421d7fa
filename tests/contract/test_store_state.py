"""What every Store promises of state tables and sessions, as ZooKeeper can keep them."""

from __future__ import annotations

from uuid import uuid4

import pytest

from midonet.errors import ConflictError, UserError
from midonet.model.devices import Bridge
from midonet.nsdb.store import (
    Change,
    Create,
    Delete,
    DropState,
    PutState,
    StateTables,
    Store,
    Table,
    TableChange,
    Watcher,
)
from tests.contract.store_steps import OpenClient, bridge, changes_until, next_changes, settled


class TestStateTables:
    async def test_the_latest_entry_of_a_key_wins(self, store: Store) -> None:
        first, second = uuid4(), uuid4()
        for owner, value in ((first, "a"), (second, "b"), (first, "c")):
            await store.transact([PutState("t", "k", value, owner, is_persistent=True)])
        winners = await store.table("t")
        assert [(entry.key, entry.value, entry.owner) for entry in winners] == [("k", "c", first)]
        assert {entry.value for entry in await store.entries("t", "k")} == {"b", "c"}

    async def test_a_learnt_entry_beats_a_persistent_one(self, store: Store) -> None:
        owner, seeder = uuid4(), uuid4()
        session = await store.open_session(owner)
        await store.transact([PutState("t", "k", "learnt", owner)])
        await store.transact([PutState("t", "k", "seeded", seeder, is_persistent=True)])
        assert [entry.value for entry in await store.table("t")] == ["learnt"]
        await session.close()
        assert [entry.value for entry in await store.table("t")] == ["seeded"]

    async def test_sequence_grows_also_within_a_transaction(self, store: Store) -> None:
        owner = uuid4()
        await store.transact(
            [PutState("t", key, "v", owner, is_persistent=True) for key in ("a", "b")]
        )
        await store.transact([PutState("t", "c", "v", owner, is_persistent=True)])
        sequences = {entry.key: entry.sequence for entry in await store.table("t")}
        assert sequences["a"] < sequences["b"] < sequences["c"]

    async def test_an_owner_drops_only_its_own(self, store: Store) -> None:
        first, second = uuid4(), uuid4()
        for owner, value in ((first, "a"), (second, "b")):
            await store.transact([PutState("t", "k", value, owner, is_persistent=True)])
        await store.transact([DropState("t", "k", second)])
        assert [entry.value for entry in await store.entries("t")] == ["a"]
        await store.transact([DropState("t", "k", second)])
        assert [entry.value for entry in await store.entries("t")] == ["a"]

    async def test_a_drop_may_be_conditional_on_the_value(self, store: Store) -> None:
        owner = uuid4()
        await store.transact([PutState("t", "k", "new", owner, is_persistent=True)])
        await store.transact([DropState("t", "k", owner, "old")])
        assert [entry.value for entry in await store.table("t")] == ["new"]
        await store.transact([DropState("t", "k", owner, "new")])
        assert await store.table("t") == []

    async def test_a_write_of_an_earlier_epoch_is_a_conflict(self, store: Store) -> None:
        owner = uuid4()
        await store.transact([PutState("t", "k", "2", owner, epoch=2, is_persistent=True)])
        with pytest.raises(ConflictError, match="epoch"):
            await store.transact([PutState("t", "k", "1", owner, epoch=1, is_persistent=True)])
        assert [entry.value for entry in await store.table("t")] == ["2"]

    async def test_tables_are_separate(self, store: Store) -> None:
        bridge_id = uuid4()
        names = [StateTables.mac(bridge_id), StateTables.mac(bridge_id, 10)]
        for name in names:
            await store.transact([PutState(name, "k", name, uuid4(), is_persistent=True)])
        for name in names:
            assert [entry.value for entry in await store.table(name)] == [name]

    async def test_the_tables_of_a_device_go_with_it(self, store: Store, other: Store) -> None:
        blue, green = bridge("blue"), bridge("green")
        await store.transact([Create(blue), Create(green)])
        gone = [
            StateTables.mac(blue.id),
            StateTables.mac(blue.id, 10),
            StateTables.bridge_arp(blue.id),
        ]
        kept = [StateTables.mac(green.id), StateTables.bridge_arp(green.id), f"mac/{blue.id}0"]
        for owner in (uuid4(), uuid4()):
            await store.transact(
                [PutState(name, "k", "v", owner, is_persistent=True) for name in gone + kept]
            )
        watcher = other.watcher()
        watcher.add([Table(name) for name in gone])
        await changes_until(watcher, lambda seen: len(seen) == len(gone))
        await store.transact([Delete(Bridge, blue.id)])
        seen = await changes_until(watcher, lambda seen: len(seen) == len(gone))
        assert {change.key for change in seen} == {Table(name) for name in gone}
        for name in gone:
            assert await store.entries(name) == []
        for name in kept:
            assert len(await store.entries(name)) == 2

    async def test_a_watched_table_tells_winners(self, store: Store, other: Store) -> None:
        first, second = uuid4(), uuid4()
        watcher = store.watcher()
        watcher.add([Table("t")])
        assert await next_changes(watcher) == [TableChange(Table("t"), ())]
        await other.transact([PutState("t", "k", "a", first, is_persistent=True)])
        assert await _table_news(watcher) == {"k": "a"}
        await other.transact([PutState("t", "k", "b", second, is_persistent=True)])
        assert await _table_news(watcher) == {"k": "b"}
        # Dropping the loser changes no winner, so only the last drop is told.
        await other.transact([DropState("t", "k", first)])
        await other.transact([DropState("t", "k", second)])
        assert await _table_news(watcher) == {"k": None}


async def _table_news(watcher: Watcher) -> dict[str, str | None]:
    news: dict[str, str | None] = {}
    for change in await next_changes(watcher):
        assert isinstance(change, TableChange)
        for key, entry in change.entries:
            news[key] = None if entry is None else entry.value
    return news


class TestSessions:
    async def test_ephemeral_entries_need_a_live_session(self, store: Store) -> None:
        owner = uuid4()
        with pytest.raises(ConflictError, match="session"):
            await store.transact([PutState("t", "k", "v", owner)])
        session = await store.open_session(owner)
        await store.transact([PutState("t", "k", "v", owner)])
        await session.close()
        with pytest.raises(ConflictError, match="session"):
            await store.transact([PutState("t", "k", "v", owner)])

    async def test_closing_withdraws_what_is_ephemeral(self, store: Store, other: Store) -> None:
        owner = uuid4()
        session = await store.open_session(owner)
        await store.transact(
            [
                PutState("t", "passing", "v", owner),
                PutState("t", "lasting", "v", owner, is_persistent=True),
            ]
        )
        watcher = other.watcher()
        watcher.add([Table("t"), Table(StateTables.sessions())])
        await changes_until(watcher, lambda seen: len(seen) == 2)
        await session.close()
        seen = await changes_until(watcher, lambda seen: len(seen) == 2)
        assert TableChange(Table("t"), (("passing", None),)) in seen
        assert TableChange(Table(StateTables.sessions()), ((str(owner), None),)) in seen
        assert [entry.key for entry in await other.table("t")] == ["lasting"]
        assert await other.live_sessions() == frozenset()

    async def test_an_entry_made_persistent_outlives_the_session(self, store: Store) -> None:
        owner = uuid4()
        session = await store.open_session(owner)
        await store.transact([PutState("t", "k", "v", owner)])
        await store.transact([PutState("t", "k", "v", owner, is_persistent=True)])
        await session.close()
        assert len(await store.table("t")) == 1

    async def test_an_expired_session_is_ended_by_any_client(
        self, store: Store, other: Store
    ) -> None:
        owner = uuid4()
        session = await store.open_session(owner)
        await store.transact([PutState("t", "k", "v", owner)])
        await store.open_session(owner, timeout_s=0.1, secret=session.info.secret)
        watcher = other.watcher()
        watcher.add([Table("t")])

        def is_withdrawn(seen: list[Change]) -> bool:
            return TableChange(Table("t"), (("k", None),)) in seen

        await changes_until(watcher, is_withdrawn)
        assert await other.live_sessions() == frozenset()
        assert not await session.keep_alive()

    async def test_keeping_alive_extends_the_session(self, store: Store, other: Store) -> None:
        kept, left = uuid4(), uuid4()
        session = await store.open_session(kept, timeout_s=3.0)
        await store.open_session(left, timeout_s=3.0)

        async def is_left_dead() -> bool:
            assert await session.keep_alive()
            return left not in await other.live_sessions()

        await settled(is_left_dead)
        assert await other.live_sessions() == frozenset((kept,))

    async def test_a_restarted_owner_resumes_with_its_secret(
        self, store: Store, other: Store
    ) -> None:
        owner = uuid4()
        first = await store.open_session(owner)
        await store.transact([PutState("t", "k", "v", owner)])
        resumed = await other.open_session(owner, secret=first.info.secret)
        assert resumed.info.secret == first.info.secret
        assert len(await other.table("t")) == 1
        assert await resumed.keep_alive()

    async def test_a_second_owner_is_a_conflict(self, store: Store, other: Store) -> None:
        owner = uuid4()
        await store.open_session(owner)
        for secret in (None, "guessed"):
            with pytest.raises(ConflictError, match=str(owner)):
                await other.open_session(owner, secret=secret)

    async def test_a_dead_session_is_replaced_and_its_entries_go(
        self, store: Store, other: Store
    ) -> None:
        owner = uuid4()
        dead = await store.open_session(owner)
        await store.transact([PutState("t", "k", "v", owner)])
        await store.open_session(owner, timeout_s=0.1, secret=dead.info.secret)

        async def is_dead() -> bool:
            return owner not in await store.live_sessions()

        await settled(is_dead)
        new = await other.open_session(owner, secret=dead.info.secret)
        assert await other.table("t") == []
        assert not await dead.keep_alive()
        await dead.close()
        assert await new.keep_alive()
        assert await other.live_sessions() == frozenset((owner,))

    async def test_a_session_needs_a_sensible_timeout(self, store: Store) -> None:
        for timeout_s in (0.0, -1.0, float("nan")):
            with pytest.raises(UserError, match="timeout"):
                await store.open_session(uuid4(), timeout_s=timeout_s)

    async def test_closing_the_client_leaves_the_session(
        self, open_client: OpenClient, store: Store
    ) -> None:
        client, owner = await open_client(), uuid4()
        await client.open_session(owner)
        await client.close()
        assert await store.live_sessions() == frozenset((owner,))
