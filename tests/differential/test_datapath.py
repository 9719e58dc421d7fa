"""A datapath does with each packet what simulation and the flow table say, byte by byte.

A triple is a network, a history of it and a packet. The network's programs are installed from one
stream of packets; then these and others like them are sent, all at once. Programs do not change
while packets are on their way, so that a datapath in the kernel may take its time. What hits a
program is simulated as well: simulation, memory and kernel agree.

MIDONET_SOAK multiplies the triples (48: a million), MIDONET_SOAK_SEED takes others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from midonet.agent.datapath.protocol import Upcall, UpcallReason
from midonet.agent.flows.drop_reason import DropReason
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from tests.contract.datapath_harness import (
    DEADLINE_S,
    HARNESSES,
    DatapathHarness,
    OpenHarness,
    eventually,
)
from tests.differential.judging import Case, Meeting, check_hit, install_all
from tests.differential.networks import LOCAL_PORTS
from tests.differential.wiring import at_harness, configure_overlay, opened
from tests.fuzz.soaking import FACTOR
from tests.fuzz.soaking import SEED as BEGIN
from tests.worlds import World

PACKETS = 30
"""Packets that install the programs of a network; as many related ones are sent as well."""

NETWORKS = 175
"""Networks of a block; a block is a test."""

BLOCKS = 2 * FACTOR
SEED = 40_000 + 10_000_000 * (BEGIN - 1)
_READ_EVERY = 8


@pytest.fixture(params=HARNESSES)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[DatapathHarness]:
    """Open a datapath with the local ports of every generated network."""
    opener: OpenHarness = request.param
    world = World("h1")
    async with opener(max_programs=4096) as opened_harness:
        for name in LOCAL_PORTS:
            opened_harness.add_port(
                world.port_id(name), upcalls_per_second=100_000, upcall_burst=50_000
            )
        configure_overlay(opened_harness)
        yield opened_harness


class Round:
    """One network in one datapath."""

    def __init__(self, harness: DatapathHarness, seed: int, seen: Counter[str]) -> None:
        self.harness = harness
        self.seen = seen
        self.of_connections = 0
        version = IpVersion.V6 if seed % 3 == 0 else IpVersion.V4
        self.case = Case(
            seed,
            packets=PACKETS,
            history=seed % 4 * 15,
            hash_seed=harness.hash_seed,
            view_edit=lambda view: at_harness(view, harness, version),
        )
        self._ports = [self.case.world.port_id(name) for name in LOCAL_PORTS]
        self._delivered_before = {
            port_id: len(harness.delivered(port_id)) for port_id in self._ports
        }
        self._outer_before = len(harness.sent_outer())
        self._drops_before = Counter(harness.datapath.drops())

    async def run(self) -> int:
        """Install, send, compare. Returns the number of packets compared."""
        datapath = self.harness.datapath
        case = self.case
        datapath.install(plan.entry for plan in install_all(case, case.first))
        sent = (*case.first, *case.related(PACKETS))
        for one in sent:
            self.seen[check_hit(case, one)] += 1
        meetings = [case.meet(one) for one in sent]
        self.of_connections = sum(
            1
            for one in meetings
            if one.held and one.passes and one.held.program.connection is not None
        )
        for index, meeting in enumerate(meetings):
            self.harness.send(meeting.sent.port_id, meeting.sent.packet.frame)
            if index % _READ_EVERY == 0:
                # What a reader of kernel interfaces does not take in time is lost to it.
                self._outer()
        try:
            await self._compare(meetings)
        finally:
            self._clear()
        return len(meetings)

    async def _compare(self, meetings: list[Meeting]) -> None:
        delivered = Counter(item for meeting in meetings for item in meeting.delivered)
        tunnelled = Counter(item for meeting in meetings for item in meeting.tunnelled)
        upcalls = Counter(
            _upcall_key(meeting) for meeting in meetings if not (meeting.held and meeting.passes)
        )
        drops = Counter(
            (meeting.sent.port_id, meeting.drop_reason)
            for meeting in meetings
            if meeting.drop_reason is not None
        )
        came = await self._take_upcalls(upcalls.total())
        await eventually(lambda: len(self._delivered()) >= delivered.total())
        await eventually(lambda: len(self._outer()) >= tunnelled.total())
        await eventually(lambda: self._drops().total() >= drops.total())
        seed = self.case.seed
        assert Counter(map(_came_key, came)) == upcalls, f"upcalls, seed {seed}"
        assert Counter(self._delivered()) == delivered, f"deliveries, seed {seed}"
        assert Counter(map(opened, self._outer())) == tunnelled, f"overlay, seed {seed}"
        assert self._drops() == drops, f"drops, seed {seed}"
        used = Counter(
            meeting.held.program_id for meeting in meetings if meeting.held and meeting.passes
        )
        statistics = self.harness.datapath.statistics()
        counted = {i: one.packets for i, one in statistics.items() if one.packets}
        assert counted == dict(used), f"statistics, seed {seed}"

    async def _take_upcalls(self, count: int) -> list[Upcall]:
        taken: list[Upcall] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(taken) < count:
                taken += await self.harness.datapath.upcalls(count - len(taken))
        return taken

    def _delivered(self) -> list[tuple[PortId, bytes]]:
        return [
            (port_id, frame)
            for port_id in self._ports
            for frame in self.harness.delivered(port_id)[self._delivered_before[port_id] :]
        ]

    def _outer(self) -> list[bytes]:
        return self.harness.sent_outer()[self._outer_before :]

    def _drops(self) -> Counter[tuple[PortId | None, DropReason]]:
        return Counter(self.harness.datapath.drops()) - self._drops_before

    def _clear(self) -> None:
        datapath = self.harness.datapath
        for port_id in self._ports:
            masks = [mask_id for mask_id, _ in self.case.table.masks(port_id)]
            datapath.remove(self.case.table.forget_port(port_id))
            for mask_id in masks:
                datapath.drop_mask(port_id, mask_id)


def test_there_are_as_many_triples_as_the_documentation_says() -> None:
    assert BLOCKS * NETWORKS * PACKETS * 2 == 21_000 * FACTOR


def _upcall_key(meeting: Meeting) -> tuple[object, ...]:
    packet = meeting.sent.packet
    program_id = meeting.held.program_id if meeting.held else 0
    reason = UpcallReason.GUARD if meeting.held else UpcallReason.MISS
    return (
        meeting.sent.port_id, reason, program_id, packet.frame, packet.length,
        packet.key.flow_hash,
    )  # fmt: skip


def _came_key(upcall: Upcall) -> tuple[object, ...]:
    return (
        upcall.ingress, upcall.reason, upcall.program_id, upcall.frame, upcall.length,
        upcall.flow_hash,
    )  # fmt: skip


@pytest.mark.parametrize("block", range(BLOCKS))
async def test_datapath_does_what_simulation_says(harness: DatapathHarness, block: int) -> None:
    compared = 0
    of_connections = 0
    seen: Counter[str] = Counter()
    first = SEED + block * NETWORKS
    for seed in range(first, first + NETWORKS):
        each = Round(harness, seed, seen)
        compared += await each.run()
        of_connections += each.of_connections
    assert compared == seen.total() == NETWORKS * PACKETS * 2
    # The comparison must not become empty without notice.
    assert min(seen["hit"] / 4, seen["miss"] / 4, seen["guard"]) > NETWORKS, seen
    assert of_connections > NETWORKS / 4
