"""A store that takes no writes for a while: what was forwarded goes on, during and after.

The store is the real file, locked by another connection. Time is virtual, of sessions and of
agents, so that a minute passes in a moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from midonet.errors import UnavailableError
from midonet.model.ids import BridgeId, RouterId
from midonet.nsdb.sqlite.options import StoreOptions
from midonet.nsdb.sqlite.store import SqliteStore
from midonet.nsdb.store import PutState, StateTables
from midonet.nsdb.transaction import BootTime
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.neighbour import arp_reply
from midonet.runtime.clock import ManualClock
from tests.multiagent.hosts import Deployment, RunningAgent, eventually, mac, udp

VM1, VM2, VM3 = mac(1), mac(2), mac(3)
ROUTER_1, ROUTER_2 = mac(0x101), mac(0x102)
THERE = udp(VM1, ROUTER_1, "10.0.1.5", "10.0.2.5")
ARRIVES = udp(ROUTER_2, VM2, "10.0.1.5", "10.0.2.5", ttl=63)
TIMEOUT_S = 30.0
STEP_S = 0.5


class VirtualStore:
    """Opens clients of one file whose sessions live by a clock in the test's hand."""

    def __init__(self, path: Path, clock: ManualClock, busy_timeout_s: float) -> None:
        self.path = path
        self.clock = clock
        self._clients: list[SqliteStore] = []
        self._is_locked = False
        self._options = StoreOptions(
            busy_timeout_s=busy_timeout_s, now=lambda: BootTime("here", clock.now_s())
        )

    def client(self, *, is_patient: bool = False) -> SqliteStore:
        """Return a client. is_patient: it waits for the other writers, as an operator does."""
        options = replace(self._options, busy_timeout_s=20.0) if is_patient else self._options
        store = SqliteStore(self.path, options)
        self._clients.append(store)
        return store

    async def settle(self) -> None:
        """Wait until every client has written what it wants to write now."""
        for _ in range(20):
            await asyncio.sleep(0)
        for client in () if self._is_locked else self._clients:
            with suppress(UnavailableError):
                await client.sequence("settled")

    async def pass_time(self, duration_s: float, each: Callable[[], None]) -> None:
        """Let virtual time pass in steps."""
        end_s = self.clock.now_s() + duration_s
        while self.clock.now_s() < end_s:
            self.clock.advance(STEP_S)
            each()
            await self.settle()

    async def meanwhile(self, work: Coroutine[None, None, None]) -> None:
        """Run something whose agents need time to pass."""
        task = asyncio.ensure_future(work)
        while not task.done():
            self.clock.advance(0.05)
            await self.settle()
        await task

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody write."""
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        connection.execute("BEGIN IMMEDIATE")
        self._is_locked = True
        try:
            yield
        finally:
            self._is_locked = False
            connection.execute("ROLLBACK")
            connection.close()


class Network:
    """VM 1 - bridge - router - bridge - VM 2, each bridge on a host of its own."""

    bridge_1: BridgeId
    bridge_2: BridgeId
    router: RouterId

    def __init__(
        self, deployment: Deployment, clock: ManualClock, h1: RunningAgent, h2: RunningAgent
    ) -> None:
        self.deployment, self.clock, self.h1, self.h2 = deployment, clock, h1, h2
        self._send_s = 0.0

    async def build(self) -> None:
        make = self.deployment
        self.bridge_1, self.bridge_2 = await make.bridge(), await make.bridge()
        self.router = await make.router()
        self.vm1 = await make.bridge_port(self.bridge_1, self.h1.id, "tap1")
        self.vm3 = await make.bridge_port(self.bridge_1, self.h1.id, "tap3")
        self.vm2 = await make.bridge_port(self.bridge_2, self.h2.id, "tap2")
        self.bystander = await make.bridge_port(self.bridge_2, self.h2.id, "tap4")
        for bridge, router_mac, address in (
            (self.bridge_1, ROUTER_1, "10.0.1.1/24"),
            (self.bridge_2, ROUTER_2, "10.0.2.1/24"),
        ):
            port = await make.router_port(self.router, router_mac, address)
            await make.link(port, await make.bridge_port(bridge))
        await make.settled(self.h1, self.h2)

    async def talk(self) -> None:
        """Let VM 2 be resolved and learnt, and wait until everybody knows."""
        # Virtual time may run ahead of the agents, so what waits too long is sent again.
        await eventually(lambda: self.send() and self.h2.take(self.vm2))
        answer = arp_reply(
            parse_mac(VM2),
            parse_ip("10.0.2.5").value,
            parse_mac(ROUTER_2),
            parse_ip("10.0.2.1").value,
        )
        self.h2.datapath.receive(self.vm2, answer)
        await eventually(lambda: self.send() and ARRIVES in self.h2.at(self.vm2))
        soft = self.h1.agent.soft_state
        await eventually(
            lambda: (
                soft.mac_port(self.bridge_2, 0, parse_mac(VM2)) == self.vm2
                and not self.h1.agent.decisions.programs.table.pending
                and not len(self.h1.agent.outbox)
                and not len(self.h2.agent.outbox)
            )
        )
        self.h2.left.clear()
        await eventually(lambda: self.send() and ARRIVES in self.h2.at(self.vm2))
        self.h2.left.clear()

    def send(self) -> bool:
        """Send a packet, at most one in two seconds."""
        if self.clock.now_s() >= self._send_s:
            self._send_s = self.clock.now_s() + 2.0
            self.h1.datapath.receive(self.vm1, THERE)
        return True

    async def learnt(self) -> dict[str, set[str]]:
        """Return what the store has in the tables of the devices: key and value by table."""
        names = (
            StateTables.mac(self.bridge_1),
            StateTables.mac(self.bridge_2),
            StateTables.router_arp(self.router),
        )
        return {
            name: {f"{one.key} {one.value}" for one in await self.deployment.store.table(name)}
            for name in names
        }


@pytest.mark.parametrize("busy_timeout_s", [0.01, 20.0], ids=["refused", "waiting"])
@pytest.mark.parametrize("outage_s", [15, 30, 60])
async def test_routed_traffic_survives_a_store_that_cannot_be_written(
    tmp_path: Path, outage_s: int, busy_timeout_s: float
) -> None:
    clock = ManualClock()
    virtual = VirtualStore(tmp_path / "nsdb.db", clock, busy_timeout_s)
    deployment = Deployment(tmp_path, virtual.client(is_patient=True))
    await deployment.open()
    async with (
        deployment.agent("h1", "10.9.0.1", store=virtual.client(), clock=clock) as h1,
        deployment.agent("h2", "10.9.0.2", store=virtual.client(), clock=clock) as h2,
    ):
        network = Network(deployment, clock, h1, h2)
        await virtual.meanwhile(network.build())
        await virtual.meanwhile(network.talk())
        before = await network.learnt()
        sessions = await deployment.store.live_sessions()
        sent = 0

        def send() -> None:
            nonlocal sent
            h1.datapath.receive(network.vm1, THERE)
            # VM 2 is alive: it answers whatever it is asked.
            for frame in h2.at(network.vm2):
                if frame[12:14] == b"\x08\x06":
                    h2.datapath.receive(network.vm2, _answer())
            sent += 1

        with virtual.locked():
            await virtual.pass_time(outage_s / 2, send)
            # A new connection between known end points, and an end point that is new.
            h1.datapath.receive(network.vm1, udp(VM1, ROUTER_1, "10.0.1.5", "10.0.2.5", 7777, 7777))
            h1.datapath.receive(network.vm3, udp(VM3, VM1, "10.0.1.7", "10.0.1.5"))
            await virtual.pass_time(outage_s / 2, send)
            assert any(b"\x1e\x61\x1e\x61" in frame for frame in h2.at(network.vm2))
        await virtual.pass_time(2 * TIMEOUT_S, send)

        arrived = [frame for frame in h2.at(network.vm2) if frame == ARRIVES]
        await virtual.meanwhile(eventually(lambda: not len(h1.agent.outbox)))
        assert len(arrived) == sent
        assert ARRIVES not in h2.at(network.bystander)
        assert await deployment.store.live_sessions() == sessions
        after = await network.learnt()
        table = StateTables.mac(network.bridge_1)
        assert after == {**before, table: before[table] | {f"{VM3} {network.vm3}"}}
    await deployment.store.close()


def _answer() -> bytes:
    return arp_reply(
        parse_mac(VM2), parse_ip("10.0.2.5").value, parse_mac(ROUTER_2), parse_ip("10.0.2.1").value
    )


async def test_owner_that_is_gone_loses_its_entries_after_an_outage_too(tmp_path: Path) -> None:
    clock = ManualClock()
    virtual = VirtualStore(tmp_path / "nsdb.db", clock, 0.01)
    store = virtual.client()
    await store.open()
    gone, alive = uuid4(), uuid4()
    await store.open_session(gone, timeout_s=TIMEOUT_S)
    session = await store.open_session(alive, timeout_s=TIMEOUT_S)
    await store.transact([PutState("t", "gone", "", gone), PutState("t", "alive", "", alive)])
    with virtual.locked():
        for _ in range(40):
            clock.advance(1.0)
            with pytest.raises(UnavailableError):
                await session.keep_alive()

    async def keep() -> None:
        while {entry.key for entry in await store.table("t")} != {"alive"}:
            assert await session.keep_alive()
            clock.advance(1.0)
            await asyncio.sleep(0.005)

    async with asyncio.timeout(10):
        await keep()
    assert await store.live_sessions() == {alive}
    await store.close()


async def test_session_past_its_deadline_is_kept_by_an_owner_that_is_back(tmp_path: Path) -> None:
    now_s = 100.0
    options = StoreOptions(now=lambda: BootTime("here", now_s))
    store = SqliteStore(tmp_path / "nsdb.db", options)
    await store.open()
    owner = uuid4()
    session = await store.open_session(owner, timeout_s=0.3)
    await store.transact([PutState("t", "k", "v", owner)])
    now_s = 100.35  # past the deadline, within the grace of a store that was just opened
    assert await session.keep_alive()
    assert [entry.key for entry in await store.table("t")] == ["k"]
    await store.close()
