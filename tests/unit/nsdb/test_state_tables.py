"""Local replicas of state tables."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from midonet.model.ids import BridgeId, PortId, RouterId
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.state_tables import (
    EntryChange,
    NeighbourRecord,
    bridge_arp_table,
    mac_table,
    router_arp_table,
)
from midonet.nsdb.store import PutState, StateTables
from midonet.packets.addresses import parse_ip

MAC = 0x02_00_00_00_00_01


class TestMacTable:
    async def test_it_follows_writes_of_all_owners(self, store: MemoryStore) -> None:
        bridge_id, mine, other = BridgeId(uuid4()), uuid4(), uuid4()
        await store.open_session(mine)
        await store.open_session(other)
        here = mac_table(store, bridge_id, 0, mine, lambda: 0.0)
        there = mac_table(store, bridge_id, 0, other, lambda: 0.0)
        left, right = PortId(uuid4()), PortId(uuid4())
        async with asyncio.timeout(60):
            assert await here.changes() == []
            await there.put(MAC, left)
            assert await here.changes() == [EntryChange(MAC, None, left)]
            assert here.get(MAC) == left
            assert here.replica.owner(MAC) == other
            await here.put(MAC, right)
            assert await here.changes() == [EntryChange(MAC, left, right)]
            await here.remove(MAC)
            assert await here.changes() == [EntryChange(MAC, right, left)]
            await here.remove(MAC)
            await there.remove(MAC, right)
            await there.remove(MAC, left)
            assert await here.changes() == [EntryChange(MAC, left, None)]
            assert dict(here.replica.items()) == {}
            await here.close()
            assert await here.changes() == []

    async def test_vlans_are_separate(self, store: MemoryStore) -> None:
        bridge_id, owner, port_id = BridgeId(uuid4()), uuid4(), PortId(uuid4())
        tagged = mac_table(store, bridge_id, 10, owner, lambda: 0.0)
        untagged = mac_table(store, bridge_id, 0, owner, lambda: 0.0)
        await tagged.put(MAC, port_id, is_persistent=True)
        assert await tagged.changes() == [EntryChange(MAC, None, port_id)]
        assert await untagged.changes() == []

    async def test_malformed_entries_are_passed_over_and_counted(self, store: MemoryStore) -> None:
        bridge_id, owner, port_id = BridgeId(uuid4()), uuid4(), PortId(uuid4())
        name = StateTables.mac(bridge_id)
        entries = (
            ("no mac", str(port_id)),
            ("02:00:00:00:00:02", "no port"),
            ("02:00:00:00:00:01", str(port_id)),
        )
        await store.transact(
            [PutState(name, key, value, owner, is_persistent=True) for key, value in entries]
        )
        table = mac_table(store, bridge_id, 0, owner, lambda: 0.0)
        assert await table.changes() == [EntryChange(MAC, None, port_id)]
        assert table.replica.malformed == 2


async def test_ages_are_counted_from_arrival(store: MemoryStore) -> None:
    now_s = 100.0
    router_id, owner, address = RouterId(uuid4()), uuid4(), parse_ip("10.0.0.1")
    table = router_arp_table(store, router_id, owner, lambda: now_s)
    record = NeighbourRecord(mac="02:00:00:00:00:01", expires_after_s=30.0)
    await table.put(address, record, is_persistent=True)
    assert await table.changes() == [EntryChange(address, None, record)]
    now_s = 125.0
    assert table.age_s(address) == 25.0
    await table.put(address, record, is_persistent=True)
    assert await table.changes() == []
    assert table.age_s(address) == 0.0
    assert table.age_s(parse_ip("10.0.0.2")) is None
    assert table.get(parse_ip("10.0.0.2")) is None


async def test_a_short_neighbour_record_has_defaults(store: MemoryStore) -> None:
    router_id, owner = RouterId(uuid4()), uuid4()
    values = ('{"mac":"02:00:00:00:00:01"}', '{"mac":"rubbish"}', "[]", "{")
    name = StateTables.router_arp(router_id)
    await store.transact(
        [
            PutState(name, f"2001:db8::{number}", value, owner, is_persistent=True)
            for number, value in enumerate(values)
        ]
    )
    table = router_arp_table(store, router_id, owner, lambda: 0.0)
    (change,) = await table.changes()
    assert change.new == NeighbourRecord(mac="02:00:00:00:00:01")
    assert table.replica.malformed == 3


async def test_bridge_addresses(store: MemoryStore) -> None:
    bridge_id, owner, address = BridgeId(uuid4()), uuid4(), parse_ip("10.0.0.1")
    table = bridge_arp_table(store, bridge_id, owner, lambda: 0.0)
    await table.put(address, MAC, is_persistent=True)
    assert await table.changes() == [EntryChange(address, None, MAC)]
    assert [entry.key for entry in await store.table(StateTables.bridge_arp(bridge_id))] == [
        "10.0.0.1"
    ]
