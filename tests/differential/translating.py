"""Rules of NAT and rules about directions, in generated networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from midonet.model.chains import FlowAction
from midonet.packets.addresses import IpVersion
from tests.differential.packets import HOSTS, NETWORKS, host_address
from tests.worlds import nat

if TYPE_CHECKING:
    from tests.differential.networks import Drawing

_AFTERWARDS = (FlowAction.ACCEPT, FlowAction.CONTINUE, FlowAction.RETURN)
_DIRECTIONS = ("match_forward_flow", "match_return_flow")


def draw_direction(drawing: Drawing) -> dict[str, Any]:
    """Return a test on the direction of the connection."""
    return {drawing.random.choice(_DIRECTIONS): True}


def draw_nat_rule(drawing: Drawing) -> Any:
    """Return a rule of NAT: static or dynamic, or for the way back."""
    random = drawing.random
    then = random.choice(_AFTERWARDS)
    kind = random.choice(("snat", "snat", "dnat", "rev_snat", "rev_dnat"))
    if kind.startswith("rev"):
        return nat(kind, then=then)
    version = random.choice(tuple(IpVersion))
    first = host_address(version, random.randrange(NETWORKS), random.randrange(1, HOSTS))
    target = str(first)
    if random.random() < 0.5:
        low = random.randrange(1024, 60_000)
        target = f"{target} {low}-{low + random.choice((0, 3, 500))}"
    return nat(kind, target, then=then, **drawing.own_condition())
