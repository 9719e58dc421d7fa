"""Arrays of records that packets read while they are written: the writer's side.

`bpf/lib/records.h` is the reader's. A record begins with a sequence: odd while it is written or
unused, even and not 0 while it is valid. There is one writer, this process.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.syscalls import BpfMap, order_stores

_SEQUENCE_SIZE = 4
_SEQUENCES = 1 << 32


class RecordArray:
    """One array map of records, through shared memory. Its value size is a multiple of 8."""

    def __init__(self, table: BpfMap) -> None:
        self.capacity = table.entries
        self._table = table
        self._size = table.value_size
        self._memory = mmap.mmap(table.fd, table.entries * self._size, mmap.MAP_SHARED)
        self._sequences = memoryview(self._memory).cast("I")
        self._stride = self._size // _SEQUENCE_SIZE

    def close(self) -> None:
        """Unmap."""
        self._sequences.release()
        self._memory.close()

    def write(self, index: int, record: bytes) -> None:
        """Write a whole record. The sequence in it is ignored."""
        sequence = self._invalidate(index)
        start = index * self._size
        self._memory[start + _SEQUENCE_SIZE : start + self._size] = record[_SEQUENCE_SIZE:]
        order_stores()
        self._sequences[index * self._stride] = (sequence + 1) % _SEQUENCES or 2

    def clear(self, index: int) -> None:
        """Make a record invalid: packets that know its index do not find it any more."""
        self._invalidate(index)

    def _invalidate(self, index: int) -> int:
        """Make the sequence odd, and return it."""
        sequence = self._sequences[index * self._stride] | 1
        self._sequences[index * self._stride] = sequence
        order_stores()
        return sequence

    def read(self, index: int) -> bytes | None:
        """Return a valid record, else None."""
        start = index * self._size
        record = self._memory[start : start + self._size]
        return record if _is_valid(record) else None

    def items(self) -> Iterator[tuple[int, bytes]]:
        """Yield the valid records with their indices. Does not map what is not used."""
        for key, record in self._table.items():
            if _is_valid(record):
                yield int.from_bytes(key, abi.HOST_ORDER), record


def _is_valid(record: bytes) -> bool:
    sequence = int.from_bytes(record[:_SEQUENCE_SIZE], abi.HOST_ORDER)
    return sequence != 0 and sequence % 2 == 0
