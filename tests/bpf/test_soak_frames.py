"""Hostile frames through the attached programs: the kernel reads what Python reads, every frame
ends in one named place, and no reason that says that we failed is counted.

MIDONET_SOAK and MIDONET_SOAK_SEED: see `tests/fuzz/soaking.py`.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import islice
from random import Random
from uuid import UUID

import pytest

from midonet.agent.datapath.ebpf.offload import complete_checksum
from midonet.agent.datapath.ebpf.syscalls import (
    ProgramRun,
    program_by_id,
    run_program,
    tcx_programs,
)
from midonet.agent.datapath.protocol import Upcall
from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.classification import EXACT_MASK
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import (
    FlowProgram,
    Guards,
    InstalledProgram,
    LocalOutput,
    Rewrite,
)
from midonet.errors import DecodeError
from midonet.model.ids import PortId
from midonet.packets.flowkey import FlowKey
from midonet.packets.frame import ParsedFrame, parse_frame
from tests.contract.datapath_harness import eventually
from tests.contract.ebpf_harness import HASH_SEED, EbpfHarness, ebpf_harness
from tests.fuzz.hostile_frames import FrameSource
from tests.fuzz.soaking import FACTOR, SEED, named

FRAMES = 40_000
"""Frames of each soak; every frame of the first runs twice."""

SENT = 6000
BATCH = 256
READING, CHANGING, OUT = (PortId(UUID(int=number)) for number in (0xA1, 0xA2, 0xA3))
RATE = 1_000_000_000
LEAST, MOST = 15, 3000
"""Bytes that a test run takes."""

CONTEXT_SIZE, IFINDEX_AT = 192, 40
REDIRECTED = 7
TYPE_MASK = EMPTY_MASK._replace(eth_type=EXACT_MASK.eth_type)
COMMON = {"eth_src": 0x02_00_00_00_00_51, "l4_src": 1111, "l4_dst": 2222}
REWRITES = {
    0x0800: Rewrite(**COMMON, ip_src=0x0A000051, ip_dst=0x0A000052, ip_tos=8, ttl_decrement=1),
    0x86DD: Rewrite(**COMMON, ip_src=5 << 120, ip_dst=6 << 120, ip_tos=8, ttl_decrement=1),
    0x0806: Rewrite(eth_dst=0x02_00_00_00_00_52),
}
"""What the programs of the second port change, by type; other types have no program."""

pytestmark = pytest.mark.timeout(300 * FACTOR)


@pytest.fixture
async def harness() -> AsyncIterator[EbpfHarness]:
    async with ebpf_harness() as opened:
        for port_id in (READING, CHANGING, OUT):
            opened.add_port(port_id, upcalls_per_second=RATE, upcall_burst=RATE)
        for number, (eth_type, rewrite) in enumerate(REWRITES.items(), 1):
            key = FlowKey(0, 0, eth_type)
            output = LocalOutput(OUT, rewrite)
            program = FlowProgram(CHANGING, key, TYPE_MASK, (output,), guards=Guards(1, 9000))
            opened.datapath.install([InstalledProgram(number, 1, TYPE_MASK, key, program)])
        yield opened


class Hook:
    """The program that is attached to a port's interface, and that interface."""

    def __init__(self, harness: EbpfHarness, port_id: PortId) -> None:
        self._harness, self._port_id = harness, port_id
        ifindex = harness.ifindex(port_id)
        (program_id,) = tcx_programs(ifindex)
        self._program = program_by_id(program_id)
        context = bytearray(CONTEXT_SIZE)
        struct.pack_into("=I", context, IFINDEX_AT, ifindex)
        self._context = bytes(context)

    def close(self) -> None:
        os.close(self._program)

    def run(self, frame: bytes) -> ProgramRun:
        return run_program(self._program, frame, context=self._context)

    def drops(self) -> Counter[DropReason]:
        found = self._harness.datapath.drops()
        return Counter({r: count for (port, r), count in found.items() if port == self._port_id})


@pytest.fixture
def hooks(harness: EbpfHarness) -> Iterator[tuple[Hook, Hook]]:
    made = Hook(harness, READING), Hook(harness, CHANGING)
    yield made
    for hook in made:
        hook.close()


def frames() -> Iterator[bytes]:
    """Yield frames that a test run takes."""
    source = FrameSource(Random(SEED))
    while True:
        frame = source.draw()
        if LEAST <= len(frame) <= MOST:
            yield frame


def parsed_or_none(frame: bytes) -> ParsedFrame | None:
    try:
        return parse_frame(frame, hash_seed=HASH_SEED)
    except DecodeError:
        return None


def changed(parsed: ParsedFrame) -> bytes | None:
    """Return what leaves by the second port's programs, its tag aside; None when it comes up."""
    rewrite = REWRITES.get(parsed.key.eth_type)
    if rewrite is None or (parsed.ip_version is not None and parsed.ttl <= 1):
        return None
    left = apply_rewrite(parsed.frame, rewrite)
    return left[:12] + left[16:] if parsed.key.vlan_tci else left


class Expected:
    """What must come up, and how many frames were malformed."""

    def __init__(self) -> None:
        self.upcalls: list[tuple[PortId, ParsedFrame]] = []
        self.malformed: Counter[PortId] = Counter()
        self.left = 0

    def run(self, hooks: tuple[Hook, Hook], frame: bytes) -> bool:
        """Run a frame through both programs; False when the test run itself refuses it."""
        reading, changing = hooks
        try:
            reading.run(frame)
        except OSError:
            assert len(frame) < 54, "one whose type says IP and that has no IP header"
            return False
        parsed = parsed_or_none(frame)
        ran = changing.run(frame)
        if parsed is None:
            self.malformed.update((READING, CHANGING))
            return True
        self.upcalls.append((READING, parsed))
        expected = changed(parsed)
        if expected is None:
            self.upcalls.append((CHANGING, parsed))
        else:
            assert ran.verdict == REDIRECTED
            assert ran.frame == expected
            self.left += 1
        return True


def check_upcall(upcall: Upcall, port_id: PortId, parsed: ParsedFrame) -> None:
    assert upcall.ingress == port_id
    assert upcall.frame == complete_checksum(parsed.frame)
    assert upcall.length == parsed.length
    assert upcall.flow_hash == parsed.key.flow_hash
    again = parse_frame(upcall.frame, hash_seed=HASH_SEED)
    assert again.key == parsed.key


async def test_kernel_and_python_read_and_change_frames_alike(
    harness: EbpfHarness, hooks: tuple[Hook, Hook]
) -> None:
    before = [hook.drops() for hook in hooks]
    source, done, left = frames(), 0, 0
    malformed: Counter[PortId] = Counter()
    while done < FRAMES * FACTOR:
        expected = Expected()
        for frame in islice(source, BATCH):
            with named(SEED, "kernel", frame):
                done += expected.run(hooks, frame)
        taken: list[Upcall] = []
        async with asyncio.timeout(60):
            while len(taken) < len(expected.upcalls):
                taken += await harness.datapath.upcalls(1024)
        assert len(taken) == len(expected.upcalls)
        for upcall, (port_id, parsed) in zip(taken, expected.upcalls, strict=True):
            with named(SEED, "upcall", parsed.frame):
                check_upcall(upcall, port_id, parsed)
        malformed += expected.malformed
        left += expected.left
    after = [hook.drops() - seen for hook, seen in zip(hooks, before, strict=True)]
    for found, port_id in zip(after, (READING, CHANGING), strict=True):
        assert found == {DropReason.MALFORMED: malformed[port_id]}
    assert min(left, *malformed.values()) > done // 20, "frames of all kinds"


def offload_header(random: Random, *, cuts: bool) -> bytes:
    """Return a virtio_net_hdr, mostly nonsense. cuts: it may say that this is a super-packet."""
    return struct.pack(
        "=BBHHHH",
        random.choice((0, 1, 1)),
        random.choice((0, 1, 3, 4, 5, 0x81)) if cuts else 0,
        random.choice((54, 66, random.randrange(200))),
        random.choice((0, 1, 536, 1400, 65535)),
        random.choice((14, 34, 54, random.randrange(100))),
        random.choice((0, 2, 6, 16, random.randrange(40))),
    )


@pytest.mark.parametrize("cuts", [False, True], ids=["checksums", "segments"])
async def test_every_frame_with_an_offload_header_ends_in_one_named_place(
    harness: EbpfHarness, *, cuts: bool
) -> None:
    """Sent by a packet socket with whatever metadata its kernel lets through.

    Some super-packets that kernel cuts itself, so that more arrive than were sent.
    """
    random, source = Random(SEED), FrameSource(Random(SEED + 1))
    hook, came_up = Hook(harness, READING), Counter[PortId]()

    async def read() -> None:
        while True:
            came_up.update(upcall.ingress for upcall in await harness.datapath.upcalls(1024))

    def handled() -> int:
        return came_up[READING] + hook.drops().total()

    reader = asyncio.create_task(read())
    try:
        sent = done = 0
        while done < SENT * FACTOR:
            for _ in range(BATCH):
                done += 1
                with suppress(OSError):  # refused by the sender's own kernel
                    harness.tap(READING).send_raw(offload_header(random, cuts=cuts), source.draw())
                    sent += 1
            await eventually(lambda sent=sent: handled() >= sent)
    finally:
        reader.cancel()
        hook.close()
    found = hook.drops()
    handled_at_end = handled()
    assert handled_at_end == sent or (cuts and handled_at_end > sent)
    assert set(found) == {DropReason.MALFORMED, DropReason.OFFLOAD_MISMATCH}
    assert min(came_up[READING], *found.values()) > sent // 100
