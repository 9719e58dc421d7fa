"""What every Store promises of watches. Nothing here asks for more than ZooKeeper can keep."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec

from midonet.model.devices import Bridge, Port
from midonet.nsdb.store import (
    AllOf,
    Change,
    Create,
    Delete,
    IdsChange,
    ObjectChange,
    ObjectKey,
    PutState,
    Referrers,
    Store,
    Table,
    TableChange,
    Update,
    WatchKey,
)
from tests.contract.store_steps import (
    DEADLINE_S,
    OpenClient,
    bridge,
    bridge_port,
    changes_until,
    next_changes,
)


class TestWatches:
    async def test_the_first_change_is_the_present_state(self, store: Store) -> None:
        blue, absent = bridge(), uuid4()
        port = bridge_port(blue)
        await store.transact([Create(blue), Create(port)])
        await store.transact([PutState("t", "k", "v", uuid4(), is_persistent=True)])
        present, missing = ObjectKey(Bridge, blue.id), ObjectKey(Bridge, absent)
        ports, none = (
            Referrers(Port, "bridge_id", blue.id),
            Referrers(Port, "bridge_id", absent),
        )
        keys: list[WatchKey] = [
            present,
            missing,
            ports,
            none,
            AllOf(Bridge),
            Table("t"),
            Table("empty"),
        ]
        watcher = store.watcher()
        watcher.add(keys)
        seen = await changes_until(watcher, lambda seen: len(seen) >= len(keys))
        by_key = {change.key: change for change in seen}
        assert len(by_key) == len(keys) == len(seen)
        change = by_key[present]
        assert isinstance(change, ObjectChange)
        assert change.current is not None
        assert change.current.value == blue
        assert by_key[missing] == ObjectChange(missing, None)
        assert by_key[ports] == IdsChange(ports, frozenset((port.id,)))
        assert by_key[none] == IdsChange(none, frozenset())
        assert by_key[AllOf(Bridge)] == IdsChange(AllOf(Bridge), frozenset((blue.id,)))
        table = by_key[Table("t")]
        assert isinstance(table, TableChange)
        assert [(key, entry and entry.value) for key, entry in table.entries] == [("k", "v")]
        assert by_key[Table("empty")] == TableChange(Table("empty"), ())

    async def test_changes_of_another_client_arrive(self, store: Store, other: Store) -> None:
        blue = bridge()
        key, port_key = ObjectKey(Bridge, blue.id), Referrers(Port, "bridge_id", blue.id)
        watcher = store.watcher()
        watcher.add([key, port_key, AllOf(Bridge)])
        await changes_until(watcher, lambda seen: len(seen) == 3)
        port = bridge_port(blue)
        await other.transact([Create(blue), Create(port)])
        seen = await changes_until(watcher, lambda seen: len(seen) == 3)
        assert {change.key for change in seen} == {key, port_key, AllOf(Bridge)}
        await other.transact([Delete(Port, port.id)])
        assert await next_changes(watcher) == [IdsChange(port_key, frozenset())]
        await other.transact([Delete(Bridge, blue.id)])
        seen = await changes_until(watcher, lambda seen: len(seen) == 2)
        assert ObjectChange(key, None) in seen
        assert IdsChange(AllOf(Bridge), frozenset()) in seen

    async def test_changes_coalesce_to_the_latest_value(self, store: Store) -> None:
        blue = bridge("0")
        await store.transact([Create(blue)])
        watcher = store.watcher()
        watcher.add([ObjectKey(Bridge, blue.id)])
        for number in range(1, 51):
            await store.transact([Update(msgspec.structs.replace(blue, name=str(number)))])

        def is_last(seen: list[Change]) -> bool:
            return bool(seen) and _name(seen[-1]) == "50"

        seen = await changes_until(watcher, is_last)
        assert len(seen) <= 3

    async def test_what_is_seen_of_an_object_never_goes_back(
        self, store: Store, other: Store
    ) -> None:
        blue = bridge("0")
        await store.transact([Create(blue)])
        watcher = store.watcher()
        watcher.add([ObjectKey(Bridge, blue.id)])

        async def write() -> None:
            for number in range(1, 101):
                await other.transact([Update(msgspec.structs.replace(blue, name=str(number)))])

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            seen = await changes_until(
                watcher, lambda seen: bool(seen) and _name(seen[-1]) == "100"
            )
        numbers = [int(_name(change) or "-1") for change in seen]
        assert numbers == sorted(set(numbers))

    async def test_unchanged_keys_are_silent(self, store: Store, other: Store) -> None:
        blue, green = bridge("blue"), bridge("green")
        await store.transact([Create(blue), Create(green)])
        watcher = store.watcher()
        watcher.add([ObjectKey(Bridge, blue.id), ObjectKey(Bridge, green.id)])
        await changes_until(watcher, lambda seen: len(seen) == 2)
        await other.transact([Update(blue)])
        await other.transact([Create(bridge("unwatched"))])
        await other.transact([Update(green)])
        seen = await changes_until(watcher, lambda seen: len(seen) == 2)
        assert {change.key for change in seen} == {
            ObjectKey(Bridge, blue.id),
            ObjectKey(Bridge, green.id),
        }

    async def test_a_removed_key_is_silent_and_can_be_added_again(self, store: Store) -> None:
        blue, green = bridge("blue"), bridge("green")
        await store.transact([Create(blue), Create(green)])
        key, other_key = ObjectKey(Bridge, blue.id), ObjectKey(Bridge, green.id)
        watcher = store.watcher()
        watcher.add([key, other_key])
        await changes_until(watcher, lambda seen: len(seen) == 2)
        await store.transact([Update(blue), Update(green)])
        watcher.remove([key, key])
        seen = await next_changes(watcher)
        assert {change.key for change in seen} == {other_key}
        watcher.add([key])
        seen = await next_changes(watcher)
        assert {change.key for change in seen} == {key}

    async def test_closing_wakes_the_consumer_with_nothing(self, store: Store) -> None:
        watcher = store.watcher()
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            waiting = group.create_task(watcher.changes())
            await asyncio.sleep(0)
            await watcher.close()
        assert waiting.result() == []
        assert await next_changes(watcher) == []

    async def test_closing_the_store_wakes_the_consumer(self, open_client: OpenClient) -> None:
        client = await open_client()
        watcher = client.watcher()
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            waiting = group.create_task(watcher.changes())
            await asyncio.sleep(0)
            await client.close()
        assert waiting.result() == []

    async def test_a_cancelled_consumer_loses_no_change(self, store: Store, other: Store) -> None:
        blue = bridge()
        key = ObjectKey(Bridge, blue.id)
        watcher = store.watcher()
        watcher.add([key])
        await next_changes(watcher)
        for turns in range(6):
            await other.transact([Create(blue)])
            task = asyncio.ensure_future(watcher.changes())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            seen = results[0] if isinstance(results[0], list) else await next_changes(watcher)
            assert [change.key for change in seen] == [key]
            await other.transact([Delete(Bridge, blue.id)])
            assert await next_changes(watcher) == [ObjectChange(key, None)]

    async def test_many_watchers_each_get_their_own(self, store: Store, other: Store) -> None:
        bridges = [bridge(str(number)) for number in range(10)]
        watchers = [store.watcher() for _ in bridges]
        for one, watcher in zip(bridges, watchers, strict=True):
            watcher.add([ObjectKey(Bridge, one.id)])
            await next_changes(watcher)
        await other.transact([Create(one) for one in bridges])
        for one, watcher in zip(bridges, watchers, strict=True):
            seen = await next_changes(watcher)
            assert [_name(change) for change in seen] == [one.name]


def _name(change: Change) -> str | None:
    assert isinstance(change, ObjectChange)
    assert change.current is not None
    assert isinstance(change.current.value, Bridge)
    return change.current.value.name
