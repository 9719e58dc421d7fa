"""What this host has translated: end points reserved for connections, and fragmented datagrams.

An end point is reserved before its connection is entered, and freed when the connection is gone;
when only its port is gone (it may live on at another host) after its idle time. Nobody else frees
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count

import structlog

from midonet.agent.flow_state.allocations import Allocation, AllocationTable
from midonet.agent.flow_state.connection import Connection
from midonet.agent.flow_state.connection_table import Change, ConnectionTable
from midonet.agent.flow_state.effects import NoteExhaustion
from midonet.agent.flow_state.fragments import FragmentTable
from midonet.agent.flow_state.pool import NatPool
from midonet.agent.flow_state.source_choice import (
    BlockReader,
    FixedBlocks,
    LeaseBlock,
    SourceChoice,
    SourceChooser,
    allocations_of,
)
from midonet.agent.flow_state.timeouts import DEFAULT_TIMEOUTS, idle_lifetime_s
from midonet.agent.simulation.result import FetchFirstFragment
from midonet.model.ids import ObjectId
from midonet.packets.five_tuple import FiveTuple
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle

_CLASH_S = 10.0
"""How long an end point is avoided whose answers would be taken for another connection's."""

_REMOVALS = frozenset(Change) - {
    Change.CONFIRMED,
    Change.ADVANCED,
    Change.TOLD,
    Change.RESTORED,
}

_log = structlog.get_logger("nat")


class Translations:
    """A `NatReader` with what it reads from."""

    def __init__(
        self, clock: Clock, table: ConnectionTable, *, blocks: BlockReader | None = None
    ) -> None:
        """blocks: of ports that this host may use; all of them unless hosts share them."""
        self.allocations = AllocationTable()
        self.fragments = FragmentTable()
        self.exhausted: Counter[tuple[ObjectId, NatPool]] = Counter()
        """Packets dropped because a pool of a device had nothing free."""
        self.blocks: BlockReader = blocks or FixedBlocks()
        self.lease: Callable[[LeaseBlock], None] = lambda _: None
        self.is_leasing: Callable[[LeaseBlock], bool] = lambda _: False
        self._clock = clock
        self._throttle = Throttle(clock)
        self._tokens = count(1)
        self._holders: dict[int, int] = {}
        table.on_change(self._note)

    def choose_source(
        self, owner: ObjectId, pool: NatPool, packet: FiveTuple, seed: int
    ) -> SourceChoice:
        """Return what the source of a packet may become by a pool of `owner`; reserves nothing."""
        return SourceChooser(self.allocations, self.blocks).choose(owner, pool, packet, seed)

    def lease_from(
        self,
        blocks: BlockReader,
        lease: Callable[[LeaseBlock], None],
        is_leasing: Callable[[LeaseBlock], bool],
    ) -> None:
        """Use only ports of blocks that are leased, and have further ones leased."""
        self.blocks, self.lease, self.is_leasing = blocks, lease, is_leasing

    def obtain(self, what: FetchFirstFragment | LeaseBlock) -> None:
        """A packet waits for a first fragment, or for ports."""
        if isinstance(what, LeaseBlock):
            self.lease(what)
        else:
            self.fragments.expect(what.datagram, self._clock.now_s())

    def has_come(self, what: FetchFirstFragment | LeaseBlock) -> bool:
        """Tell whether the wait is over, with or without what was waited for."""
        if isinstance(what, LeaseBlock):
            return not self.is_leasing(what)
        return not self.fragments.may_come(what.datagram, self._clock.now_s())

    def reserve(self, allocations: Iterable[Allocation]) -> int | None:
        """Reserve end points for a connection, all or none; return their holder."""
        holder = next(self._tokens)
        for allocation in allocations:
            if not self.allocations.reserve(allocation, holder):
                self.allocations.release(holder)
                return None
        return holder

    def keep(self, holder: int, connection: Connection) -> None:
        """What a holder reserved is a connection's that has been entered."""
        self._holders[connection.serial] = holder

    def give_back(self, holder: int) -> None:
        """What a holder reserved is not needed."""
        self.allocations.release(holder)

    def avoid(self, allocations: Iterable[Allocation]) -> None:
        """Do not choose these again for a while."""
        holder = self.reserve(allocations)
        if holder is not None:
            self.allocations.release_at(holder, self._clock.now_s() + _CLASH_S)

    def note_exhausted(self, effect: NoteExhaustion) -> None:
        """Count a packet for which a pool had nothing free."""
        self.exhausted[effect.owner, effect.pool] += 1
        held_back = self._throttle.allow(f"{effect.owner} {effect.pool}")
        if held_back is not None:
            _log.warning(
                "nat_exhausted",
                device=str(effect.owner),
                targets=str(effect.pool),
                in_use=len(self.allocations),
                held_back=held_back,
            )

    def expire(self) -> None:
        """Let go of what was to go by now."""
        now_s = self._clock.now_s()
        self.allocations.expire(now_s)
        self.fragments.expire(now_s)

    def _note(self, change: Change, connection: Connection) -> None:
        if change is Change.RESTORED:
            holder = self.reserve(allocations_of(connection))
            if holder is not None:
                self.keep(holder, connection)
        if change not in _REMOVALS:
            return
        holder = self._holders.pop(connection.serial, None)
        if holder is None:
            return
        if change is Change.FORGOTTEN:
            idle_s = idle_lifetime_s(connection, DEFAULT_TIMEOUTS)
            self.allocations.release_at(holder, self._clock.now_s() + idle_s)
        else:
            self.allocations.release(holder)
