"""The thread by which a client follows the commits of all processes, and ends dead sessions."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import structlog

from midonet.errors import DecodeError, RevisionTooOldError, StoreLostError
from midonet.nsdb import sessions
from midonet.nsdb.sqlite.notification import Listener
from midonet.nsdb.sqlite.presence import Presence
from midonet.nsdb.sqlite.schema import connect, notify_path, read_meta, translated_errors
from midonet.nsdb.sqlite.tables import SqliteTables, mark_of_row
from midonet.nsdb.sqlite.writer import Writer
from midonet.nsdb.store import StateTables
from midonet.nsdb.transaction import BootTime, Mark, TableKey, Transaction
from midonet.nsdb.watching import WatchIndex

_log = structlog.get_logger("nsdb")

LOOK_INTERVAL_S = 2.0
"""How long changes go unnoticed at most when notifications do not work."""

_SHORTEST_WAIT_S = 0.01

_REAP_INTERVAL_S = 0.2
"""Pause until dead sessions are looked for again, once they were to be ended."""

_SESSIONS = StateTables.sessions()

_PAUSE_S = 0.003
"""Least time between two looks, so that a burst of commits costs few of them."""


class Follower:
    """Reads the change log when notified and marks the keys at the watchers of one loop."""

    def __init__(
        self,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        watch_index: WatchIndex,
        writer: Writer,
        *,
        now: Callable[[], BootTime],
        lost: asyncio.Event,
    ) -> None:
        """lost: set when the file turns out to be gone, which ends the thread."""
        self._lost = lost
        self._path = path
        self._loop = loop
        self._watch_index = watch_index
        self._writer = writer
        self._now = now
        self._next_end_s = 0.0
        self._reaping: Future[None] | None = None
        with ExitStack() as undo:
            self._listener = Listener(notify_path(path))
            undo.callback(self._listener.close)
            with translated_errors(path):
                self._connection = connect(path)
                undo.callback(self._connection.close)
                self._revision = read_meta(self._connection, "revision")
            self.presence = Presence(path)
            self._resources = undo.pop_all()
        self._thread = threading.Thread(target=self._run, name="nsdb-follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop and wait for the thread, which is never long at work."""
        self._listener.stop()
        self._thread.join()
        self._resources.close()

    def _run(self) -> None:
        wait_s = 0.0
        while self._listener.wait(wait_s):
            wait_s = LOOK_INTERVAL_S
            try:
                self.presence.check()
                self._listener.follow_file()
                has_sessions = self._follow()
                wait_s = min(wait_s, self._end_dead_sessions(is_due=has_sessions))
            except StoreLostError as error:
                _log.error("store_lost", error=str(error))
                self._hand_over(self._lost.set)
                return
            except (sqlite3.Error, DecodeError, OSError) as error:
                # Whatever it is, look again: a follower that ended would leave the process blind.
                _log.warning("store_cannot_be_followed", path=str(self._path), error=str(error))
            if not self._listener.pause(_PAUSE_S):
                return

    def _follow(self) -> bool:
        """Hand changes over; tell whether sessions came or went."""
        try:
            marks = self._new_marks()
        except RevisionTooOldError:
            self._hand_over(self._watch_index.dispatch_all)
            return True
        if marks:
            self._hand_over(self._watch_index.dispatch, marks)
        return any(isinstance(one, TableKey) and one.table == _SESSIONS for one in marks)

    def _new_marks(self) -> set[Mark]:
        """Return what changed since the last call; RevisionTooOldError when the log is shorter."""
        run = self._connection.execute
        run("BEGIN")
        try:
            since = self._revision
            self._revision = read_meta(self._connection, "revision")
            if self._revision == since:
                return set()
            floor = read_meta(self._connection, "history_floor")
            if floor > since:
                raise RevisionTooOldError(f"the log begins after revision {floor}")
            rows = run("SELECT scope, name, key FROM change WHERE revision > ?", (since,))
            marks = {mark_of_row(row) for row in rows}
        finally:
            run("COMMIT")
        return {mark for mark in marks if mark is not None}

    def _end_dead_sessions(self, *, is_due: bool) -> float:
        """End sessions that are dead; return in how many seconds to look again.

        A look costs with the number of sessions, so commits of others do not cause one.
        """
        now = self._now()
        if is_due or now.seconds >= self._next_end_s:
            writable_since_s = self._writer.writability.since_s
            end_s = SqliteTables(self._connection).end_of_life(now.boot_id, writable_since_s)
            if end_s is not None and end_s <= now.seconds:
                if self._reaping is None or self._reaping.done():
                    self._reaping = self._writer.submit(self._reap)
                end_s = now.seconds + _REAP_INTERVAL_S
            # A session may have got an earlier deadline without anybody being told.
            latest_s = now.seconds + LOOK_INTERVAL_S
            self._next_end_s = latest_s if end_s is None else min(latest_s, end_s)
        return max(_SHORTEST_WAIT_S, self._next_end_s - now.seconds)

    def _reap(self, transaction: Transaction, tables: SqliteTables) -> None:
        # By now this has waited for its turn: since when the store takes writes is known anew.
        sessions.reap(transaction, tables, self._now(), self._writer.writability.since_s)

    def _hand_over(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
