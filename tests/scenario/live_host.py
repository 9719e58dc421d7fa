"""One host of a stored network: its decisions over a memory datapath, following the store.

    async with live_host(world) as host:
        assert await host.send("vm1", frame) == Outcome((at("vm2", frame),))
        await host.edit(lambda world: world.set_up("vm2", False))

Programs, connections and translations are those that an agent would keep; only time stands still
until it is moved.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation.result import SimulationResult
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.soft_state.reading import Neighbour
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.model.ids import HostId, PortId
from midonet.packets.frame import parse_frame
from midonet.runtime.clock import ManualClock
from tests.scenario.running import Leaving
from tests.scenario.stored import StoredLane, stored
from tests.worlds import World


@dataclass(frozen=True)
class Outcome:
    """What left by local ports because of a frame, and the reasons for which something ended."""

    leaving: tuple[Leaving, ...] = ()
    drops: tuple[DropReason, ...] = ()


class LiveHost:
    """The local host of a world, with a port in the datapath for each that is bound here."""

    def __init__(self, world: World, lane: StoredLane) -> None:
        self.world = world
        self.clock = ManualClock()
        self.datapath = MemoryDatapath(
            InProcessUnderlay(), clock=self.clock, hash_seed=lane.view.hash_seed
        )
        host_id = HostId(world.id(world.local))
        self._soft_state = SoftStateReplica(host_id, self.clock, lambda _: None)
        self.decisions = Decisions(
            host_id, self.datapath, self.clock, self._soft_state, lambda _: None
        )
        self._loop = PacketLoop(self.datapath, self.decisions, self.clock, lambda: None)
        self._lane = lane
        self._seen = 0
        self._attached: set[PortId] = set()
        self._left: list[tuple[PortId, bytes]] = []
        self.datapath.subscribe(lambda port_id, frame: self._left.append((port_id, frame)))

    async def send(self, port: str, *frames: bytes) -> Outcome:
        """Let frames enter, one after the other; return what became of them together."""
        self._left.clear()
        before = self._drops()
        for frame in frames:
            self.datapath.receive(self.world.port_id(port), frame)
            await self._decide()
        leaving = [Leaving(self.world.name(port_id), frame) for port_id, frame in self._left]
        return Outcome(tuple(sorted(leaving)), tuple(sorted((self._drops() - before).elements())))

    async def edit(self, change: Callable[[World], object]) -> None:
        """Change the network, and let the host follow."""
        change(self.world)
        await self._lane.become(self.world)
        await self._lane.caught_up()
        await self.follow()

    async def follow(self) -> None:
        """Take over what the store has told."""
        for view, delta in self._lane.deltas[self._seen :]:
            self.decisions.view = view
            self.decisions.view_changed(delta)
        self._seen = len(self._lane.deltas)
        for port_id, port in self.decisions.view.ports.items():
            if port.host_id == self.decisions.view.host_id and port_id not in self._attached:
                self._attached.add(port_id)
                self.datapath.attach(PortAttachment(port_id, str(port_id)[:15]))
        for (router_id, address), known in self.world.soft_state().neighbours.items():
            if isinstance(known, Neighbour):
                lesson = LearnNeighbour(router_id, address, known.mac)
                self.decisions.facts_changed(self._soft_state.learn_neighbour(lesson))
        await self._decide()

    async def wait(self, duration_s: float) -> None:
        """Let time pass."""
        self.clock.advance(duration_s)
        await self.follow()

    @property
    def reasons(self) -> set[DropReason]:
        """Why packets were dropped so far."""
        return set(self._drops())

    def explain(self, port: str, frame: bytes) -> SimulationResult:
        """Return what would become of a frame, with its steps."""
        return self.decisions.explain(parse_frame(frame), self.world.port_id(port))

    async def _decide(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                for upcall in await self.datapath.upcalls(100):
                    self.decisions.enqueue(upcall)
        while self._loop.decide_batch():
            pass

    def _drops(self) -> Counter[DropReason]:
        counted: Counter[DropReason] = Counter()
        for (_, reason), count in self.datapath.drops().items():
            counted[reason] += count
        return counted


@asynccontextmanager
async def live_host(world: World) -> AsyncIterator[LiveHost]:
    """Store a network and open its local host."""
    async with stored(world) as lane:
        host = LiveHost(world, lane)
        await host.datapath.open()
        await host.follow()
        try:
            yield host
        finally:
            await host.datapath.close()
