"""Blocks of ports leased from one database by several hosts: no end point is handed out twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from midonet.agent.flow_exchange.block_leasing import (
    REST_S,
    RETRY_S,
    UNUSED_S,
    VALIDITY_S,
    BlockLeasing,
)
from midonet.agent.flow_state.allocations import Allocation, AllocationTable
from midonet.agent.flow_state.pool import BLOCK_PORTS, EndpointRange, NatPool
from midonet.agent.flow_state.source_choice import (
    Chosen,
    Exhausted,
    LeaseBlock,
    NatAddress,
    SourceChoice,
    SourceChooser,
    remote_of,
)
from midonet.errors import UnavailableError
from midonet.model.coordination import Lease
from midonet.model.ids import HostId
from midonet.nsdb.leases import Leases
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.sqlite.store import SqliteStore
from midonet.nsdb.store import Store
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.runtime.clock import ManualClock

DEVICE = UUID(int=77)
PUBLIC = NatAddress(DEVICE, IpVersion.V4, 0xCB00_7101)
UDP = 17
WIDE = NatPool((EndpointRange(IpVersion.V4, PUBLIC.address, PUBLIC.address, 1024, 65535),))
NARROW = NatPool((EndpointRange(IpVersion.V4, PUBLIC.address, PUBLIC.address, 1024, 1151),))
"""Two blocks."""


def packet(number: int, remote: int = 9) -> FiveTuple:
    return FiveTuple(IpVersion.V4, UDP, 10, number, remote, 53)


class HostOfBlocks:
    """What of an agent has to do with translated sources. Made anew, it has restarted."""

    def __init__(self, store: Store, number: int, clock: ManualClock, random: Random) -> None:
        self.allocations = AllocationTable()
        self.leasing = BlockLeasing(
            Leases(store, REST_S, clock.now_s),
            HostId(UUID(int=number)),
            clock,
            self.allocations,
            random=random,
        )
        self._next = 0

    def choose(self, new: FiveTuple, pool: NatPool = WIDE) -> SourceChoice:
        return SourceChooser(self.allocations, self.leasing).choose(DEVICE, pool, new, 5)

    async def connect(self, new: FiveTuple, pool: NatPool = WIDE) -> Allocation | None:
        """Reserve an end point as the shell does; None when there is none."""
        choice = self.choose(new, pool)
        if isinstance(choice, LeaseBlock):
            self.leasing.want(choice)
            assert self.leasing.is_wanted(choice)
            await self.leasing.lease_wanted()
            assert not self.leasing.is_wanted(choice)
            choice = self.choose(new, pool)
        if not isinstance(choice, Chosen):
            return None
        allocation = Allocation(DEVICE, UDP, choice.endpoint, remote_of(new))
        self._next += 1
        assert self.allocations.reserve(allocation, self._next)
        return allocation


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000.0)


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    opened = MemoryStore()
    await opened.open()
    yield opened
    await opened.close()


async def test_first_connection_leases_a_block_and_the_next_ones_use_it(
    store: MemoryStore, clock: ManualClock
) -> None:
    host = HostOfBlocks(store, 1, clock, Random(1))
    ports = {(await host.connect(packet(one))).endpoint.port for one in range(BLOCK_PORTS)}  # type: ignore[union-attr]
    assert len(ports) == BLOCK_PORTS
    assert len({port // BLOCK_PORTS for port in ports}) == 1
    assert len(await store.list_all(Lease)) == 1
    assert await host.connect(packet(99)) is not None
    assert len(await store.list_all(Lease)) == 2


async def test_choice_says_when_to_lease_ahead(store: MemoryStore, clock: ManualClock) -> None:
    host = HostOfBlocks(store, 1, clock, Random(1))
    await host.connect(packet(0))
    choice = host.choose(packet(1))
    assert isinstance(choice, Chosen)
    assert (choice.spare, choice.further) == (BLOCK_PORTS - 1, LeaseBlock(PUBLIC, 1024, 65535))


async def test_two_hosts_share_an_address_until_it_is_used_up(
    store: MemoryStore, clock: ManualClock
) -> None:
    hosts = [HostOfBlocks(store, number, clock, Random(number)) for number in (1, 2)]
    blocks = set()
    for host in hosts:
        allocation = await host.connect(packet(1), NARROW)
        assert allocation is not None
        blocks.add(allocation.endpoint.port // BLOCK_PORTS)
    assert blocks == {16, 17}
    for number in range(2, BLOCK_PORTS + 1):
        assert await hosts[0].connect(packet(number), NARROW) is not None
    assert await hosts[0].connect(packet(500), NARROW) is None
    assert isinstance(hosts[0].choose(packet(500), NARROW), Exhausted)
    clock.advance(RETRY_S)
    assert isinstance(hosts[0].choose(packet(500), NARROW), LeaseBlock)


async def test_unused_block_goes_back_and_rests_before_another_host_has_it(
    store: MemoryStore, clock: ManualClock
) -> None:
    first, second = (HostOfBlocks(store, number, clock, Random(number)) for number in (1, 2))
    one_block = NatPool((EndpointRange(IpVersion.V4, PUBLIC.address, PUBLIC.address, 64, 127),))
    assert await first.connect(packet(1), one_block) is not None
    clock.advance(UNUSED_S)
    await first.leasing.give_back()
    assert first.leasing.held(PUBLIC) == (1,)
    first.allocations.release(1)
    await first.leasing.give_back()
    assert first.leasing.held(PUBLIC) == (1,)
    clock.advance(UNUSED_S)
    await first.leasing.give_back()
    assert first.leasing.held(PUBLIC) == ()
    assert await second.connect(packet(1), one_block) is None
    clock.advance(REST_S)
    assert await second.connect(packet(1), one_block) is not None


async def test_restarted_host_has_its_blocks(store: MemoryStore, clock: ManualClock) -> None:
    host = HostOfBlocks(store, 1, clock, Random(1))
    await host.connect(packet(1))
    held = host.leasing.held(PUBLIC)
    again = HostOfBlocks(store, 1, clock, Random(2))
    await again.leasing.confirm()
    assert again.leasing.held(PUBLIC) == held != ()


async def test_block_that_became_anothers_is_let_go(store: MemoryStore, clock: ManualClock) -> None:
    first, second = (HostOfBlocks(store, number, clock, Random(number)) for number in (1, 2))
    one_block = NatPool((EndpointRange(IpVersion.V4, PUBLIC.address, PUBLIC.address, 64, 127),))
    await first.connect(packet(1), one_block)
    (lease,) = await store.list_all(Lease)
    assert await Leases(store, REST_S, clock.now_s).release(lease.value)  # declared dead
    clock.advance(REST_S)
    assert first.leasing.held(PUBLIC) == ()  # it has not seen for too long that they are its own
    assert await second.connect(packet(1), one_block) is not None
    await first.leasing.confirm()
    assert first.leasing.held(PUBLIC) == ()


class AwayStore(MemoryStore):
    """A store that can be away."""

    is_away = False

    async def get_many(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        if self.is_away:
            raise UnavailableError("away")
        return await super().get_many(*args, **kwargs)


async def test_host_goes_on_with_what_it_holds_while_the_store_is_away(
    clock: ManualClock,
) -> None:
    store = AwayStore()
    await store.open()
    host = HostOfBlocks(store, 1, clock, Random(1))
    assert await host.connect(packet(0)) is not None
    store.is_away = True
    for number in range(1, BLOCK_PORTS):
        assert await host.connect(packet(number)) is not None
    assert await host.connect(packet(100)) is None
    assert await host.connect(packet(100, remote=10)) is not None
    clock.advance(VALIDITY_S / 2)
    await host.leasing.confirm()
    assert host.leasing.held(PUBLIC) != ()
    store.is_away = False
    clock.advance(RETRY_S)
    assert await host.connect(packet(100)) is not None
    await store.close()


@pytest.mark.parametrize("seed", range(12))
async def test_no_two_hosts_hand_out_one_end_point(
    tmp_path: Path, clock: ManualClock, seed: int
) -> None:
    """Two agents on one embedded database connect, end, give back, and crash between any steps."""
    random = Random(seed)
    stores = [SqliteStore(tmp_path / "nsdb.db") for _ in range(2)]
    for store in stores:
        await store.open()
    hosts = [HostOfBlocks(store, i, clock, random) for i, store in enumerate(stores, 1)]
    pool = NatPool((EndpointRange(IpVersion.V4, PUBLIC.address, PUBLIC.address, 1024, 1343),))
    handed_out = 0
    for number in range(250):
        index = random.randrange(2)
        host = hosts[index]
        match random.choices(range(5), (70, 15, 5, 5, 5))[0]:
            case 0:
                handed_out += (
                    await host.connect(packet(number, random.randrange(3)), pool) is not None
                )
            case 1 if len(host.allocations):
                host.allocations.release(random.randint(1, host._next))
            case 2:
                clock.advance(random.choice((RETRY_S, UNUSED_S, REST_S)))
                await host.leasing.confirm()
            case 3:
                await host.leasing.give_back()
            case _:
                # Crashed; whoever it talked to may answer still, so its ports stay in use.
                hosts[index] = HostOfBlocks(stores[index], index + 1, clock, random)
                hosts[index].allocations = hosts[index].leasing._use = host.allocations
                hosts[index]._next = host._next
        here, there = (set(each.allocations) for each in hosts)
        assert not here & there
        blocks = [set(each.leasing.held(PUBLIC)) for each in hosts]
        assert not blocks[0] & blocks[1]
    assert handed_out > 50
    for store in stores:
        await store.close()
