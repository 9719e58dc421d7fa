"""A store in memory, open."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from midonet.nsdb.memory import MemoryStore


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    await store.open()
    yield store
    await store.close()
