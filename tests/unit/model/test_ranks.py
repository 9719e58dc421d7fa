"""Ranks keep the order of any series of insertions, and stay short in the usual ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midonet.errors import UserError
from midonet.model.ranks import MAX_DIGITS, between, spread

ENTROPY = st.integers(0, 2**64 - 1)


def insert(ranks: list[str], place: int, entropy: int) -> None:
    low = ranks[place - 1] if place > 0 else None
    high = ranks[place] if place < len(ranks) else None
    ranks.insert(place, between(low, high, entropy))


@given(st.lists(st.tuples(st.floats(0, 1), ENTROPY), max_size=200), st.integers(0, 5))
def test_a_new_rank_lies_between_its_neighbours(
    places: list[tuple[float, int]], start: int
) -> None:
    ranks = spread(start)
    for where, entropy in places:
        insert(ranks, round(where * len(ranks)), entropy)
        assert ranks == sorted(set(ranks))
    assert len(ranks) == start + len(places)


@pytest.mark.parametrize("entropy", [0, 2**64 - 1, 0x9E3779B97F4A7C15])
@pytest.mark.parametrize(
    ("pattern", "digits"),
    [
        (lambda number: number, 16),
        (lambda number: 0, 16),
        (lambda number: min(1, number), 24),
        (lambda number: max(number - 1, 0), 24),
        (lambda number: number // 2, 1000),
        (lambda number: number * 7919 % (number + 1), 40),
    ],
    ids=["last", "first", "second", "last but one", "middle", "anywhere"],
)
def test_ranks_of_a_long_chain_are_short(pattern: object, digits: int, entropy: int) -> None:
    ranks: list[str] = []
    for number in range(2000):
        insert(ranks, pattern(number), entropy * (number + 1) % 2**64)  # type: ignore[operator]
    assert ranks == sorted(set(ranks))
    assert max(map(len, ranks)) <= digits


def test_the_ends_of_the_range_are_divided_on() -> None:
    for ranks in (["f" * 16], ["f" * 40]):
        for entropy in range(50):
            insert(ranks, len(ranks), entropy)
        assert ranks == sorted(set(ranks))
    for ranks in (["0" * 15 + "1"], ["0" * 39 + "1"]):
        for entropy in range(50):
            insert(ranks, 0, entropy)
        assert ranks == sorted(set(ranks))


@given(ENTROPY, ENTROPY)
def test_clients_that_insert_at_one_place_get_ranks_of_their_own(one: int, other: int) -> None:
    low, high = spread(2)
    if one % 2**30 != other % 2**30:
        assert between(low, None, one) != between(low, None, other) or one % 2**31 == other % 2**31
    assert low < between(low, low, one)
    assert low < between(low, high, one) < high


def test_a_place_that_is_used_up_is_refused() -> None:
    ranks = spread(2)

    def fill() -> None:
        for _ in range(10 * MAX_DIGITS):
            insert(ranks, len(ranks) // 2, 0)

    with pytest.raises(UserError) as refused:
        fill()
    assert refused.value.field == "position"
    assert max(map(len, ranks)) <= MAX_DIGITS
