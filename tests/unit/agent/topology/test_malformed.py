"""Stored objects with text that means nothing: whoever needs them drops, nothing stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
import pytest

from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.agent.topology.watching import TopologyWatcher, WatchSettings
from midonet.model.devices import Bridge, NextHopKind, Port, Route, Router
from midonet.model.dhcp import DhcpHost, DhcpSubnet, DhcpV6Host, DhcpV6Subnet
from midonet.model.hosts import (
    Host,
    PortLocation,
    TunnelKind,
    TunnelZone,
    TunnelZoneHost,
    tunnel_zone_host_id,
)
from midonet.model.ids import BridgeId, HostId, PortId, RouteId, RouterId, TunnelZoneId
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.store import Create, PutState, StateTables, Update
from midonet.packets.addresses import IpVersion

HERE, THERE = HostId(UUID(int=1)), HostId(UUID(int=2))
BRIDGE, ROUTER = BridgeId(UUID(int=3)), RouterId(UUID(int=4))
VM_PORT, ROUTER_PORT = PortId(UUID(int=5)), PortId(UUID(int=6))
ROUTE, ZONE = RouteId(UUID(int=7)), TunnelZoneId(UUID(int=8))
REJECT, REJECTED = RouteId(UUID(int=9)), 0x0A090001
SUBNET, SUBNET_V6 = UUID(int=10), UUID(int=12)
MEMBER = tunnel_zone_host_id(ZONE, THERE)

GARBAGE = "\u2028nonsense/999"

OBJECTS: tuple[msgspec.Struct, ...] = (
    Host(id=HERE, name="here"),
    Host(id=THERE, name="there"),
    Bridge(id=BRIDGE, name="b"),
    Router(id=ROUTER, name="r"),
    Port(id=VM_PORT, bridge_id=BRIDGE, host_id=HERE, interface_name="tap"),
    Port(
        id=ROUTER_PORT,
        router_id=ROUTER,
        host_id=HERE,
        interface_name="tap2",
        mac="02:00:00:00:00:01",
        addresses=("10.0.0.1/24",),
    ),
    Route(id=ROUTE, router_id=ROUTER, next_hop_port_id=ROUTER_PORT, gateway="10.0.0.9"),
    Route(id=REJECT, router_id=ROUTER, kind=NextHopKind.REJECT, destination="10.9.0.0/16"),
    PortLocation(id=VM_PORT, host_id=HERE, tunnel_key=5, epoch=1, active=True),
    TunnelZone(id=ZONE, name="z", kind=TunnelKind.VXLAN),
    TunnelZoneHost(
        id=tunnel_zone_host_id(ZONE, HERE), tunnel_zone_id=ZONE, host_id=HERE, address="192.0.2.1"
    ),
    TunnelZoneHost(id=MEMBER, tunnel_zone_id=ZONE, host_id=THERE, address="192.0.2.2"),
    DhcpSubnet(
        id=SUBNET, bridge_id=BRIDGE, prefix="10.0.1.0/24", server_address="10.0.1.1",
        gateway="10.0.1.1", dns_addresses=("192.0.2.53",),
    ),
    DhcpHost(id=UUID(int=11), subnet_id=SUBNET, mac="02:00:00:00:00:05", address="10.0.1.5"),
    DhcpV6Subnet(
        id=SUBNET_V6, bridge_id=BRIDGE, prefix="fd00:1::/64", dns_addresses=("2001:db8::53",),
        domains=("example.org",),
    ),
    DhcpV6Host(id=UUID(int=13), subnet_id=SUBNET_V6, client_id="02:00:00", address="fd00:1::5"),
)  # fmt: skip


def corruptions() -> Iterator[tuple[str, msgspec.Struct]]:
    """Yield each object with garbage in one of its text fields."""
    for stored in OBJECTS:
        for field in stored.__struct_fields__:
            value = getattr(stored, field)
            if type(value) is str:
                bad: object = GARBAGE
            elif isinstance(value, tuple) and value and isinstance(value[0], str):
                bad = (GARBAGE,)
            else:
                continue
            yield (
                f"{type(stored).__name__}.{field}",
                msgspec.structs.replace(stored, **{field: bad}),
            )


class Watching:
    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.changed = asyncio.Event()
        self.watcher = TopologyWatcher(
            store, HERE, self._take, settings=WatchSettings(settle_s=0.05)
        )

    def _take(self, _view: TopologyView, _delta: ViewDelta) -> None:
        self.changed.set()

    async def until(self, name: str) -> None:
        """Wait until the view shows a bridge's last name, by a port that comes with it."""
        port_id = PortId(UUID(int=hash(name) & 0xFFFF | 0x10000))
        await self.store.transact([Create(Port(id=port_id, bridge_id=BRIDGE))])
        async with asyncio.timeout(10):
            while port_id not in self.watcher.view.ports:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def watching() -> AsyncIterator[Watching]:
    store = MemoryStore()
    await store.open()
    await store.transact([Create(one) for one in OBJECTS])
    await store.open_session(THERE)
    state = '{"id":"x","overlay_mtu_bytes":1450}'
    await store.transact([PutState(StateTables.host_state(), str(THERE), state, THERE)])
    following = Watching(store)
    running = asyncio.ensure_future(following.watcher.run())
    async with asyncio.timeout(10):
        await following.watcher.wait_in_sync()
    yield following
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


@pytest.mark.parametrize(
    "corrupt", [one for _, one in corruptions()], ids=[name for name, _ in corruptions()]
)
async def test_watching_goes_on_whatever_text_an_object_holds(corrupt: msgspec.Struct) -> None:
    async with watching() as following:
        await following.store.transact([Update(corrupt)])
        await following.until("after")
        assert BRIDGE in following.watcher.view.bridges
        assert VM_PORT in following.watcher.view.ports


async def test_what_means_nothing_is_as_if_it_were_not_there() -> None:
    async with watching() as following:
        assert THERE in following.watcher.view.tunnels
        assert following.watcher.view.routers[ROUTER].fib.lookup(IpVersion.V4, 0, REJECTED).routes
        by_name = dict(corruptions())
        for name in ("Port.mac", "Route.destination", "TunnelZoneHost.address"):
            await following.store.transact([Update(by_name[name])])
        await following.until("after")
        view = following.watcher.view
        assert ROUTER_PORT in view.absent
        assert THERE not in view.tunnels
        assert not view.routers[ROUTER].fib.lookup(IpVersion.V4, 0, REJECTED).routes


@pytest.mark.parametrize("state", ["{", "[]", '{"overlay_mtu_bytes":"many"}', ""])
async def test_host_whose_state_means_nothing_counts_as_dead(state: str) -> None:
    async with watching() as following:
        facts = following.watcher._assembler._tracker.facts
        assert THERE in facts.host_states
        await following.store.transact(
            [PutState(StateTables.host_state(), str(THERE), state, THERE)]
        )
        await following.until("after")
        assert THERE not in facts.host_states
        assert THERE in following.watcher._assembler.undecodable
        good = '{"overlay_mtu_bytes":1400,"of_a_newer_version":[1]}'
        await following.store.transact(
            [PutState(StateTables.host_state(), str(THERE), good, THERE)]
        )
        await following.until("later")
        assert facts.host_states[THERE] == 1400
        assert THERE not in following.watcher._assembler.undecodable
