"""The reader of a ring, over a file that is laid out as the kernel lays out a ring."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from midonet.agent.datapath.ebpf.ring import RingReader

SIZE = mmap.PAGESIZE
BUSY, DISCARDED = 0x8000_0000, 0x4000_0000


class Ring:
    """What the kernel does: reserves, commits and discards records."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * mmap.PAGESIZE + 2 * SIZE)
        self.position = 0

    def _write(self, position: int, data: bytes) -> None:
        for index, value in enumerate(data):
            at = (position + index) % SIZE
            for copy in (at, at + SIZE):
                os.pwrite(self.fd, bytes((value,)), 2 * mmap.PAGESIZE + copy)

    def reserve(self, data: bytes, flags: int = BUSY) -> int:
        """Return where the record begins."""
        start = self.position
        self._write(start, struct.pack("=II", len(data) | flags, 0) + data)
        self.position += (len(data) + 8 + 7) & ~7
        os.pwrite(self.fd, self.position.to_bytes(8, "little"), mmap.PAGESIZE)
        return start

    def commit(self, start: int, size: int, flags: int = 0) -> None:
        self._write(start, struct.pack("=I", size | flags))

    def put(self, data: bytes) -> None:
        self.commit(self.reserve(data), len(data))

    def consumed(self) -> int:
        return int.from_bytes(os.pread(self.fd, 8, 0), "little")


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring()
    yield made
    os.close(made.fd)


@pytest.fixture
def reader(ring: Ring) -> Iterator[RingReader]:
    made = RingReader(ring.fd, SIZE)
    yield made
    made.close()


def test_records_come_in_order_and_give_their_room_back(ring: Ring, reader: RingReader) -> None:
    assert reader.read(10) == []
    sent = [bytes((number,)) * number for number in range(1, 100)]
    ring.put(sent[0])
    assert reader.read(10) == sent[:1]
    for data in sent[1:]:
        ring.put(data)
        if data[0] % 7 == 0:
            assert reader.read(1000)[-1] == data
            assert ring.consumed() == ring.position


def test_a_limit_leaves_the_rest_for_the_next_time(ring: Ring, reader: RingReader) -> None:
    sent = [bytes((number,)) for number in range(150)]
    for data in sent:
        ring.put(data)
    assert reader.read(3) == sent[:3]
    assert reader.read(100) == sent[3:103]
    assert reader.read(1000) == sent[103:]
    assert reader.read(1000) == []


def test_nothing_behind_an_unfinished_record_is_read(ring: Ring, reader: RingReader) -> None:
    ring.put(b"first")
    start = ring.reserve(b"second")
    ring.put(b"third")
    assert reader.read(10) == [b"first"]
    assert reader.read(10) == []
    ring.commit(start, len(b"second"))
    assert reader.read(10) == [b"second", b"third"]


def test_discarded_records_are_passed(ring: Ring, reader: RingReader) -> None:
    for number in range(200):
        data = bytes((number,))
        ring.commit(ring.reserve(data), 1, DISCARDED if number % 2 else 0)
        if number == 99:
            assert len(reader.read(1000)) == 50
    assert len(reader.read(1000)) == 50
    assert ring.consumed() == ring.position


def test_the_next_reader_goes_on_where_the_last_one_stopped(ring: Ring) -> None:
    for data in (b"one", b"two", b"three"):
        ring.put(data)
    for expected in ([b"one", b"two"], [b"three"]):
        reader = RingReader(ring.fd, SIZE)
        assert reader.read(2) == expected
        reader.close()
