"""The named networks in a datapath: what leaves it are the very bytes that the scenario states."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from midonet.agent.decisions.tracked_connections import Settlement
from midonet.agent.flows.apply import prepared
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.plans import InstallPlan
from midonet.agent.flows.table import FlowTable
from midonet.agent.simulation.result import Await, Drop, Forward
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.frame import parse_frame
from tests.contract.datapath_harness import (
    HARNESSES,
    DatapathHarness,
    OpenHarness,
    eventually,
)
from tests.differential.wiring import at_harness, configure_overlay, opened
from tests.scenario.flow_states import FlowStates
from tests.scenario.running import Scenario, Step
from tests.scenario.test_scenarios import SCENARIOS
from tests.worlds import World

PORTS = 16
"""Ports that a harness has room for."""


@dataclass
class Batch:
    """Scenarios that share a datapath, which has a port for each name that they have locally."""

    names: set[str] = field(default_factory=set)
    scenarios: list[Scenario] = field(default_factory=list)


def batches(scenarios: Iterable[Scenario]) -> list[Batch]:
    """Return few batches that hold all scenarios."""
    found: list[Batch] = []
    for one in scenarios:
        names = _local_ports(one)
        room = (batch for batch in found if len(batch.names | names) <= PORTS)
        batch = next(room, None)
        if batch is None:
            batch = Batch()
            found.append(batch)
        batch.names |= names
        batch.scenarios.append(one)
    return found


@asynccontextmanager
async def lab(opener: OpenHarness, names: Iterable[str]) -> AsyncIterator[DatapathHarness]:
    """Open a datapath with a port for each name."""
    async with opener(max_programs=64) as harness:
        for name in sorted(names):
            harness.add_port(World().port_id(name))
        configure_overlay(harness)
        yield harness


def _local_ports(scenario: Scenario) -> set[str]:
    places = {leaving.place for step in scenario.steps for leaving in step.verdict.leaving}
    return {place for place in places if " " not in place} | {one.port for one in scenario.steps}


class Wire:
    """One harness, and what it has delivered before."""

    def __init__(self, harness: DatapathHarness) -> None:
        self._harness = harness
        self.compared = 0

    async def run(self, scenario: Scenario) -> None:
        """Send what can be installed; compare what comes out with what the scenario states."""
        world = scenario.make()
        view = at_harness(world.view(), self._harness, IpVersion.V4)
        soft_state, flows = world.soft_state(), FlowStates()
        for step in scenario.steps:
            flows.pass_time(step.after_s)
            packet = parse_frame(step.frame, hash_seed=self._harness.hash_seed)
            result = flows.judge(view, soft_state, packet, world.port_id(step.port))
            if isinstance(result, Await) or flows.settle(result) is not Settlement.DONE:
                continue
            soft_state.apply(result.effects)
            if not isinstance(result, Forward | Drop):
                continue
            if result.program.slow_path is None:
                plan = FlowTable(8).plan_install(result.program, 0, 0)
                assert isinstance(plan, InstallPlan)
                await self._send(world, step, plan)
            elif isinstance(result, Forward) and not result.generated:
                await self._carry(world, step, result)

    async def _send(self, world: World, step: Step, plan: InstallPlan) -> None:
        """Send a packet to the datapath that has its program."""
        harness, entry = self._harness, plan.entry
        left = self._watch(world, step)
        reason = entry.program.drop_reason
        drops_before = self._drops(entry.program.ingress, reason)
        harness.datapath.install((entry,))
        harness.send(entry.program.ingress, step.frame)
        if reason is not None:
            await eventually(lambda: self._drops(entry.program.ingress, reason) > drops_before)
            assert reason is step.verdict.reason
        await self._compare(step, left)
        harness.datapath.remove((entry,))
        harness.datapath.drop_mask(entry.program.ingress, entry.mask_id)

    async def _carry(self, world: World, step: Step, result: Forward) -> None:
        """Let the datapath send out a packet that the agent carries itself."""
        left = self._watch(world, step)
        for frame, outputs in prepared(step.frame, result.program.outputs):
            self._harness.datapath.emit(frame, outputs)
        await self._compare(step, left)

    def _watch(self, world: World, step: Step) -> Callable[[], list[tuple[str, bytes]]]:
        harness = self._harness
        names = {world.port_id(name): name for name in _local_ports(_alone(step))}
        before = {port_id: len(harness.delivered(port_id)) for port_id in names}
        outer_before = len(harness.sent_outer())

        def left() -> list[tuple[str, bytes]]:
            local = [
                (name, frame)
                for port_id, name in names.items()
                for frame in harness.delivered(port_id)[before[port_id] :]
            ]
            outer = map(opened, harness.sent_outer()[outer_before:])
            return sorted(
                [*local, *((f"{one.kind.value} {one.tunnel_key}", one.inner) for one in outer)]
            )

        return left

    async def _compare(self, step: Step, left: Callable[[], list[tuple[str, bytes]]]) -> None:
        expected = sorted((_place(one.place), one.frame) for one in step.verdict.leaving)
        await eventually(lambda: len(left()) >= len(expected))
        assert left() == expected
        self.compared += 1

    def _drops(self, port_id: PortId, reason: DropReason | None) -> int:
        return self._harness.datapath.drops().get((port_id, reason), 0) if reason else 0


def _alone(step: Step) -> Scenario:
    return Scenario("", World, (step,))


def _place(text: str) -> str:
    """Return `kind key` for a tunnel: the harness has one peer."""
    kind, *rest = text.split()
    return f"{kind} {rest[-1]}" if rest else kind


@pytest.mark.parametrize("opener", HARNESSES)
async def test_datapath_does_what_the_scenarios_state(opener: OpenHarness) -> None:
    compared = 0
    for batch in batches(SCENARIOS):
        async with lab(opener, batch.names) as harness:
            wire = Wire(harness)
            for scenario in batch.scenarios:
                await wire.run(scenario)
            compared += wire.compared
    assert compared > 500
