"""Each sequence of states as it is, backwards, squashed, with empty states between, interleaved
with changes that concern none of it, shuffled, and each state alone; and the programs installed on
the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from random import Random

import pytest

from midonet.agent.flows.classification import covers
from midonet.agent.flows.plans import InstallPlan
from midonet.agent.flows.table import FlowTable
from midonet.agent.simulation.result import Drop, Forward
from midonet.agent.simulation.simulate import simulate
from midonet.packets.frame import parse_frame
from tests.differential.judging import passes_guards
from tests.scenario import dhcp_sequences, grouping, securing, watched_sequences
from tests.scenario.running import BuiltLane, Network, Step, settled
from tests.scenario.sequences import SEQUENCES, Sequence, State
from tests.scenario.stored import DEADLINE_S, StoredLane, stored, stored_lane
from tests.worlds import NOW, World, rule

EMPTY = State("empty", World, ())


def _forward(states: tuple[State, ...]) -> tuple[State, ...]:
    return states


def _reversed(states: tuple[State, ...]) -> tuple[State, ...]:
    return states[::-1]


def _with_empties(states: tuple[State, ...]) -> tuple[State, ...]:
    return (*(one for state in states for one in (EMPTY, state)), EMPTY, states[0])


def _busy(state: State) -> State:
    """Return the state in a deployment with other tenants."""

    def make() -> World:
        world = state.make().chain("theirs", rule("drop"))
        world.bridge("their bridge", inbound="theirs").router("their router", outbound="theirs")
        world.port("their vm", on="their bridge", host="h1").port("their trunk", on="their bridge")
        world.port("their gateway", on="their router", addresses=("10.0.1.1/24", "fd00:1::1/64"))
        world.link("their gateway", "their trunk")
        world.port("their vlan", on="their bridge", vlan=10)
        return world.route("their router", "0.0.0.0/0", via="their gateway", gateway="10.0.1.9")

    return replace(state, name=f"{state.name}, busy", make=make)


def _interleaved(states: tuple[State, ...]) -> tuple[State, ...]:
    """Nothing of the sequence changes from a state to the busy one and back."""
    return tuple(one for state in states for one in (state, _busy(state), state))


def _shuffled(states: tuple[State, ...]) -> tuple[State, ...]:
    random = Random(len(states))
    return tuple(random.choices(states, k=3 * len(states)))


ORDERS = (_forward, _reversed, _with_empties, _interleaved, _shuffled)
ALL = (
    *SEQUENCES,
    *grouping.SEQUENCES,
    securing.SEQUENCE,
    *dhcp_sequences.SEQUENCES,
    *watched_sequences.SEQUENCES,
)
named = pytest.mark.parametrize("sequence", [pytest.param(one, id=one.name) for one in ALL])


class History:
    """A store that goes from state to state, with the programs that an agent would hold."""

    def __init__(self, lane: StoredLane) -> None:
        self._lane = lane
        self._table = FlowTable(1024)
        self._seen = 0

    async def enter(self, state: State) -> None:
        """Go to a state; every packet gets its verdict, and installed programs agree."""
        world = state.make()
        await self._lane.become(world)
        await self._lane.caught_up()
        async with asyncio.timeout(DEADLINE_S):
            revision = -1
            while not await self._agrees(world, state):
                await self._lane.after(revision)
                revision = self._lane.view.revision
        self._invalidate()
        for step in state.steps:
            await self._check_program(world, step, state.name)

    async def _agrees(self, world: World, state: State) -> bool:
        for step in state.steps:
            network = Network(self._lane, world, deepcopy(world.soft_state()))
            if await network.judge(step) != step.verdict:
                return False
        return True

    def _invalidate(self) -> None:
        """Take out what the deltas touch, as if judging it again were never done in time."""
        for _, delta in self._lane.deltas[self._seen :]:
            plan = self._table.invalidate(delta, 0)
            self._table.plan_remove(one.program_id for one in plan.rejudge)
        self._seen = len(self._lane.deltas)

    async def _check_program(self, world: World, step: Step, name: str) -> None:
        """A program from an earlier state that is still there must be what is true now."""
        packet = parse_frame(step.frame, hash_seed=self._lane.view.hash_seed)
        port_id = world.port_id(step.port)
        soft_state = world.soft_state()
        result = await settled(
            self._lane, lambda view: simulate(view, soft_state, packet, port_id, NOW)
        )
        self._invalidate()
        held = self._table.lookup(port_id, packet.key)
        if not isinstance(result, Forward | Drop) or result.program.slow_path is not None:
            assert held is None or not passes_guards(held.program, packet), f"{name}: {held}"
            return
        if held is not None and passes_guards(held.program, packet):
            # It may look at more than would be needed now, as what it told apart may be gone.
            assert covers(held.program.mask, result.program.mask), name
            same = replace(
                held.program,
                key=packet.key,
                mask=result.program.mask,
                regions=result.program.regions,
            )
            assert same == result.program, name
        plan = self._table.plan_install(result.program, self._lane.view.revision, 0)
        assert isinstance(plan, InstallPlan)


@named
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.__name__.strip("_"))
async def test_verdicts_do_not_depend_on_what_was_before(
    sequence: Sequence, order: Callable[[tuple[State, ...]], tuple[State, ...]]
) -> None:
    async with stored_lane(World()) as lane:
        history = History(lane)
        for state in order(sequence.states):
            await history.enter(state)


@named
async def test_states_that_were_never_looked_at_leave_nothing_behind(sequence: Sequence) -> None:
    """Squashed: all states but the last come and go before the watcher is asked anything."""
    for last in range(len(sequence.states)):
        states = sequence.states[last + 1 :] + sequence.states[: last + 1]
        async with stored_lane(World()) as lane:
            for state in states[:-1]:
                await lane.become(state.make())
            await History(lane).enter(states[-1])


@named
async def test_each_state_alone(sequence: Sequence) -> None:
    for state in sequence.states:
        world = state.make()
        built = Network(BuiltLane(world), world, world.soft_state())
        async with stored(world) as lane:
            for step in state.steps:
                network = Network(lane, world, deepcopy(world.soft_state()))
                assert await network.judge(step) == step.verdict, state.name
        for step in () if state.only_stored else state.steps:
            network = replace(built, soft_state=deepcopy(world.soft_state()))
            assert await network.judge(step) == step.verdict, state.name


@named
def test_states_of_a_sequence_have_learnt_the_same(sequence: Sequence) -> None:
    first, *others = (state.make().soft_state() for state in sequence.states)
    assert all(one == first for one in others)


@named
async def test_view_after_a_history_is_that_of_a_fresh_watcher(sequence: Sequence) -> None:
    last = sequence.states[-1]
    async with stored_lane(World()) as lane:
        history = History(lane)
        for state in sequence.states:
            await history.enter(state)
        async with stored(last.make()) as fresh:
            for field in ("ports", "bridges", "routers", "chains", "locations", "tunnels"):
                old, new = getattr(lane.view, field), getattr(fresh.view, field)
                different = {key for key, value in new.items() if old.get(key) != value}
                assert not different, f"{field}: {different}"
