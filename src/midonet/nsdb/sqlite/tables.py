"""`Tables` over a SQLite connection, and the change log that other clients follow."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from enum import IntEnum
from typing import assert_never
from uuid import UUID

from midonet.model.ids import ObjectId
from midonet.nsdb import codec
from midonet.nsdb.sessions import LONGEST_GRACE_S
from midonet.nsdb.store import AllOf, ObjectKey, Referrers, StateEntry
from midonet.nsdb.transaction import (
    BootTime,
    IndexEntry,
    Mark,
    SessionRecord,
    StoredObject,
    TableKey,
)

STATE_COLUMNS = "name, key, value, owner, epoch, sequence, is_persistent"
"""Columns of a state entry in the order that `state_entry_from` takes."""

_SESSION_COLUMNS = "owner, secret, timeout_s, boot_id, deadline_s"


def state_entry_from(row: tuple[str, str, str, bytes, int, int, int]) -> StateEntry:
    """Return the state entry of a row of `STATE_COLUMNS`."""
    table, key, value, owner, epoch, sequence, is_persistent = row
    return StateEntry(table, key, value, UUID(bytes=owner), epoch, sequence, bool(is_persistent))


def _session_from(row: tuple[bytes, str, float, str, float]) -> SessionRecord:
    owner, secret, timeout_s, boot_id, deadline_s = row
    return SessionRecord(UUID(bytes=owner), secret, timeout_s, BootTime(boot_id, deadline_s))


def _index_row(entry: IndexEntry) -> tuple[str, bytes, str, str, bytes]:
    return (
        entry.target_kind,
        entry.target_id.bytes,
        entry.kind,
        entry.field,
        entry.source_id.bytes,
    )


def _index_entry_from(row: tuple[str, bytes, str, str, bytes]) -> IndexEntry:
    target_kind, target, kind, field, source = row
    return IndexEntry(target_kind, UUID(bytes=target), kind, field, UUID(bytes=source))


class SqliteTables:
    """The content of the store inside the transaction that the connection has begun."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany

    def object(self, kind: str, object_id: ObjectId) -> StoredObject | None:
        """Return a stored object."""
        row = self._run(
            "SELECT version, schema, revision, body FROM object WHERE kind = ? AND id = ?",
            (kind, object_id.bytes),
        ).fetchone()
        return None if row is None else StoredObject(*row)

    def put_object(self, kind: str, object_id: ObjectId, stored: StoredObject) -> None:
        """Create or replace an object."""
        self._run(
            "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?)",
            (
                kind,
                object_id.bytes,
                stored.version,
                stored.schema,
                stored.revision,
                stored.body,
            ),
        )

    def remove_object(self, kind: str, object_id: ObjectId) -> None:
        """Remove an object that exists."""
        self._run("DELETE FROM object WHERE kind = ? AND id = ?", (kind, object_id.bytes))

    def index_entries_of(self, kind: str, source_id: ObjectId) -> frozenset[IndexEntry]:
        """Return the index entries of the references that an object holds."""
        rows = self._run(
            "SELECT target_kind, target, kind, field, source FROM reference"
            " WHERE source = ? AND kind = ?",
            (source_id.bytes, kind),
        )
        return frozenset(_index_entry_from(row) for row in rows)

    def change_index(self, removed: Iterable[IndexEntry], added: Iterable[IndexEntry]) -> None:
        """Remove and add index entries."""
        self._run_many(
            "DELETE FROM reference WHERE target_kind = ? AND target = ? AND kind = ?"
            " AND field = ? AND source = ?",
            [_index_row(entry) for entry in removed],
        )
        self._run_many(
            "INSERT INTO reference VALUES (?, ?, ?, ?, ?)", [_index_row(entry) for entry in added]
        )

    def referrer(self, target_kind: str, target_id: ObjectId) -> IndexEntry | None:
        """Return any one reference to an object."""
        row = self._run(
            "SELECT target_kind, target, kind, field, source FROM reference"
            " WHERE target_kind = ? AND target = ? LIMIT 1",
            (target_kind, target_id.bytes),
        ).fetchone()
        return None if row is None else _index_entry_from(row)

    def count_referrers(self, entry: IndexEntry) -> int:
        """Return how many objects of the entry's kind name its target in its field."""
        row = self._run(
            "SELECT count(*) FROM reference WHERE target_kind = ? AND target = ? AND kind = ?"
            " AND field = ?",
            _index_row(entry)[:4],
        ).fetchone()
        return int(row[0])

    def state_entry(self, table: str, key: str, owner: ObjectId) -> StateEntry | None:
        """Return an owner's entry."""
        row = self._run(
            f"SELECT {STATE_COLUMNS} FROM state WHERE name = ? AND key = ? AND owner = ?",
            (table, key, owner.bytes),
        ).fetchone()
        return None if row is None else state_entry_from(row)

    def put_state(self, entry: StateEntry) -> None:
        """Write an owner's entry."""
        self._run(
            f"INSERT OR REPLACE INTO state ({STATE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                entry.table,
                entry.key,
                entry.value,
                entry.owner.bytes,
                entry.epoch,
                entry.sequence,
                entry.is_persistent,
            ),
        )

    def remove_state(self, table: str, key: str, owner: ObjectId) -> None:
        """Remove an owner's entry that exists."""
        self._run(
            "DELETE FROM state WHERE name = ? AND key = ? AND owner = ?",
            (table, key, owner.bytes),
        )

    def entries_below(self, name: str) -> list[StateEntry]:
        """Return all entries of the table `name` and of those whose names go on after `/`."""
        # "0" is the character after "/".
        rows = self._run(
            f"SELECT {STATE_COLUMNS} FROM state WHERE name = ? OR (name > ? AND name < ?)",
            (name, f"{name}/", f"{name}0"),
        ).fetchall()
        return [state_entry_from(row) for row in rows]

    def ephemeral_keys(self, owner: ObjectId) -> list[TableKey]:
        """Return where an owner has entries that end with its session."""
        rows = self._run(
            "SELECT name, key FROM state WHERE owner = ? AND is_persistent = 0", (owner.bytes,)
        )
        return [TableKey(name, key) for name, key in rows]

    def session(self, owner: ObjectId) -> SessionRecord | None:
        """Return an owner's session, live or not."""
        row = self._run(
            f"SELECT {_SESSION_COLUMNS} FROM session WHERE owner = ?", (owner.bytes,)
        ).fetchone()
        return None if row is None else _session_from(row)

    def sessions(self) -> list[SessionRecord]:
        """Return all sessions, live or not."""
        rows = self._run(f"SELECT {_SESSION_COLUMNS} FROM session")
        return [_session_from(row) for row in rows]

    def end_of_life(self, boot_id: str, writable_since_s: float) -> float | None:
        """Return when the first session is to be ended, in s of boot time: 0 for one of an
        earlier boot, None without sessions. See `midonet.nsdb.sessions.dead_at_s`."""
        row = self._run(
            "SELECT min(CASE WHEN boot_id != ? THEN 0"
            " ELSE max(deadline_s, ? + min(timeout_s / 3, ?)) END) FROM session",
            (boot_id, writable_since_s, LONGEST_GRACE_S),
        ).fetchone()
        return None if row[0] is None else float(row[0])

    def put_session(self, record: SessionRecord) -> None:
        """Create or replace an owner's session."""
        self._run(
            f"INSERT OR REPLACE INTO session ({_SESSION_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
            (
                record.owner.bytes,
                record.secret,
                record.timeout_s,
                record.deadline.boot_id,
                record.deadline.seconds,
            ),
        )

    def remove_session(self, owner: ObjectId) -> None:
        """Remove an owner's session that exists."""
        self._run("DELETE FROM session WHERE owner = ?", (owner.bytes,))

    def next_in_sequence(self, name: str) -> int:
        """Return the next value of a counter."""
        row = self._run(
            "INSERT INTO counter VALUES (?, 1) ON CONFLICT (name)"
            " DO UPDATE SET value = value + 1 RETURNING value",
            (name,),
        ).fetchall()[0]
        return int(row[0])


class Scope(IntEnum):
    """What a row of the change log is about. Stored; numbers are never reused."""

    OBJECT = 0
    KIND = 1
    REFERRERS = 2
    STATE = 3


ChangeRow = tuple[int, str, bytes | str]


def row_of_mark(mark: Mark) -> ChangeRow:
    """Return scope, name and key of a row of the change log."""
    match mark:
        case ObjectKey():
            return Scope.OBJECT, mark.kind.__name__, mark.object_id.bytes
        case AllOf():
            return Scope.KIND, mark.kind.__name__, b""
        case Referrers():
            return Scope.REFERRERS, f"{mark.kind.__name__}.{mark.field}", mark.target_id.bytes
        case TableKey():
            return Scope.STATE, mark.table, mark.key
        case _:
            assert_never(mark)


def mark_of_row(row: ChangeRow) -> Mark | None:
    """Return the mark of a row of the change log; None when a newer process wrote it."""
    scope, name, key = row
    if scope == Scope.STATE:
        return TableKey(name, str(key))
    kind_text, _, field = name.partition(".")
    kind = codec.kind_named(kind_text)
    if kind is None or not isinstance(key, bytes):
        return None
    if scope == Scope.KIND:
        return AllOf(kind)
    if scope == Scope.OBJECT:
        return ObjectKey(kind, UUID(bytes=key))
    if scope == Scope.REFERRERS:
        return Referrers(kind, field, UUID(bytes=key))
    return None
