"""The mask list of a port."""

from __future__ import annotations

import pytest

from midonet.agent.datapath.protocol import MASKS_PER_PORT
from midonet.agent.flows.classification import EXACT_MASK, covers
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.mask_list import EXACT_SLOT, SLOTS_PER_PORT, MaskList
from tests.unit.agent.flows.flow_samples import l4_mask


def test_a_list_is_as_long_as_that_of_the_datapath() -> None:
    assert SLOTS_PER_PORT == MASKS_PER_PORT


def test_slot_zero_always_holds_the_exact_mask() -> None:
    masks = MaskList()
    assert list(masks) == [(EXACT_SLOT, EXACT_MASK)]
    assert masks.place(EXACT_MASK) == EXACT_SLOT
    assert not masks.release(EXACT_SLOT)
    assert list(masks) == [(EXACT_SLOT, EXACT_MASK)]


def test_equal_masks_share_a_slot_until_the_last_reference_goes() -> None:
    masks = MaskList()
    slot = masks.place(l4_mask(1))
    assert masks.place(l4_mask(1)) == slot
    assert masks.references(slot) == 2
    assert not masks.release(slot)
    assert masks.release(slot)
    assert len(masks) == 1
    assert masks.references(slot) == 0


def test_a_free_slot_is_used_again() -> None:
    masks = MaskList(length=3)
    first = masks.place(l4_mask(1))
    masks.place(l4_mask(2))
    masks.release(first)
    assert masks.place(l4_mask(4)) == first
    assert masks.mask(first) == l4_mask(4)


def test_a_full_list_gives_the_superset_with_fewest_extra_bits() -> None:
    masks = MaskList(length=4)
    masks.place(l4_mask(0b1111))
    close = masks.place(l4_mask(0b0111))
    masks.place(l4_mask(0b1000))
    assert masks.place(l4_mask(0b0011)) == close
    assert masks.references(close) == 2


def test_a_full_list_falls_back_to_the_exact_mask() -> None:
    masks = MaskList(length=2)
    masks.place(l4_mask(1))
    assert masks.place(l4_mask(2)) == EXACT_SLOT


def test_bits_that_no_field_has_are_ignored() -> None:
    masks = MaskList(length=1)
    assert masks.place(EMPTY_MASK._replace(ip_proto=0x1FF)) == EXACT_SLOT


def test_adopting_refuses_what_contradicts_the_list() -> None:
    masks = MaskList()
    assert masks.adopt(5, l4_mask(1))
    assert masks.adopt(5, l4_mask(1))
    assert not masks.adopt(5, l4_mask(2))
    assert not masks.adopt(6, l4_mask(1))
    assert not masks.adopt(0, l4_mask(3))
    assert not masks.adopt(SLOTS_PER_PORT, l4_mask(3))
    assert masks.references(5) == 2
    assert dict(masks) == {0: EXACT_MASK, 5: l4_mask(1)}


@pytest.mark.parametrize(
    ("mask", "other", "expected"),
    [
        (EXACT_MASK, l4_mask(3), True),
        (l4_mask(3), l4_mask(1), True),
        (l4_mask(1), l4_mask(3), False),
        (l4_mask(3), EMPTY_MASK, True),
    ],
)
def test_covers_compares_bits(mask: object, other: object, expected: bool) -> None:
    assert covers(mask, other) is expected  # type: ignore[arg-type]
