"""Every life of a connection, by simulation: in networks as built and as read from a store."""

from __future__ import annotations

import pytest

from tests.scenario.lives import LIVES
from tests.scenario.living import Becomes, Life, Simulated
from tests.scenario.running import BuiltLane
from tests.scenario.stored import stored_lane
from tests.worlds import World


@pytest.mark.parametrize("life", [pytest.param(one, id=one.name) for one in LIVES])
async def test_life_as_built(life: Life) -> None:
    world = life.make()
    lived = Simulated(life, BuiltLane(world), world)
    for index, event in enumerate(life.events):
        if isinstance(event, Becomes):
            world = event.make()
            await lived.become(BuiltLane(world), world)
        else:
            await lived.live(event, index)


@pytest.mark.parametrize(
    "life", [pytest.param(one, id=one.name) for one in LIVES if not one.only_simulated]
)
async def test_life_as_stored(life: Life) -> None:
    async with stored_lane(World()) as lane:
        world = life.make()
        await lane.become(world)
        await lane.caught_up()
        lived = Simulated(life, lane, world)
        for index, event in enumerate(life.events):
            if isinstance(event, Becomes):
                world = event.make()
                await lane.become(world)
                await lane.caught_up()
                await lived.become(lane, world)
            else:
                await lived.live(event, index)
