"""Every named behaviour of load balancers, on a live host."""

from __future__ import annotations

import pytest

from tests.scenario.balancing import Behaviour, Talk
from tests.scenario.balancing_paths import BEHAVIOURS
from tests.scenario.live_host import live_host


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
async def test_behaviour(behaviour: Behaviour) -> None:
    async with live_host(behaviour.make()) as host:
        await behaviour.happens(Talk(host, behaviour.kind))


def test_behaviours_are_named_apart() -> None:
    names = [behaviour.name for behaviour in BEHAVIOURS]
    assert len(names) == len(set(names))
