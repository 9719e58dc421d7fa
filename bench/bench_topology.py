"""Measure the topology view: `python -m bench.bench_topology`. Prints one JSON row a figure."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec

from midonet.agent.topology.assembler import Step, TopologyAssembler
from midonet.agent.topology.fib import RoutingTable
from midonet.agent.topology.view import RouteView
from midonet.agent.topology.watching import TopologyWatcher
from midonet.model.chains import Chain, Condition, Rule, RuleAction
from midonet.model.devices import Bridge, NextHopKind, Port, Route, Router
from midonet.model.groups import IpAddressGroup
from midonet.model.hosts import Host, PortLocation
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    IpAddressGroupId,
    ObjectId,
    PortId,
    RouteId,
    RouterId,
    RuleId,
)
from midonet.model.ranks import between, spread
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import (
    MAX_OPERATIONS,
    AllOf,
    Change,
    Create,
    IdsChange,
    ObjectChange,
    ObjectKey,
    PutState,
    Referrers,
    StateTables,
    TableChange,
    Versioned,
    WatchKey,
)
from midonet.packets.addresses import IpPrefix, IpVersion, prefix_mask

HERE = HostId(UUID(int=1))
THERE = HostId(UUID(int=2))
_REFERENCE_FIELDS = ("host_id", "bridge_id", "router_id", "chain_id")
_random = Random(1)


def new_id() -> UUID:
    """Return a random id."""
    return UUID(int=_random.getrandbits(128))


def row(name: str, value: float, unit: str) -> None:
    """Print one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": round(value, 3), "unit": unit}) + "\n")


def topology(bridges: int, ports_per_bridge: int, rules_per_chain: int) -> list[msgspec.Struct]:
    """Return bridges on one router, one chain each, with one port of each bridge bound here."""
    router = Router(id=RouterId(new_id()))
    made: list[msgspec.Struct] = [Host(id=HERE, name="here"), Host(id=THERE, name="there"), router]
    for number in range(bridges):
        chain_id = ChainId(new_id())
        rules = [
            Rule(id=RuleId(new_id()), chain_id=chain_id, rank=rank, action=RuleAction.DROP)
            for rank in spread(rules_per_chain)
        ]
        bridge = Bridge(id=BridgeId(new_id()))
        inner, outer = PortId(new_id()), PortId(new_id())
        made += [
            Chain(id=chain_id),
            *rules,
            bridge,
            Port(id=inner, bridge_id=bridge.id, peer_port_id=outer),
            Port(
                id=outer,
                router_id=router.id,
                peer_port_id=inner,
                mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
                addresses=(f"10.{number >> 8}.{number & 255}.1/24",),
            ),
            Route(
                id=RouteId(new_id()),
                router_id=router.id,
                destination=f"10.{number >> 8}.{number & 255}.0/24",
                next_hop_port_id=outer,
            ),
        ]
        for index in range(ports_per_bridge):
            host_id = THERE if index else HERE
            port = Port(
                id=PortId(new_id()),
                bridge_id=bridge.id,
                host_id=host_id,
                interface_name="tap",
                inbound_filter_id=chain_id,
            )
            location = PortLocation(
                id=port.id, host_id=host_id, tunnel_key=index, epoch=1, active=True
            )
            made += [port, location]
    return made


class World:
    """Objects in dictionaries that answer watch keys at once."""

    def __init__(self, objects: Iterable[msgspec.Struct]) -> None:
        self._objects: dict[tuple[type, ObjectId], msgspec.Struct] = {}
        self._lists: dict[tuple[type, str, ObjectId], set[ObjectId]] = {}
        for value in objects:
            self.put(value)

    def put(self, value: msgspec.Struct) -> None:
        """Add or replace an object."""
        object_id: ObjectId = value.id  # type: ignore[attr-defined]
        self._objects[type(value), object_id] = value
        for field in _REFERENCE_FIELDS:
            target_id = getattr(value, field, None)
            if target_id is not None:
                self._lists.setdefault((type(value), field, target_id), set()).add(object_id)

    def answer(self, key: WatchKey) -> Change:
        """Return the present state of a key."""
        match key:
            case ObjectKey(kind, object_id):
                value = self._objects.get((kind, object_id))
                return ObjectChange(key, None if value is None else Versioned(value, 0))
            case Referrers(kind, field, target_id):
                return IdsChange(key, frozenset(self._lists.get((kind, field, target_id), ())))
            case AllOf():
                return IdsChange(key, frozenset())
            case _:
                return TableChange(key, ())

    def feed(self, assembler: TopologyAssembler, step: Step) -> None:
        """Answer what the assembler asks for until it asks no more."""
        while step.added:
            step = assembler.apply([self.answer(key) for key in step.added])


async def measure_load(objects: Sequence[msgspec.Struct]) -> None:
    """Print how long the view of `objects` takes to load from the embedded store."""
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "nsdb")
        await store.open()
        linked = [one for one in objects if isinstance(one, Port) and one.peer_port_id is not None]
        # A pair of linked ports must be created in one transaction.
        others = [one for one in objects if one not in linked]
        first = [one for one in others if isinstance(one, Host | Router | Bridge | Chain)]
        ports = [one for one in others if isinstance(one, Port)]
        rest = [one for one in others if one not in first and not isinstance(one, Port)]
        for batch in (first, linked, ports, rest):
            for start in range(0, len(batch), MAX_OPERATIONS):
                await store.transact([Create(one) for one in batch[start : start + MAX_OPERATIONS]])
        gc.collect()
        started = time.perf_counter()
        watcher = TopologyWatcher(store, HERE, lambda _view, _delta: None)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(watcher.run())
            await watcher.wait_in_sync()
            elapsed = time.perf_counter() - started
            running.cancel()
        row("topology_load_objects", len(objects), "objects")
        row("topology_load_sqlite", elapsed, "s")
        await store.close()


def measure_change(name: str, objects: Sequence[msgspec.Struct], target_ms: float) -> None:
    """Print the time of one change of each kind when all `objects` are loaded."""
    world = World(objects)
    assembler = TopologyAssembler(HERE)
    started = time.perf_counter()
    world.feed(assembler, assembler.apply())
    row(f"{name}_assemble", time.perf_counter() - started, "s")
    row(f"{name}_ports", len(assembler.view.ports), "ports")
    bound = [one for one in objects if isinstance(one, Port) and one.host_id is not None]
    locations = [one for one in objects if isinstance(one, PortLocation)]
    routes = [one for one in objects if isinstance(one, Route)]
    times: dict[str, list[float]] = {}
    for _ in range(20):
        port = _random.choice(bound)
        new_port = msgspec.structs.replace(port, id=PortId(new_id()), host_id=THERE)
        place = PortLocation(id=new_port.id, host_id=THERE, tunnel_key=3, epoch=1, active=True)
        route = _random.choice(routes)
        for kind, values in (
            ("port_toggled", [msgspec.structs.replace(port, admin_state_up=False)]),
            ("port_moved", [msgspec.structs.replace(_random.choice(locations), tunnel_key=77)]),
            ("route_changed", [msgspec.structs.replace(route, weight=_random.randrange(9))]),
            ("port_added", [new_port, place]),
        ):
            for value in values:
                world.put(value)
            keys: list[WatchKey] = [
                ObjectKey(type(value), value.id)  # type: ignore[attr-defined]
                for value in values
                if kind != "port_added"
            ] or [Referrers(Port, "bridge_id", new_port.bridge_id or HERE)]
            changes = [world.answer(key) for key in keys]
            gc.collect()
            started = time.perf_counter()
            world.feed(assembler, assembler.apply(changes))
            times.setdefault(kind, []).append((time.perf_counter() - started) * 1000)
    for kind, values_ms in times.items():
        row(f"{name}_{kind}", statistics.median(values_ms), "ms")
        row(f"{name}_{kind}_worst", max(values_ms), "ms")
    row(f"{name}_target", target_ms, "ms")


def measure_long_chain(rules: int) -> None:
    """Print what one more rule costs in a chain of `rules`, with all its rules in the view."""
    objects = topology(1, 1, rules)
    world = World(objects)
    assembler = TopologyAssembler(HERE)
    world.feed(assembler, assembler.apply())
    chain_id = next(one.id for one in objects if isinstance(one, Chain))
    assert len(assembler.view.chains[chain_id].rules) == rules
    ranks = spread(rules)
    times_ms = []
    for number in range(20):
        place = _random.randrange(1, rules)
        rank = between(ranks[place - 1], ranks[place], number)
        world.put(Rule(id=RuleId(new_id()), chain_id=chain_id, rank=rank, action=RuleAction.DROP))
        changes = [world.answer(Referrers(Rule, "chain_id", chain_id))]
        gc.collect()
        started = time.perf_counter()
        world.feed(assembler, assembler.apply(changes))
        times_ms.append((time.perf_counter() - started) * 1000)
    assert len(assembler.view.chains[chain_id].rules) == rules + 20
    row(f"topology_rule_added_to_{rules}", statistics.median(times_ms), "ms")
    row(f"topology_rule_added_to_{rules}_worst", max(times_ms), "ms")


async def measure_group(members: int) -> None:
    """Print what one more member of an address group of `members` costs: the work of an agent
    whose rules name the group, and the time from the write until its view has it."""
    group_id = IpAddressGroupId(new_id())
    table = StateTables.ip_address_group(group_id)
    chain, bridge, port_id = ChainId(new_id()), BridgeId(new_id()), PortId(new_id())
    condition = Condition(ip_address_group_src_id=group_id)
    objects: list[msgspec.Struct] = [
        Host(id=HERE, name="here"),
        IpAddressGroup(id=group_id, name="g"),
        Chain(id=chain),
        Rule(id=RuleId(new_id()), chain_id=chain, action=RuleAction.DROP, condition=condition),
        Bridge(id=bridge, inbound_filter_id=chain),
        Port(id=port_id, bridge_id=bridge, host_id=HERE, interface_name="tap"),
    ]
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "nsdb.db")
        await store.open()
        await store.transact([Create(one) for one in objects])
        keys = [f"10.{n >> 16}.{n >> 8 & 0xFF}.{n & 0xFF}/32" for n in range(0, 2 * members, 2)]
        for start in range(0, members, MAX_OPERATIONS):
            await store.transact([_member(table, key) for key in keys[start:][:MAX_OPERATIONS]])
        changed = asyncio.Event()
        watcher = TopologyWatcher(store, HERE, lambda *_: changed.set())
        async with asyncio.TaskGroup() as group:
            running = group.create_task(watcher.run())
            await watcher.wait_in_sync()
            assert len(watcher.view.address_groups[group_id]) == members
            work_ms, seen_ms = [], []
            for number in range(30):
                size = len(watcher.view.address_groups[group_id])
                changed.clear()
                started, busy = time.perf_counter(), time.thread_time()
                await store.transact([_member(table, f"192.0.2.{number}/32")])
                while len(watcher.view.address_groups[group_id]) == size:
                    changed.clear()
                    await changed.wait()
                seen_ms.append((time.perf_counter() - started) * 1000)
                work_ms.append((time.thread_time() - busy) * 1000)
            running.cancel()
        await store.close()
    row(f"topology_member_added_to_{members}_work", statistics.median(work_ms), "ms")
    row(f"topology_member_added_to_{members}_seen", statistics.median(seen_ms), "ms")


def _member(table: str, key: str) -> PutState:
    return PutState(table, key, "", UUID(int=9), is_persistent=True)


def random_routes(count: int) -> list[RouteView]:
    """Return routes of mixed prefix lengths."""
    version = IpVersion.V4
    made = []
    for _ in range(count):
        length = _random.choice([0, 8, 16, 20, 22, 23, 24, 24, 24, 25, 26, 27, 28, 30, 32])
        network = _random.getrandbits(32) & prefix_mask(version, length)
        made.append(
            RouteView(
                id=RouteId(new_id()),
                kind=NextHopKind.NORMAL,
                source=IpPrefix(version, 0, 0),
                destination=IpPrefix(version, network, length),
                next_hop_port_id=None,
                gateway=None,
                weight=0,
            )
        )
    return made


def measure_fib() -> None:
    """Print the figures of a table of 10,000 routes."""
    routes = random_routes(10_000)
    started = time.perf_counter()
    table = RoutingTable(routes)
    row("fib_build_10000", (time.perf_counter() - started) * 1000, "ms")
    addresses = [_random.getrandbits(32) for _ in range(20_000)]
    started = time.perf_counter()
    for address in addresses:
        table.lookup(IpVersion.V4, 1, address)
    row("fib_lookup", (time.perf_counter() - started) / len(addresses) * 1e6, "us")
    started = time.perf_counter()
    for route in random_routes(20):
        table = table.updated(added=[route])
    row("fib_update_one_of_10000", (time.perf_counter() - started) / 20 * 1000, "ms")


def measure_memory(objects: Sequence[msgspec.Struct]) -> None:
    """Print what the view and its facts cost, the stored objects themselves excluded."""
    world = World(objects)
    tracemalloc.start()
    assembler = TopologyAssembler(HERE)
    world.feed(assembler, assembler.apply())
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    row("topology_memory_per_object", size / len(objects), "B")


def main() -> None:
    """Run all measurements."""
    measure_long_chain(10_000)
    for members in (10, 10_000):
        asyncio.run(measure_group(members))
    measure_fib()
    asyncio.run(measure_load(topology(50, 80, 30)))
    measure_memory(topology(50, 80, 30))
    measure_change("world_70000", topology(700, 98, 5), 50)
    measure_change("bridge_10000", topology(1, 10_000, 5), 50)


if __name__ == "__main__":
    main()
