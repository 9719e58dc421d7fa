"""Objects, and waiting for what they should become, for the contract suite of stores."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import msgspec

from midonet.model.devices import Bridge, Port
from midonet.model.hosts import Host
from midonet.model.ids import BridgeId, HostId, PortId
from midonet.nsdb.store import Change, Store, Watcher

DEADLINE_S = 60.0
OpenClient = Callable[[], Awaitable[Store]]


def bridge(name: str = "blue", **fields: object) -> Bridge:
    return msgspec.structs.replace(Bridge(id=BridgeId(uuid4()), name=name), **fields)


def bridge_port(on: Bridge, **fields: object) -> Port:
    return msgspec.structs.replace(Port(id=PortId(uuid4()), bridge_id=on.id), **fields)


def host(name: str = "h1") -> Host:
    return Host(id=HostId(uuid4()), name=name)


async def next_changes(watcher: Watcher) -> list[Change]:
    async with asyncio.timeout(DEADLINE_S):
        return await watcher.changes()


async def changes_until(watcher: Watcher, is_done: Callable[[list[Change]], bool]) -> list[Change]:
    """Collect changes until they satisfy a condition."""
    seen: list[Change] = []
    async with asyncio.timeout(DEADLINE_S):
        while not is_done(seen):
            seen.extend(await watcher.changes())
    return seen


async def settled(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition on the store holds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)
