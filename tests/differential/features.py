"""What parts of the product add to the generated networks.

A part writes its generators in a module of its own and names them in a `Feature` below. The rest of
the lane (histories, masks, datapaths) then meets them too:

    NAT = Feature("nat", rules=(draw_nat_rule,))

Every generator draws from `drawing.random` only, so that a seed repeats its network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.differential import (
    asking,
    balancing_draws,
    copies,
    grouping,
    securing,
    serving,
    translating,
)

if TYPE_CHECKING:
    from tests.differential.networks import Drawing

Extend = Callable[["Drawing"], None]
DrawCondition = Callable[["Drawing"], dict[str, Any]]
DrawRule = Callable[["Drawing"], Any]


@dataclass(frozen=True)
class Feature:
    """Generators of one part.

    prepare: adds what rules and devices may refer to (groups, pools), before chains are drawn.
    conditions: each draws fields of `Condition` for a rule. rules: each draws a rule.
    extend: adds to the network when all else is there.
    """

    name: str
    prepare: Extend | None = None
    conditions: tuple[DrawCondition, ...] = ()
    rules: tuple[DrawRule, ...] = ()
    extend: Extend | None = None


GROUPS = Feature("groups", prepare=grouping.draw_groups, conditions=(grouping.draw_membership,) * 2)
COPIES = Feature("copies", rules=(copies.draw_retag,), extend=copies.extend)

DHCP = Feature("dhcp", extend=serving.extend)

NAT = Feature("nat", rules=(translating.draw_nat_rule,))

DIRECTIONS = Feature("directions", conditions=(translating.draw_direction,))

SECURITY = Feature("port security", extend=securing.secure_ports)

CONNECTIONS = Feature("connections", extend=asking.extend)

BALANCING = Feature("balancing", extend=balancing_draws.extend)

FEATURES: tuple[Feature, ...] = (
    NAT,
    DIRECTIONS,
    GROUPS,
    SECURITY,
    COPIES,
    DHCP,
    CONNECTIONS,
    BALANCING,
)
