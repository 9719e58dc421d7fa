"""The lives of connections, decided on by the agent's own loop and lived in a datapath."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from midonet.agent.datapath.protocol import Datapath, ProgramStatistics
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LearnedMac
from midonet.agent.flows.tags import FlowTag, chain_tag, device_tag
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.soft_state.reading import Neighbour
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.model.ids import HostId, PortId
from midonet.runtime.clock import SystemClock
from tests.contract.datapath_harness import (
    HARNESSES,
    DatapathHarness,
    OpenHarness,
    eventually,
)
from tests.scenario.lives import LIVES
from tests.scenario.living import TICK_S, After, Becomes, Gone, Known, Life
from tests.scenario.running import Step, describe
from tests.worlds import World

PORTS = ("a", "c", "d")


class ShiftedClock(SystemClock):
    """The system's clocks, further on by what the test says has gone by."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self.shift_s

    def boot_ns(self) -> int:
        return super().boot_ns() + round(self.shift_s * 1e9)


class Shifted:
    """A datapath whose programs were used when the shifted clock says.

    What it counted until time is moved (`note`) was counted at the time that it was then.
    """

    def __init__(self, datapath: Datapath, clock: ShiftedClock) -> None:
        self._datapath = datapath
        self._clock = clock
        self._seen: dict[int, tuple[int, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._datapath, name)

    def note(self) -> None:
        """Take note of what was used by now."""
        self.statistics()

    def statistics(
        self, program_ids: Iterable[int] | None = None
    ) -> Mapping[int, ProgramStatistics]:
        found = dict(self._datapath.statistics(program_ids))
        for number, usage in found.items():
            if self._seen.get(number, (0, 0))[0] != usage.last_used_ns:
                then_ns = usage.last_used_ns + round(self._clock.shift_s * 1e9)
                self._seen[number] = usage.last_used_ns, then_ns
            found[number] = replace(usage, last_used_ns=self._seen[number][1])
        return found


class Agent:
    """The part of an agent that decides, on a harness, for the time of one life."""

    def __init__(self, life: Life, harness: DatapathHarness) -> None:
        self.world = life.make()
        self._life = life
        self._harness = harness
        self._clock = ShiftedClock()
        host_id = HostId(self.world.id(self.world.local))
        self._soft_state = SoftStateReplica(host_id, self._clock, lambda _: None)
        self._statistics = Shifted(harness.datapath, self._clock)
        datapath: Any = self._statistics
        self.decisions = Decisions(
            host_id,
            datapath,
            self._clock,
            self._soft_state,
            lambda _: None,
            connection_table=life.table(),
        )
        self.decisions.view = self._view(self.world, 1)
        self._loop = PacketLoop(datapath, self.decisions, self._clock, lambda: None)
        self._before = {name: len(self._delivered(name)) for name in PORTS}
        self._expected: dict[str, list[bytes]] = {name: [] for name in PORTS}
        self._learn()

    def _view(self, world: World, revision: int) -> TopologyView:
        return replace(world.view(), revision=revision, hash_seed=self._harness.hash_seed)

    def _learn(self) -> None:
        known = self.world.soft_state()
        for (bridge_id, vlan, mac), port_id in known.macs.items():
            self.decisions.learning.learn(LearnedMac(bridge_id, vlan, mac, port_id), port_id)
        for (router_id, address), neighbour in known.neighbours.items():
            assert isinstance(neighbour, Neighbour)
            source = self.world.port_id("a")
            lesson = LearnNeighbour(router_id, address, neighbour.mac)
            self._soft_state.learn_neighbour(lesson, source)

    async def read(self) -> None:
        """Decide on what comes up, until cancelled."""
        while True:
            for upcall in await self._harness.datapath.upcalls(100):
                # When it came up is not to be compared with a clock that was moved.
                self.decisions.enqueue(replace(upcall, received_ns=0))
            self._work()

    def _work(self) -> None:
        while self._loop.decide_batch():
            pass

    async def live(self) -> None:
        """Let everything of the life happen; it must come out as stated."""
        for index, event in enumerate(self._life.events):
            where = f"{self._life.name}, event {index}"
            match event:
                case Step():
                    await self._send(event, where)
                case After(seconds):
                    self._wait(seconds)
                case Gone(port):
                    self._forget(port)
                case Known(count):
                    table = self.decisions.connections.table
                    assert len(table) == count, f"{where}: {list(table)}"
                case Becomes():
                    self._become(event.make())
        for name in PORTS:
            left = self._delivered(name)[self._before[name] :]
            assert sorted(left) == sorted(self._expected[name]), self._life.name

    async def _send(self, step: Step, where: str) -> None:
        port_id, reason = self.world.port_id(step.port), step.verdict.reason
        drops = self._drops(port_id, reason)
        for leaving in step.verdict.leaving:
            self._expected[leaving.place].append(leaving.frame)
        self._harness.send(port_id, step.frame)

        def has_come_out() -> bool:
            has_left = all(
                len(self._delivered(name)) >= self._before[name] + len(self._expected[name])
                for name in PORTS
            )
            return has_left and (reason is None or self._drops(port_id, reason) > drops)

        try:
            await eventually(has_come_out)
        except AssertionError:
            all_drops = dict(self._harness.datapath.drops())
            raise AssertionError(f"{where}: {describe(step.frame)} {all_drops}") from None

    def _wait(self, seconds: float) -> None:
        self._statistics.note()
        while seconds > 0:
            self._clock.shift_s += min(seconds, TICK_S)
            seconds -= TICK_S
            self._loop.tick()
            self._work()

    def _become(self, world: World) -> None:
        before, self.world = self.decisions.view, world
        now = self._view(world, before.revision + 1)
        self.decisions.view = now
        tags: set[FlowTag] = set()
        for view in (before, now):
            tags |= {device_tag(one) for one in (*view.ports, *view.bridges, *view.routers)}
            tags |= {chain_tag(one) for one in (*view.chains, *view.absent)}
        self.decisions.view_changed(ViewDelta(now.revision, frozenset(tags)))
        self._work()

    def _forget(self, name: str) -> None:
        port_id = self.world.port_id(name)
        programs = self.decisions.programs
        programs.remove(
            [one.program_id for one in programs.table if one.program.ingress == port_id]
        )
        self.decisions.forget_port(port_id)
        self._work()

    def leave(self) -> None:
        """Take the programs out of the datapath."""
        programs = self.decisions.programs
        programs.remove([one.program_id for one in programs.table])

    def _delivered(self, name: str) -> list[bytes]:
        return self._harness.delivered(self.world.port_id(name))

    def _drops(self, port_id: PortId, reason: DropReason | None) -> int:
        return self._harness.datapath.drops().get((port_id, reason), 0) if reason else 0


@pytest.fixture(scope="module", params=HARNESSES)
def opener(request: pytest.FixtureRequest) -> OpenHarness:
    opened: OpenHarness = request.param
    return opened


@pytest.fixture
async def harness(opener: OpenHarness) -> AsyncIterator[DatapathHarness]:
    async with opener(max_programs=256) as opened:
        for name in PORTS:
            opened.add_port(World().port_id(name), upcalls_per_second=50_000)
        yield opened


GROUPS = 8


@pytest.mark.parametrize("group", range(GROUPS))
async def test_lives_come_out_in_a_datapath_as_in_simulation(
    harness: DatapathHarness, group: int
) -> None:
    for life in LIVES[group::GROUPS]:
        agent = Agent(life, harness)
        reading = asyncio.create_task(agent.read())
        try:
            await agent.live()
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            agent.leave()
