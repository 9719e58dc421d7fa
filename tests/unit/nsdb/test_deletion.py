"""Deletion by the rules of the model, small and too big for one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from uuid import uuid4

import msgspec
import pytest

from midonet.errors import ConflictError, ReferencedError, UnavailableError
from midonet.model.chains import Chain, Rule, RuleAction
from midonet.model.devices import Bridge, Port, Route, Router
from midonet.model.hosts import Host, PortLocation
from midonet.model.ids import BridgeId, ChainId, HostId, PortId, RouteId, RouterId, RuleId
from midonet.model.references import KINDS
from midonet.nsdb import deletion
from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.nsdb.store import Create, Delete, Operation, Update


class InterferingStore(MemoryStore):
    """Lets a test act just before a transaction of the deletion, or fail it."""

    def __init__(self, backend: MemoryBackend) -> None:
        super().__init__(backend)
        self.before: list[Sequence[Operation]] = []
        self.transactions_left: int | None = None

    async def transact(self, operations: Sequence[Operation]) -> int:
        if self.transactions_left is not None:
            if self.transactions_left == 0:
                raise UnavailableError("the process has died")
            self.transactions_left -= 1
        if self.before:
            await super().transact(self.before.pop(0))
        return await super().transact(operations)


def bridge() -> Bridge:
    return Bridge(id=BridgeId(uuid4()))


def port_on(device: Bridge | Router, **fields: object) -> Port:
    port = Port(id=PortId(uuid4()))
    if isinstance(device, Bridge):
        port = msgspec.structs.replace(port, bridge_id=device.id)
    else:
        port = msgspec.structs.replace(port, router_id=device.id)
    return msgspec.structs.replace(port, **fields)


def chain_with_rules(count: int) -> tuple[Chain, list[Rule]]:
    chain_id = ChainId(uuid4())
    rules = [
        Rule(id=RuleId(uuid4()), chain_id=chain_id, action=RuleAction.DROP) for _ in range(count)
    ]
    return Chain(id=chain_id), rules


async def create(store: MemoryStore, *objects: msgspec.Struct) -> None:
    for start in range(0, len(objects), 400):
        await store.transact([Create(one) for one in objects[start : start + 400]])


async def is_empty(store: MemoryStore) -> bool:
    counts = [len(await store.list_all(kind)) for kind in KINDS]
    return sum(counts) == 0


async def test_an_absent_object_is_not_deleted(store: MemoryStore) -> None:
    assert await deletion.delete(store, Bridge, uuid4()) is False


async def test_what_belongs_to_a_device_goes_with_it(store: MemoryStore) -> None:
    router, home = Router(id=RouterId(uuid4())), Host(id=HostId(uuid4()), name="h")
    port = port_on(router)
    route = Route(id=RouteId(uuid4()), router_id=router.id, next_hop_port_id=port.id)
    location = PortLocation(id=port.id, host_id=home.id, tunnel_key=1, epoch=1)
    await create(store, router, home, port, route, location)
    assert await deletion.delete(store, Router, router.id) is True
    assert await deletion.delete(store, Router, router.id) is False
    await store.transact([Delete(Host, home.id)])
    assert await is_empty(store)


async def test_a_linked_peer_is_let_go(store: MemoryStore) -> None:
    blue, router = bridge(), Router(id=RouterId(uuid4()))
    left, right = port_on(blue), port_on(router)
    linked = msgspec.structs.replace(left, peer_port_id=right.id)
    await store.transact(
        [
            Create(blue),
            Create(router),
            Create(linked),
            Create(msgspec.structs.replace(right, peer_port_id=left.id)),
        ]
    )
    await deletion.delete(store, Bridge, blue.id)
    kept = await store.get(Port, right.id)
    assert kept is not None
    assert kept.value == right


async def test_devices_let_go_of_a_deleted_chain(store: MemoryStore) -> None:
    chain, rules = chain_with_rules(3)
    blue = msgspec.structs.replace(
        bridge(), inbound_filter_id=chain.id, outbound_filter_id=chain.id
    )
    port = port_on(blue, inbound_filter_id=chain.id)
    await create(store, chain, *rules, blue, port)
    await deletion.delete(store, Chain, chain.id)
    kept, kept_port = await store.get(Bridge, blue.id), await store.get(Port, port.id)
    assert kept is not None
    assert kept_port is not None
    assert (kept.value.inbound_filter_id, kept.value.outbound_filter_id) == (None, None)
    assert kept_port.value.inbound_filter_id is None
    assert await store.list_all(Rule) == []


async def test_jumps_to_a_deleted_chain_go_with_it(store: MemoryStore) -> None:
    target, target_rules = chain_with_rules(1)
    chain, rules = chain_with_rules(3)
    for index in (0, 2):
        rules[index] = msgspec.structs.replace(
            rules[index], action=RuleAction.JUMP, jump_chain_id=target.id
        )
    await create(store, target, *target_rules, chain, *rules)
    await deletion.delete(store, Chain, target.id)
    assert await store.get(Chain, chain.id) is not None
    assert [one.value.id for one in await store.list_all(Rule)] == [rules[1].id]


async def test_chains_that_jump_in_a_circle_can_be_deleted(store: MemoryStore) -> None:
    first, first_rules = chain_with_rules(1)
    second, second_rules = chain_with_rules(1)
    there = msgspec.structs.replace(first_rules[0], action=RuleAction.JUMP, jump_chain_id=second.id)
    back = msgspec.structs.replace(second_rules[0], action=RuleAction.JUMP, jump_chain_id=first.id)
    await create(store, first, second, there, back)
    await deletion.delete(store, Chain, first.id)
    await deletion.delete(store, Chain, second.id)
    assert await is_empty(store)


async def test_a_host_with_bound_ports_is_refused_by_name(store: MemoryStore) -> None:
    blue, home = bridge(), Host(id=HostId(uuid4()), name="h")
    port = port_on(blue, host_id=home.id, interface_name="eth1")
    await create(store, blue, home, port)
    with pytest.raises(ReferencedError, match=str(port.id)):
        await deletion.delete(store, Host, home.id)
    assert await store.get(Host, home.id) is not None
    await deletion.delete(store, Bridge, blue.id)
    assert await deletion.delete(store, Host, home.id) is True


async def test_a_port_created_meanwhile_goes_too(store: MemoryStore) -> None:
    backend = MemoryBackend()
    racing = InterferingStore(backend)
    await racing.open()
    blue = bridge()
    await racing.transact([Create(blue)])
    racing.before = [[Create(port_on(blue))], [Create(port_on(blue))]]
    assert await deletion.delete(racing, Bridge, blue.id) is True
    assert await racing.list_all(Port) == []
    await racing.close()


async def test_one_that_never_settles_is_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "PATIENCE_S", 0.05)
    racing = InterferingStore(MemoryBackend())
    await racing.open()
    blue = bridge()
    await racing.transact([Create(blue)])
    racing.before = [[Update(blue)] for _ in range(1000)]
    with pytest.raises(ConflictError, match=str(blue.id)):
        await deletion.delete(racing, Bridge, blue.id)
    await racing.close()


async def test_an_object_deleted_by_another_meanwhile_is_absent() -> None:
    racing = InterferingStore(MemoryBackend())
    await racing.open()
    blue = bridge()
    await racing.transact([Create(blue)])
    racing.before = [[Delete(Bridge, blue.id)]]
    assert await deletion.delete(racing, Bridge, blue.id) is False
    await racing.close()


class TestTooBigForOneTransaction:
    async def test_everything_goes(self, store: MemoryStore) -> None:
        blue = bridge()
        ports = [port_on(blue) for _ in range(1203)]
        await create(store, blue, *ports)
        assert await deletion.delete(store, Bridge, blue.id) is True
        assert await is_empty(store)
        assert await store.table(deletion.DELETIONS_TABLE) == []

    async def test_ports_linked_among_themselves_go(self, store: MemoryStore) -> None:
        router = Router(id=RouterId(uuid4()))
        pairs = [(port_on(router), port_on(router)) for _ in range(400)]
        await create(store, router)
        for left, right in pairs:
            await store.transact(
                [
                    Create(msgspec.structs.replace(left, peer_port_id=right.id)),
                    Create(msgspec.structs.replace(right, peer_port_id=left.id)),
                ]
            )
        assert await deletion.delete(store, Router, router.id) is True
        assert await is_empty(store)

    async def test_a_chain_is_out_of_force_before_its_rules_go(self) -> None:
        dying = InterferingStore(MemoryBackend())
        await dying.open()
        chain, rules = chain_with_rules(700)
        bridges = [
            msgspec.structs.replace(bridge(), inbound_filter_id=chain.id) for _ in range(600)
        ]
        await create(dying, chain, *rules, *bridges)
        for left in range(2, 12):
            dying.transactions_left = left - 1
            with contextlib.suppress(UnavailableError):
                await deletion.delete(dying, Chain, chain.id)
            dying.transactions_left = None
            in_force = await dying.referrers(Bridge, "inbound_filter_id", chain.id)
            count = len(await dying.list_all(Rule))
            assert count == 700 or not in_force
        assert await dying.get(Chain, chain.id) is None
        await dying.close()

    async def test_it_is_resumed_after_the_process_died(self) -> None:
        dying = InterferingStore(MemoryBackend())
        await dying.open()
        blue, green = bridge(), bridge()
        await create(dying, blue, green, *(port_on(blue) for _ in range(1300)))
        dying.transactions_left = 3
        with pytest.raises(UnavailableError):
            await deletion.delete(dying, Bridge, blue.id)
        dying.transactions_left = None
        assert 0 < len(await dying.list_all(Port)) < 1300
        assert await deletion.resume(dying) == 1
        assert await dying.list_all(Port) == []
        assert [one.value.id for one in await dying.list_all(Bridge)] == [green.id]
        assert await dying.table(deletion.DELETIONS_TABLE) == []
        assert await deletion.resume(dying) == 0
        await dying.close()

    async def test_a_refusal_is_found_before_anything_goes(self, store: MemoryStore) -> None:
        home, blue = Host(id=HostId(uuid4()), name="h"), bridge()
        ports = [port_on(blue) for _ in range(600)]
        ports[599] = msgspec.structs.replace(ports[599], host_id=home.id, interface_name="eth0")
        locations = [
            PortLocation(id=port.id, host_id=home.id, tunnel_key=1, epoch=1) for port in ports
        ]
        await create(store, home, blue, *ports, *locations)
        with pytest.raises(ReferencedError):
            await deletion.delete(store, Host, home.id)
        assert len(await store.list_all(PortLocation)) == 600
        assert await store.table(deletion.DELETIONS_TABLE) == []
