"""Programs for tests of the flow table."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from midonet.agent.flows.classification import EXACT_MASK
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import EMPTY_MASK, FlowMask
from midonet.agent.flows.program import FlowProgram, LearnedMac, LocalOutput
from midonet.agent.flows.tags import FlowTag, RouteRegion, device_tag
from midonet.model.ids import PortId
from midonet.packets.flowkey import FlowKey

PORT = PortId(UUID(int=1))
OTHER_PORT = PortId(UUID(int=2))
EGRESS = PortId(UUID(int=9))
SECOND = 1_000_000_000

DST_MASK = EMPTY_MASK._replace(eth_dst=EXACT_MASK.eth_dst)


def tag(number: int) -> FlowTag:
    """Return one of many unrelated tags."""
    return device_tag(UUID(int=0x1000 + number))


def l4_mask(bits: int) -> FlowMask:
    """Return a mask of `bits` of the destination port; all differ."""
    return EMPTY_MASK._replace(l4_dst=bits)


def program(
    eth_dst: int = 1,
    *,
    ingress: PortId = PORT,
    mask: FlowMask = DST_MASK,
    key: FlowKey | None = None,
    egress: PortId = EGRESS,
    tags: frozenset[FlowTag] = frozenset(),
    regions: frozenset[RouteRegion] = frozenset(),
    learned: tuple[LearnedMac, ...] = (),
    lifetime_s: float = 60.0,
) -> FlowProgram:
    """Return a program that forwards to `egress`."""
    return FlowProgram(
        ingress=ingress,
        key=key or FlowKey(eth_dst, 0),
        mask=mask,
        outputs=(LocalOutput(egress),),
        tags=tags,
        regions=regions,
        learned=learned,
        lifetime_s=lifetime_s,
    )


def drop_program(eth_dst: int = 1) -> FlowProgram:
    """Return a program that drops."""
    return FlowProgram(PORT, FlowKey(eth_dst, 0), DST_MASK, drop_reason=DropReason.FILTERED)


@dataclass(frozen=True)
class Change:
    """Changed facts."""

    revision: int
    tags: frozenset[FlowTag] = frozenset()
    regions: frozenset[RouteRegion] = frozenset()
    urgent: frozenset[FlowTag] = frozenset()


@dataclass(frozen=True)
class Used:
    """A statistics entry."""

    last_used_ns: int
