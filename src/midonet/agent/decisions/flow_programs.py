"""The installed flow programs: the flow table's plans, carried out on the datapath.

Keeps the revision of facts: it grows with each change of the view or of soft state, and a
program is installed only when nothing it depends on has changed since it was judged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

import structlog

from midonet.agent.datapath.protocol import Datapath
from midonet.agent.flows.plans import (
    InstallOutcome,
    InstallPlan,
    MaskSlot,
    Refusal,
    RefusalReason,
    RemovalPlan,
)
from midonet.agent.flows.program import FlowProgram, InstalledProgram
from midonet.agent.flows.table import FlowTable
from midonet.agent.flows.tags import FlowTag, RouteRegion
from midonet.agent.topology.view import ViewDelta
from midonet.errors import DatapathError
from midonet.model.ids import PortId
from midonet.packets.flowkey import FlowKey
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle

_log = structlog.get_logger("programs")

_ADOPTED_DEADLINE_NS = 3600 * 10**9
"""How long a program from before a restart may wait to be judged again, in nanoseconds. It is
long because the store may be away; with the topology at hand it takes a moment."""


_EXPIRED_AT_A_TIME = 32
"""Programs that are removed between two turns of other work: half a millisecond."""

_SHARE_OF_A_PORT = 8
"""A port may have this fraction of all programs by default."""

_LEAST_QUOTA = 1024


class FlowPrograms:
    """What the datapath holds, and what has to be judged again."""

    def __init__(self, datapath: Datapath, clock: Clock, *, port_quota: int | None = None) -> None:
        capacity = datapath.capabilities.max_programs
        quota = port_quota or max(_LEAST_QUOTA, capacity // _SHARE_OF_A_PORT)
        self.table = FlowTable(capacity, port_quota=quota)
        self._datapath = datapath
        self._clock = clock
        self._throttle = Throttle(clock)
        self._revision = 0
        self._waiting: deque[InstalledProgram] = deque()
        self._may_have_pending = False
        self.refused = 0
        """Programs that the datapath had no room for."""

    @property
    def revision(self) -> int:
        """The revision of facts as of now."""
        return self._revision

    def lookup(self, port_id: PortId, key: FlowKey) -> InstalledProgram | None:
        """Return the program that the datapath holds for a key, or None."""
        return self.table.lookup(port_id, key)

    def repair(self, entry: InstalledProgram) -> bool:
        """Write a program again that the datapath seems to have lost; False when it is refused."""
        return self._write((entry,))

    def install(
        self, program: FlowProgram, revision: int, *, in_place_of: int | None = None
    ) -> InstallOutcome | Refusal:
        """Install a program that was judged at `revision`.

        in_place_of: id of the program that was judged again with this result.
        What the datapath refuses is a Refusal (NO_ROOM): its class stays on the slow path.
        """
        plan = self.table.plan_install(
            program, revision, self._clock.boot_ns(), in_place_of=in_place_of
        )
        if not isinstance(plan, InstallPlan):
            return plan
        return plan.outcome if self._carry_out(plan) else Refusal(RefusalReason.NO_ROOM)

    def remove(self, program_ids: Iterable[int]) -> None:
        """Remove programs."""
        self._remove(self.table.plan_remove(program_ids))

    def change(
        self,
        tags: frozenset[FlowTag],
        regions: frozenset[RouteRegion] = frozenset(),
        urgent: frozenset[FlowTag] = frozenset(),
    ) -> None:
        """Note changed facts: queue what depends on them to be judged again, the urgent first."""
        if not tags and not regions and not urgent:
            return
        self._revision += 1
        delta = ViewDelta(self._revision, tags, regions, urgent)
        plan = self.table.invalidate(delta, self._clock.boot_ns())
        if urgent:
            self._datapath.end_takeover()
        self._waiting.extendleft(reversed(plan.rejudge[: plan.urgent]))
        self._queue(plan.rejudge[plan.urgent :])
        self._may_have_pending = self._may_have_pending or bool(plan.urgent)

    def adopt(self) -> int:
        """Take over the programs of a persistent datapath; return how many."""
        installed = list(self._datapath.installed())
        if installed:
            deadline_ns = self._clock.boot_ns() + _ADOPTED_DEADLINE_NS
            plan = self.table.adopt(installed, deadline_ns, self._datapath.statistics())
            self._remove(plan.removal)
            self._queue(plan.rejudge)
        return len(self.table)

    def next_waiting(self) -> InstalledProgram | None:
        """Return the next program to be judged again, or None."""
        while self._waiting:
            entry = self._waiting.popleft()
            if self.table.get(entry.program_id) is entry:
                return entry
        return None

    def retry_waiting(self) -> None:
        """Queue again the programs that could not be judged when it was their turn."""
        if not self._waiting and self._may_have_pending:
            self._waiting.extend(self.table.pending)
            self._may_have_pending = bool(self._waiting)

    @property
    def has_waiting(self) -> bool:
        """Tell whether programs are queued to be judged again."""
        return bool(self._waiting)

    def expire(self) -> bool:
        """Remove some programs whose lifetime, or whose time to be judged again, is over.

        Returns whether there may be more: other work comes in between.
        """
        now_ns = self._clock.boot_ns()
        due_ns = self.table.next_due_ns
        if due_ns is None or due_ns > now_ns:
            return False
        self._remove(self.table.expire(now_ns, limit=_EXPIRED_AT_A_TIME))
        return True

    def give_up(self, entry: InstalledProgram) -> None:
        """An urgent program cannot be judged for lack of something: it does not run on."""
        if self.table.is_urgent(entry.program_id):
            self.remove((entry.program_id,))

    def forget_port(self, port_id: PortId) -> Collection[InstalledProgram]:
        """Forget a port's programs; the datapath does so itself when the port is detached."""
        return self.table.forget_port(port_id)

    def _queue(self, entries: tuple[InstalledProgram, ...]) -> None:
        self._waiting.extend(entries)
        self._may_have_pending = self._may_have_pending or bool(entries)

    def _carry_out(self, plan: InstallPlan) -> bool:
        if plan.evicted:
            self._datapath.remove(plan.evicted)
        is_there = plan.outcome is InstallOutcome.UNCHANGED or self._write((plan.entry,))
        if plan.superseded:
            self._datapath.remove(plan.superseded)
        self._free(plan.free_masks)
        return is_there

    def _write(self, entries: tuple[InstalledProgram, ...]) -> bool:
        """Install; what the datapath refuses goes out of the table too, and stays slow."""
        try:
            self._datapath.install(entries)
        except DatapathError as error:
            self.refused += len(entries)
            held_back = self._throttle.allow("install")
            if held_back is not None:
                _log.warning("install_refused", error=str(error), held_back=held_back)
            self._remove(self.table.plan_remove(entry.program_id for entry in entries))
            return False
        return True

    def _remove(self, plan: RemovalPlan) -> None:
        if plan.remove:
            self._datapath.remove(plan.remove)
        self._free(plan.free_masks)

    def _free(self, masks: Iterable[MaskSlot]) -> None:
        for port_id, mask_id in masks:
            self._datapath.drop_mask(port_id, mask_id)
