"""Reads the upcall ring through shared memory, without a system call for each record.

Layout: kernel/bpf/ringbuf.c. One page with the consumer position, which the reader writes, one
with the producer position, then the data, mapped twice in a row so that no record is split.

Order (`order_loads`; a fence where the CPU needs one): the producer position before the headers it
covers, a header before the bytes it announces, those before the consumer position that gives their
room back. The kernel wakes a reader only if it had caught up when a record came; who waits asks
whether the ring is readable when it begins to, so that what came before is not missed.
"""

from __future__ import annotations

import mmap
import struct

from midonet.agent.datapath.ebpf.syscalls import order_loads

_BUSY = 0x8000_0000
_DISCARDED = 0x4000_0000
_LENGTH = 0x3FFF_FFFF
_HEADER_SIZE = 8
_CHUNK = 64
"""Records whose room is given back at a time."""


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
        while len(records) < limit:
            position = self._consumer[0]
            position, places = self._committed(position, min(limit - len(records), _CHUNK))
            if position == self._consumer[0]:
                break
            order_loads()
            records += [bytes(self._data[start : start + size]) for start, size in places]
            order_loads()
            self._consumer[0] = position
        return records

    def _committed(self, position: int, limit: int) -> tuple[int, list[tuple[int, int]]]:
        """Return where the first record begins that is not finished, or not wanted any more, and
        the places (offset, size in bytes) of up to `limit` records before it."""
        end = self._producer[0]
        order_loads()
        places: list[tuple[int, int]] = []
        while position < end and len(places) < limit:
            offset = position & self._mask
            (header,) = struct.unpack_from("=I", self._data, offset)
            if header & _BUSY:
                break
            size = header & _LENGTH
            if not header & _DISCARDED:
                places.append((offset + _HEADER_SIZE, size))
            position += (size + _HEADER_SIZE + 7) & ~7
        return position, places
