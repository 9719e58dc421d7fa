"""Reads the upcall ring through shared memory, without a system call for each record.

Layout: kernel/bpf/ringbuf.c. One page with the consumer position, which the reader writes, one
with the producer position, then the data, mapped twice in a row so that no record is split. The
consumer position is stored after each record: the kernel wakes the reader only when it had
caught up.
"""

from __future__ import annotations

import mmap
import struct

_BUSY = 0x8000_0000
_DISCARDED = 0x4000_0000
_LENGTH = 0x3FFF_FFFF
_HEADER_SIZE = 8


class RingReader:
    """The one consumer of a ring buffer map. size_bytes: capacity of the map.

    Continues where the last consumer of the same map stopped, in whatever process.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        page = mmap.PAGESIZE
        self.fd = fd
        self._mask = size_bytes - 1
        self._consumer_map = mmap.mmap(fd, page, mmap.MAP_SHARED, offset=0)
        self._data_map = mmap.mmap(
            fd, page + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._whole = memoryview(self._data_map)
        self._producer = self._whole[:8].cast("Q")
        self._data = self._whole[page:]

    def close(self) -> None:
        """Unmap the ring; unread records stay in it."""
        for view in (self._data, self._producer, self._whole, self._consumer):
            view.release()
        self._data_map.close()
        self._consumer_map.close()

    def read(self, limit: int) -> list[bytes]:
        """Return up to `limit` records, oldest first; never waits."""
        records: list[bytes] = []
        position = self._consumer[0]
        end = self._producer[0]
        while position < end and len(records) < limit:
            offset = position & self._mask
            (header,) = struct.unpack_from("=I", self._data, offset)
            if header & _BUSY:
                break
            size = header & _LENGTH
            start = offset + _HEADER_SIZE
            if not header & _DISCARDED:
                records.append(bytes(self._data[start : start + size]))
            position += (size + _HEADER_SIZE + 7) & ~7
            self._consumer[0] = position
            if position >= end:
                end = self._producer[0]
        return records
