"""Measure how long a packet waits for a device that no agent part has loaded yet.

`python -m bench.bench_loading`. Prints one JSON row a figure: a provider's router with 500
tenants behind it, and a tenant's router with a bridge and filters, each from the embedded store.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec

from midonet.agent.topology.watching import TopologyWatcher
from midonet.model.chains import Chain, Rule, RuleAction
from midonet.model.devices import Bridge, Port, Route, Router
from midonet.model.hosts import Host
from midonet.model.ids import BridgeId, ChainId, HostId, ObjectId, PortId, RouteId, RouterId, RuleId
from midonet.model.ranks import spread
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import MAX_OPERATIONS, Create

HERE = HostId(UUID(int=1))
_TENANTS = 500
_ROUNDS = 15
_RULES = 20
_random = Random(1)


def row(name: str, value: float, unit: str) -> None:
    """Print one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": round(value, 3), "unit": unit}) + "\n")


def new_id() -> UUID:
    """Return a random id."""
    return UUID(int=_random.getrandbits(128))


def chain() -> tuple[ChainId, list[msgspec.Struct]]:
    """Return a chain of some rules."""
    chain_id = ChainId(new_id())
    ranks = spread(_RULES)
    rules = [
        Rule(id=RuleId(new_id()), chain_id=chain_id, rank=rank, action=RuleAction.ACCEPT)
        for rank in ranks
    ]
    return chain_id, [Chain(id=chain_id, name="c"), *rules]


def world() -> tuple[RouterId, list[RouterId], list[msgspec.Struct]]:
    """Return the provider's router, the tenants' routers, and all objects."""
    provider = RouterId(new_id())
    objects: list[msgspec.Struct] = [Host(id=HERE, name="here"), Router(id=provider)]
    tenants = []
    for number in range(_TENANTS):
        tenant, bridge = RouterId(new_id()), BridgeId(new_id())
        filter_id, parts = chain()
        near, far = PortId(new_id()), PortId(new_id())
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        objects += [
            *parts,
            Router(id=tenant, inbound_filter_id=filter_id),
            Bridge(id=bridge),
            Port(id=near, router_id=provider, mac=mac, peer_port_id=far),
            Port(id=far, router_id=tenant, mac=mac, peer_port_id=near),
            Route(
                id=RouteId(new_id()),
                router_id=provider,
                destination=f"10.{number >> 8}.{number & 255}.0/24",
                next_hop_port_id=near,
            ),
            Route(id=RouteId(new_id()), router_id=tenant, next_hop_port_id=far),
        ]
        objects += [Port(id=PortId(new_id()), bridge_id=bridge) for _ in range(4)]
        tenants.append(tenant)
    return provider, tenants, objects


async def fill(store: SqliteStore, objects: Sequence[msgspec.Struct]) -> None:
    """Store all objects; peers refer to each other, so links are made by the order of kinds."""
    bare = [
        msgspec.structs.replace(one, peer_port_id=None) if isinstance(one, Port) else one
        for one in objects
    ]
    for start in range(0, len(bare), MAX_OPERATIONS):
        await store.transact([Create(one) for one in bare[start : start + MAX_OPERATIONS]])


async def load(store: SqliteStore, object_id: ObjectId) -> float:
    """Return how long a cold watcher takes to load a device, in ms."""
    watcher = TopologyWatcher(store, HERE, lambda _view, _delta: None)
    running = asyncio.ensure_future(watcher.run())
    await watcher.wait_in_sync()
    started = time.perf_counter()
    await watcher.request([object_id], timeout_s=60.0)
    elapsed_ms = (time.perf_counter() - started) * 1000
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return elapsed_ms


async def measure() -> None:
    """Fill a store and load from it."""
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "nsdb.db")
        await store.open()
        provider, tenants, objects = world()
        await fill(store, objects)
        providers = [await load(store, provider) for _ in range(_ROUNDS)]
        some = [await load(store, tenant) for tenant in tenants[:_ROUNDS]]
        row("load_provider_router_of_500", statistics.median(providers), "ms")
        row("load_tenant_router", statistics.median(some), "ms")
        await store.close()


if __name__ == "__main__":
    asyncio.run(measure())
