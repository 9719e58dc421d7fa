"""Which connections depend on which facts. Pure.

Connections of one kind have the same facts, so sets of facts are kept once: an entry costs one
reference, whatever the number of its facts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class _Kind(Generic[T]):
    """The things with one set of facts."""

    __slots__ = ("facts", "members")

    def __init__(self, facts: frozenset[Hashable]) -> None:
        self.facts = facts
        self.members: set[T] = set()


class FactIndex(Generic[T]):
    """Things by the facts they depend on."""

    def __init__(self) -> None:
        self._kinds: dict[frozenset[Hashable], _Kind[T]] = {}
        self._of: dict[T, _Kind[T]] = {}
        self._by_fact: dict[Hashable, set[_Kind[T]]] = {}

    def __len__(self) -> int:
        return len(self._of)

    def add(self, thing: T, facts: frozenset[Hashable]) -> frozenset[Hashable]:
        """Enter a thing that is not there yet; return its facts, one object for all of its kind."""
        kind = self._kinds.get(facts)
        if kind is None:
            kind = self._kinds[facts] = _Kind(facts)
            for fact in facts:
                self._by_fact.setdefault(fact, set()).add(kind)
        kind.members.add(thing)
        self._of[thing] = kind
        return kind.facts

    def discard(self, thing: T) -> None:
        """Take a thing out, if it is there."""
        kind = self._of.pop(thing, None)
        if kind is None:
            return
        kind.members.discard(thing)
        if kind.members:
            return
        del self._kinds[kind.facts]
        for fact in kind.facts:
            kinds = self._by_fact[fact]
            kinds.discard(kind)
            if not kinds:
                del self._by_fact[fact]

    def dependents(self, facts: Iterable[Hashable]) -> set[T]:
        """Return the things that depend on any of the facts."""
        kinds: set[_Kind[T]] = set().union(*(self._by_fact.get(fact, ()) for fact in facts))
        return set().union(*(kind.members for kind in kinds))
