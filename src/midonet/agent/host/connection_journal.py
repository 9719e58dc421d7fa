"""The connections a host knows, kept on its disk so that a restart of the agent loses none.

A journal: one record for each change, in the state directory. An agent that was killed finds what
it knew when it had written last: after each turn of its loop. Nothing is synced to the disk, as the
kernel keeps what a process has written, and a machine that starts anew has no conversations.

    first line   `midonet connections 1 <boot id>`
    record       size of the body (32 bits), CRC-32 of the body, body
    body         SET (1): size of the sample (0 or 52), sample, the connection (`state_message`)
                 GONE (2): the connection, of which only the forward key matters

What is read ends at the first record that is not whole: there the agent died. The file is written
anew, a slice at a time beside the work of the day, when most of it is about what is gone; so it
holds at most twice what is known, and some megabytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from midonet.agent.flow_state.connection import Connection, ConnectionKey
from midonet.agent.flow_state.connection_table import Change, ConnectionTable
from midonet.agent.flow_state.effects import Sample
from midonet.agent.flow_state.state_message import Tell, decode_tell, encode_tell
from midonet.errors import DecodeError, UserError
from midonet.packets.flowkey import FlowKey

_log = structlog.get_logger("connection_journal")

_NAME, _NEW = "connections", ".connections.new"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HEAD = struct.Struct("!II")
_SAMPLE = struct.Struct("!6s6sHHBBB16s16sHHH")
_SET, _GONE = 1, 2
_BODY_MAX = 4096
_SLICE = 1000
"""Connections that are written anew between two turns: some ten milliseconds."""

_SLACK_BYTES = 4 << 20
"""What the file may hold of what is gone, beside as much as of what is known."""

_KEPT = frozenset((Change.CONFIRMED, Change.ADVANCED, Change.TOLD))


class PrivateFiles(Protocol):
    """Where the journal is kept: the agent's state directory."""

    def open_file(self, name: str, flags: int) -> int: ...

    def replace_file(self, new: str, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A connection as it was written. sample: None when another host judges it."""

    connection: Connection
    sample: Sample | None


class ConnectionJournal:
    """Writes down what becomes of the connections of a table."""

    def __init__(self, files: PrivateFiles, table: ConnectionTable) -> None:
        self._files = files
        self._table = table
        self._file: int | None = None
        self._buffer: list[bytes] = []
        self._size = self._base_size = 0
        self._is_failing = False
        self._rewriting: Iterator[None] | None = None
        self._new: int | None = None
        self._new_size = 0

    def open(self, now_s: float) -> int:
        """Enter in the table what was known before, and write down what comes; return how many.

        A journal that cannot be read is none; one that cannot be written is tried again later.
        """
        restored = 0
        for stored in self._read():
            entered = self._table.restore(stored.connection, now_s, sample=stored.sample)
            restored += isinstance(entered, Connection)
        self._table.on_change(self._note)
        self._begin_anew()
        while self._rewriting is not None:
            self._go_on()
        return restored

    def close(self) -> None:
        """Write what is left and close."""
        self.flush()
        for file in (self._file, self._new):
            if file is not None:
                os.close(file)
        self._file = self._new = None

    def flush(self) -> None:
        """Write down what has changed since the last time."""
        if self._buffer:
            data = b"".join(self._buffer)
            self._buffer.clear()
            self._append(data)
        if self._rewriting is not None:
            self._go_on()
        elif self._size > 2 * self._base_size + _SLACK_BYTES:
            self._begin_anew()

    def retry(self) -> None:
        """Begin anew after a failure: a full disk may have room again."""
        if self._is_failing and self._rewriting is None:
            self._begin_anew()

    # Writing.

    def _note(self, change: Change, connection: Connection) -> None:
        if self._file is None and self._rewriting is None:
            return
        if change in _KEPT:
            self._buffer.append(self._set(connection))
        elif change is not Change.RESTORED:
            self._buffer.append(_record(_GONE, b"", connection))

    def _set(self, connection: Connection) -> bytes:
        sample = self._table.sample(connection)
        return _record(_SET, b"" if sample is None else _pack_sample(sample), connection)

    def _append(self, data: bytes) -> None:
        try:
            for file in (self._file, self._new):
                if file is not None:
                    _write(file, data)
        except OSError as error:
            self._fail(error)
            return
        self._size += len(data)
        self._new_size += len(data)

    def _begin_anew(self) -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            self._new = self._files.open_file(_NEW, flags)
            first = f"midonet connections 1 {_boot_id()}\n".encode()
            _write(self._new, first)
        except (OSError, UserError) as error:
            self._fail(error)
            return
        self._new_size = len(first)
        self._rewriting = self._rewrite()

    def _go_on(self) -> None:
        try:
            if self._rewriting is not None:
                next(self._rewriting)
        except StopIteration:
            self._rewriting = None
        except OSError as error:
            self._fail(error)

    def _rewrite(self) -> Iterator[None]:
        """Write all that is known, a slice at a time; what changes meanwhile goes into both."""
        keys = [connection.forward for connection in self._table]
        for start in range(0, len(keys), _SLICE):
            self._write_slice(keys[start : start + _SLICE])
            yield
        if self._new is None:
            return
        self._files.replace_file(_NEW, _NAME)
        if self._file is not None:
            os.close(self._file)
        self._file, self._new = self._new, None
        self._size = self._base_size = self._new_size
        if self._is_failing:
            self._is_failing = False
            _log.info("journal_written")

    def _write_slice(self, keys: list[ConnectionKey]) -> None:
        found = (self._table.by_forward(key) for key in keys)
        data = b"".join(self._set(one) for one in found if one is not None)
        if self._new is not None and data:
            _write(self._new, data)
            self._new_size += len(data)

    def _fail(self, error: Exception) -> None:
        """Go on without: it costs connections after the next restart only."""
        if not self._is_failing:
            _log.warning("journal_not_written", error=str(error))
        self._is_failing = True
        self._rewriting = None
        self._buffer.clear()
        for file in (self._file, self._new):
            if file is not None:
                with contextlib.suppress(OSError):
                    os.close(file)
        self._file = self._new = None

    # Reading.

    def _read(self) -> list[Stored]:
        try:
            with os.fdopen(self._files.open_file(_NAME, os.O_RDONLY), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return []
        except (OSError, UserError) as error:
            _log.warning("journal_not_read", error=str(error))
            return []
        first, _, records = data.partition(b"\n")
        if first != f"midonet connections 1 {_boot_id()}".encode():
            return []
        known: dict[ConnectionKey, Stored] = {}
        for kind, stored in _records(records):
            known.pop(stored.connection.forward, None)
            if kind == _SET:
                known[stored.connection.forward] = stored
        return list(known.values())


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _record(kind: int, sample: bytes, connection: Connection) -> bytes:
    body = bytes((kind, len(sample))) + sample + encode_tell(Tell(connection, 0))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _records(data: bytes) -> Iterator[tuple[int, Stored]]:
    """Yield the records up to the first that is not whole."""
    at = 0
    while at + _HEAD.size <= len(data):
        size, checksum = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + size]
        if not 2 <= size <= _BODY_MAX or len(body) != size or zlib.crc32(body) != checksum:
            return
        at += _HEAD.size + size
        kind, sample_size = body[0], body[1]
        try:
            connection = decode_tell(body[2 + sample_size :]).connection
            sample = _unpack_sample(body[2 : 2 + sample_size]) if sample_size else None
        except (DecodeError, struct.error):
            return
        yield kind, Stored(connection, sample)


def _pack_sample(sample: Sample) -> bytes:
    """Return a sample without its facts: it is judged anew after a restart."""
    key = sample.key
    return _SAMPLE.pack(
        key.eth_dst.to_bytes(6, "big"),
        key.eth_src.to_bytes(6, "big"),
        key.eth_type,
        key.vlan_tci,
        key.ip_proto,
        key.ip_tos,
        key.ip_frag,
        key.ip_src.to_bytes(16, "big"),
        key.ip_dst.to_bytes(16, "big"),
        key.l4_src,
        key.l4_dst,
        sample.icmp_id,
    )


def _unpack_sample(data: bytes) -> Sample:
    eth_dst, eth_src, eth_type, vlan, protocol, tos, fragment, source, destination, *l4 = (
        _SAMPLE.unpack(data)
    )
    key = FlowKey(
        int.from_bytes(eth_dst, "big"),
        int.from_bytes(eth_src, "big"),
        eth_type,
        vlan,
        protocol,
        tos,
        fragment,
        int.from_bytes(source, "big"),
        int.from_bytes(destination, "big"),
        l4[0],
        l4[1],
    )
    return Sample(frozenset(), key, l4[2])
