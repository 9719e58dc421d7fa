"""What is particular to the memory datapath; the rest is in the contract suite."""

from __future__ import annotations

import asyncio
import errno
from uuid import UUID

import pytest

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import FlowProgram, InstalledProgram, LocalOutput, Rewrite
from midonet.errors import DatapathError
from midonet.model.ids import PortId
from midonet.packets.flowkey import FlowKey
from midonet.runtime.clock import ManualClock
from midonet.runtime.token_bucket import TokenBucket

PORT = PortId(UUID(int=1))
OTHER = PortId(UUID(int=2))
FRAME = bytes.fromhex("02000000000b02000000000a9000") + b"payload"
SECOND = 1_000_000_000


def entry(port_id: PortId = PORT, rewrite: Rewrite = Rewrite()) -> InstalledProgram:  # noqa: B008
    program = FlowProgram(port_id, FlowKey(0, 0), EMPTY_MASK, (LocalOutput(port_id, rewrite),))
    return InstalledProgram(1, 1, EMPTY_MASK, program.key, program)


async def opened(clock: ManualClock | None = None, queue_length: int = 16) -> MemoryDatapath:
    datapath = MemoryDatapath(
        InProcessUnderlay(), clock=clock, max_programs=8, upcall_queue_length=queue_length
    )
    await datapath.open()
    return datapath


def test_a_bucket_starts_full_and_refills_at_its_rate() -> None:
    bucket = TokenBucket(rate_per_s=2, burst=3, now_ns=0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(SECOND // 2 - 1)
    assert bucket.take(SECOND // 2)
    assert [bucket.take(100 * SECOND) for _ in range(4)] == [True, True, True, False]


def test_a_bucket_loses_no_fraction_and_ignores_a_clock_that_goes_back() -> None:
    bucket = TokenBucket(rate_per_s=3, burst=2, now_ns=0)
    assert bucket.take(0)
    assert bucket.take(0)
    taken = sum(bucket.take(now) for now in range(0, SECOND + 1, SECOND // 1000))
    assert taken == 3
    assert not bucket.take(0)


def test_a_bucket_without_rate_or_burst_gives_nothing() -> None:
    assert not TokenBucket(0, 0, 0).take(10 * SECOND)


async def test_the_upcall_budget_follows_the_clock() -> None:
    clock = ManualClock()
    datapath = await opened(clock)
    datapath.attach(PortAttachment(PORT, "tap0", upcalls_per_second=1, upcall_burst=2))
    for _ in range(3):
        datapath.receive(PORT, FRAME)
    assert datapath.drops() == {(PORT, DropReason.UPCALL_RATE): 1}
    clock.advance(1.0)
    datapath.receive(PORT, FRAME)
    upcalls = await datapath.upcalls()
    assert len(upcalls) == 3
    assert upcalls[-1].received_ns == clock.boot_ns()


async def test_a_full_upcall_queue_drops() -> None:
    datapath = await opened(queue_length=2)
    datapath.attach(PortAttachment(PORT, "tap0"))
    for _ in range(3):
        datapath.receive(PORT, FRAME)
    assert datapath.drops() == {(PORT, DropReason.UPCALL_RING_FULL): 1}
    assert len(await datapath.upcalls()) == 2


async def test_a_frame_at_a_port_that_is_not_attached_is_dropped() -> None:
    datapath = await opened()
    datapath.receive(PORT, FRAME)
    assert datapath.drops() == {(PORT, DropReason.UNKNOWN_INGRESS_PORT): 1}


async def test_installing_for_a_port_that_is_not_attached_is_refused() -> None:
    datapath = await opened()
    with pytest.raises(DatapathError) as caught:
        datapath.install([entry()])
    assert caught.value.errno == errno.ENODEV


async def test_a_rewrite_that_cannot_be_done_is_a_named_drop() -> None:
    datapath = await opened()
    datapath.emit(bytes(5), [LocalOutput(PORT, Rewrite(eth_dst=1))])
    assert datapath.drops() == {(None, DropReason.REWRITE_FAILED): 1}


async def test_closing_ends_a_waiting_read_and_refuses_the_next() -> None:
    datapath = await opened()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(datapath.upcalls())
        await asyncio.sleep(0)
        await datapath.close()
    assert waiting.result() == []
    with pytest.raises(DatapathError):
        await datapath.upcalls()


async def test_attaching_with_another_budget_keeps_the_programs() -> None:
    datapath = await opened()
    datapath.attach(PortAttachment(PORT, "tap0"))
    datapath.install([entry()])
    datapath.attach(PortAttachment(PORT, "tap0", upcalls_per_second=1))
    datapath.receive(PORT, FRAME)
    assert datapath.statistics()[1].packets == 1


async def test_a_program_that_moves_to_another_class_leaves_the_old_one() -> None:
    datapath = await opened()
    for number, port_id in enumerate((PORT, OTHER)):
        datapath.attach(PortAttachment(port_id, f"tap{number}"))
    datapath.install([entry(PORT)])
    datapath.install([entry(OTHER)])
    datapath.receive(PORT, FRAME)
    datapath.receive(OTHER, FRAME)
    assert [upcall.ingress for upcall in await datapath.upcalls()] == [PORT]
    assert datapath.statistics()[1].packets == 1
