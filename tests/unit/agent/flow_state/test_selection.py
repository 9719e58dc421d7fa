"""The choice of a pool member: by weight, stable, the same on every host."""

from __future__ import annotations

from random import Random
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from midonet.agent.flow_state.selection import BUCKETS, Ring
from midonet.model.ids import PoolMemberId

ids = st.uuids().map(PoolMemberId)
weights = st.dictionaries(ids, st.integers(0, 1000), max_size=8)
sample = st.lists(st.integers(0, BUCKETS - 1), min_size=1, max_size=200)


def owners(ring: Ring) -> list[PoolMemberId | None]:
    return [ring.owner(bucket) for bucket in range(BUCKETS)]


def member(number: int) -> PoolMemberId:
    return PoolMemberId(UUID(int=number))


@given(members=weights, buckets=sample, seed=st.integers(0, 2**32))
def test_order_of_members_does_not_matter(
    members: dict[PoolMemberId, int], buckets: list[int], seed: int
) -> None:
    shuffled = list(members.items())
    Random(seed).shuffle(shuffled)
    one, other = Ring(members.items()), Ring(shuffled)
    assert [one.owner(each) for each in buckets] == [other.owner(each) for each in buckets]


@given(members=weights, buckets=sample)
def test_only_members_with_weight_are_chosen(
    members: dict[PoolMemberId, int], buckets: list[int]
) -> None:
    ring = Ring(members.items())
    eligible = {one for one, weight in members.items() if weight}
    for bucket in buckets:
        owner = ring.owner(bucket)
        assert owner in eligible if eligible else owner is None


@given(members=weights.filter(len), buckets=sample)
def test_when_a_member_leaves_only_its_buckets_move(
    members: dict[PoolMemberId, int], buckets: list[int]
) -> None:
    before = Ring(members.items())
    leaving = next(iter(members))
    after = Ring((one, weight) for one, weight in members.items() if one != leaving)
    for bucket in buckets:
        if before.owner(bucket) != leaving:
            assert after.owner(bucket) == before.owner(bucket)


@given(members=weights.filter(len), buckets=sample, weight=st.integers(0, 1000))
def test_when_a_weight_changes_buckets_move_one_way_only(
    members: dict[PoolMemberId, int], buckets: list[int], weight: int
) -> None:
    """A member that becomes heavier takes buckets, one that becomes lighter gives some; between
    two others nothing moves."""
    changed = next(iter(members))
    before, after = Ring(members.items()), Ring({**members, changed: weight}.items())
    for bucket in buckets:
        old, new = before.owner(bucket), after.owner(bucket)
        if old == new:
            continue
        assert new == changed if weight > members[changed] else old == changed


@given(
    shares=st.lists(st.integers(1, 100), min_size=1, max_size=6),
    seed=st.integers(0, 2**64),
)
@settings(max_examples=30)
def test_buckets_are_in_proportion_to_weights(shares: list[int], seed: int) -> None:
    random = Random(seed)
    members = {PoolMemberId(UUID(int=random.getrandbits(128))): share for share in shares}
    found = owners(Ring(members.items()))
    for one, weight in members.items():
        expected = weight / sum(members.values())
        # Six standard deviations of a fair draw.
        margin = 6 * (expected * (1 - expected) / BUCKETS) ** 0.5
        assert abs(found.count(one) / BUCKETS - expected) <= margin + 1 / BUCKETS


def test_few_buckets_move_when_a_weight_changes_a_little() -> None:
    members = {member(one): 100 for one in range(1, 11)}
    before = owners(Ring(members.items()))
    after = owners(Ring({**members, member(3): 110}.items()))
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert 0 < moved < BUCKETS * 2 // 100


def test_choices_of_a_known_ring() -> None:
    """Every host, and any later version, must agree on these."""
    ring = Ring([(member(1), 30), (member(2), 10), (member(3), 60)])
    found = owners(ring)
    assert "".join(str(one.int) for one in found[:24] if one) == "232231333333331332231131"
    assert [found.count(member(one)) for one in (1, 2, 3)] == [1221, 443, 2432]
