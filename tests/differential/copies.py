"""Mirrors, DSCP marks and redirections of the generated networks."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from tests.worlds import World, retag

LOCAL_PORTS = tuple(f"l{index}" for index in range(6))

if TYPE_CHECKING:
    from tests.differential.networks import Drawing


def draw_mirrors(world: World, random: Random, condition: Callable[[], dict[str, Any]]) -> None:
    """Add mirrors at any hooks, to any ports of bridges or routers."""
    ports, devices = world.names()
    for index in range(random.randint(1, 3)):
        hook = random.choice(("inbound", "post_in_filter", "pre_out_filter", "outbound"))
        places = [*ports, *devices] if hook in ("inbound", "outbound") else ports
        tests = [random.choice(({}, condition()))]
        world.mirror(
            f"mirror {index}", random.choice(ports), *tests, **{hook: random.choice(places)}
        )


def draw_retag(drawing: Drawing) -> Any:
    """Return a rule that changes tags, and accepts or redirects."""
    random = drawing.random
    to = random.choice((None, *LOCAL_PORTS, "m0", "m1"))
    return retag(
        pop=random.random() < 0.5,
        push=random.choice((0, 0, 7, 1 << 13 | 10, 20)),
        to=to,
        ingress=to is not None and random.random() < 0.4,
        fail_open=to is not None and random.random() < 0.4,
        **drawing.condition(),
    )


def extend(drawing: Drawing) -> None:
    """Mirror and mark some networks."""
    random = drawing.random
    if random.random() < 0.3:
        draw_mirrors(drawing.world, random, drawing.condition)
    if random.random() < 0.3:
        dscp = random.choice((None, 0, 10, 46))
        where = random.choice((*drawing.bridges, "l0", "l1"))
        drawing.world.qos_policy("gold", dscp, where)
