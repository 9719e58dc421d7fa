"""Locations and tunnel keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from uuid import uuid4

import pytest

from midonet.errors import NotFoundError
from midonet.model.coordination import TunnelKeyUse
from midonet.model.devices import Bridge, Port
from midonet.model.hosts import FloodGroup, Host, PortLocation
from midonet.model.ids import BridgeId, HostId, PortId
from midonet.nsdb import deletion, locations
from midonet.nsdb.locations import QUARANTINE_S, KeySource
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.store import Create


class SameBits(Random):
    """Draws the numbers it is given, then random ones."""

    def __init__(self, bits: list[int]) -> None:
        super().__init__(1)
        self._bits = bits

    def getrandbits(self, k: int) -> int:
        return self._bits.pop(0) if self._bits else super().getrandbits(k)


class World:
    """A bridge, ports of equal preferred key on it, two hosts, a clock."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.now_s = 1_000_000.0
        self.source = KeySource(Random(7), lambda: self.now_s)
        self.bridge = Bridge(id=BridgeId(uuid4()))
        self.hosts = [Host(id=HostId(uuid4()), name=name) for name in ("h1", "h2")]
        self.ports = [Port(id=PortId(uuid4()), bridge_id=self.bridge.id) for _ in range(3)]

    async def create(self) -> None:
        objects = (self.bridge, *self.hosts, *self.ports)
        await self.store.transact([Create(one) for one in objects])

    async def claim(self, port: int = 0, host: int = 0) -> PortLocation:
        return await locations.claim(
            self.store, self.ports[port].id, self.hosts[host].id, self.source
        )

    async def key_use(self, location: PortLocation) -> TunnelKeyUse | None:
        for use in await self.store.list_all(TunnelKeyUse):
            where = (use.value.host_id, use.value.tunnel_key)
            if where == (location.host_id, location.tunnel_key):
                return use.value
        return None


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    # All holders prefer one key, so that every claim after the first collides.
    monkeypatch.setattr(locations, "_preferred_bits", lambda holder_id: 0x12345)
    store = MemoryStore()
    await store.open()
    world = World(store)
    await world.create()
    yield world
    await store.close()


async def test_a_claim_records_host_and_key(world: World) -> None:
    location = await world.claim()
    assert location.host_id == world.hosts[0].id
    assert (location.tunnel_key, location.epoch, location.active) == (0x112345, 1, False)
    found = await world.store.get(PortLocation, world.ports[0].id)
    assert found is not None
    assert found.value == location


async def test_claiming_again_keeps_everything(world: World) -> None:
    location = await world.claim()
    assert await locations.set_active(world.store, location, is_active=True)
    again = await world.claim()
    assert (again.tunnel_key, again.epoch, again.active) == (location.tunnel_key, 1, True)


async def test_keys_of_one_host_differ(world: World) -> None:
    keys = [(await world.claim(port)).tunnel_key for port in range(3)]
    assert len(set(keys)) == 3
    assert {key >> 20 for key in keys} == {1}


async def test_racing_claims_of_two_ports_get_two_keys(world: World) -> None:
    first, second = await asyncio.gather(world.claim(0), world.claim(1))
    assert first.tunnel_key != second.tunnel_key


async def test_racing_claims_of_one_port_agree(world: World) -> None:
    await asyncio.gather(world.claim(0, 0), world.claim(0, 1))
    found = await world.store.get(PortLocation, world.ports[0].id)
    assert found is not None
    assert found.value.epoch == 2


async def test_the_next_owner_raises_the_epoch_and_retires_the_key(world: World) -> None:
    first = await world.claim(0, 0)
    await locations.set_active(world.store, first, is_active=True)
    second = await world.claim(0, 1)
    assert (second.host_id, second.epoch, second.active) == (world.hosts[1].id, 2, False)
    retired = await world.key_use(first)
    assert retired is not None
    assert retired.released_at_s == 1_000_000
    assert not await locations.set_active(world.store, first, is_active=True)
    assert not await locations.release(world.store, first, world.source)
    found = await world.store.get(PortLocation, world.ports[0].id)
    assert found is not None
    assert found.value == second


async def test_a_port_that_comes_back_gets_its_key_back(world: World) -> None:
    first = await world.claim(0, 0)
    await world.claim(0, 1)
    back = await world.claim(0, 0)
    assert (back.tunnel_key, back.epoch) == (first.tunnel_key, 3)
    use = await world.key_use(back)
    assert use is not None
    assert use.released_at_s is None


async def test_a_released_key_rests_for_a_day(world: World) -> None:
    first = await world.claim(0)
    assert await locations.release(world.store, first, world.source)
    assert not await locations.release(world.store, first, world.source)
    assert await world.store.get(PortLocation, world.ports[0].id) is None
    world.now_s += QUARANTINE_S - 1
    second = await world.claim(1)
    assert second.tunnel_key != first.tunnel_key
    world.now_s += 1
    third = await world.claim(2)
    assert third.tunnel_key == first.tunnel_key


async def test_the_key_of_a_deleted_port_rests_from_its_collection(world: World) -> None:
    first = await world.claim(0)
    await world.claim(2)
    await deletion.delete(world.store, Port, world.ports[0].id)
    world.now_s += 10 * QUARANTINE_S
    source = KeySource(SameBits([first.tunnel_key & 0xFFFFF, 0x777]), lambda: world.now_s)
    second = await locations.claim(world.store, world.ports[1].id, first.host_id, source)
    assert second.tunnel_key == 0x100777
    assert await locations.collect_keys(world.store, first.host_id, source) == 1
    use = await world.key_use(first)
    assert use is not None
    assert use.released_at_s == int(world.now_s)
    assert await locations.collect_keys(world.store, first.host_id, source) == 0
    world.now_s += QUARANTINE_S
    assert await locations.collect_keys(world.store, first.host_id, source) == 1
    assert await world.key_use(first) is None


async def test_a_claim_needs_port_and_host(world: World) -> None:
    with pytest.raises(NotFoundError, match="Port"):
        await locations.claim(world.store, PortId(uuid4()), world.hosts[0].id, world.source)
    with pytest.raises(NotFoundError, match="Host"):
        await locations.claim(world.store, world.ports[0].id, HostId(uuid4()), world.source)
    assert await world.store.list_all(TunnelKeyUse) == []


async def test_flood_groups_have_keys_of_their_own_type(world: World) -> None:
    host_id = world.hosts[0].id
    port_key = (await world.claim()).tunnel_key
    group = await locations.claim_flood_group(world.store, world.bridge.id, host_id, world.source)
    assert group.tunnel_key >> 20 == 3
    assert group.tunnel_key != port_key
    again = await locations.claim_flood_group(world.store, world.bridge.id, host_id, world.source)
    assert again == group
    assert await locations.collect_keys(world.store, host_id, world.source) == 0
    assert await locations.release_flood_group(world.store, group, world.source)
    assert not await locations.release_flood_group(world.store, group, world.source)
    assert await world.store.list_all(FloodGroup) == []


async def test_preferred_keys_spread() -> None:
    drawn = {locations._preferred_bits(uuid4()) for _ in range(1000)}
    assert len(drawn) > 980
    assert all(0 <= bits < 1 << 20 for bits in drawn)
