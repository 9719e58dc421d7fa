"""Allocations against a naive list, and the choice of sources against what must be unique."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from midonet.agent.flow_state.allocations import Allocation, AllocationTable, OwnedBlock
from midonet.agent.flow_state.connection import Endpoint
from midonet.agent.flow_state.pool import (
    BLOCK_PORTS,
    Block,
    EndpointRange,
    NatPool,
    permutation,
)
from midonet.agent.flow_state.source_choice import (
    Chosen,
    Exhausted,
    FixedBlocks,
    LeaseBlock,
    NatAddress,
    SourceChooser,
    remote_of,
)
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple

OWNERS = UUID(int=1), UUID(int=2)
V4, V6 = IpVersion.V4, IpVersion.V6
UDP, TCP, ICMP = 17, 6, 1
endpoints = st.builds(Endpoint, st.just(V4), st.integers(1, 2), st.sampled_from((5, 64, 65)))
allocations = st.builds(
    Allocation, st.sampled_from(OWNERS), st.sampled_from((UDP, TCP)), endpoints, endpoints
)
holders = st.integers(0, 4)
CAPACITY = 20
SEED = 0x1234_5678_9ABC_DEF0


class AllocationMachine(RuleBasedStateMachine):
    """The table, and a list of (allocation, holder, when it is free) that is looked through."""

    def __init__(self) -> None:
        super().__init__()
        self.table = AllocationTable(capacity=CAPACITY)
        self.held: list[tuple[Allocation, int]] = []
        self.leaving: dict[int, float] = {}
        self.now_s = 0.0

    @rule(allocation=allocations, holder=holders)
    def reserve(self, allocation: Allocation, holder: int) -> None:
        owners = [one for what, one in self.held if what == allocation]
        expected = owners == [holder] or (not owners and len(self.held) < CAPACITY)
        assert self.table.reserve(allocation, holder) is expected
        if expected and not owners:
            self.held.append((allocation, holder))

    @rule(holder=holders)
    def release(self, holder: int) -> None:
        self.table.release(holder)
        self.leaving.pop(holder, None)
        self.held = [one for one in self.held if one[1] != holder]

    @rule(holder=holders, delay=st.integers(0, 3))
    def release_later(self, holder: int, delay: int) -> None:
        self.table.release_at(holder, self.now_s + delay)
        if any(one == holder for _, one in self.held):
            self.leaving[holder] = self.now_s + delay

    @rule(step=st.integers(0, 2))
    def expire(self, step: int) -> None:
        self.now_s += step
        self.table.expire(self.now_s)
        gone = {holder for holder, until_s in self.leaving.items() if until_s <= self.now_s}
        self.held = [one for one in self.held if one[1] not in gone]
        self.leaving = {one: until for one, until in self.leaving.items() if one not in gone}

    @invariant()
    def agrees(self) -> None:
        assert len(self.table) == len(self.held)
        assert set(self.table) == {allocation for allocation, _ in self.held}
        assert self.table.is_full is (len(self.held) >= CAPACITY)
        for allocation, holder in self.held:
            assert self.table.holder(allocation) == holder
            endpoint = allocation.endpoint
            alike = [
                what.endpoint.port
                for what, _ in self.held
                if what._replace(endpoint=endpoint) == allocation
                and what.endpoint.address == endpoint.address
            ]
            used = self.table.used_ports(
                allocation.owner, allocation.protocol, endpoint[:2], allocation.remote
            )
            assert sorted(used) == sorted(alike)
            number = endpoint.port // BLOCK_PORTS
            owned = OwnedBlock(allocation.owner, Block(V4, endpoint.address, number))
            assert self.table.in_block(owned) == sum(
                what.owner == allocation.owner
                and what.endpoint.address == endpoint.address
                and what.endpoint.port // BLOCK_PORTS == number
                for what, _ in self.held
            )


TestAllocations = AllocationMachine.TestCase


@given(st.integers(0, 3000), st.integers(0, 2**32 - 1))
def test_permutation_has_each_number_once(total: int, key: int) -> None:
    assert sorted(permutation(total, key)) == list(range(total))


def packet(source: int, port: int, *, remote: int = 99, protocol: int = UDP) -> FiveTuple:
    other = port if protocol == ICMP else 53
    return FiveTuple(V4, protocol, source, port, remote, other)


@given(
    st.integers(1, 4),
    st.integers(1, 300),
    st.integers(0, 90),
    st.sampled_from((UDP, TCP)),
)
def test_each_end_point_is_given_once_before_the_pool_is_exhausted(
    addresses: int, first_port: int, more: int, protocol: int
) -> None:
    pool = NatPool((EndpointRange(V4, 1000, 999 + addresses, first_port, first_port + more),))
    table = AllocationTable()
    chooser = SourceChooser(table, FixedBlocks())
    given_out = set()
    size = addresses * (more + 1)
    for number in range(size):
        new = packet(number // 7, 4000 + number, protocol=protocol)
        choice = chooser.choose(OWNERS[0], pool, new, SEED)
        assert isinstance(choice, Chosen)
        assert pool.contains(choice.endpoint.address, choice.endpoint.port, protocol)
        allocation = Allocation(OWNERS[0], protocol, choice.endpoint, remote_of(new))
        assert table.reserve(allocation, number)
        given_out.add(choice.endpoint)
    assert len(given_out) == size
    again = packet(5, 9, protocol=protocol)
    assert chooser.choose(OWNERS[0], pool, again, SEED) == Exhausted(size)
    assert isinstance(chooser.choose(OWNERS[0], pool, again._replace(destination=98), SEED), Chosen)
    assert isinstance(chooser.choose(OWNERS[1], pool, again, SEED), Chosen)
    table.release(0)
    assert isinstance(chooser.choose(OWNERS[0], pool, again, SEED), Chosen)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3)), max_size=150))
def test_no_two_connections_share_what_tells_answers_apart(
    wanted: list[tuple[int, int, int]],
) -> None:
    """Compared with all translated tuples so far: the naive reference of uniqueness."""
    pool = NatPool((EndpointRange(V4, 7, 8, 100, 140), EndpointRange(V4, 9, 9, 20, 22)))
    table = AllocationTable()
    chooser = SourceChooser(table, FixedBlocks())
    seen: list[tuple[Endpoint, int]] = []
    for number, (source, port, remote) in enumerate(dict.fromkeys(wanted)):
        new = packet(source, port, remote=remote)
        choice = chooser.choose(OWNERS[0], pool, new, SEED)
        assert isinstance(choice, Chosen)
        assert (choice.endpoint, remote) not in seen
        seen.append((choice.endpoint, remote))
        allocation = Allocation(OWNERS[0], UDP, choice.endpoint, remote_of(new))
        assert table.reserve(allocation, number)


@given(st.integers(1, 0xFFFF), st.integers(0, 2**64 - 1))
def test_udp_ports_keep_their_parity_while_they_can(port: int, seed: int) -> None:
    pool = NatPool((EndpointRange(V4, 7, 7, 1024, 65535),))
    choice = SourceChooser(AllocationTable(), FixedBlocks()).choose(
        OWNERS[0], pool, packet(1, port), seed
    )
    assert isinstance(choice, Chosen)
    assert (choice.endpoint.port - port) % 2 == 0


@given(st.integers(0, 0xFFFF), st.integers(0, 2**64 - 1))
def test_one_host_keeps_one_address_and_one_end_point_towards_all(port: int, seed: int) -> None:
    pool = NatPool((EndpointRange(V4, 7, 90, 1024, 65535),))
    chooser = SourceChooser(AllocationTable(), FixedBlocks())
    towards = [
        chooser.choose(OWNERS[0], pool, packet(1, port, remote=one), seed) for one in range(5)
    ]
    assert len(set(towards)) == 1
    other = chooser.choose(OWNERS[0], pool, packet(1, port ^ 1), seed)
    assert isinstance(other, Chosen)
    assert isinstance(towards[0], Chosen)
    assert other.endpoint.address == towards[0].endpoint.address


def test_identifiers_of_echoes_are_not_bound_to_ports() -> None:
    pool = NatPool((EndpointRange(V4, 7, 7, 5000, 5000),))
    table = AllocationTable()
    chooser = SourceChooser(table, FixedBlocks())
    for number in range(200):
        new = packet(1, number, protocol=ICMP)
        choice = chooser.choose(OWNERS[0], pool, new, SEED)
        assert isinstance(choice, Chosen)
        assert table.reserve(Allocation(OWNERS[0], ICMP, choice.endpoint, remote_of(new)), number)


def test_only_held_blocks_are_used_and_a_further_one_is_asked_for() -> None:
    address = NatAddress(OWNERS[0], V6, 7)

    class OneBlock(FixedBlocks):
        def may_lease(self, wanted: LeaseBlock) -> bool:
            return wanted.address == address

    pool = NatPool((EndpointRange(V6, 7, 7, 1024, 65535),))
    table = AllocationTable()
    chooser = SourceChooser(table, OneBlock({address: (20,)}))
    for number in range(BLOCK_PORTS):
        new = FiveTuple(V6, TCP, 1, number, 99, 80)
        choice = chooser.choose(OWNERS[0], pool, new, SEED)
        assert isinstance(choice, Chosen)
        assert choice.endpoint.port // BLOCK_PORTS == 20
        assert table.reserve(Allocation(OWNERS[0], TCP, choice.endpoint, remote_of(new)), number)
    wanted = chooser.choose(OWNERS[0], pool, FiveTuple(V6, TCP, 1, 999, 99, 80), SEED)
    assert wanted == LeaseBlock(address, 1024, 65535)


def test_targets_are_used_up_in_their_order() -> None:
    pool = NatPool((EndpointRange(V4, 50, 50, 10, 11), EndpointRange(V4, 40, 40, 10, 11)))
    table = AllocationTable()
    chooser = SourceChooser(table, FixedBlocks())
    addresses = []
    for number in range(4):
        new = packet(1, number)
        choice = chooser.choose(OWNERS[0], pool, new, SEED)
        assert isinstance(choice, Chosen)
        addresses.append(choice.endpoint.address)
        table.reserve(Allocation(OWNERS[0], UDP, choice.endpoint, remote_of(new)), number)
    assert addresses == [50, 50, 40, 40]


@pytest.mark.parametrize("total", [10, 1000])
def test_destinations_are_spread_over_all_targets(total: int) -> None:
    pool = NatPool((EndpointRange(V4, 1, 3, 80, 81), EndpointRange(V4, 9, 9, 0, 0)))
    packet_to = Endpoint(V4, 100, 7)
    seen = [pool.destination(packet_to, number * 2654435761 % 2**32) for number in range(total)]
    counts = {one: seen.count(one) for one in set(seen)}
    assert all(one.port == 7 if one.address == 9 else one.port in (80, 81) for one in counts)
    if total == 1000:
        assert len(counts) == 7
        assert min(counts.values()) > 1000 / 7 / 2
