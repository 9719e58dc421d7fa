"""Which programs a changed fact touches."""

from __future__ import annotations

from uuid import UUID

import pytest

from midonet.agent.flows.invalidation import Freshness, InvalidationLog
from midonet.agent.flows.tag_index import TagIndex, regions_overlap
from midonet.agent.flows.tags import RouteRegion
from midonet.packets.addresses import parse_prefix
from tests.unit.agent.flows.flow_samples import Change, program, tag

ROUTER = UUID(int=77)
OTHER_ROUTER = UUID(int=78)


def region(text: str, router: UUID = ROUTER) -> RouteRegion:
    prefix = parse_prefix(text)
    return RouteRegion(router, prefix.version, prefix.value, prefix.length)


def test_a_tag_finds_its_programs_until_they_are_forgotten() -> None:
    index = TagIndex()
    first = program(1, tags=frozenset({tag(1), tag(2)}))
    second = program(2, tags=frozenset({tag(2)}))
    index.add(1, first)
    index.add(2, second)
    assert index.dependents([tag(1)], []) == {1}
    assert index.dependents([tag(1), tag(2), tag(3)], []) == {1, 2}
    index.discard(1, first)
    assert index.dependents([tag(1), tag(2)], []) == {2}
    index.discard(2, second)
    assert len(index) == 0


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("10.0.0.0/8", {1, 2, 3}),
        ("10.1.0.0/16", {1, 2}),
        ("10.1.1.0/24", {1, 2}),
        ("10.1.1.7/32", {1, 2}),
        ("10.1.2.0/24", {1}),
        ("10.2.0.9/32", {3}),
        ("0.0.0.0/0", {1, 2, 3}),
        ("192.168.0.0/16", set()),
        ("::/0", {4}),
        ("fd00::5/128", {4}),
        ("fd01::/16", set()),
    ],
)
def test_a_changed_route_finds_the_regions_that_contain_it_or_lie_in_it(
    changed: str, expected: set[int]
) -> None:
    index = TagIndex()
    for number, text in enumerate(
        ["10.1.0.0/16", "10.1.1.0/24", "10.2.0.0/24", "fd00::/64"], start=1
    ):
        index.add(number, program(number, regions=frozenset({region(text)})))
    assert index.dependents([], [region(changed)]) == expected
    assert index.dependents([], [region(changed, OTHER_ROUTER)]) == set()


def test_regions_with_host_bits_are_found_and_forgotten() -> None:
    index = TagIndex()
    holder = program(1, regions=frozenset({region("10.1.2.3/16")}))
    index.add(1, holder)
    index.add(2, holder)
    assert index.dependents([], [region("10.1.9.9/32")]) == {1, 2}
    index.discard(1, holder)
    index.discard(2, holder)
    index.discard(2, holder)
    assert index.dependents([], [region("0.0.0.0/0")]) == set()
    assert len(index) == 0


def test_regions_of_other_routers_and_versions_never_overlap() -> None:
    assert regions_overlap(region("0.0.0.0/0"), region("10.0.0.0/8"))
    assert not regions_overlap(region("0.0.0.0/0"), region("::/0"))
    assert not regions_overlap(region("0.0.0.0/0"), region("0.0.0.0/0", OTHER_ROUTER))


def test_the_log_refuses_a_program_whose_fact_changed_after_its_view() -> None:
    log = InvalidationLog()
    log.record(Change(5, tags=frozenset({tag(1)})))
    log.record(Change(6, regions=frozenset({region("10.0.0.0/8")})))
    log.record(Change(7, urgent=frozenset({tag(3)})))
    tagged = program(tags=frozenset({tag(1)}))
    routed = program(regions=frozenset({region("10.1.0.0/16")}))
    urgent = program(tags=frozenset({tag(3)}))
    assert log.check(tagged, 4) is Freshness.STALE
    assert log.check(tagged, 5) is Freshness.FRESH
    assert log.check(routed, 5) is Freshness.STALE
    assert log.check(routed, 6) is Freshness.FRESH
    assert log.check(urgent, 6) is Freshness.STALE
    assert log.check(program(), 1) is Freshness.FRESH
    assert log.revision == 7


def test_the_log_does_not_vouch_for_views_older_than_it_remembers() -> None:
    log = InvalidationLog(max_changes=2)
    for revision in (1, 2, 3):
        log.record(Change(revision, tags=frozenset({tag(revision)})))
    assert log.check(program(), 0) is Freshness.UNKNOWN
    assert log.check(program(), 1) is Freshness.FRESH


def test_a_change_with_more_facts_than_the_log_holds_makes_older_views_unknown() -> None:
    log = InvalidationLog(max_facts=2)
    log.record(Change(4, tags=frozenset(tag(i) for i in range(5))))
    assert log.check(program(), 3) is Freshness.UNKNOWN
    assert log.check(program(), 4) is Freshness.FRESH


def test_a_revision_that_goes_back_counts_as_the_highest() -> None:
    log = InvalidationLog()
    log.record(Change(9))
    log.record(Change(3, tags=frozenset({tag(1)})))
    assert log.check(program(tags=frozenset({tag(1)})), 8) is Freshness.STALE
