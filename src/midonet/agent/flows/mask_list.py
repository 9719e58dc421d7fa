"""The bounded list of masks of one ingress port.

A datapath tries the masks of the ingress port in the order of their slots, so the list bounds
the work of a miss. Slot 0 always holds the exact mask, hence every mask finds a place: a
program may be installed under any superset of its own mask, which only narrows its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from midonet.agent.flows.classification import EXACT_MASK, bit_count, covers, masked
from midonet.agent.flows.mask import FlowMask

SLOTS_PER_PORT = 32
"""Length of a mask list, the exact mask included."""

EXACT_SLOT = 0


@dataclass(slots=True)
class _Slot:
    mask: FlowMask
    references: int


class MaskList:
    """Slots with reference counts. A slot without references is free (slot 0 never is)."""

    def __init__(self, length: int = SLOTS_PER_PORT) -> None:
        """Make a list of `length` slots, at least 1."""
        self._length = length
        self._slots: dict[int, _Slot] = {EXACT_SLOT: _Slot(EXACT_MASK, 0)}
        self._slot_by_mask: dict[FlowMask, int] = {EXACT_MASK: EXACT_SLOT}

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[tuple[int, FlowMask]]:
        """Iterate over (slot, mask) in the order in which a datapath tries them."""
        return ((slot, self._slots[slot].mask) for slot in sorted(self._slots))

    def mask(self, slot: int) -> FlowMask:
        """Return the mask in an occupied `slot`."""
        return self._slots[slot].mask

    def place(self, mask: FlowMask) -> int:
        """Return the slot for a program with `mask`, and count one reference to it.

        The slot that holds the same mask, else a free slot, else the occupied slot whose mask
        covers `mask` with the fewest bits more (the lowest slot of several). Bits that no
        field has are ignored.
        """
        mask = masked(mask, EXACT_MASK)
        slot = self._slot_by_mask.get(mask)
        if slot is None:
            slot = self._free_slot()
            if slot is None:
                slot = self._closest_superset(mask)
            else:
                self._slots[slot] = _Slot(mask, 0)
                self._slot_by_mask[mask] = slot
        self._slots[slot].references += 1
        return slot

    def adopt(self, slot: int, mask: FlowMask) -> bool:
        """Count a reference to `mask` in exactly `slot`, as read back from a datapath.

        Returns False, and changes nothing, when the slot holds another mask, another slot
        holds this one, or the slot is out of range.
        """
        if not 0 <= slot < self._length or self._slot_by_mask.get(mask, slot) != slot:
            return False
        occupied = self._slots.get(slot)
        if occupied is None:
            occupied = self._slots[slot] = _Slot(mask, 0)
            self._slot_by_mask[mask] = slot
        elif occupied.mask != mask:
            return False
        occupied.references += 1
        return True

    def release(self, slot: int) -> bool:
        """Give one reference back. Returns True when that made the slot free."""
        occupied = self._slots[slot]
        occupied.references -= 1
        if occupied.references or slot == EXACT_SLOT:
            return False
        del self._slots[slot]
        del self._slot_by_mask[occupied.mask]
        return True

    def references(self, slot: int) -> int:
        """Return the number of references to `slot`, 0 for a free one."""
        occupied = self._slots.get(slot)
        return occupied.references if occupied else 0

    def _free_slot(self) -> int | None:
        if len(self._slots) == self._length:
            return None
        return next(slot for slot in range(self._length) if slot not in self._slots)

    def _closest_superset(self, mask: FlowMask) -> int:
        candidates = (slot for slot in self._slots if covers(self._slots[slot].mask, mask))
        return min(candidates, key=lambda slot: (bit_count(self._slots[slot].mask), slot))
