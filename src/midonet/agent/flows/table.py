"""The flow table: which programs are installed, why, and until when.

It owns program ids, mask slots, quotas, lifetimes and the dependency of programs on facts. It
does no I/O and reads no clock: every method takes the boot-time clock in nanoseconds where it
matters and returns a plan, which the shell applies to a datapath.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from midonet.agent.flow_state.connection import ConnectionKey
from midonet.agent.flows.classification import masked
from midonet.agent.flows.fact_filter import FactFilter, holds_any
from midonet.agent.flows.invalidation import FactsChanged, Freshness, InvalidationLog
from midonet.agent.flows.mask_list import SLOTS_PER_PORT, MaskList
from midonet.agent.flows.plans import (
    InstallOutcome,
    InstallPlan,
    InvalidationPlan,
    MaskSlot,
    Refusal,
    RefusalReason,
    RemovalPlan,
)
from midonet.agent.flows.program import FlowProgram, InstalledProgram, LearnedMac
from midonet.agent.flows.tag_index import TagIndex
from midonet.agent.flows.tags import FlowTag
from midonet.errors import InternalError
from midonet.model.ids import PortId
from midonet.packets.flowkey import FlowKey

REJUDGE_BUDGET_NS = 500_000_000
"""How long a program may run on after a fact it depends on changed."""

URGENT_BUDGET_NS = 100_000_000
"""How long one may run on that depends on an urgent change. It is judged before all others."""

_NS_PER_S = 1_000_000_000
_EVICTION_SHARE = 64
"""One eviction makes room for this fraction of the port's programs, so its scan is amortised."""

_REFUSALS = {
    Freshness.STALE: Refusal(RefusalReason.STALE),
    Freshness.UNKNOWN: Refusal(RefusalReason.HISTORY_GONE),
}


class Usage(Protocol):
    """When a program was last used; the statistics of a datapath are one."""

    @property
    def last_used_ns(self) -> int: ...


@dataclass(slots=True)
class _Entry:
    """One installed program. due_ns: end of its lifetime, or of its time to be judged again."""

    installed: InstalledProgram
    last_used_ns: int
    due_ns: int
    is_pending: bool = False
    is_urgent: bool = False


@dataclass(slots=True)
class _Port:
    """What one ingress port holds."""

    masks: MaskList
    classes: dict[tuple[int, FlowKey], int] = field(default_factory=dict)


class FlowTable:
    """The installed programs of one datapath."""

    def __init__(
        self,
        capacity: int,
        *,
        port_quota: int | None = None,
        masks_per_port: int = SLOTS_PER_PORT,
        log: InvalidationLog | None = None,
    ) -> None:
        """Make an empty table.

        capacity: largest number of programs, at least 1; also the largest program id.
        port_quota: largest number of programs of one ingress port, at least 1; by default the
            capacity. masks_per_port: length of the datapath's mask lists.
        """
        self._capacity = max(1, capacity)
        self._quota = min(self._capacity, max(1, port_quota or self._capacity))
        self._masks_per_port = masks_per_port
        self._log = log or InvalidationLog()
        self._entries: dict[int, _Entry] = {}
        self._ports: dict[PortId, _Port] = {}
        self._index = TagIndex()
        self._blind: dict[int, FactFilter] = {}
        self._due: list[tuple[int, int]] = []
        self._next_fresh_id = 1
        self._freed_ids: deque[int] = deque()

    # Reading.

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[InstalledProgram]:
        return (entry.installed for entry in self._entries.values())

    def get(self, program_id: int) -> InstalledProgram | None:
        """Return the program with an id, or None."""
        entry = self._entries.get(program_id)
        return entry.installed if entry else None

    def lookup(self, port_id: PortId, key: FlowKey) -> InstalledProgram | None:
        """Return the program that a datapath would find for `key`, or None."""
        port = self._ports.get(port_id)
        if port is None:
            return None
        for mask_id, mask in port.masks:
            program_id = port.classes.get((mask_id, masked(key, mask)))
            if program_id is not None:
                return self._entries[program_id].installed
        return None

    def masks(self, port_id: PortId) -> tuple[tuple[int, FlowKey], ...]:
        """Return the (slot, mask) pairs of a port in the order in which they are tried."""
        port = self._ports.get(port_id)
        return tuple(port.masks) if port else ()

    @property
    def pending(self) -> tuple[InstalledProgram, ...]:
        """The programs that wait to be judged again, most recently used first."""
        waiting = [entry for entry in self._entries.values() if entry.is_pending]
        waiting.sort(key=lambda entry: entry.last_used_ns, reverse=True)
        return tuple(entry.installed for entry in waiting)

    @property
    def next_due_ns(self) -> int | None:
        """When `expire` has something to do next (or earlier), or None while empty."""
        return self._due[0][0] if self._due else None

    # Installing.

    def plan_install(
        self,
        program: FlowProgram,
        view_revision: int,
        now_ns: int,
        *,
        in_place_of: int | None = None,
    ) -> InstallPlan | Refusal:
        """Give a program its place, unless a fact it depends on changed since its view.

        view_revision: of the view that the program was judged on.
        in_place_of: id of the program that was judged again with this result.
        A program of a class that is there already takes over its id, hence its counters. When
        the port's quota or the table is full, the least recently used programs of this port,
        or of the port that holds most, make room.
        """
        if program.slow_path is not None:
            return Refusal(RefusalReason.SLOW_PATH)
        freshness = self._log.check(program, view_revision)
        if freshness is not Freshness.FRESH:
            return _REFUSALS[freshness]
        port = self._ports.get(program.ingress)
        if port is None:
            port = self._ports[program.ingress] = _Port(MaskList(self._masks_per_port))
        mask_id = port.masks.place(program.mask)
        mask = port.masks.mask(mask_id)
        if program.mask is not mask and program.mask == mask:
            program = replace(program, mask=mask)  # one object for all programs under it
        key = masked(program.key, mask)
        existing = port.classes.get((mask_id, key))
        if existing is not None:
            port.masks.release(mask_id)
            entry = InstalledProgram(existing, mask_id, mask, key, program)
            outcome = self._replace(entry, now_ns)
            superseded, freed = self._supersede(in_place_of, existing)
            return InstallPlan(outcome, entry, (), superseded, freed)
        evicted = self._victims(program.ingress, spare=in_place_of)
        freed_by_eviction = self._forget(evicted)
        entry = InstalledProgram(self._allocate_id(), mask_id, mask, key, program)
        self._add(entry, now_ns)
        superseded, freed = self._supersede(in_place_of, entry.program_id)
        return InstallPlan(
            InstallOutcome.NEW, entry, evicted, superseded, freed_by_eviction + freed
        )

    def adopt(
        self,
        entries: Iterable[InstalledProgram],
        deadline_ns: int,
        statistics: Mapping[int, Usage] = MappingProxyType({}),
    ) -> InvalidationPlan:
        """Take over what a persistent datapath held when this process started.

        statistics: when programs were last used, so that those in use are judged first. What
        their filters say they depend on counts when something urgent changes before that.

        The table must be empty. Every adopted program waits to be judged again until
        `deadline_ns`. Entries that contradict the table's rules or each other are to be removed.
        """
        if self._entries:
            raise InternalError("a flow table adopts programs only while it is empty")
        refused = tuple(entry for entry in entries if not self._adopt_one(entry, deadline_ns))
        self.observe(statistics)
        highest = max(self._entries, default=0)
        self._next_fresh_id = highest + 1
        self._freed_ids = deque(i for i in range(1, highest) if i not in self._entries)
        return InvalidationPlan(RemovalPlan(refused), self.pending, deadline_ns)

    # Removing.

    def plan_remove(self, program_ids: Iterable[int]) -> RemovalPlan:
        """Remove programs; ids that are not in the table are ignored."""
        entries = self._entries
        removed = tuple(entries[i].installed for i in sorted(set(program_ids)) if i in entries)
        return RemovalPlan(removed, self._forget(removed))

    def invalidate(self, change: FactsChanged, now_ns: int) -> InvalidationPlan:
        """Find the programs that depend on what changed, and remember the change.

        They run on until they are judged again, for at most `REJUDGE_BUDGET_NS`; a further change
        does not extend that. Those with an urgent tag come first and have `URGENT_BUDGET_NS`.
        """
        self._log.record(change)
        urgent = self.dependents(change.urgent)
        affected = self._index.dependents(change.tags, change.regions) - urgent
        for program_id in urgent:
            self._entries[program_id].is_urgent = True
        first = self._wait(urgent, now_ns + URGENT_BUDGET_NS)
        rest = self._wait(affected, now_ns + REJUDGE_BUDGET_NS)
        return InvalidationPlan(
            RemovalPlan(), first + rest, now_ns + REJUDGE_BUDGET_NS, urgent=len(first)
        )

    def _wait(self, program_ids: set[int], deadline_ns: int) -> tuple[InstalledProgram, ...]:
        """Have programs judged again; return them, most recently used first."""
        waiting = [self._entries[program_id] for program_id in program_ids]
        for entry in waiting:
            entry.is_pending = True
            if deadline_ns < entry.due_ns:
                self._set_due(entry, deadline_ns)
        waiting.sort(key=lambda entry: entry.last_used_ns, reverse=True)
        return tuple(entry.installed for entry in waiting)

    def dependents(self, tags: frozenset[FlowTag]) -> set[int]:
        """Return the programs that depend on any of these facts, or seem to (`fact_filter`)."""
        found = self._index.dependents(tags, ())
        return found | {i for i, facts in self._blind.items() if holds_any(facts, tags)}

    def is_urgent(self, program_id: int) -> bool:
        """Tell whether a program waits to be judged again after an urgent change."""
        entry = self._entries.get(program_id)
        return entry is not None and entry.is_urgent

    def expire(self, now_ns: int, *, limit: int | None = None) -> RemovalPlan:
        """Remove the programs whose lifetime, or whose time to be judged again, is over.

        limit: at most so many, the longest overdue first, so that a shell can take turns with
        other work; it is done when `next_due_ns` lies ahead.
        """
        over: list[int] = []
        while self._due and self._due[0][0] <= now_ns and len(over) != limit:
            due_ns, program_id = heapq.heappop(self._due)
            entry = self._entries.get(program_id)
            if entry is not None and entry.due_ns == due_ns:
                over.append(program_id)
        return self.plan_remove(over)

    def forget_port(self, port_id: PortId) -> tuple[InstalledProgram, ...]:
        """Forget a port's programs and masks, as `Datapath.detach` does; return the programs."""
        port = self._ports.get(port_id)
        if port is None:
            return ()
        removed = self.plan_remove(port.classes.values()).remove
        del self._ports[port_id]
        return removed

    # Use.

    def observe(self, statistics: Mapping[int, Usage]) -> None:
        """Take note of when programs were last used, by program id."""
        for program_id, usage in statistics.items():
            entry = self._entries.get(program_id)
            # An older time belongs to a former program of this id.
            if entry is not None and usage.last_used_ns > entry.last_used_ns:
                entry.last_used_ns = usage.last_used_ns

    def learned_in_use(
        self, since_ns: int, program_ids: Iterable[int] | None = None
    ) -> frozenset[LearnedMac]:
        """Return the MAC entries that programs used at or after `since_ns` keep alive.

        Installation counts as use: a packet caused it. program_ids: of these only.
        """
        entries = (
            self._entries.values()
            if program_ids is None
            else (self._entries[i] for i in program_ids if i in self._entries)
        )
        return frozenset(
            learned
            for entry in entries
            if entry.last_used_ns >= since_ns
            for learned in entry.installed.program.learned
        )

    def connections_in_use(
        self, since_ns: int, program_ids: Iterable[int]
    ) -> dict[ConnectionKey, int]:
        """Return the connections of those programs that were used at or after `since_ns`, and
        when they were used last (ns)."""
        entries = (self._entries[i] for i in program_ids if i in self._entries)
        return {
            key: entry.last_used_ns
            for entry in entries
            if (key := entry.installed.program.connection) is not None
            and entry.last_used_ns >= since_ns
        }

    def ids_from(self, start: int, span: int) -> list[int]:
        """Return the ids in use among `span` numbers from `start` on."""
        end = min(start + span, self._next_fresh_id)
        return [i for i in range(start, end) if i in self._entries]

    @property
    def highest_id(self) -> int:
        """No program has, or had, a higher id."""
        return self._next_fresh_id - 1

    # Inside.

    def _allocate_id(self) -> int:
        """Return an unused id. One that was freed long ago comes before one freed just now."""
        if self._next_fresh_id <= self._capacity:
            self._next_fresh_id += 1
            return self._next_fresh_id - 1
        return self._freed_ids.popleft()

    def _add(self, installed: InstalledProgram, now_ns: int) -> None:
        due_ns = now_ns + int(installed.program.lifetime_s * _NS_PER_S)
        entry = _Entry(installed, now_ns, due_ns)
        self._entries[installed.program_id] = entry
        port = self._ports[installed.program.ingress]
        port.classes[installed.mask_id, installed.key] = installed.program_id
        self._index.add(installed.program_id, installed.program)
        self._set_due(entry, due_ns)

    def _replace(self, installed: InstalledProgram, now_ns: int) -> InstallOutcome:
        entry = self._entries[installed.program_id]
        before = entry.installed
        entry.installed = installed
        self._blind.pop(installed.program_id, None)
        entry.is_pending = entry.is_urgent = False
        self._set_due(entry, now_ns + int(installed.program.lifetime_s * _NS_PER_S))
        if before == installed:
            return InstallOutcome.UNCHANGED
        self._index.discard(before.program_id, before.program)
        self._index.add(installed.program_id, installed.program)
        return InstallOutcome.REPLACED

    def _supersede(
        self, program_id: int | None, by: int
    ) -> tuple[tuple[InstalledProgram, ...], tuple[MaskSlot, ...]]:
        if program_id is None or program_id == by:
            return (), ()
        plan = self.plan_remove((program_id,))
        return plan.remove, plan.free_masks

    def _forget(self, removed: Iterable[InstalledProgram]) -> tuple[MaskSlot, ...]:
        """Take programs out of every index. Returns the masks that nothing uses any more."""
        freed: list[MaskSlot] = []
        for installed in removed:
            del self._entries[installed.program_id]
            self._blind.pop(installed.program_id, None)
            self._freed_ids.append(installed.program_id)
            self._index.discard(installed.program_id, installed.program)
            port_id = installed.program.ingress
            port = self._ports[port_id]
            del port.classes[installed.mask_id, installed.key]
            if port.masks.release(installed.mask_id):
                freed.append(MaskSlot(port_id, installed.mask_id))
        return tuple(freed)

    def _victims(self, ingress: PortId, *, spare: int | None) -> tuple[InstalledProgram, ...]:
        """Choose programs to evict so that `ingress` can take one more.

        A port at its quota pays itself; a full table is paid for by the port that holds most.
        """
        if len(self._ports[ingress].classes) >= self._quota:
            payer = self._ports[ingress]
        elif len(self._entries) >= self._capacity:
            payer = max(self._ports.values(), key=lambda port: len(port.classes))
        else:
            return ()
        candidates = [i for i in payer.classes.values() if i != spare] or [*payer.classes.values()]
        chosen = heapq.nsmallest(
            max(1, len(candidates) // _EVICTION_SHARE),
            candidates,
            key=lambda program_id: self._entries[program_id].last_used_ns,
        )
        return tuple(self._entries[program_id].installed for program_id in chosen)

    def _adopt_one(self, installed: InstalledProgram, deadline_ns: int) -> bool:
        if not 1 <= installed.program_id <= self._capacity or installed.program_id in self._entries:
            return False
        port = self._ports.setdefault(
            installed.program.ingress, _Port(MaskList(self._masks_per_port))
        )
        if (
            (installed.mask_id, installed.key) in port.classes
            or masked(installed.key, installed.mask) != installed.key
            or not port.masks.adopt(installed.mask_id, installed.mask)
        ):
            return False
        self._add(installed, 0)
        self._blind[installed.program_id] = installed.facts
        entry = self._entries[installed.program_id]
        entry.is_pending = True
        self._set_due(entry, deadline_ns)
        return True

    def _set_due(self, entry: _Entry, due_ns: int) -> None:
        entry.due_ns = due_ns
        heapq.heappush(self._due, (due_ns, entry.installed.program_id))
        if len(self._due) > 4 * len(self._entries) + 64:
            self._due = [(e.due_ns, i) for i, e in self._entries.items()]
            heapq.heapify(self._due)
