"""Chains that ask for connections: they let answers by, and begin what they let by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.worlds import rule

if TYPE_CHECKING:
    from tests.differential.networks import Drawing


def extend(drawing: Drawing) -> None:
    """Put stateful chains in the place of some, in a third of the networks."""
    random = drawing.random
    if random.random() > 1 / 3:
        return
    for name in drawing.chains:
        if random.random() < 0.5:
            begins = {} if random.random() < 0.5 else drawing.condition()
            last = random.choice(("drop", "drop", "reject", "accept"))
            drawing.world.chain(
                name,
                rule("accept", match_return_flow=True),
                rule("accept", **{**begins, "match_forward_flow": True}),
                rule(last),
            )
