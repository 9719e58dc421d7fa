"""What is left of the connections of an agent that was killed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midonet.agent.flow_state.connection import (
    Binding,
    Connection,
    ConnectionKey,
    Direction,
    Endpoint,
    Side,
)
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flow_state.effects import Sample
from midonet.agent.flow_state.zone import Zone
from midonet.agent.host import connection_journal
from midonet.agent.host.connection_journal import ConnectionJournal
from midonet.agent.host.state_directory import StateDirectory
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FlowKey
from midonet.packets.tcp import TcpFlag

HERE, THERE = PortId(UUID(int=1)), PortId(UUID(int=2))
SAMPLE = Sample(
    frozenset({"chain"}), FlowKey(2, 4, 0x0800, 0x1007, 17, 3, 0, 1 << 100, 7, 5, 6), 77
)


def connection(number: int, *, protocol: int = 17) -> Connection:
    begun = FiveTuple(IpVersion.V6, protocol, 1 << 120 | number, 1, 99, 2)
    binding = Binding(
        THERE, Side.SOURCE, Endpoint(IpVersion.V6, 1, 2), Endpoint(IpVersion.V6, 3, number % 65536)
    )
    return Connection(
        ConnectionKey(Zone(HERE, 7), begun),
        (ConnectionKey(Zone(THERE), begun.inverse()),),
        HERE,
        (binding,),
    )


@pytest.fixture
def files(tmp_path: Path) -> Iterator[StateDirectory]:
    directory = StateDirectory(tmp_path)
    yield directory
    directory.close()


def begun(files: StateDirectory) -> tuple[ConnectionTable, ConnectionJournal]:
    table = ConnectionTable()
    journal = ConnectionJournal(files, table)
    journal.open(0.0)
    return table, journal


def known(files: StateDirectory) -> set[Connection]:
    """Return what the next agent knows, with equal serial numbers."""
    table, journal = begun(files)
    journal.close()
    return {replace(one, serial=0) for one in table}


def test_what_was_known_is_known_again(files: StateDirectory) -> None:
    table, journal = begun(files)
    one = table.confirm(connection(1, protocol=6), 0.0, sample=SAMPLE)
    assert isinstance(one, Connection)
    table.confirm(connection(2), 0.0, sample=SAMPLE)
    table.advance(one.forward, Direction.FORWARD, TcpFlag.SYN, 0.0)
    seen = table.advance(one.returns[0], Direction.RETURN, TcpFlag.SYN | TcpFlag.ACK, 0.0)
    journal.flush()
    assert seen is not None
    again, _ = begun(files)
    assert {replace(each, serial=0) for each in again} == {
        replace(seen, serial=0),
        connection(2),
    }
    found = again.find(one.forward, 0.0)
    assert found is not None
    sample = again.sample(found)
    assert sample is not None
    assert (sample.key, sample.icmp_id) == (SAMPLE.key, SAMPLE.icmp_id)


def test_what_was_over_stays_over(files: StateDirectory) -> None:
    table, journal = begun(files)
    ends = [table.confirm(connection(number), 0.0, sample=SAMPLE) for number in range(4)]
    assert isinstance(ends[0], Connection)
    table.kill(ends[0])
    table.advance(connection(1).forward, Direction.FORWARD, 0, 100.0)
    table.expire(130.0, 10)
    journal.flush()
    assert known(files) == {connection(1)}


def test_what_others_told_is_kept_and_judged_by_them(files: StateDirectory) -> None:
    table, journal = begun(files)
    table.told(connection(1), 100.0, 0.0)
    journal.flush()
    again, _ = begun(files)
    [one] = again
    assert again.sample(one) is None


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 2000), flip=st.none() | st.integers(0, 2000))
def test_a_journal_that_ends_in_the_middle_holds_what_is_whole(cut: int, flip: int | None) -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = StateDirectory(Path(place) / "state")
        table, journal = begun(directory)
        for number in range(5):
            table.confirm(connection(number), 0.0, sample=SAMPLE)
        journal.flush()
        path = directory.path / "connections"
        data = bytearray(path.read_bytes())
        del data[cut:]
        if flip is not None and flip < len(data):
            data[flip] ^= 0x55
        path.write_bytes(bytes(data))
        left = known(directory)
        directory.close()
    whole = [connection(number) for number in range(5)]
    assert left in [set(whole[:count]) for count in range(6)]


def test_of_another_boot_nothing_is_known(
    files: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, journal = begun(files)
    table.confirm(connection(1), 0.0, sample=SAMPLE)
    journal.flush()
    monkeypatch.setattr(connection_journal, "_boot_id", lambda: "another")
    assert known(files) == set()


def test_the_file_stays_small_whatever_comes_and_goes(
    files: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_journal, "_SLACK_BYTES", 10_000)
    monkeypatch.setattr(connection_journal, "_SLICE", 3)
    table, journal = begun(files)
    for number in range(10):
        table.confirm(connection(number), 0.0, sample=SAMPLE)
    for number in range(1000, 1600):
        one = table.confirm(connection(number), 0.0, sample=SAMPLE)
        assert isinstance(one, Connection)
        if number % 2:
            table.kill(one)
        else:
            assert table.killed_by_peer(one.forward)
        if number % 7 == 0:
            table.advance(connection(number % 10).forward, Direction.RETURN, 0, 0.0)
        journal.flush()
        assert (files.path / "connections").stat().st_size < 30_000
    wanted = {replace(one, serial=0) for one in table}
    assert known(files) == wanted
    assert len(wanted) == 10


class FullDisk:
    """A directory whose disk fills up, and is made room on."""

    def __init__(self, files: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._files = files
        write = os.write

        def refuse(file: int, data: bytes) -> int:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, data)

        monkeypatch.setattr(connection_journal.os, "write", refuse)


def test_a_full_disk_costs_nothing_but_the_journal(
    files: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(files, monkeypatch)
    table, journal = begun(files)
    table.confirm(connection(1), 0.0, sample=SAMPLE)
    journal.flush()
    disk.is_full = True
    table.confirm(connection(2), 0.0, sample=SAMPLE)
    journal.flush()
    table.confirm(connection(3), 0.0, sample=SAMPLE)
    journal.flush()
    journal.retry()
    journal.flush()
    disk.is_full = False
    journal.retry()
    for _ in range(3):
        journal.flush()
    assert known(files) == {connection(1), connection(2), connection(3)}
