"""Agents that restart, and a store that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from midonet.agent.datapath.memory import MemoryDatapath
from midonet.agent.datapath.protocol import Capabilities
from midonet.agent.flows.drop_reason import DropReason
from midonet.model.devices import Bridge, Port
from midonet.model.hosts import Host, PortLocation
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.store import StateTables
from midonet.packets.addresses import parse_mac
from tests.multiagent.hosts import Deployment, eventually, mac, udp
from tests.multiagent.unreliable_store import UnreliableStore

VM1, VM2, VM3 = mac(1), mac(2), mac(3)


class LastingDatapath(MemoryDatapath):
    """A datapath that keeps forwarding while no agent runs, as the kernel does."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, is_persistent=True)


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    deployment = Deployment(tmp_path)
    await deployment.open()
    yield deployment
    await deployment.store.close()


async def test_restart_loses_no_packet_of_a_known_class(deployment: Deployment) -> None:
    datapath = LastingDatapath(deployment.underlay)
    frame = udp(VM1, VM2, "10.0.0.1", "10.0.0.2")
    async with deployment.agent("h1", datapath=datapath) as h1:
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h1.id, "tap2")
        await deployment.settled(h1)
        datapath.receive(vm2, udp(VM2, VM1, "10.0.0.2", "10.0.0.1"))
        datapath.receive(vm1, frame)
        await eventually(lambda: h1.at(vm2))
        await eventually(lambda: not h1.agent.decisions.programs.table.pending)
        first_id = h1.id
    keys = dict(datapath.deliveries())

    left: list[bytes] = []
    unsubscribe = datapath.subscribe(
        lambda port_id, delivered: left.append(delivered) if port_id == vm2 else None
    )
    sent = 0

    def send() -> bool:
        nonlocal sent
        datapath.receive(vm1, frame)
        sent += 1
        return True

    send()
    async with deployment.agent("h1", datapath=datapath) as again:
        assert again.id == first_id
        await eventually(lambda: send() and again.agent.decisions.counters.rejudged)
        await eventually(lambda: send() and not again.agent.decisions.programs.table.pending)
        await eventually(lambda: len(left) == sent)
        assert dict(datapath.deliveries()) == keys
        assert not datapath.drops()
        # The programs are under control again: a new policy stops them.
        chain_id = await deployment.deny_all()
        await deployment.change(Bridge, bridge, inbound_filter_id=chain_id)
        await eventually(lambda: send() and datapath.drops().get((vm1, DropReason.FILTERED)))
    unsubscribe()


async def test_restart_loses_no_connection(deployment: Deployment) -> None:
    datapath = LastingDatapath(deployment.underlay)
    asked, other = udp(VM1, VM2, "10.0.1.1", "10.0.2.1"), udp(VM1, VM2, "10.0.1.9", "10.0.2.1")
    answer, unasked = (udp(VM2, VM1, "10.0.2.1", to, 2000, 1000) for to in ("10.0.1.1", "10.0.1.8"))
    late = udp(VM2, VM1, "10.0.2.1", "10.0.1.9", 2000, 1000)
    async with deployment.agent("h1", datapath=datapath) as h1:
        bridge = await deployment.bridge()
        chain_id = await deployment.answers_only()
        await deployment.change(Bridge, bridge, inbound_filter_id=chain_id)
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h1.id, "tap2")
        await deployment.settled(h1)
        for port_id, frame, to in ((vm1, asked, vm2), (vm2, answer, vm1), (vm1, other, vm2)):
            datapath.receive(port_id, frame)
            await eventually(lambda to=to, frame=frame: frame in h1.at(to))  # type: ignore[misc]
        assert len(h1.agent.decisions.connections.table) == 2

    left: list[bytes] = []
    unsubscribe = datapath.subscribe(lambda _, delivered: left.append(delivered))
    async with deployment.agent("h1", datapath=datapath) as again:
        for frame in (answer, late):
            await eventually(again.agent.loop.may_decide.is_set)
            datapath.receive(vm2, frame)
            await eventually(lambda frame=frame: frame in left)  # type: ignore[misc]
        datapath.receive(vm2, unasked)
        await eventually(lambda: datapath.drops().get((vm2, DropReason.FILTERED)))
        assert unasked not in left
        assert len(again.agent.decisions.connections.table) == 2
        # What is known from before is under the rules of now.
        deny = await deployment.deny_all()
        await deployment.change(Bridge, bridge, inbound_filter_id=deny)
        await eventually(lambda: not len(again.agent.decisions.connections.table))
    unsubscribe()


async def test_restart_takes_away_what_was_unbound_meanwhile(deployment: Deployment) -> None:
    datapath = LastingDatapath(deployment.underlay)
    async with deployment.agent("h1", datapath=datapath) as h1:
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h1.id, "tap2")
        await deployment.settled(h1)
    assert set(datapath.attached()) == {vm1, vm2}
    await deployment.change(Port, vm1, host_id=None, interface_name=None)
    async with deployment.agent("h1", datapath=datapath):
        await eventually(lambda: set(datapath.attached()) == {vm2})
        await eventually(lambda: all(vm1 not in ports for ports in datapath.deliveries().values()))


async def test_new_connections_go_on_while_the_store_is_away(deployment: Deployment) -> None:
    store = UnreliableStore(MemoryStore(deployment.backend))
    async with deployment.agent("h1", store=store) as h1:
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h1.id, "tap2")
        vm3 = await deployment.bridge_port(bridge, h1.id, "tap3")
        await deployment.settled(h1)
        store.is_away = True
        h1.datapath.receive(vm2, udp(VM2, VM1, "10.0.0.2", "10.0.0.1"))
        await eventually(lambda: h1.take(vm1) and h1.take(vm3))
        # What was learnt meanwhile counts here at once.
        frame = udp(VM1, VM2, "10.0.0.1", "10.0.0.2")
        h1.datapath.receive(vm1, frame)
        await eventually(lambda: h1.at(vm2))
        assert h1.take(vm2) == [frame]
        assert h1.at(vm3) == []
        assert await deployment.store.table(StateTables.mac(bridge)) == []

        store.is_away = False
        await eventually(lambda: not len(h1.agent.outbox))
        entries = await deployment.store.table(StateTables.mac(bridge))
        assert {entry.key: entry.value for entry in entries} == {VM1: str(vm1), VM2: str(vm2)}


async def test_lost_session_withdraws_nothing(deployment: Deployment) -> None:
    store = UnreliableStore(MemoryStore(deployment.backend))
    async with deployment.agent("h1", store=store, session_timeout_s=0.3) as h1:
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h1.id, "tap2")
        await deployment.settled(h1)
        h1.datapath.receive(vm2, udp(VM2, VM1, "10.0.0.2", "10.0.0.1"))
        await eventually(lambda: h1.take(vm1))
        await eventually(lambda: not len(h1.agent.outbox))

        store.is_away = True
        sessions = set(await deployment.store.live_sessions())
        assert h1.id in sessions
        while h1.id in await deployment.store.live_sessions():
            await eventually(lambda: True)
            await eventually(lambda: not h1.agent.keeper.is_live)
        location = await deployment.store.get(PortLocation, vm2)
        assert location is not None
        assert location.value.active
        store.is_away = False

        await eventually(lambda: h1.agent.keeper.is_live)
        await eventually(lambda: not len(h1.agent.outbox))
        soft = h1.agent.soft_state
        assert soft.mac_port(bridge, 0, parse_mac(VM2)) == vm2
        h1.datapath.receive(vm1, udp(VM1, VM2, "10.0.0.1", "10.0.0.2"))
        await eventually(lambda: h1.at(vm2))
        entries = await deployment.store.table(StateTables.mac(bridge))
        assert VM2 in {entry.key for entry in entries}


async def test_host_is_published_with_its_interfaces(deployment: Deployment) -> None:
    async with deployment.agent("h1") as h1:
        bridge = await deployment.bridge()
        await deployment.bridge_port(bridge, h1.id, "tap1")
        await deployment.settled(h1)
        async with asyncio.timeout(10):
            while True:
                entries = await deployment.store.table(StateTables.host_state())
                if any("tap1" in entry.value for entry in entries):
                    break
                await asyncio.sleep(0.01)
        assert [entry.key for entry in entries] == [str(h1.id)]
        host = await deployment.store.get(Host, h1.id)
        assert host is not None
        assert host.value.name == "h1"
    assert await deployment.store.table(StateTables.host_state()) == []


async def test_flood_of_new_destinations_does_not_starve_another_port(
    deployment: Deployment,
) -> None:
    async with deployment.agent("h1") as h1:
        bridge = await deployment.bridge()
        noisy = await deployment.bridge_port(bridge, h1.id, "tap1")
        quiet = await deployment.bridge_port(bridge, h1.id, "tap2")
        target = await deployment.bridge_port(bridge, h1.id, "tap3")
        await deployment.settled(h1)
        for number in range(900):
            h1.datapath.receive(noisy, udp(VM1, mac(1000 + number), "10.0.0.1", "10.0.0.9"))
        frame = udp(VM2, VM3, "10.0.0.2", "10.0.0.3")
        h1.datapath.receive(quiet, frame)
        await eventually(lambda: not len(h1.agent.decisions.queue))
        await eventually(lambda: frame in h1.at(target))
        place = h1.at(target).index(frame)
        assert place < 100
        await eventually(lambda: len(h1.at(target)) > place + 100)
