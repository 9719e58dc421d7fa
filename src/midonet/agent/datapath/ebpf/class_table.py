"""The class table: programs, masks and counters, kept in step with the kernel's maps.

Order of writing: outputs, then the program's record, then the class that names it, then the mask
that makes it visible. Removal goes the other way round. A program that is replaced gets a record
of its own, and its class is pointed there in one step; only then the old record becomes invalid.
So a packet sees the old program or the new one, also when this process ends in between.
"""

from __future__ import annotations

import errno
import gc
import mmap
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.outputs import Ends, OutputTable
from midonet.agent.datapath.ebpf.records import RecordArray
from midonet.agent.datapath.ebpf.slots import PortSlot, PortSlots, slot_key
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.agent.datapath.protocol import MASKS_PER_PORT, ProgramStatistics
from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.fact_filter import FILTER_BYTES, filter_of
from midonet.agent.flows.mask import FlowMask
from midonet.agent.flows.program import (
    FlowProgram,
    InstalledProgram,
    LocalOutput,
    Output,
    TunnelOutput,
)
from midonet.errors import DatapathError
from midonet.packets.flowkey import FlowKey
from midonet.packets.protocols import EtherType

_NANOSECONDS = 1_000_000_000
_DROP_REASONS = frozenset((0, *map(int, DropReason)))
_COUNTERS = 4  # words of midonet_statistics
_KEY_SIZE = abi.CLASS_KEY.size
_OTHER_OFFSET = abi.PORT_MASKS.offsets["other"][0]
_IPV6_OFFSET = abi.PORT_MASKS.offsets["ipv6"][0]


@dataclass(frozen=True, slots=True)
class _Held:
    """A program in the kernel: its key, the index of its record, and its outputs elsewhere."""

    key: bytes
    index: int
    entry: InstalledProgram
    first_output: int
    output_count: int


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the collector from walking, again and again, over a table that only grows: it took more
    than half of the time of reading one back."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Counters:
    """The statistics map through shared memory. width: slots a program has, one a CPU."""

    def __init__(self, table: BpfMap, width: int) -> None:
        self._width = width
        self._capacity = table.entries // width
        self._memory = mmap.mmap(table.fd, table.entries * abi.STATISTICS.size, mmap.MAP_SHARED)
        self._words = memoryview(self._memory).cast("Q")

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._memory.close()

    @property
    def capacity(self) -> int:
        """Program identifiers that have counters are below this; counters that a CPU has."""
        return self._capacity

    def read(self, program_ids: Collection[int]) -> dict[int, ProgramStatistics]:
        """Return the counters of those programs that were used.

        What a CPU counts is taken as a whole from the lowest to the highest identifier:
        identifiers are dense, and many small slices cost more than one large one.
        """
        first = min(program_ids, default=0)
        size = (max(program_ids, default=first - 1) + 1 - first) * _COUNTERS
        starts = [(cpu * self._capacity + first) * _COUNTERS for cpu in range(self._width)]
        rows = [self._words[start : start + size].tolist() for start in starts]
        found = {}
        for program_id in program_ids:
            at = (program_id - first) * _COUNTERS
            packets = sum(row[at] for row in rows)
            if packets:
                found[program_id] = ProgramStatistics(
                    packets,
                    sum(row[at + 1] for row in rows),
                    max(row[at + 2] for row in rows),
                )
        return found

    def clear(self, program_id: int) -> None:
        """Set the counters of a program to zero."""
        size = abi.STATISTICS.size
        for cpu in range(self._width):
            start = (cpu * self._capacity + program_id) * size
            self._memory[start : start + size] = bytes(size)


class ProgramTable:
    """Programs by identifier and by place. max_programs: capacity."""

    def __init__(
        self,
        maps: Mapping[str, BpfMap],
        slots: PortSlots,
        outputs: OutputTable,
        counters: Counters,
        *,
        max_programs: int,
        boot_ns: Callable[[], int],
    ) -> None:
        self._classes = maps["classes"]
        self._records = RecordArray(maps["programs"])
        self._notes = maps["program_notes"]
        self._masks = maps["port_masks"]
        self._slots = slots
        self._outputs = outputs
        self._counters = counters
        self._max_programs = max_programs
        self._boot_ns = boot_ns
        self._held: dict[int, _Held] = {}
        self._by_key: dict[bytes, int] = {}
        self._free: deque[int] = deque(range(1, self._records.capacity))
        self._mask_lists: dict[int, dict[int, FlowMask]] = {}
        self._generations: dict[int, int] = {}

    def close(self) -> None:
        """Unmap."""
        self._records.close()

    # Reading back.

    def load(self) -> None:
        """Read everything back from the kernel; remove what does not make sense any more."""
        for key, value in self._masks.items():
            valid = abi.PORT_MASKS.integer(value, "valid")
            if valid:
                slot = int.from_bytes(key, abi.HOST_ORDER)
                self._generations[slot] = abi.PORT_MASKS.integer(value, "generation")
                self._mask_lists[slot] = {
                    mask_id: _unpack_mask(value, mask_id)
                    for mask_id in range(MASKS_PER_PORT)
                    if valid >> mask_id & 1
                }
        used: set[int] = set()
        with _collector_paused():
            for key, value in self._classes.items():
                index = int.from_bytes(value, abi.HOST_ORDER)
                held = None if index in used else self._read(key, index)
                if held is None or held.entry.program_id in self._held:
                    self._classes.delete(key)
                else:
                    used.add(index)
                    slot, _ = codec.key_place(key)
                    self._outputs.hold(held.first_output, held.output_count, slot)
                    self._held[held.entry.program_id] = held
                    self._by_key[key] = held.entry.program_id
        self._free = deque(i for i in range(1, self._records.capacity) if i not in used)

    def _read(self, key: bytes, index: int) -> _Held | None:
        record = self._records.read(index) if 0 < index < self._records.capacity else None
        note = self._notes.get(slot_key(index))
        if record is None or note is None or abi.PROGRAM.part(record, "key") != key:
            return None
        program_id, _, guards, drop_reason, count, first, inline = abi.ACTION.struct.unpack(
            abi.PROGRAM.part(record, "action")
        )
        installed_ns, expires_ns, sample, facts = abi.PROGRAM_NOTE.struct.unpack(note)
        slot_number, mask_id = codec.key_place(key)
        slot = self._slots.at(slot_number)
        mask = self._mask_lists.get(slot_number, {}).get(mask_id)
        is_known = 0 < program_id < self._counters.capacity and drop_reason in _DROP_REASONS
        if slot is None or mask is None or not is_known:
            return None
        sample_key = codec.unpack_key(sample)
        is_ipv6 = sample_key.eth_type == EtherType.IPV6
        packed = [inline] if count == 1 else map(self._outputs.get, range(first, first + count))
        outputs: list[Output] = []
        for data in packed:
            output = None if data is None else self._outputs.unpack(data, is_ipv6=is_ipv6)
            if output is None:
                return None
            outputs.append(output)
        program = FlowProgram(
            slot.port_id,
            sample_key,
            mask,
            tuple(outputs),
            DropReason(drop_reason) if drop_reason else None,
            codec.unpack_guards(guards),
            lifetime_s=max(0.0, (expires_ns - installed_ns) / _NANOSECONDS),
        )
        entry = InstalledProgram(
            program_id,
            mask_id,
            mask,
            masked(sample_key, mask),
            program,
            int.from_bytes(facts, abi.HOST_ORDER),
        )
        return _Held(key, index, entry, first, count if count > 1 else 0)

    def installed(self) -> list[InstalledProgram]:
        """Return the programs held."""
        return [held.entry for held in self._held.values()]

    def statistics(
        self, program_ids: Collection[int] | None = None
    ) -> dict[int, ProgramStatistics]:
        """Return the counters of programs that were used; of these only, if given."""
        if program_ids is None:
            return self._counters.read(self._held.keys())
        return self._counters.read([i for i in program_ids if i in self._held])

    def named_slots(self) -> set[int]:
        """Return the port slots that programs name: of ingress, and those they deliver to."""
        named = {codec.key_place(held.key)[0] for held in self._held.values()}
        for held in self._held.values():
            for output in held.entry.program.outputs:
                if isinstance(output, LocalOutput):
                    slot = self._slots.find(output.port_id)
                    if slot is not None:
                        named.add(slot.slot)
        return named

    def tunnel_ends(self) -> set[Ends]:
        """Return the pairs of underlay addresses that programs send between."""
        return {
            (output.local, output.remote)
            for held in self._held.values()
            for output in held.entry.program.outputs
            if isinstance(output, TunnelOutput)
        }

    # Writing.

    def install(self, entry: InstalledProgram) -> None:
        """Install or replace one program. Raises DatapathError."""
        slot = self._slots.find(entry.program.ingress)
        if slot is None or not slot.is_attached:
            raise DatapathError(f"port {entry.program.ingress} is not attached", errno=errno.ENODEV)
        known = self._held.get(entry.program_id)
        self._check(entry, is_new=known is None)
        is_ipv6 = entry.program.key.eth_type == EtherType.IPV6
        fields = _without_hash(entry.key) if entry.mask_id == 0 else entry.key
        key = codec.pack_key(slot.slot, entry.mask_id, fields, is_ipv6=is_ipv6)
        held = self._write_record(key, entry)
        if known is None:
            self._counters.clear(entry.program_id)
        try:
            self._classes.update(key, slot_key(held.index))
        except OSError as error:
            self._discard(held)
            full = error.errno in (errno.E2BIG, errno.ENOMEM)
            raise DatapathError(
                "the class table is full" if full else f"cannot install a program: {error}",
                errno=errno.ENOSPC if full else error.errno or 0,
            ) from error
        self._displace(key, entry.program_id)
        self._held[entry.program_id] = held
        self._by_key[key] = entry.program_id
        if known is not None:
            self._withdraw(known, key)
        self._show_mask(slot, entry.mask_id, entry.mask)

    def _check(self, entry: InstalledProgram, *, is_new: bool) -> None:
        if is_new and len(self._held) >= self._max_programs:
            raise DatapathError("the class table is full", errno=errno.ENOSPC)
        if not 0 < entry.program_id < self._counters.capacity:
            raise DatapathError(
                f"program id {entry.program_id} is out of range", errno=errno.EINVAL
            )
        if len(entry.program.outputs) > abi.OUTPUTS_MAX:
            raise DatapathError(
                f"a program has at most {abi.OUTPUTS_MAX} outputs", errno=errno.E2BIG
            )

    def _write_record(self, key: bytes, entry: InstalledProgram) -> _Held:
        """Write a program's record, which nothing leads to yet."""
        program = entry.program
        slot, mask_id = codec.key_place(key)
        is_ipv6 = program.key.eth_type == EtherType.IPV6
        packed = [self._outputs.pack(output, is_ipv6=is_ipv6) for output in program.outputs]
        first = self._outputs.store(packed, slot) if len(packed) > 1 else 0
        index = self._free.popleft()
        now = self._boot_ns()
        self._notes.update(
            slot_key(index),
            abi.PROGRAM_NOTE.struct.pack(
                now,
                now + int(program.lifetime_s * _NANOSECONDS),
                codec.pack_key(slot, mask_id, program.key),
                filter_of(program).to_bytes(FILTER_BYTES, abi.HOST_ORDER),
            ),
        )
        action = abi.ACTION.struct.pack(
            entry.program_id,
            0,
            codec.pack_guards(program.guards),
            program.drop_reason or 0,
            len(packed),
            first,
            packed[0] if len(packed) == 1 else b"",
        )
        mask = _without_hash(entry.mask) if mask_id == 0 else entry.mask
        form = codec.pack_masks(mask)[is_ipv6]
        self._records.write(index, abi.PROGRAM.struct.pack(0, 0, key, form, action, 0))
        return _Held(key, index, entry, first, len(packed) if first else 0)

    def _displace(self, key: bytes, program_id: int) -> None:
        """Forget another program whose place was taken by this one."""
        other = self._by_key.get(key)
        if other is not None and other != program_id:
            self._discard(self._held.pop(other))

    def _withdraw(self, held: _Held, new_key: bytes | None) -> None:
        """Remove what is left of an earlier version of a program."""
        if held.key != new_key and self._by_key.get(held.key) == held.entry.program_id:
            del self._by_key[held.key]
            self._classes.delete(held.key)
        self._discard(held)

    def _discard(self, held: _Held) -> None:
        """Make a record that nothing leads to any more invalid, and free it."""
        self._records.clear(held.index)
        self._free.append(held.index)
        self._outputs.release(held.first_output, held.output_count)

    def remove(self, program_id: int) -> None:
        """Remove a program; one that is gone is fine."""
        held = self._held.pop(program_id, None)
        if held is not None:
            self._withdraw(held, None)

    def remove_port(self, slot: PortSlot) -> None:
        """Remove all programs and masks of an ingress port."""
        for held in [h for h in self._held.values() if codec.key_place(h.key)[0] == slot.slot]:
            self.remove(held.entry.program_id)
        if self._mask_lists.pop(slot.slot, None) is not None:
            self._write_masks(slot.slot)

    # Masks.

    def _show_mask(self, slot: PortSlot, mask_id: int, mask: FlowMask) -> None:
        masks = self._mask_lists.setdefault(slot.slot, {})
        if masks.get(mask_id) != mask:
            # First out of sight, then seen: a list is not written in one step, and no packet
            # may be masked by half of a mask.
            masks[mask_id] = mask
            self._write_masks(slot.slot, hidden=1 << mask_id)
            self._write_masks(slot.slot)

    def drop_mask(self, slot: PortSlot, mask_id: int) -> None:
        """Forget a mask. The exact mask stays."""
        masks = self._mask_lists.get(slot.slot, {})
        if mask_id and masks.pop(mask_id, None) is not None:
            self._write_masks(slot.slot)

    def _write_masks(self, slot: int, hidden: int = 0) -> None:
        masks = self._mask_lists.get(slot, {})
        value = bytearray(abi.PORT_MASKS.size)
        valid = uses_hash = 0
        for mask_id, mask in masks.items():
            fields = _without_hash(mask) if mask_id == 0 else mask
            valid |= 1 << mask_id
            uses_hash |= (fields.flow_hash != 0) << mask_id
            other, ipv6 = codec.pack_masks(fields)
            for offset, form in ((_OTHER_OFFSET, other), (_IPV6_OFFSET, ipv6)):
                start = offset + mask_id * _KEY_SIZE
                value[start : start + _KEY_SIZE] = form
        generation = self._generations.get(slot, 0) + 1
        self._generations[slot] = generation
        head = abi.PORT_MASKS.pack(
            valid=valid & ~hidden, uses_hash=uses_hash, generation=generation
        )
        value[:_OTHER_OFFSET] = head[:_OTHER_OFFSET]
        self._masks.update(slot_key(slot), bytes(value))


def _without_hash(fields: FlowKey) -> FlowKey:
    """Return the exact key or mask as the kernel has it: all other fields decide the hash, so
    that ports without a choice by hash need not compute it."""
    return fields._replace(flow_hash=0)


def _unpack_mask(value: bytes, mask_id: int) -> FlowMask:
    start = _IPV6_OFFSET + mask_id * _KEY_SIZE
    return codec.unpack_mask(value[start : start + _KEY_SIZE]) if mask_id else EXACT_MASK
