"""Commits that hold several transactions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from midonet.errors import ConflictError, InternalError, UnavailableError
from midonet.model.devices import Bridge
from midonet.model.ids import BridgeId
from midonet.nsdb.sqlite import writer as writer_module
from midonet.nsdb.sqlite.options import StoreOptions
from midonet.nsdb.sqlite.schema import ensure_file
from midonet.nsdb.sqlite.tables import SqliteTables
from midonet.nsdb.sqlite.writer import Writer
from midonet.nsdb.store import Create
from midonet.nsdb.transaction import Transaction, prepare


class UnexpectedError(Exception):
    """What nobody expects."""


@pytest.fixture
def notified() -> list[int]:
    return []


@pytest.fixture
def writer(tmp_path: Path, notified: list[int]) -> Iterator[Writer]:
    path = tmp_path / "nsdb.db"
    ensure_file(path)
    writer = Writer(path, lambda: notified.append(1), StoreOptions(history=100))
    yield writer
    writer.close()


def creation(bridge: Bridge) -> Callable[[Transaction, SqliteTables], None]:
    def work(transaction: Transaction, _: SqliteTables) -> None:
        transaction.apply(prepare([Create(bridge)]))

    return work


async def gathered(writer: Writer, *bridges: Bridge | None) -> list[object]:
    """Create bridges in one commit (None: a bug instead); return what each came to."""
    gate = threading.Event()

    def wait(transaction: Transaction, tables: SqliteTables) -> None:
        gate.wait(10)

    def fail(transaction: Transaction, tables: SqliteTables) -> None:
        raise UnexpectedError

    first = asyncio.ensure_future(writer.run(wait))
    await asyncio.sleep(0)
    jobs = [
        asyncio.ensure_future(writer.run(fail if one is None else creation(one))) for one in bridges
    ]
    await asyncio.sleep(0)
    gate.set()
    await first
    return await asyncio.gather(*jobs, return_exceptions=True)


def bridge() -> Bridge:
    return Bridge(id=BridgeId(uuid4()))


async def test_transactions_that_wait_share_a_commit(writer: Writer, notified: list[int]) -> None:
    results = await gathered(writer, *(bridge() for _ in range(20)))
    assert [result[1] for result in results if isinstance(result, tuple)] == list(range(1, 21))
    assert len(notified) == 1


async def test_one_that_fails_leaves_the_others(writer: Writer) -> None:
    blue = bridge()
    results = await gathered(writer, blue, blue, bridge())
    assert isinstance(results[1], ConflictError)
    assert [results[0], results[2]] == [(None, 1), (None, 2)]


async def test_a_bug_acknowledges_nothing_that_was_not_committed(writer: Writer) -> None:
    blue = bridge()
    results = await gathered(writer, blue, None, bridge())
    assert isinstance(results[0], UnexpectedError | InternalError)
    assert isinstance(results[2], UnexpectedError | InternalError)
    assert await gathered(writer, blue) == [(None, 1)]


async def test_more_writes_than_may_wait_are_refused_at_once(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 3)
    gate, begun = threading.Event(), threading.Event()

    def wait(transaction: Transaction, tables: SqliteTables) -> None:
        begun.set()
        gate.wait(60)

    first = asyncio.ensure_future(writer.run(wait))
    assert await asyncio.to_thread(begun.wait, 60)
    later = [
        asyncio.ensure_future(writer.run(creation(Bridge(id=BridgeId(uuid4()))))) for _ in range(5)
    ]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*later, return_exceptions=True)
    refused = [result for result in results if isinstance(result, UnavailableError)]
    assert len(refused) == 2
    assert "3 writes wait" in str(refused[0])
    await first
