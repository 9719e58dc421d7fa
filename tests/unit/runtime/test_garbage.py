from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from midonet.runtime.clock import ManualClock
from midonet.runtime.garbage import FULL_S, GarbageCollection


class Node:
    """One end of a cycle."""

    other: Node


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def cycle() -> tuple[Node, weakref.ref[Node]]:
    one, two = Node(), Node()
    one.other, two.other = two, one
    return one, weakref.ref(two)


def test_what_lives_is_set_aside_and_freed_as_ever() -> None:
    kept = Node()
    seen = weakref.ref(kept)
    GarbageCollection(ManualClock(), lambda: False).step()
    assert gc.get_freeze_count() > 0
    assert not any(each is kept for each in gc.get_objects())
    del kept
    assert seen() is None


def test_young_cycles_go_at_once() -> None:
    one, other = cycle()
    collection = GarbageCollection(ManualClock(), lambda: False)
    del one
    collection.step()
    assert other() is None


def test_cycles_that_died_aside_go_when_there_is_time() -> None:
    clock = ManualClock()
    is_idle = False
    collection = GarbageCollection(clock, lambda: is_idle)
    one, other = cycle()
    collection.step()
    del one
    collection.step()
    assert other() is not None
    clock.advance(FULL_S)
    collection.step()
    assert other() is not None, "somebody would have waited"
    is_idle = True
    collection.step()
    assert other() is None
