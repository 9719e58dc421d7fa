"""Loading the devices that packets ask for, in batches, beside the packets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from midonet.errors import UnavailableError
from midonet.model.ids import ObjectId

_log = structlog.get_logger("loading")

MAX_WANTED = 10_000
"""Most objects that wait to be asked for; further ones are asked for by a later packet."""


class Loader:
    """Collects wanted objects and asks for them together. Run several of its `run` tasks, so
    that one slow batch does not hold up the next."""

    def __init__(self, load: Callable[[Sequence[ObjectId]], Awaitable[None]]) -> None:
        """`load` returns when the objects are loaded; UnavailableError when that takes long."""
        self._load = load
        self._wanted: dict[ObjectId, None] = {}
        self._loading: set[ObjectId] = set()
        self._wake = asyncio.Event()

    def request(self, object_ids: Iterable[ObjectId]) -> None:
        """Want objects, unless they are being loaded already."""
        for object_id in object_ids:
            if object_id not in self._loading and len(self._wanted) < MAX_WANTED:
                self._wanted[object_id] = None
                self._wake.set()

    async def run(self) -> None:
        """Load what is wanted until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = tuple(self._wanted)
            self._wanted.clear()
            if not batch:
                continue
            self._loading.update(batch)
            try:
                await self._load(batch)
            except UnavailableError as error:
                _log.warning("devices_not_loaded", count=len(batch), error=str(error))
            finally:
                self._loading.difference_update(batch)
