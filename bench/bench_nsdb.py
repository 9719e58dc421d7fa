"""Measure the embedded store: `python bench/bench_nsdb.py [DIRECTORY]`. Prints one row a figure."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from midonet.model.devices import Bridge, Port
from midonet.model.ids import BridgeId, PortId
from midonet.nsdb import deletion
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create, ObjectKey, Store

OBJECTS = 10_000
ROUND_TRIPS = 500

PEER = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from midonet.model.devices import Bridge
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await store.transact([Create(Bridge(id=UUID(line.strip())))])
    await store.close()

asyncio.run(main())
"""


def row(name: str, value: float, unit: str) -> None:
    """Print one figure."""
    print(json.dumps({"name": f"nsdb: {name}", "value": round(value, 3), "unit": unit}))


def bridge() -> Bridge:
    """Return a new bridge."""
    return Bridge(id=BridgeId(uuid4()), name="bench")


async def measure_writes(store: Store, writers: int, seconds: float = 2.0) -> None:
    """Measure single-create transactions by a number of concurrent writers."""
    counts = [0] * writers
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def write(number: int) -> None:
        while (begun := time.perf_counter()) < until:
            await store.transact([Create(bridge())])
            latencies.append(time.perf_counter() - begun)
            counts[number] += 1

    await asyncio.gather(*(write(number) for number in range(writers)))
    row(f"creates/s, {writers} concurrent", sum(counts) / seconds, "1/s")
    latencies.sort()
    row(f"create latency p99, {writers} concurrent", _percentile(latencies, 0.99) * 1e3, "ms")


async def measure_loads(store: Store) -> None:
    """Measure loading, reading and deleting many ports of one bridge."""
    blue = bridge()
    await store.transact([Create(blue)])
    ports = [Port(id=PortId(uuid4()), bridge_id=blue.id) for _ in range(OBJECTS)]
    begun = time.perf_counter()
    for start in range(0, OBJECTS, 500):
        await store.transact([Create(port) for port in ports[start : start + 500]])
    row(f"create {OBJECTS:,} ports, 500 a transaction", (time.perf_counter() - begun) * 1e3, "ms")
    begun = time.perf_counter()
    assert len(await store.list_all(Port)) == OBJECTS
    row(f"list_all of {OBJECTS:,}", (time.perf_counter() - begun) * 1e3, "ms")
    begun = time.perf_counter()
    assert len(await store.get_many(Port, [port.id for port in ports])) == OBJECTS
    row(f"get_many of {OBJECTS:,}", (time.perf_counter() - begun) * 1e3, "ms")
    begun = time.perf_counter()
    assert len(await store.referrers(Port, "bridge_id", blue.id)) == OBJECTS
    row(f"referrers, {OBJECTS:,} found", (time.perf_counter() - begun) * 1e3, "ms")
    watcher = store.watcher()
    begun = time.perf_counter()
    watcher.add([ObjectKey(Port, port.id) for port in ports])
    seen = 0
    while seen < OBJECTS:
        seen += len(await watcher.changes())
    row(f"watch {OBJECTS:,} objects, initial state", (time.perf_counter() - begun) * 1e3, "ms")
    await watcher.close()
    gets: list[float] = []
    for port in ports[:1000]:
        begun = time.perf_counter()
        await store.get(Port, port.id)
        gets.append(time.perf_counter() - begun)
    row("get, median", statistics.median(gets) * 1e6, "us")
    begun = time.perf_counter()
    await deletion.delete(store, Bridge, blue.id)
    row(f"delete a bridge of {OBJECTS:,} ports", (time.perf_counter() - begun) * 1e3, "ms")


async def measure_visibility(path: Path, store: Store) -> None:
    """Measure from asking another process to write until this one's watcher reports it."""
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on the loop
        [sys.executable, "-c", PEER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        watcher = store.watcher()
        delays = []
        for _ in range(ROUND_TRIPS):
            key = ObjectKey(Bridge, uuid4())
            watcher.add([key])
            await watcher.changes()
            begun = time.perf_counter()
            process.stdin.write(f"{key.object_id}\n".encode())
            process.stdin.flush()
            await watcher.changes()
            delays.append(time.perf_counter() - begun)
            watcher.remove([key])
        process.stdin.close()
    delays.sort()
    row("write in another process to change here, median", _percentile(delays, 0.5) * 1e3, "ms")
    row("write in another process to change here, p99", _percentile(delays, 0.99) * 1e3, "ms")


def _percentile(ascending: list[float], part: float) -> float:
    return ascending[min(len(ascending) - 1, int(len(ascending) * part))]


async def main(directory: Path) -> None:
    """Run all measurements on a new store."""
    path = directory / "nsdb.db"
    store = SqliteStore(path)
    await store.open()
    for writers in (1, 16, 64):
        await measure_writes(store, writers)
    await measure_visibility(path, store)
    await measure_loads(store)
    await store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        asyncio.run(main(Path(name)))
