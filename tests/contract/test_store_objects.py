"""What every Store promises of objects. Nothing here asks for more than ZooKeeper can keep."""

from __future__ import annotations

import asyncio
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
from midonet.model.hosts import PortLocation
from midonet.model.ids import ChainId, RuleId
from midonet.nsdb.store import MAX_OPERATIONS, Check, Create, Delete, PutState, Store, Update
from tests.contract.store_steps import OpenClient, bridge, bridge_port, host


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
        assert await store.list_ids(Bridge) == listed
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
