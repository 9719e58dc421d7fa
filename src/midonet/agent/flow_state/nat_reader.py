"""What simulation asks when it has to choose a translation. Reads never wait, and choose only."""

from __future__ import annotations

from typing import Protocol

from midonet.agent.flow_state.allocations import AllocationTable
from midonet.agent.flow_state.pool import NatPool
from midonet.agent.flow_state.source_choice import FixedBlocks, SourceChoice, SourceChooser
from midonet.model.ids import ObjectId
from midonet.packets.five_tuple import FiveTuple


class NatReader(Protocol):
    """The end points that are free now."""

    def choose_source(
        self, owner: ObjectId, pool: NatPool, packet: FiveTuple, seed: int
    ) -> SourceChoice:
        """Return what the source of a packet may become by a pool of `owner`; reserves nothing.

        seed: 64 bits, the deployment's.
        """
        ...


class _AllFree:
    """A reader of which nothing is in use."""

    def __init__(self) -> None:
        self._chooser = SourceChooser(AllocationTable(), FixedBlocks())

    def choose_source(
        self, owner: ObjectId, pool: NatPool, packet: FiveTuple, seed: int
    ) -> SourceChoice:
        return self._chooser.choose(owner, pool, packet, seed)


ALL_FREE: NatReader = _AllFree()
"""What is asked where nothing keeps what was chosen: any end point will do."""
