"""The one writing thread of a client: transactions that wait together are committed together.

A transaction is acknowledged after the commit that holds it: the death of the process does not
take it back (what a power failure does: `midonet.nsdb.sqlite.schema.connect`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from midonet.errors import InternalError, MidoNetError, UnavailableError
from midonet.nsdb.sqlite.options import StoreOptions
from midonet.nsdb.sqlite.schema import connect, read_meta, translated_errors
from midonet.nsdb.sqlite.tables import SqliteTables, row_of_mark
from midonet.nsdb.sqlite.writability import Writability
from midonet.nsdb.transaction import Transaction

R = TypeVar("R")

Work = Callable[[Transaction, SqliteTables], R]
"""One atomic unit. Raises a MidoNetError to have it undone."""

_JOBS_PER_COMMIT = 64

MAX_WAITING = 4096
"""Writes that wait for their turn at most; with the store locked they would grow without end."""
_PRUNE_INTERVAL = 1024


class _Job(Generic[R]):
    """A unit of work and what became of it: a result, an error, or (by a bug) neither."""

    def __init__(self, work: Work[R]) -> None:
        self.work = work
        self.results: list[R] = []
        self.error: MidoNetError | None = None
        self.revision = 0
        self.is_committed = False

    def run(self, transaction: Transaction, tables: SqliteTables) -> None:
        self.results = [self.work(transaction, tables)]

    def outcome(self) -> R:
        if self.error is not None:
            raise self.error
        if not self.is_committed:
            raise InternalError("a transaction was lost by the failure of another")
        return self.results[0]


class Writer:
    """Runs units of work in commits of its own thread."""

    def __init__(self, path: Path, notify: Callable[[], None], options: StoreOptions) -> None:
        self.writability = Writability(options.now)
        self._path = path
        self._notify = notify
        self._history = options.history
        self._now = options.now
        self._is_closing = False
        self._check_presence: Callable[[], None] = lambda: None
        self._jobs: deque[_Job[object]] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="nsdb-writer")
        with translated_errors(path):
            self._connection = connect(path, options.busy_timeout_s)
        self._tables = SqliteTables(self._connection)

    async def run(self, work: Work[R]) -> tuple[R, int]:
        """Run a unit; return its result and the revision after it, once it is committed.

        Raises what the unit raises, UnavailableError (also when too many wait), DecodeError.
        """
        if len(self._jobs) >= MAX_WAITING:
            raise UnavailableError(f"{MAX_WAITING} writes wait for {self._path} already")
        job = _Job(work)
        self._jobs.append(job)  # type: ignore[arg-type]
        await asyncio.get_running_loop().run_in_executor(self._executor, self._commit_waiting)
        return job.outcome(), job.revision

    def submit(self, work: Work[None]) -> Future[None]:
        """Run a unit from any thread."""
        self._jobs.append(_Job(work))
        return self._executor.submit(self._commit_waiting)

    def watch_presence(self, check: Callable[[], None]) -> None:
        """Refuse to write once `check` raises StoreLostError."""
        self._check_presence = check

    def close(self) -> None:
        """Finish what waits, unless the store does not take it, and close the connection."""
        self._is_closing = True
        self._executor.shutdown(wait=True)
        self._connection.close()

    def _commit_waiting(self) -> None:
        jobs: list[_Job[object]] = []
        while self._jobs and len(jobs) < _JOBS_PER_COMMIT:
            jobs.append(self._jobs.popleft())
        if not jobs:
            return
        try:
            with translated_errors(self._path):
                self._check_presence()
                has_marks = self._commit(jobs)
                # What was committed into a file that nobody else sees is not acknowledged.
                self._check_presence()
        except MidoNetError as error:
            self.writability.note_refusal()
            if self._is_closing:
                # Each further attempt might wait as long for whoever holds the lock.
                while self._jobs:
                    jobs.append(self._jobs.popleft())
            for job in jobs:
                job.error = job.error or error
            return
        if has_marks:
            self._notify()

    def _commit(self, jobs: list[_Job[object]]) -> bool:
        run = self._connection.execute
        begun_s = self._now().seconds
        run("BEGIN IMMEDIATE")
        self.writability.note_wait(begun_s)
        is_done = False
        try:
            first = revision = read_meta(self._connection, "revision")
            for job in jobs:
                revision = self._run_job(job, revision)
            if revision != first:
                run("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
                self._prune(first, revision)
            run("COMMIT")
            is_done = True
            for job in jobs:
                job.is_committed = True
        finally:
            if not is_done and self._connection.in_transaction:
                run("ROLLBACK")
        return revision != first

    def _run_job(self, job: _Job[object], revision: int) -> int:
        run = self._connection.execute
        transaction = Transaction(self._tables, revision + 1, self._now())
        run("SAVEPOINT job")
        try:
            job.run(transaction, self._tables)
        except MidoNetError as error:
            job.error = error
            transaction.marks.clear()
            run("ROLLBACK TO job")
        run("RELEASE job")
        if transaction.marks:
            revision += 1
            self._connection.executemany(
                f"INSERT INTO change VALUES ({revision}, ?, ?, ?)",
                [row_of_mark(mark) for mark in transaction.marks],
            )
        job.revision = revision
        return revision

    def _prune(self, first: int, revision: int) -> None:
        if first // _PRUNE_INTERVAL == revision // _PRUNE_INTERVAL:
            return
        floor = revision - self._history
        if floor > 0:
            self._connection.execute("DELETE FROM change WHERE revision <= ?", (floor,))
            self._connection.execute(
                "UPDATE meta SET value = max(value, ?) WHERE name = 'history_floor'", (floor,)
            )
