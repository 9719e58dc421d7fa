"""What changed, and when: the log that keeps a program judged on old facts from going in."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Protocol

from midonet.agent.flows.tag_index import Dependent, regions_overlap
from midonet.agent.flows.tags import FlowTag, RouteRegion


class FactsChanged(Protocol):
    """A set of changed facts; the delta between two topology views is one.

    revision: of the first view that holds the new facts; for a change of soft state without a
        new view, of the current view (what was judged on that view earlier and is not
        installed yet is then not refused).
    urgent: tags whose programs go at once; they need not be in `tags`.
    """

    @property
    def revision(self) -> int: ...

    @property
    def tags(self) -> frozenset[FlowTag]: ...

    @property
    def regions(self) -> frozenset[RouteRegion]: ...

    @property
    def urgent(self) -> frozenset[FlowTag]: ...


class Freshness(Enum):
    """Whether a program still rests on current facts."""

    FRESH = "fresh"
    STALE = "stale"  # a fact it depends on changed after its view
    UNKNOWN = "unknown"  # its view is older than the log remembers


class InvalidationLog:
    """The latest changes, bounded in number of changes and of facts."""

    def __init__(self, max_changes: int = 1024, max_facts: int = 65536) -> None:
        """Remember at most `max_changes` changes with at most `max_facts` facts together."""
        self._max_changes = max_changes
        self._max_facts = max_facts
        self._changes: deque[tuple[int, FactsChanged, int]] = deque()
        self._facts = 0
        self._forgotten_revision = 0
        self._revision = 0

    @property
    def revision(self) -> int:
        """The highest revision recorded."""
        return self._revision

    def record(self, change: FactsChanged) -> None:
        """Remember a change. Revisions that go backwards count as the highest seen."""
        self._revision = max(self._revision, change.revision)
        facts = len(change.tags) + len(change.regions) + len(change.urgent)
        self._changes.append((self._revision, change, facts))
        self._facts += facts
        while len(self._changes) > self._max_changes or self._facts > self._max_facts:
            self._forgotten_revision, _, forgotten_facts = self._changes.popleft()
            self._facts -= forgotten_facts

    def check(self, program: Dependent, view_revision: int) -> Freshness:
        """Tell whether a program judged on the view of `view_revision` is still right."""
        for revision, change, _ in reversed(self._changes):
            if revision <= view_revision:
                break
            if _touches(change, program):
                return Freshness.STALE
        if view_revision < self._forgotten_revision:
            return Freshness.UNKNOWN
        return Freshness.FRESH


def _touches(change: FactsChanged, program: Dependent) -> bool:
    if not change.tags.isdisjoint(program.tags) or not change.urgent.isdisjoint(program.tags):
        return True
    return any(
        regions_overlap(changed, region) for changed in change.regions for region in program.regions
    )
