"""Whatever fails at whichever step, an agent ends where it would have ended undisturbed.

An operator's doings run through on a store that the agent sees by `FaultyStore`. The undisturbed
run tells how many steps there are and where they lead; every other run has one fault at one
step, is healed, and must lead to the same: locations, keys, flood groups, the host's record and
state, what was learnt, and what the datapath holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest

from midonet.agent.daemon import Agent
from midonet.agent.host.host_keeper import host_record
from midonet.agent.host.state_directory import StateDirectory
from midonet.model.coordination import TunnelKeyUse
from midonet.model.devices import Bridge, Port, Router
from midonet.model.hosts import (
    FloodGroup,
    Host,
    PortLocation,
    TunnelZoneHost,
    tunnel_zone_host_id,
)
from midonet.model.ids import BridgeId, HostId, PortId, RouterId, TunnelZoneId
from midonet.nsdb import locations
from midonet.nsdb.locations import KeySource
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.store import Create, Delete, StateTables
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.neighbour import arp_request
from midonet.runtime.clock import ManualClock
from midonet.runtime.supervisor import Supervisor
from tests.multiagent.faults import Fault, Faults, FaultyDatapath, FaultyStore
from tests.multiagent.hosts import Deployment, mac, udp

VM1, VM2 = mac(1), mac(2)
pytestmark = pytest.mark.timeout(600)

DEADLINE_S = 60.0
SESSION_S = 9.0
"""Real time: so long the session of a secret that was lost is in the way."""

State = dict[str, Any]


class Life:
    """An agent's life with one fault in it."""

    host_id: HostId

    def __init__(self, directory: Path, fault: Fault, at_step: int) -> None:
        self.clock = ManualClock()
        self.deployment = Deployment(directory)
        self.directory = directory
        self.faults = Faults(fault, at_step)
        self.datapath = FaultyDatapath(self.deployment.underlay, self.clock)
        self.store: FaultyStore | None = None
        self.tables: list[str] = []
        self.speak: Callable[[], None] = lambda: None
        self._running: AsyncExitStack | None = None

    async def open(self) -> None:
        self.deployment.zone_id = TunnelZoneId(_uuid(0x99))
        await self.deployment.open()
        path = self.directory / "agent"
        path.mkdir(exist_ok=True)
        # The same names in every run, so that keys, which follow from them, are the same.
        (path / "host_id").write_text("00000000-0000-4000-8000-000000000001\n")
        directory = StateDirectory(path)
        self.host_id = directory.host_id()
        directory.close()
        await self.start()

    async def start(self) -> None:
        """Begin an incarnation of the agent."""
        async with AsyncExitStack() as stack:
            directory = StateDirectory(self.directory / "agent")
            stack.callback(directory.close)
            inner = MemoryStore(self.deployment.backend)
            await inner.open()
            stack.push_async_callback(inner.close)
            self.store = FaultyStore(inner, self.faults)
            self.datapath.faults = self.faults
            agent = Agent(
                host_record(directory.host_id(), "h1"),
                self.store,
                self.datapath,
                directory,
                self.clock,
                hash_seed=0,
                session_timeout_s=SESSION_S,
            )
            stack.push_async_callback(agent.datapath.close)
            supervisor = await stack.enter_async_context(Supervisor(self.clock))
            await agent.start(supervisor)
            self._running = stack.pop_all()

    async def stop(self) -> None:
        """End the incarnation as a kill does: nothing is given back."""
        if self._running is not None:
            running, self._running = self._running, None
            await running.aclose()

    async def turn(self, duration_s: float) -> None:
        """Let time pass; start the agent again when it was killed."""
        end_s = self.clock.now_s() + duration_s
        while self.clock.now_s() < end_s:
            if self.faults.killed.is_set():
                self.faults.killed.clear()
                await self.stop()
                await self.start()
            self.clock.advance(0.25)
            self.speak()
            for _ in range(15):
                await asyncio.sleep(0)
            await asyncio.sleep(0.0005)

    async def heal(self) -> None:
        self.faults.partitioned.clear()
        assert self.store is not None
        self.store.is_away = False

    async def close(self) -> None:
        await self.stop()
        await self.deployment.store.close()

    # What the operator and the machines do.

    async def host(self) -> None:
        """Wait for the host's record as an operator would: it is made by the agent."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.deployment.store.get(Host, self.host_id) is None:
                await self.turn(0.5)
                if self.faults.partitioned.is_set():
                    await self.heal()

    async def port(self, bridge_id: BridgeId, number: int, name: str) -> PortId:
        port = Port(
            id=PortId(_uuid(0x100 + number)),
            bridge_id=bridge_id,
            host_id=self.host_id,
            interface_name=name,
        )
        await self.deployment.store.transact([Create(port)])
        return port.id

    def receive(self, port_id: PortId, frame: bytes) -> None:
        if port_id in self.datapath.attached():
            self.datapath.receive(port_id, frame)

    async def state(self) -> State:
        """Return everything that is to be the same, without ids that are drawn at random."""
        store = self.deployment.store
        uses = await store.list_all(TunnelKeyUse)
        here = str(self.host_id)
        tables: dict[str, list[str]] = {}
        for name in (StateTables.host_state(), *self.tables):
            tables[name] = sorted(
                f"{entry.key} {'' if name == StateTables.host_state() else entry.value}"
                for entry in await store.table(name)
            )
        return {
            "hosts": [
                one.value.name for one in await store.list_all(Host) if one.value.id == self.host_id
            ],
            "locations": sorted(
                (one.value.id.int, str(one.value.host_id), one.value.tunnel_key, one.value.active)
                for one in await store.list_all(PortLocation)
            ),
            "groups": sorted(
                (str(one.value.host_id), one.value.tunnel_key)
                for one in await store.list_all(FloodGroup)
            ),
            "keys": sorted(
                (str(one.value.host_id), one.value.tunnel_key, one.value.released_at_s is None)
                for one in uses
                if str(one.value.host_id) == here and one.value.released_at_s is None
            ),
            "tables": tables,
            "attached": dict(self.datapath.attached()),
            "deliveries": dict(self.datapath.deliveries()),
            "overlay": self.datapath.overlay,
        }


def _uuid(number: int) -> UUID:
    return UUID(f"00000000-0000-4000-8000-{number:012x}")


async def bind_and_unbind(life: Life) -> None:
    """Ports are bound, one is unbound, one gets another interface."""
    await life.host()
    bridge = await _bridge(life)
    one = await life.port(bridge, 1, "tap1")
    two = await life.port(bridge, 2, "tap2")
    await life.turn(2.0)
    await life.deployment.change(Port, one, host_id=None, interface_name=None)
    await life.turn(2.0)
    await life.deployment.change(Port, two, interface_name="tap9")
    await life.turn(2.0)


async def move_away_and_back(life: Life) -> None:
    """A port moves to another host, which claims it, and back, which releases it."""
    await life.host()
    one = await life.port(await _bridge(life), 1, "tap1")
    await life.turn(2.0)
    other = Host(id=HostId(_uuid(0x77)), name="other")
    await life.deployment.store.transact([Create(other)])
    await life.deployment.change(Port, one, host_id=other.id)
    source = KeySource(Random(1), lambda: 0.0)
    store = life.deployment.store
    location = await locations.claim(store, one, other.id, source)
    await locations.set_active(store, location, is_active=True)
    await life.turn(1.0)
    await life.deployment.change(Port, one, host_id=life.host_id)
    await locations.release(store, location, source)
    await life.turn(2.0)


async def learn(life: Life) -> None:
    """Machines on two ports talk; one falls silent for ever when its port goes."""
    await life.host()
    bridge = await _bridge(life)
    life.tables.append(StateTables.mac(bridge))
    one = await life.port(bridge, 1, "tap1")
    two = await life.port(bridge, 2, "tap2")

    def speak() -> None:
        life.receive(one, udp(VM1, VM2, "10.0.0.1", "10.0.0.2"))
        life.receive(two, udp(VM2, VM1, "10.0.0.2", "10.0.0.1"))

    life.speak = speak
    await life.turn(4.0)
    await life.deployment.change(Port, two, host_id=None, interface_name=None)
    await life.turn(2.0)


async def keep_neighbours(life: Life) -> None:
    """A machine makes itself known to a router."""
    await life.host()
    router = RouterId(_uuid(0x22))
    life.tables.append(StateTables.router_arp(router))
    port = Port(
        id=PortId(_uuid(0x101)),
        router_id=router,
        mac=mac(0x101),
        addresses=("10.0.0.254/24",),
        host_id=life.host_id,
        interface_name="tap1",
    )
    await life.deployment.store.transact([Create(Router(id=router)), Create(port)])
    question = arp_request(parse_mac(VM1), parse_ip("10.0.0.1").value, parse_ip("10.0.0.254").value)
    life.speak = lambda: life.receive(port.id, question)
    await life.turn(4.0)


async def tunnels(life: Life) -> None:
    """This host and others join a tunnel zone, and one leaves."""
    await life.host()
    others = [Host(id=HostId(_uuid(0x70 + number)), name=f"o{number}") for number in range(2)]
    await life.deployment.store.transact([Create(other) for other in others])
    await life.deployment.join(life.host_id, "10.9.0.1")
    for number, other in enumerate(others):
        await life.deployment.join(other.id, f"10.9.0.{number + 2}")
        await life.turn(0.5)
    member = tunnel_zone_host_id(life.deployment.zone_id, others[0].id)
    await life.deployment.store.transact([Delete(TunnelZoneHost, member)])
    await life.turn(2.0)


async def _bridge(life: Life) -> BridgeId:
    bridge = Bridge(id=BridgeId(_uuid(0x11)))
    await life.deployment.store.transact([Create(bridge)])
    return bridge.id


SCRIPTS = (bind_and_unbind, move_away_and_back, learn, keep_neighbours, tunnels)


async def live(
    directory: Path, script: Callable[[Life], Awaitable[None]], fault: Fault, at_step: int
) -> tuple[Life, State]:
    life = Life(directory, fault, at_step)
    await life.open()
    await script(life)
    await life.turn(4.0)
    return life, await life.state()


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_fault_at_every_step_leads_to_the_same_end(
    tmp_path: Path, script: Callable[[Life], Awaitable[None]], fault: Fault
) -> None:
    (tmp_path / "undisturbed").mkdir()
    life, wanted = await live(tmp_path / "undisturbed", script, Fault.NONE, 0)
    steps = life.faults.steps
    await life.close()
    assert steps > 5
    assert wanted["hosts"] == ["h1"]
    for step in range(1, steps + 1):
        directory = tmp_path / f"{step}"
        directory.mkdir()
        disturbed, state = await live(directory, script, fault, step)
        await disturbed.heal()
        async with asyncio.timeout(DEADLINE_S):
            try:
                while state != wanted:
                    await disturbed.turn(1.0)
                    state = await disturbed.state()
            except asyncio.CancelledError:
                pass
        await disturbed.close()
        assert state == wanted, f"{fault} at step {step} of {steps}"
