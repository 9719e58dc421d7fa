"""A packet follows the program of its own class or none, whatever is written at the same time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.abi import PortFlag
from midonet.agent.datapath.ebpf.class_table import Counters, ProgramTable
from midonet.agent.datapath.ebpf.loader import LoadedObject, load_object
from midonet.agent.datapath.ebpf.outputs import OutputTable
from midonet.agent.datapath.ebpf.rtnetlink import Route
from midonet.agent.datapath.ebpf.slots import PortSlots, slot_key
from midonet.agent.datapath.ebpf.syscalls import BpfMap, run_program
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import (
    FlowProgram,
    InstalledProgram,
    LocalOutput,
    Output,
    TunnelOutput,
)
from midonet.errors import DatapathError
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.packets.frame import parse_frame

PORT = PortId(UUID(int=1))
ELSEWHERE = PortId(UUID(int=2))
LOOPBACK = 1
WIDTH = 2
MASK = EMPTY_MASK._replace(ip_dst=EXACT_MASK.ip_dst, eth_type=EXACT_MASK.eth_type)
STRESS_S = 2.0


def frame(last: int) -> bytes:
    return bytes(Ether() / IP(src="10.0.0.1", dst=f"10.0.0.{last}") / UDP(sport=1, dport=2))


class Table:
    """The datapath's program with the agent's table above its maps, and port 1 at loopback."""

    def __init__(self, loaded: LoadedObject) -> None:
        self.loaded = loaded
        maps = loaded.maps
        self.now_ns = 1
        maps["config"].update(
            bytes(4),
            abi.CONFIG.pack(
                abi_version=abi.ABI_VERSION,
                statistics_width=WIDTH,
                statistics_stride=maps["statistics"].entries // WIDTH,
                output_slots=maps["outputs"].entries,
            ),
        )
        self.slots = PortSlots(
            maps["ports"], maps["interfaces"], referenced=set, on_reuse=lambda _: None
        )
        attachment = PortAttachment(PORT, "lo", upcalls_per_second=1, upcall_burst=0)
        self.slot = self.slots.attach(attachment, LOOPBACK, PortFlag(0)).slot
        self.outputs = OutputTable(
            maps["outputs"], maps["tunnels"], self.slots, lambda _: Route(0, None), self.boot_ns
        )
        self.counters = Counters(maps["statistics"], WIDTH)
        self.programs = ProgramTable(
            maps, self.slots, self.outputs, self.counters, max_programs=64, boot_ns=self.boot_ns
        )

    def close(self) -> None:
        self.programs.close()
        self.outputs.close()
        self.counters.close()

    def boot_ns(self) -> int:
        return self.now_ns

    def entry(
        self, last: int, *outputs: Output, program_id: int, reason: DropReason | None = None
    ) -> InstalledProgram:
        key = parse_frame(frame(last)).key
        program = FlowProgram(PORT, key, MASK, outputs, reason)
        return InstalledProgram(program_id, 1, MASK, masked(key, MASK), program)

    def run(self, sent: bytes, *, repeat: int = 1) -> None:
        run_program(self.loaded.programs["midonet_port"], sent, repeat=repeat)

    def drops(self) -> dict[DropReason, int]:
        """Return the port's drops since the last call."""
        found = {}
        for reason in DropReason:
            key = slot_key(self.slot * abi.DROP_REASONS + reason)
            value = self.loaded.maps["drops"].get(key)
            if value and any(value):
                found[reason] = int.from_bytes(value, abi.HOST_ORDER)
                self.loaded.maps["drops"].update(key, bytes(8))
        return found


@pytest.fixture(params=[False, True], ids=["ordered", "reordering"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    loaded = load_object(entries={"upcalls": 1 << 16}, reorders_loads=request.param)
    made = Table(loaded)
    yield made
    made.close()
    loaded.close()


def index_of(table: Table, entry: InstalledProgram) -> bytes:
    """Return the index of an installed program's record, as the class map has it."""
    maps = table.loaded.maps
    for _, index in maps["classes"].items():
        record = maps["programs"].get(index)
        assert record is not None
        action = abi.PROGRAM.part(record, "action")
        if abi.ACTION.integer(action, "program_id") == entry.program_id:
            return index
    raise AssertionError("not installed")


def test_a_class_that_names_another_program_is_a_miss(table: Table) -> None:
    ours = table.entry(1, program_id=1, reason=DropReason.FILTERED)
    foreign = table.entry(2, program_id=2, reason=DropReason.REJECTED)
    table.programs.install(ours)
    table.programs.install(foreign)
    table.run(frame(1))
    assert table.drops() == {DropReason.FILTERED: 1}
    maps = table.loaded.maps
    wrong = index_of(table, foreign)
    [key] = [key for key, index in maps["classes"].items() if index != wrong]
    table.programs.remove(1)
    maps["classes"].update(key, wrong)
    table.run(frame(1))
    assert table.drops() == {DropReason.UPCALL_RATE: 1}
    table.run(frame(2))
    assert table.drops() == {DropReason.REJECTED: 1}


def test_a_hint_is_not_believed(table: Table) -> None:
    """A packet leaves a hint; then its program goes, and another takes the record's place."""
    table.programs.install(table.entry(1, program_id=1, reason=DropReason.FILTERED))
    table.run(frame(1), repeat=100)
    assert table.drops() == {DropReason.FILTERED: 100}
    table.programs.remove(1)
    for number in range(2, 66):
        table.programs.install(table.entry(number, program_id=number, reason=DropReason.REJECTED))
        table.run(frame(1))
        assert table.drops() == {DropReason.UPCALL_RATE: 1}
        table.programs.remove(number)


def test_a_record_that_is_being_written_is_a_miss(table: Table) -> None:
    entry = table.entry(1, program_id=1, reason=DropReason.FILTERED)
    table.programs.install(entry)
    programs, index = table.loaded.maps["programs"], index_of(table, entry)
    table.run(frame(1))
    record = programs.get(index)
    assert record is not None
    sequence = abi.PROGRAM.integer(record, "sequence")
    programs.update(index, (sequence + 1).to_bytes(4, abi.HOST_ORDER) + record[4:])
    table.run(frame(1))
    assert table.drops() == {DropReason.FILTERED: 1, DropReason.UPCALL_RATE: 1}


def test_an_output_whose_place_was_given_away_is_not_used(table: Table) -> None:
    there = [LocalOutput(ELSEWHERE), LocalOutput(PORT)]
    table.programs.install(table.entry(1, *there, program_id=1))
    maps = table.loaded.maps
    table.run(frame(1))
    assert table.drops() == {DropReason.PORT_NOT_ATTACHED: 1}
    # What another list at the same places would look like to a packet on its way.
    for key, record in list(maps["outputs"].items()):
        sequence, identifier, output = abi.OUTPUT_RECORD.struct.unpack(record)
        if sequence:
            taken = identifier + maps["outputs"].entries
            maps["outputs"].update(key, abi.OUTPUT_RECORD.struct.pack(sequence, taken, output))
    table.run(frame(1))
    assert table.drops() == {DropReason.OUTPUT_GONE: 2}


def test_identifiers_of_outputs_come_back_late(table: Table) -> None:
    capacity = table.loaded.maps["outputs"].entries
    entries = [bytes([kind]) * abi.OUTPUT.size for kind in range(256)]
    seen: set[int] = set()
    for number in range(3 * capacity // 256):
        block = [*entries[1:], number.to_bytes(4, "big") * 18]
        first = table.outputs.store(block, 0)
        fresh = set(range(first, first + len(block)))
        assert not fresh & seen
        seen |= fresh
        table.outputs.release(first, len(block))
        table.now_ns += 2_000_000_000


def test_alike_lists_are_kept_once_until_the_last_is_gone(table: Table) -> None:
    outputs = [LocalOutput(ELSEWHERE), LocalOutput(PORT)]
    for number in (1, 2):
        table.programs.install(table.entry(number, *outputs, program_id=number))
    written = [r for _, r in table.loaded.maps["outputs"].items() if any(r)]
    assert len(written) == 2
    table.programs.remove(1)
    table.now_ns += 2_000_000_000
    table.programs.install(table.entry(3, program_id=3, reason=DropReason.FILTERED))
    table.run(frame(2))
    assert DropReason.OUTPUT_GONE not in table.drops()


def lists(count: int) -> Iterator[list[bytes]]:
    """Yield lists of `count` outputs, none alike."""
    for number in itertools.count(1):
        yield [bytes([kind % 256]) * 4 + number.to_bytes(4, "big") * 17 for kind in range(count)]


def test_one_port_never_has_all_outputs(table: Table) -> None:
    made = lists(256)
    kept: list[int] = []

    def fill(owner: int) -> int:
        for count in itertools.count():
            try:
                kept.append(table.outputs.store(next(made), owner))
            except DatapathError:
                return count
        raise AssertionError

    share = fill(1)
    assert share > 0
    assert fill(1) == 0
    assert fill(2) == share
    table.outputs.release(kept[0], 256)
    assert fill(1) == 1


def test_a_refused_program_leaves_nothing(table: Table) -> None:
    for number, block in enumerate(lists(256)):
        try:
            table.outputs.store(block, table.slot)
        except DatapathError:
            break
        assert number < 10_000
    ways = [LocalOutput(PortId(UUID(int=0x100 + number))) for number in range(1000)]
    with pytest.raises(DatapathError):
        table.programs.install(table.entry(1, *ways[:300], program_id=1))
    assert table.programs.installed() == []
    table.programs.install(table.entry(1, LocalOutput(PORT), program_id=1))
    table.run(frame(1))
    assert table.drops() == {}


def test_tunnels_that_nothing_uses_make_room(table: Table) -> None:
    """More hosts than there are tunnels come and go."""
    table.outputs.tunnels.set_in_use(table.programs.tunnel_ends)
    local = parse_ip("192.0.2.1")
    kept = table.entry(
        1, TunnelOutput(TunnelKind.GRE, local, parse_ip("198.51.100.1"), 7), program_id=1
    )
    table.programs.install(kept)
    seen: set[int] = set()
    for number in range(2 * abi.TUNNELS_MAX):
        identifier = table.outputs.tunnels.identifier((local, IpAddress(IpVersion.V4, number)))
        assert identifier not in seen, "a packet on its way would go to another host"
        seen.add(identifier)
    assert table.outputs.tunnels.identifier((local, parse_ip("198.51.100.1"))) not in seen
    table.run(frame(1))
    assert table.drops() == {DropReason.NO_TUNNEL: 1}, "no route to it, but it is still known"


class Reader(threading.Thread):
    """Sends one packet over and over, on whatever CPU is free."""

    def __init__(self, table: Table, sent: bytes) -> None:
        super().__init__()
        self._table = table
        self._sent = sent
        self.is_stopped = threading.Event()

    def run(self) -> None:
        while not self.is_stopped.is_set():
            self._table.run(self._sent, repeat=10_000)


@pytest.mark.parametrize("way", ["removed", "replaced"])
def test_no_packet_follows_another_class_while_programs_change(table: Table, way: str) -> None:
    ours = table.entry(1, program_id=1, reason=DropReason.FILTERED)
    foreign = table.entry(2, program_id=2, reason=DropReason.REJECTED)
    reader = Reader(table, frame(1))
    table.programs.install(ours)
    reader.start()
    try:
        end = time.monotonic() + STRESS_S
        while time.monotonic() < end:
            if way == "removed":
                # Each takes what the other has just left.
                table.programs.remove(1)
                table.programs.install(foreign)
                table.programs.remove(2)
                table.programs.install(ours)
            else:
                table.programs.install(foreign)
                table.programs.install(ours)
                table.programs.remove(2)
    finally:
        reader.is_stopped.set()
        reader.join()
    drops = table.drops()
    if way == "replaced":
        assert set(drops) == {DropReason.FILTERED}, "neither another class nor a moment without"
    else:
        assert set(drops) <= {DropReason.FILTERED, DropReason.UPCALL_RATE}


@pytest.mark.parametrize(
    "change",
    [
        {"flags": 1 << 1},
        {"guards": abi.GUARDS.pack(flags=2)},
        {"output": abi.OUTPUT.pack(kind=9)},
        {"output": abi.OUTPUT.pack(kind=1, flags=2)},
        {"output": abi.OUTPUT.pack(kind=1, rewrite=abi.REWRITE.pack(fields=1 << 10))},
    ],
    ids=["flag", "guard", "kind", "output-flag", "rewrite"],
)
def test_what_is_not_understood_is_dropped(table: Table, change: dict[str, int | bytes]) -> None:
    """A verb, a bit or a kind of a later version; leaving it out would forward the packet."""
    entry = table.entry(1, LocalOutput(PORT), program_id=1)
    table.programs.install(entry)
    table.run(frame(1))
    assert table.drops() == {}
    _change_action(table.loaded.maps["programs"], index_of(table, entry), change)
    table.run(frame(1))
    assert table.drops() == {DropReason.NOT_UNDERSTOOD: 1}


def _change_action(programs: BpfMap, index: bytes, change: dict[str, int | bytes]) -> None:
    record = programs.get(index)
    assert record is not None
    action = abi.PROGRAM.part(record, "action")
    values = dict(zip(abi.ACTION.fields, abi.ACTION.unpack(action), strict=True)) | change
    fields = dict(zip(abi.PROGRAM.fields, abi.PROGRAM.unpack(record), strict=True))
    fields["action"] = abi.ACTION.pack(**values)
    programs.update(index, abi.PROGRAM.pack(**fields))
