"""The contract of `Datapath`: every packet that goes nowhere is counted."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from random import Random
from uuid import UUID

from scapy.layers.inet import UDP
from scapy.layers.l2 import ARP

from midonet.agent.datapath.protocol import Upcall
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LocalOutput
from midonet.model.ids import PortId
from tests.contract.datapath_harness import DEADLINE_S, DatapathHarness, OpenHarness, eventually
from tests.contract.datapath_steps import (
    ETH,
    IN,
    OUT,
    TAGGED,
    TCP_V6,
    UDP_V4,
    V4,
    expect_delivered,
    expect_drops,
    program_for,
    take_upcalls,
)


async def test_a_drop_program_counts_its_reason(harness: DatapathHarness) -> None:
    entry = program_for(harness, UDP_V4, (), drop_reason=DropReason.FILTERED)
    harness.datapath.install([entry])
    harness.send(IN, UDP_V4)
    harness.send(IN, UDP_V4)
    await expect_drops(harness, IN, DropReason.FILTERED, 2)
    statistics = harness.datapath.statistics()[1]
    assert (statistics.packets, statistics.bytes) == (2, 2 * len(UDP_V4))
    assert statistics.last_used_ns > 0


async def test_a_malformed_frame_is_dropped(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.send(IN, UDP_V4[:30])
    await expect_drops(harness, IN, DropReason.MALFORMED)
    assert harness.delivered(OUT) == []


async def test_the_agent_can_count_drops_of_its_own(harness: DatapathHarness) -> None:
    harness.datapath.count_drop(IN, DropReason.AWAIT_TIMEOUT)
    harness.datapath.count_drop(IN, DropReason.AWAIT_TIMEOUT)
    harness.datapath.count_drop(None, DropReason.INTERNAL)
    drops = harness.datapath.drops()
    assert drops[IN, DropReason.AWAIT_TIMEOUT] == 2
    assert drops[None, DropReason.INTERNAL] == 1


async def test_upcalls_over_the_budget_of_a_port_are_dropped(open_harness: OpenHarness) -> None:
    async with open_harness(max_programs=16) as harness:
        harness.add_port(IN, upcalls_per_second=1, upcall_burst=3)
        harness.add_port(OUT)
        begun_s = time.monotonic()
        for _ in range(20):
            harness.send(IN, UDP_V4)
        harness.send(OUT, UDP_V4)
        gained = 1 + int(time.monotonic() - begun_s)  # at one a second, as long as that took
        taken = await take_upcalls(harness.datapath, 4)

        def dropped() -> int:
            return harness.datapath.drops().get((IN, DropReason.UPCALL_RATE), 0)

        async with asyncio.timeout(DEADLINE_S):
            while len(taken) + dropped() < 21:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        taken += await harness.datapath.upcalls()
        assert [u.ingress for u in taken].count(OUT) == 1
        assert 3 <= len(taken) - 1 <= 3 + gained
        assert dropped() == 21 - len(taken)


async def test_copies_over_the_budget_of_a_port_are_dropped(open_harness: OpenHarness) -> None:
    """One port's floods cost others nothing, and a port's single outputs cost no budget."""
    async with open_harness(max_programs=16) as harness:
        ports = (IN, OUT, PortId(UUID(int=0xF1)))
        for port_id in ports:
            attachment = harness.add_port(port_id)
            harness.datapath.detach(port_id)
            harness.datapath.attach(replace(attachment, copies_per_second=1, copy_burst=6))
        flood = tuple(LocalOutput(port_id) for port_id in ports[1:])
        harness.datapath.install([program_for(harness, UDP_V4, flood)])
        for _ in range(3):
            harness.send(IN, UDP_V4)
        await eventually(lambda: len(harness.delivered(OUT)) == 3)
        before_s = time.monotonic()
        for _ in range(10):
            harness.send(IN, UDP_V4)
        await eventually(
            lambda: (
                harness.datapath.drops().get((IN, DropReason.COPY_RATE), 0)
                + len(harness.delivered(OUT))
                == 13
            )
        )
        gained = (2 + int(time.monotonic() - before_s)) // 2
        assert harness.datapath.drops()[IN, DropReason.COPY_RATE] >= 10 - gained
        assert len(harness.delivered(ports[2])) == len(harness.delivered(OUT))
        harness.datapath.install([program_for(harness, UDP_V4, (LocalOutput(OUT),))])
        arrived = len(harness.delivered(OUT))
        for _ in range(10):
            harness.send(IN, UDP_V4)
        await eventually(lambda: len(harness.delivered(OUT)) == arrived + 10)


async def test_no_frame_breaks_the_datapath(open_harness: OpenHarness) -> None:
    """Every frame comes up, is forwarded or is counted as dropped, whatever its bytes."""
    random = Random(1)
    async with open_harness(max_programs=16) as harness:
        harness.add_port(IN, upcalls_per_second=100_000, upcall_burst=10_000)
        harness.add_port(OUT)
        seeds = [UDP_V4, TCP_V6, bytes(TAGGED), bytes(ETH / ARP(psrc="10.0.0.1"))]
        frames = []
        for _ in range(300):
            fuzzed = bytearray(random.choice(seeds))
            for _ in range(random.randrange(4)):
                fuzzed[random.randrange(6, len(fuzzed))] = random.randrange(256)
            # Linux itself drops a tagged frame of less than 20 bytes before any hook.
            frames.append(bytes(fuzzed[: random.randrange(20, len(fuzzed) + 1)]))
        last = bytes(ETH / V4 / UDP(sport=7, dport=7))
        for frame in (*frames, last):
            harness.send(IN, frame)
        taken: list[Upcall] = []
        while not taken or taken[-1].frame != last:
            taken += await take_upcalls(harness.datapath, 1)
        malformed = harness.datapath.drops().get((IN, DropReason.MALFORMED), 0)
        assert len(taken) + malformed == len(frames) + 1
        harness.datapath.install([program_for(harness, UDP_V4)])
        harness.send(IN, UDP_V4)
        await expect_delivered(harness, OUT, UDP_V4)
