"""The watcher over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import msgspec
import pytest

from midonet.agent.flows.tags import chain_tag, device_tag, location_tag
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.agent.topology.watching import TopologyWatcher, WatchSettings
from midonet.errors import UnavailableError
from midonet.model.chains import Chain, Rule, RuleAction
from midonet.model.devices import Bridge, Port, Route, Router
from midonet.model.hosts import Host, PortLocation
from midonet.model.ids import BridgeId, ChainId, HostId, ObjectId, PortId, RouteId, RouterId, RuleId
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.settings import set_mac_ageing
from midonet.nsdb.store import Create, Delete, Update

HERE = HostId(UUID(int=1))
BRIDGE = BridgeId(UUID(int=0x10))
NEAR_ROUTER, FAR_ROUTER = RouterId(UUID(int=0x11)), RouterId(UUID(int=0x12))
VM_PORT, BRIDGE_PORT = PortId(UUID(int=0x20)), PortId(UUID(int=0x21))
ROUTER_PORT, UPLINK, FAR_PORT = (PortId(UUID(int=number)) for number in (0x22, 0x23, 0x24))
CHAIN, RULE = ChainId(UUID(int=0x30)), RuleId(UUID(int=0x31))


class Following:
    """A watcher that runs, with what it published."""

    def __init__(self, store: MemoryStore, **settings: float) -> None:
        self.time = 0.0
        self.store = store
        self.deltas: list[ViewDelta] = []
        self._changed = asyncio.Event()
        self.watcher = TopologyWatcher(
            store,
            HERE,
            self._on_change,
            settings=WatchSettings(**settings),  # type: ignore[arg-type]
            now=lambda: self.time,
        )

    def _on_change(self, view: TopologyView, delta: ViewDelta) -> None:
        assert view.revision == delta.revision
        self.deltas.append(delta)
        self._changed.set()

    @property
    def view(self) -> TopologyView:
        return self.watcher.view

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def following() -> AsyncIterator[Following]:
    """VM port - bridge - near router - far router; the bridge has the only port bound here."""
    store = MemoryStore()
    await store.open()
    mac = "02:00:00:00:00:01"
    await store.transact(
        [
            Create(Host(id=HERE, name="here")),
            Create(Bridge(id=BRIDGE)),
            Create(Router(id=NEAR_ROUTER)),
            Create(Router(id=FAR_ROUTER)),
            Create(Port(id=VM_PORT, bridge_id=BRIDGE, host_id=HERE, interface_name="tap")),
            Create(Port(id=BRIDGE_PORT, bridge_id=BRIDGE, peer_port_id=ROUTER_PORT)),
            Create(
                Port(
                    id=ROUTER_PORT,
                    router_id=NEAR_ROUTER,
                    peer_port_id=BRIDGE_PORT,
                    mac=mac,
                    addresses=("10.0.0.1/24",),
                )
            ),
            Create(Port(id=UPLINK, router_id=NEAR_ROUTER, peer_port_id=FAR_PORT, mac=mac)),
            Create(Port(id=FAR_PORT, router_id=FAR_ROUTER, peer_port_id=UPLINK, mac=mac)),
            Create(
                Route(
                    id=RouteId(UUID(int=0x40)), router_id=NEAR_ROUTER, next_hop_port_id=UPLINK
                )
            ),
            Create(PortLocation(id=VM_PORT, host_id=HERE, tunnel_key=5, epoch=1, active=True)),
        ]
    )  # fmt: skip
    following = Following(store, collect_s=60.0, retention_s=600.0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(following.watcher.run())
        async with asyncio.timeout(60):
            await following.watcher.wait_in_sync()
        yield following
        running.cancel()
    await store.close()


async def test_loads_local_devices_and_the_first_router_but_not_the_next(
    following: Following,
) -> None:
    view = following.view
    assert set(view.ports) == {VM_PORT, BRIDGE_PORT, ROUTER_PORT, UPLINK}
    assert set(view.routers) == {NEAR_ROUTER}
    assert view.bridges[BRIDGE].flood_port_ids == (VM_PORT,)
    assert view.bridges[BRIDGE].attachments[0, 0x02_00_00_00_00_01].router_id == NEAR_ROUTER
    assert len(view.routers[NEAR_ROUTER].fib.lookup(4, 0, 0).routes) == 1  # type: ignore[arg-type]
    assert view.locations[VM_PORT].tunnel_key == 5
    assert not view.absent


async def test_request_loads_a_stub_with_its_device(following: Following) -> None:
    await following.watcher.request([FAR_PORT])
    assert FAR_PORT in following.view.ports
    assert FAR_ROUTER in following.view.routers


async def test_request_of_what_does_not_exist_is_answered_as_absence(following: Following) -> None:
    unknown = UUID(int=0x999)
    await following.watcher.request([unknown])
    assert unknown in following.view.absent


async def test_requested_device_stays_while_in_use_and_goes_after(following: Following) -> None:
    await following.watcher.request([FAR_PORT])
    in_use: list[ObjectId] = [FAR_ROUTER]
    following.watcher.set_in_use(lambda: in_use)
    for following.time in (550.0, 1100.0):
        await _nudge(following)
        assert FAR_ROUTER in following.view.routers
    in_use.clear()
    following.time = 1800.0
    await _nudge(following)
    await following.until(lambda: FAR_ROUTER not in following.view.routers)
    assert FAR_PORT not in following.view.ports
    assert NEAR_ROUTER in following.view.routers


async def _nudge(following: Following) -> None:
    """Cause a round of the watcher's loop and wait for it."""
    bridge = await following.store.get(Bridge, BRIDGE)
    assert bridge is not None
    admin_state_up = not bridge.value.admin_state_up
    await following.store.transact(
        [Update(msgspec.structs.replace(bridge.value, admin_state_up=admin_state_up))]
    )
    await following.until(lambda: following.view.bridges[BRIDGE].admin_state_up is admin_state_up)
    await asyncio.sleep(0)


async def test_filter_becomes_visible_with_its_chain_and_is_urgent_when_it_denies(
    following: Following,
) -> None:
    port = await following.store.get(Port, VM_PORT)
    assert port is not None
    await following.store.transact(
        [
            Create(Chain(id=CHAIN)),
            Create(Rule(id=RULE, chain_id=CHAIN, action=RuleAction.DROP)),
            Update(msgspec.structs.replace(port.value, inbound_filter_id=CHAIN)),
        ]
    )
    await following.until(lambda: following.view.ports[VM_PORT].inbound_filter_id == CHAIN)
    assert [rule.id for rule in following.view.chains[CHAIN].rules] == [RULE]
    assert device_tag(VM_PORT) in following.deltas[-1].urgent
    assert CHAIN not in following.view.absent


async def test_chain_and_its_only_use_go_together(following: Following) -> None:
    await test_filter_becomes_visible_with_its_chain_and_is_urgent_when_it_denies(following)
    port = await following.store.get(Port, VM_PORT)
    assert port is not None
    await following.store.transact(
        [
            Update(msgspec.structs.replace(port.value, inbound_filter_id=None)),
            Delete(Rule, RULE),
            Delete(Chain, CHAIN),
        ]
    )
    await following.until(lambda: CHAIN not in following.view.chains)
    assert following.view.ports[VM_PORT].inbound_filter_id is None
    tags = {tag for delta in following.deltas[-2:] for tag in delta.tags}
    assert {device_tag(VM_PORT), chain_tag(CHAIN)} <= tags


async def test_unbinding_a_port_is_urgent(following: Following) -> None:
    port = await following.store.get(Port, VM_PORT)
    assert port is not None
    await following.store.transact(
        [
            Delete(PortLocation, VM_PORT),
            Update(msgspec.structs.replace(port.value, host_id=None, interface_name=None)),
        ]
    )
    await following.until(lambda: VM_PORT not in following.view.locations)
    urgent = {tag for delta in following.deltas for tag in delta.urgent}
    assert location_tag(VM_PORT) in urgent
    await following.until(lambda: following.view.ports[VM_PORT].host_id is None)


async def test_request_fails_with_a_clear_error_when_nothing_answers() -> None:
    store = MemoryStore()
    await store.open()
    following = Following(store)
    with pytest.raises(UnavailableError):
        await following.watcher.request([FAR_PORT], timeout_s=0.01)
    await store.close()


async def test_ageing_times_of_cluster_and_bridge_come_with_the_view(following: Following) -> None:
    store = following.store
    assert following.view.mac_ageing_s == 300
    await set_mac_ageing(store, 40)
    await following.until(lambda: following.view.mac_ageing_s == 40)
    found = await store.get(Bridge, BRIDGE)
    assert found is not None
    await store.transact([Update(msgspec.structs.replace(found.value, mac_ageing_s=20))])
    await following.until(lambda: following.view.bridges[BRIDGE].mac_ageing_s == 20)
    assert not following.deltas[-1].tags  # no program depends on it
