"""What the contract suites run against: every datapath and every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Store
from tests.contract.datapath_harness import HARNESSES, DatapathHarness, OpenHarness
from tests.contract.datapath_steps import IN, OUT, THIRD
from tests.contract.store_steps import OpenClient


@pytest.fixture(params=HARNESSES)
def open_harness(request: pytest.FixtureRequest) -> OpenHarness:
    """Return what opens a harness of the datapath under test."""
    opener: OpenHarness = request.param
    return opener


@pytest.fixture
async def harness(open_harness: OpenHarness) -> AsyncIterator[DatapathHarness]:
    """Open a harness with three ports."""
    async with open_harness(max_programs=1024) as opened:
        for port_id in (IN, OUT, THIRD):
            opened.add_port(port_id)
        yield opened


@pytest.fixture(params=["memory", "sqlite"])
async def open_client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenClient]:
    """Return a function that opens one more client of the same store."""
    backend = MemoryBackend()
    clients: list[Store] = []

    async def open_one() -> Store:
        store: Store
        if request.param == "memory":
            store = MemoryStore(backend)
        else:
            store = SqliteStore(tmp_path / "nsdb.db")
        await store.open()
        clients.append(store)
        return store

    yield open_one
    for client in clients:
        await client.close()


@pytest.fixture
async def store(open_client: OpenClient) -> Store:
    return await open_client()


@pytest.fixture
async def other(open_client: OpenClient, store: Store) -> Store:
    """A second client of the store."""
    return await open_client()
