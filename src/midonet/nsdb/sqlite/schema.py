"""The file of the embedded store: recognising, creating and migrating it.

A file that is not ours is recognised by its first hundred bytes, before SQLite opens it, so
that nothing in it or beside it changes. A new file is built under another name and renamed into
place, so that no process ever sees a half-made one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from midonet.errors import DecodeError, SchemaTooNewError, UnavailableError, UserError
from midonet.nsdb import codec
from midonet.nsdb.sqlite.object_steps import OBJECT_STEPS
from midonet.runtime.private_files import (
    PRIVATE_FILE_MODE,
    check_not_writable_by_all,
    check_owner,
    open_private,
)

APPLICATION_ID = 0x4D69446F
"""Marks a SQLite file as a MidoNet store ("MiDo", at offset 68 of the file)."""

BUSY_TIMEOUT_S = 5.0
"""How long a write waits for the writers of other processes."""

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_CORRUPTION_CODES = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('revision', 0), ('history_floor', 0), ('schema', 0)",
        "CREATE TABLE object (kind TEXT NOT NULL, id BLOB NOT NULL, version INTEGER NOT NULL,"
        " schema INTEGER NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL,"
        " PRIMARY KEY (kind, id)) WITHOUT ROWID",
        "CREATE TABLE reference (target_kind TEXT NOT NULL, target BLOB NOT NULL,"
        " kind TEXT NOT NULL, field TEXT NOT NULL, source BLOB NOT NULL,"
        " PRIMARY KEY (target_kind, target, kind, field, source)) WITHOUT ROWID",
        "CREATE INDEX reference_by_source ON reference (source, kind)",
        "CREATE TABLE state (name TEXT NOT NULL, key TEXT NOT NULL, owner BLOB NOT NULL,"
        " value TEXT NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,"
        " is_persistent INTEGER NOT NULL, PRIMARY KEY (name, key, owner)) WITHOUT ROWID",
        "CREATE INDEX ephemeral_state ON state (owner) WHERE is_persistent = 0",
        "CREATE TABLE session (owner BLOB PRIMARY KEY, secret TEXT NOT NULL,"
        " timeout_s REAL NOT NULL, boot_id TEXT NOT NULL, deadline_s REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE change (revision INTEGER NOT NULL, scope INTEGER NOT NULL,"
        " name TEXT NOT NULL, key BLOB NOT NULL,"
        " PRIMARY KEY (revision, scope, name, key)) WITHOUT ROWID",
    ),
)
"""Statements that lead from each layout of the tables to the next; the first makes them."""

LAYOUT_VERSION = len(MIGRATIONS)
"""Layout of the tables that this process knows; kept as `user_version` of the file."""


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into DecodeError (corruption) and UnavailableError (the rest)."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _CORRUPTION_CODES:
            raise DecodeError(f"{path} is corrupt: {error}") from error
        raise UnavailableError(f"{path}: {error}") from error


COMPANIONS = ("-wal", "-shm", "-notify")
"""What is added to the name of a database for the files beside it."""


def notify_path(path: Path) -> Path:
    """Return the file beside the database whose modification tells others of a commit."""
    return path.with_name(path.name + "-notify")


_IN_USE: Counter[tuple[int, int]] = Counter()
_IN_USE_LOCK = threading.Lock()


class FileUse:
    """The use of a file by a store of this process; `release` it after the last connection.

    A file in use is not inspected again: closing any descriptor of it would drop the locks that
    SQLite holds for the whole process (https://sqlite.org/howtocorrupt.html, section 2.2), and
    another process could then take away the log under our feet.
    """

    def __init__(self, path: Path) -> None:
        """Do what `ensure_file` does, and raise what it raises."""
        with _IN_USE_LOCK:
            if _IN_USE[_identity(path)] == 0:
                ensure_file(path)
            self._identity = _identity(path)
            _IN_USE[self._identity] += 1

    def release(self) -> None:
        """End the use."""
        with _IN_USE_LOCK:
            _IN_USE[self._identity] -= 1


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def ensure_file(path: Path) -> None:
    """Check that `path` is a store that this process can use; create it when absent or empty.

    Raises DecodeError (not a MidoNet store, or corrupt), SchemaTooNewError, UnavailableError
    (cannot be read or written), UserError (others could exchange it). When it raises, the file is
    as it was.
    """
    try:
        _check_surroundings(path)
        is_present = _inspect(path)
        with _creation_lock(path):
            if not is_present and not _inspect(path):
                _create(path)
        _take_from_others(path)
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}") from error
    with translated_errors(path):
        _check_and_migrate(path)


def connect(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Open a connection to an existing store.

    busy_timeout_s: how long a write waits for the writers of other processes.

    Commits outlive the process when they return. They reach the disk at the next checkpoint, so
    a power failure may take back the latest of them, in order, and never leaves a damaged or
    half-made one (https://sqlite.org/pragma.html#pragma_synchronous, NORMAL in WAL mode): waiting
    for a disk at each commit would cost most of the rate on ordinary disks.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _inspect(path: Path) -> bool:
    """Return whether a store is there, False for an absent or empty file; raise for others."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(f"{path} is not a file.")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise UnavailableError(f"{path} or its directory is read-only.")
    if status.st_size == 0:
        return False
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise DecodeError(f"{path} is not a MidoNet store.")
    layout_version, application_id = struct.unpack_from(">I4xI", header, 60)
    if application_id != APPLICATION_ID:
        raise DecodeError(f"{path} is the SQLite file of another program.")
    _check_layout(path, layout_version)
    return True


def _check_layout(path: Path, layout_version: int) -> None:
    if layout_version > LAYOUT_VERSION:
        raise SchemaTooNewError(
            f"{path} has layout {layout_version}; this process knows {LAYOUT_VERSION}."
        )


def _check_surroundings(path: Path) -> None:
    """Raise UserError where somebody else could put a file of his in the place of ours."""
    check_not_writable_by_all(path.parent, path.parent.stat())
    owner = _owner(path)
    for companion in (path, *(path.with_name(path.name + suffix) for suffix in COMPANIONS)):
        try:
            status = companion.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(status.st_mode):
            raise UserError(f"{companion} is a symbolic link, which is not followed")
        check_owner(companion, status, () if companion == path else owner)


def _owner(path: Path) -> tuple[int, ...]:
    """Return the owner of the database: root may share it with an ordinary user."""
    try:
        return (path.lstat().st_uid,)
    except FileNotFoundError:
        return ()


def _take_from_others(path: Path) -> None:
    """Leave the files to their owner, and to a group that the operator let write to them."""
    for suffix in ("", *COMPANIONS):
        one = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            status = one.lstat()
            mode = stat.S_IMODE(status.st_mode)
            wanted = mode & (0o660 if mode & stat.S_IWGRP else PRIVATE_FILE_MODE)
            if mode != wanted and os.geteuid() in (0, status.st_uid):
                one.chmod(wanted)


def open_companion(path: Path) -> int:
    """Open the file of notifications beside a database.

    Raises UnavailableError, UserError (it is not ours). It belongs to whom the database belongs
    to, as SQLite has it with its own companions.
    """
    owner = _owner(path)
    mode = PRIVATE_FILE_MODE
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.lstat().st_mode) & 0o660
    try:
        descriptor = open_private(
            notify_path(path), os.O_RDWR | os.O_CREAT, mode=mode, owners=owner
        )
        if owner and os.geteuid() == 0:
            os.fchown(descriptor, owner[0], -1)
    except OSError as error:
        raise UnavailableError(f"{notify_path(path)}: {error.strerror}") from error
    return descriptor


@contextmanager
def _creation_lock(path: Path) -> Iterator[None]:
    descriptor = open_companion(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    # A write-ahead log left by a deleted database would be replayed into the new one.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new = path.with_name(f"{path.name}.new-{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        os.close(open_private(new, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        with translated_errors(path):
            connection = sqlite3.connect(new, isolation_level=None)
            try:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                migrate(connection)
                connection.execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring tables and objects to this process's layout and schema, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    is_done = False
    try:
        layout_version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for statements in MIGRATIONS[layout_version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {LAYOUT_VERSION}")
        schema = read_meta(connection, "schema")
        for number, step in OBJECT_STEPS.items():
            if 0 < schema < number:
                step(connection)
        connection.execute(
            "UPDATE meta SET value = max(value, ?) WHERE name = 'schema'", (codec.SCHEMA_VERSION,)
        )
        is_done = True
    finally:
        connection.execute("COMMIT" if is_done else "ROLLBACK")


def _check_and_migrate(path: Path) -> None:
    connection = connect(path)
    try:
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise DecodeError(f"{path} is corrupt: {problem}")
        layout_version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        _check_layout(path, layout_version)
        if layout_version < LAYOUT_VERSION:
            migrate(connection)
        schema = read_meta(connection, "schema")
        if schema > codec.SCHEMA_VERSION + 1:
            raise SchemaTooNewError(
                f"{path} holds objects of schema {schema}; this process works with at most"
                f" {codec.SCHEMA_VERSION + 1}."
            )
        if schema < codec.SCHEMA_VERSION:
            migrate(connection)
    finally:
        connection.close()


def read_meta(connection: sqlite3.Connection, name: str) -> int:
    """Return a number that the store keeps about itself."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise DecodeError(f"the store has no {name}")
    return int(row[0])
