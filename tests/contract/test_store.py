"""What every Store promises. Nothing here asks for more than ZooKeeper can keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from midonet.errors import (
    ConflictError,
    NotFoundError,
    ReferencedError,
    UnavailableError,
    UserError,
)
from midonet.model.chains import Chain, Rule, RuleAction
from midonet.model.devices import Bridge, Port
from midonet.model.hosts import Host, PortLocation
from midonet.model.ids import BridgeId, ChainId, HostId, PortId, RuleId
from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import (
    MAX_OPERATIONS,
    AllOf,
    Change,
    Check,
    Create,
    Delete,
    DropState,
    IdsChange,
    ObjectChange,
    ObjectKey,
    PutState,
    Referrers,
    StateTables,
    Store,
    Table,
    TableChange,
    Update,
    Watcher,
    WatchKey,
)

DEADLINE_S = 10.0
OpenClient = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["memory", "sqlite"])
async def open_client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenClient]:
    """Return a function that opens one more client of the same store."""
    backend = MemoryBackend()
    clients: list[Store] = []

    async def open_one() -> Store:
        store: Store
        if request.param == "memory":
            store = MemoryStore(backend)
        else:
            store = SqliteStore(tmp_path / "nsdb.db")
        await store.open()
        clients.append(store)
        return store

    yield open_one
    for client in clients:
        await client.close()


@pytest.fixture
async def store(open_client: OpenClient) -> Store:
    return await open_client()


@pytest.fixture
async def other(open_client: OpenClient, store: Store) -> Store:
    """A second client of the store."""
    return await open_client()


def bridge(name: str = "blue", **fields: object) -> Bridge:
    return msgspec.structs.replace(Bridge(id=BridgeId(uuid4()), name=name), **fields)


def bridge_port(on: Bridge, **fields: object) -> Port:
    return msgspec.structs.replace(Port(id=PortId(uuid4()), bridge_id=on.id), **fields)


def host(name: str = "h1") -> Host:
    return Host(id=HostId(uuid4()), name=name)


async def next_changes(watcher: Watcher) -> list[Change]:
    async with asyncio.timeout(DEADLINE_S):
        return await watcher.changes()


async def changes_until(watcher: Watcher, is_done: Callable[[list[Change]], bool]) -> list[Change]:
    """Collect changes until they satisfy a condition."""
    seen: list[Change] = []
    async with asyncio.timeout(DEADLINE_S):
        while not is_done(seen):
            seen.extend(await watcher.changes())
    return seen


async def settled(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition on the store holds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


class TestObjects:
    async def test_an_object_is_read_as_it_was_created(self, store: Store) -> None:
        blue = bridge("blue", project_id="p1", admin_state_up=False)
        await store.transact([Create(blue)])
        found = await store.get(Bridge, blue.id)
        assert found is not None
        assert (found.value, found.version) == (blue, 0)

    async def test_an_absent_object_is_none(self, store: Store) -> None:
        assert await store.get(Bridge, uuid4()) is None

    async def test_versions_grow_by_one_with_each_update(self, store: Store) -> None:
        blue = bridge()
        await store.transact([Create(blue)])
        for version in range(1, 4):
            await store.transact([Update(blue, version=version - 1)])
            found = await store.get(Bridge, blue.id)
            assert found is not None
            assert found.version == version

    async def test_a_created_again_object_starts_at_version_0(self, store: Store) -> None:
        blue = bridge()
        await store.transact([Create(blue)])
        await store.transact([Update(blue)])
        await store.transact([Delete(Bridge, blue.id)])
        await store.transact([Create(blue)])
        found = await store.get(Bridge, blue.id)
        assert found is not None
        assert found.version == 0

    async def test_get_many_returns_those_that_exist(self, store: Store) -> None:
        bridges = [bridge(str(number)) for number in range(3)]
        await store.transact([Create(one) for one in bridges])
        found = await store.get_many(Bridge, [uuid4(), *(one.id for one in bridges)])
        assert {key: one.value for key, one in found.items()} == {one.id: one for one in bridges}

    async def test_get_many_of_nothing_is_empty(self, store: Store) -> None:
        assert await store.get_many(Bridge, []) == {}

    async def test_list_all_is_in_ascending_order_of_id(self, store: Store) -> None:
        bridges = [bridge() for _ in range(20)]
        await store.transact([Create(one) for one in bridges])
        listed = [one.value.id for one in await store.list_all(Bridge)]
        assert listed == sorted(one.id for one in bridges)

    async def test_the_same_id_may_name_objects_of_two_kinds(self, store: Store) -> None:
        blue, home = bridge(), host()
        port = bridge_port(blue)
        location = PortLocation(id=port.id, host_id=home.id, tunnel_key=5, epoch=1)
        await store.transact([Create(blue), Create(home), Create(port), Create(location)])
        await store.transact([Delete(PortLocation, port.id)])
        assert await store.get(Port, port.id) is not None
        assert await store.get(PortLocation, port.id) is None


class TestTransactions:
    async def test_creating_an_existing_id_is_a_conflict(self, store: Store) -> None:
        blue = bridge()
        await store.transact([Create(blue)])
        with pytest.raises(ConflictError, match=str(blue.id)):
            await store.transact([Create(blue)])

    async def test_a_stale_version_is_a_conflict(self, store: Store) -> None:
        blue = bridge()
        await store.transact([Create(blue)])
        await store.transact([Update(blue)])
        for operation in (
            Update(blue, version=0),
            Delete(Bridge, blue.id, version=0),
            Check(Bridge, blue.id, version=0),
        ):
            with pytest.raises(ConflictError, match="version"):
                await store.transact([operation])

    async def test_operating_on_an_absent_object_is_not_found(self, store: Store) -> None:
        absent = bridge()
        for operation in (
            Update(absent),
            Delete(Bridge, absent.id),
            Check(Bridge, absent.id),
        ):
            with pytest.raises(NotFoundError, match=str(absent.id)):
                await store.transact([operation])

    async def test_a_failing_operation_undoes_the_whole_transaction(self, store: Store) -> None:
        blue, green, owner = bridge("blue"), bridge("green"), uuid4()
        await store.transact([Create(blue)])
        revision = await store.transact([Update(blue)])
        port = bridge_port(blue)
        with pytest.raises(NotFoundError):
            await store.transact(
                [
                    Create(green),
                    Create(port),
                    Update(msgspec.structs.replace(blue, name="changed")),
                    PutState("t", "k", "v", owner, is_persistent=True),
                    Check(Bridge, uuid4()),
                ]
            )
        found = await store.get(Bridge, blue.id)
        assert found is not None
        assert (found.value.name, found.version) == ("blue", 1)
        assert await store.get(Bridge, green.id) is None
        assert await store.referrers(Port, "bridge_id", blue.id) == []
        assert await store.entries("t") == []
        assert await store.transact([Update(blue)]) == revision + 1

    async def test_operations_see_those_before_them(self, store: Store) -> None:
        blue = bridge()
        await store.transact(
            [Create(blue), Update(blue, version=0), Check(Bridge, blue.id, version=1)]
        )
        await store.transact([Delete(Bridge, blue.id, version=1), Create(blue)])
        found = await store.get(Bridge, blue.id)
        assert found is not None
        assert found.version == 0

    async def test_an_empty_transaction_changes_nothing(self, store: Store) -> None:
        assert await store.transact([]) == await store.transact([])

    async def test_too_many_operations_are_refused(self, store: Store) -> None:
        with pytest.raises(UserError, match="operations"):
            await store.transact([Create(bridge()) for _ in range(MAX_OPERATIONS + 1)])
        assert await store.list_all(Bridge) == []

    async def test_the_largest_count_of_operations_is_accepted(self, store: Store) -> None:
        await store.transact([Create(bridge()) for _ in range(MAX_OPERATIONS)])
        assert len(await store.list_all(Bridge)) == MAX_OPERATIONS

    async def test_too_many_bytes_are_refused(self, store: Store) -> None:
        with pytest.raises(UserError, match="bytes"):
            await store.transact([Create(bridge("x" * 300_000)), Create(bridge("y" * 300_000))])
        assert await store.list_all(Bridge) == []


class TestReferences:
    async def test_a_reference_to_nothing_is_not_found(self, store: Store) -> None:
        absent = bridge()
        with pytest.raises(NotFoundError, match=str(absent.id)):
            await store.transact([Create(bridge_port(absent))])

    async def test_updating_a_reference_to_nothing_is_not_found(self, store: Store) -> None:
        blue = bridge()
        await store.transact([Create(blue)])
        with pytest.raises(NotFoundError, match="Chain"):
            await store.transact(
                [Update(msgspec.structs.replace(blue, inbound_filter_id=ChainId(uuid4())))]
            )

    async def test_a_target_cannot_go_while_referred_to(self, store: Store) -> None:
        blue = bridge()
        port = bridge_port(blue)
        await store.transact([Create(blue), Create(port)])
        with pytest.raises(ReferencedError, match=str(port.id)):
            await store.transact([Delete(Bridge, blue.id)])
        assert await store.get(Bridge, blue.id) is not None

    async def test_target_and_referrer_go_in_one_transaction(self, store: Store) -> None:
        blue = bridge()
        port = bridge_port(blue)
        await store.transact([Create(blue), Create(port)])
        await store.transact([Delete(Bridge, blue.id), Delete(Port, port.id)])
        assert await store.list_all(Port) == []
        assert await store.list_all(Bridge) == []

    async def test_referrers_follow_creation_update_and_deletion(self, store: Store) -> None:
        blue, green = bridge("blue"), bridge("green")
        ports = [bridge_port(blue) for _ in range(5)]
        await store.transact([Create(one) for one in (blue, green, *ports)])
        ascending = sorted(port.id for port in ports)
        assert await store.referrers(Port, "bridge_id", blue.id) == ascending
        moved, gone = ports[0], ports[1]
        await store.transact([Update(msgspec.structs.replace(moved, bridge_id=green.id))])
        await store.transact([Delete(Port, gone.id)])
        left = sorted(port.id for port in ports[2:])
        assert await store.referrers(Port, "bridge_id", blue.id) == left
        assert await store.referrers(Port, "bridge_id", green.id) == [moved.id]

    async def test_referrers_of_many_targets_come_together(self, store: Store) -> None:
        blue, green, lonely = bridge("blue"), bridge("green"), bridge("lonely")
        ports = [bridge_port(one) for one in (blue, blue, green)]
        await store.transact([Create(one) for one in (blue, green, lonely, *ports)])
        found = await store.referrers_many(
            Port, "bridge_id", [blue.id, green.id, lonely.id, uuid4()]
        )
        assert found == {
            blue.id: sorted(port.id for port in ports[:2]),
            green.id: [ports[2].id],
        }
        assert await store.referrers_many(Port, "bridge_id", []) == {}

    async def test_objects_that_refer_to_each_other_come_and_go_together(
        self, store: Store
    ) -> None:
        blue, green = bridge("blue"), bridge("green")
        left, right = bridge_port(blue), bridge_port(green)
        await store.transact([Create(one) for one in (blue, green)])
        await store.transact(
            [
                Create(msgspec.structs.replace(left, peer_port_id=right.id)),
                Create(msgspec.structs.replace(right, peer_port_id=left.id)),
            ]
        )
        await store.transact([Delete(Port, left.id), Delete(Port, right.id)])
        assert await store.list_all(Port) == []

    async def test_an_exclusive_reference_has_one_holder(self, store: Store) -> None:
        blue = bridge()
        target, first, second = bridge_port(blue), bridge_port(blue), bridge_port(blue)
        await store.transact([Create(blue), Create(target), Create(second)])
        await store.transact([Create(msgspec.structs.replace(first, peer_port_id=target.id))])
        with pytest.raises(ConflictError, match="peer_port_id"):
            await store.transact([Update(msgspec.structs.replace(second, peer_port_id=target.id))])

    async def test_an_object_may_refer_to_one_target_by_two_fields(self, store: Store) -> None:
        chain = Chain(id=ChainId(uuid4()))
        blue = bridge("blue", inbound_filter_id=chain.id, outbound_filter_id=chain.id)
        await store.transact([Create(chain), Create(blue)])
        await store.transact([Update(msgspec.structs.replace(blue, inbound_filter_id=None))])
        assert await store.referrers(Bridge, "inbound_filter_id", chain.id) == []
        assert await store.referrers(Bridge, "outbound_filter_id", chain.id) == [blue.id]

    async def test_a_rule_may_jump_to_its_own_chain(self, store: Store) -> None:
        chain = Chain(id=ChainId(uuid4()))
        rule = Rule(
            id=RuleId(uuid4()), chain_id=chain.id, action=RuleAction.JUMP, jump_chain_id=chain.id
        )
        await store.transact([Create(chain), Create(rule)])
        await store.transact([Delete(Rule, rule.id), Delete(Chain, chain.id)])
        assert await store.list_all(Rule) == []


class TestClients:
    async def test_a_client_sees_its_own_and_others_writes(
        self, store: Store, other: Store
    ) -> None:
        blue = bridge()
        await store.transact([Create(blue)])
        assert await store.get(Bridge, blue.id) is not None
        assert await other.get(Bridge, blue.id) is not None

    async def test_of_racing_updates_each_version_is_won_by_one(
        self, store: Store, other: Store
    ) -> None:
        blue = bridge("0")
        await store.transact([Create(blue)])

        async def count_up(client: Store, times: int) -> None:
            for _ in range(times):
                while True:
                    found = await client.get(Bridge, blue.id)
                    assert found is not None
                    count = int(found.value.name or "0") + 1
                    updated = msgspec.structs.replace(found.value, name=str(count))
                    try:
                        await client.transact([Update(updated, found.version)])
                        break
                    except ConflictError:
                        continue

        await asyncio.gather(*(count_up(client, 20) for client in (store, other, store, other)))
        found = await store.get(Bridge, blue.id)
        assert found is not None
        assert (found.value.name, found.version) == ("80", 80)

    async def test_of_racing_creations_one_wins(self, store: Store, other: Store) -> None:
        blue = bridge()
        results = await asyncio.gather(
            *(client.transact([Create(blue)]) for client in (store, other)),
            return_exceptions=True,
        )
        errors = [result for result in results if not isinstance(result, int)]
        assert len(errors) == 1
        assert isinstance(errors[0], ConflictError)

    async def test_a_reference_races_with_the_deletion_of_its_target(
        self, store: Store, other: Store
    ) -> None:
        for _ in range(20):
            blue = bridge()
            port = bridge_port(blue)
            await store.transact([Create(blue)])
            results = await asyncio.gather(
                store.transact([Delete(Bridge, blue.id)]),
                other.transact([Create(port)]),
                return_exceptions=True,
            )
            errors = [result for result in results if not isinstance(result, int)]
            assert len(errors) == 1
            assert isinstance(errors[0], ReferencedError | NotFoundError)
            is_left = await store.get(Bridge, blue.id) is not None
            assert is_left == (await store.get(Port, port.id) is not None)

    async def test_a_sequence_never_repeats(self, store: Store, other: Store) -> None:
        drawn = await asyncio.gather(
            *(client.sequence("keys") for client in (store, other) for _ in range(50))
        )
        assert sorted(drawn) == list(range(1, 101))

    async def test_sequences_are_separate(self, store: Store) -> None:
        assert [await store.sequence(name) for name in ("a", "b", "a")] == [1, 1, 2]

    async def test_revisions_grow(self, store: Store, other: Store) -> None:
        revisions = [await client.transact([Create(bridge())]) for client in (store, other, store)]
        assert revisions == sorted(set(revisions))

    async def test_a_closed_store_is_unavailable(self, open_client: OpenClient) -> None:
        client = await open_client()
        await client.close()
        with pytest.raises(UnavailableError):
            await client.get(Bridge, uuid4())
        with pytest.raises(UnavailableError):
            await client.transact([Create(bridge())])


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
        session = await store.open_session(owner, timeout_s=0.1)
        await store.transact([PutState("t", "k", "v", owner)])
        watcher = other.watcher()
        watcher.add([Table("t")])

        def is_withdrawn(seen: list[Change]) -> bool:
            return TableChange(Table("t"), (("k", None),)) in seen

        await changes_until(watcher, is_withdrawn)
        assert await other.live_sessions() == frozenset()
        assert not await session.keep_alive()

    async def test_keeping_alive_extends_the_session(self, store: Store, other: Store) -> None:
        kept, left = uuid4(), uuid4()
        session = await store.open_session(kept, timeout_s=1.0)
        await store.open_session(left, timeout_s=1.0)

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
        dead = await store.open_session(owner, timeout_s=0.1)
        await store.transact([PutState("t", "k", "v", owner)])

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
