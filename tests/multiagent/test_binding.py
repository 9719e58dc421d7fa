"""Ports that cannot be bound as wanted, beside ports that can."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.flows.program import NO_REWRITE, TunnelOutput
from midonet.agent.ports.retrying import FIRST_PAUSE_S, LONGEST_PAUSE_S, Retries
from midonet.model.devices import Port
from midonet.model.hosts import PortLocation
from midonet.model.ids import PortId
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.sqlite.store import SqliteStore
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.neighbour import arp_request
from midonet.runtime.clock import ManualClock
from tests.multiagent.hosts import Deployment, eventually, mac, udp
from tests.multiagent.unreliable_store import UnreliableStore


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    deployment = Deployment(tmp_path)
    await deployment.open()
    yield deployment
    await deployment.store.close()


async def test_port_whose_interface_is_taken_waits_and_takes_over(deployment: Deployment) -> None:
    clock = ManualClock()
    async with deployment.agent("h1", clock=clock) as h1:
        passes = 0

        def count() -> None:
            nonlocal passes
            passes += 1

        h1.agent.binder._on_reconciled = count
        bridge = await deployment.bridge()
        first = await deployment.bridge_port(bridge, h1.id, "tap1")
        await eventually(lambda: first in h1.datapath.attached())
        second = await deployment.bridge_port(bridge, h1.id, "tap1")
        await eventually(lambda: second in h1.agent.binder.ports)
        clock.advance(1.0)  # by now the view shows both, or they are tried without
        await eventually(lambda: not h1.agent.binder.ports[second].is_active)
        for _ in range(50):
            await asyncio.sleep(0.001)
        before = passes
        for _ in range(200):
            await asyncio.sleep(0)
        assert passes == before  # time stands still, and so does the binder

        await deployment.change(Port, first, host_id=None, interface_name=None)
        await eventually(lambda: h1.datapath.attached() == {second: "tap1"})
        await eventually(lambda: h1.agent.binder.ports[second].is_active)


async def test_port_that_came_back_during_an_outage_is_claimed_again(
    deployment: Deployment,
) -> None:
    store = UnreliableStore(MemoryStore(deployment.backend))
    async with (
        deployment.agent("h1", "10.9.0.1", store=store) as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
    ):
        bridge = await deployment.bridge()
        port = await deployment.bridge_port(bridge, h1.id, "tap1")
        await deployment.settled(h1)
        store.is_away = True
        await deployment.change(Port, port, host_id=h2.id)
        await eventually(lambda: port in h2.datapath.attached())
        await deployment.change(Port, port, host_id=h1.id)
        await eventually(lambda: port not in h2.datapath.attached())
        store.is_away = False

        async with asyncio.timeout(10):
            while True:
                found = await deployment.store.get(PortLocation, port)
                if found is not None and found.value.host_id == h1.id and found.value.active:
                    break
                await asyncio.sleep(0.005)
        key = found.value.tunnel_key
        await eventually(lambda: h1.datapath.deliveries().get(key) == (port,))
        await eventually(lambda: port in h1.datapath.attached())


class WaitingDatapath(MemoryDatapath):
    """Takes packets of a port as soon as a kernel would: while `connect` has yet to return."""

    def __init__(self, underlay: InProcessUnderlay) -> None:
        super().__init__(underlay)
        self.may_return = asyncio.Event()
        self.may_return.set()
        self.too_early: list[PortId] = []

    async def connect(self, attachment: PortAttachment) -> None:
        await super().connect(attachment)
        await self.may_return.wait()

    def set_delivery(self, tunnel_key: int, port_ids: tuple[PortId, ...]) -> None:
        """Note ports for which packets are dropped that another version's programs deliver."""
        super().set_delivery(tunnel_key, port_ids)
        self.too_early += [port_id for port_id in port_ids if port_id not in self._ports]


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "second"])
async def test_answers_find_a_port_whose_packets_come_in(
    deployment: Deployment, is_first: bool
) -> None:
    """Broadcasts by the flood group and frames by the port's own key, before `connect` returns."""
    datapath = WaitingDatapath(deployment.underlay)
    async with (
        deployment.agent("h1", "10.9.0.1", datapath=datapath) as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
    ):
        bridge = await deployment.bridge()
        far = await deployment.bridge_port(bridge, h2.id, "far")
        if not is_first:
            await deployment.bridge_port(bridge, h1.id, "tap1")
        await deployment.settled(h1, h2)
        datapath.may_return.clear()
        port = await deployment.bridge_port(bridge, h1.id, "tap2")
        await eventually(lambda: port in datapath.attached())

        first = udp(mac(1), mac(2), "10.0.0.1", "10.0.0.2")
        datapath.receive(port, first)
        await eventually(lambda: h2.at(far))
        await eventually(lambda: port in h2.agent.decisions.view.locations)
        asked = arp_request(
            parse_mac(mac(2)), parse_ip("10.0.0.2").value, parse_ip("10.0.0.1").value
        )
        h2.datapath.receive(far, asked)
        await eventually(lambda: h1.at(port))
        await eventually(lambda: h2.agent.soft_state.mac_port(bridge, 0, parse_mac(mac(1))) == port)
        again = udp(mac(2), mac(1), "10.0.0.2", "10.0.0.1")
        h2.datapath.receive(far, again)
        await eventually(lambda: len(h1.at(port)) == 2)
        assert h1.take(port) == [asked, again]
        assert not datapath.drops()
        assert not datapath.too_early
        datapath.may_return.set()


async def test_location_that_cannot_be_understood_concerns_one_port_only(tmp_path: Path) -> None:
    path = tmp_path / "nsdb.db"
    deployment = Deployment(tmp_path, SqliteStore(path))
    await deployment.open()
    bridge = await deployment.bridge()
    async with deployment.agent("h1", store=SqliteStore(path)) as h1:
        bad = await deployment.bridge_port(bridge, h1.id, "tap1")
        await deployment.settled(h1)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE object SET body = '{' WHERE kind = 'PortLocation'")
    connection.commit()
    connection.close()
    async with deployment.agent("h1", store=SqliteStore(path)) as h1:
        good = await deployment.bridge_port(bridge, h1.id, "tap2")
        await eventually(lambda: good in h1.datapath.attached())
        await eventually(lambda: h1.agent.binder.ports[good].is_active)
        assert not h1.agent.binder.ports[bad].is_active
    await deployment.store.close()


def test_pause_doubles_for_each_thing_by_itself() -> None:
    clock = ManualClock()
    retries = Retries(clock)
    pauses = []
    for _ in range(8):
        retries.begin()
        assert retries.may_try("one")
        retries.failed("one")
        retries.end()
        [due_s] = retries.due_s()
        pauses.append(due_s - clock.now_s())
        clock.advance(pauses[-1])
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    retries.begin()
    assert retries.may_try("another")
    retries.end()
    # What was due and nobody wanted any more is forgotten: it does not keep anybody busy.
    assert not retries


def test_outage_does_not_lengthen_the_pause() -> None:
    clock = ManualClock()
    retries = Retries(clock)
    for _ in range(8):
        retries.begin()
        retries.failed("one", is_away=True)
        [due_s] = retries.due_s()
        assert due_s - clock.now_s() == FIRST_PAUSE_S
        clock.advance(FIRST_PAUSE_S)


async def test_what_is_flooded_to_a_host_reaches_no_port_that_would_not_take_it(
    deployment: Deployment,
) -> None:
    """A sender whose view is old does not know of filters and VLANs: the receiving host does."""
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
    ):
        bridge = await deployment.bridge()
        chain = await deployment.deny_all()
        far = await deployment.bridge_port(bridge, h2.id, "far")
        plain, *others = [
            await deployment.bridge_port(bridge, h1.id, f"tap{index}") for index in range(4)
        ]
        filtered = others[0]
        await deployment.settled(h1, h2)
        view = h2.agent.decisions.view
        output = TunnelOutput(
            view.tunnels[h1.id].kind,
            view.tunnels[h1.id].local,
            view.tunnels[h1.id].remote,
            view.flood_groups[h1.id, bridge],
            NO_REWRITE,
        )
        frame = udp(mac(1), mac(2), "10.0.0.1", "10.0.0.2")
        h2.datapath.emit(frame, [output])
        await eventually(lambda: all(h1.at(one) for one in (plain, *others)))

        changes: tuple[dict[str, object], ...] = (
            {"outbound_filter_id": chain},
            {"vlan_id": 10},
            {"admin_state_up": False},
        )
        for port_id, change in zip(others, changes, strict=True):
            await deployment.change(Port, port_id, **change)
        key = output.tunnel_key
        await eventually(lambda: h1.datapath.deliveries()[key] == (plain,))
        for port_id in (plain, *others):
            h1.take(port_id)
        h2.datapath.emit(frame, [output])
        await eventually(lambda: h1.at(plain))
        assert not any(h1.at(one) for one in others)

        await deployment.change(Port, filtered, outbound_filter_id=None)
        await eventually(lambda: set(h1.datapath.deliveries()[key]) == {plain, filtered})
        await deployment.change(Port, plain, vlan_id=20)
        await deployment.change(Port, filtered, vlan_id=20)
        await eventually(lambda: not h1.datapath.deliveries().get(key))
        assert far in h2.datapath.attached()
