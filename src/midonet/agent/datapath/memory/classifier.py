"""The programs of one ingress port, found as the kernel finds them: mask by mask."""

from __future__ import annotations

from dataclasses import dataclass, field

from midonet.agent.datapath.protocol import InstalledProgram, ProgramStatistics
from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.mask import FlowMask
from midonet.packets.flowkey import FlowKey


@dataclass(slots=True)
class Slot:
    """An installed program and its counters."""

    installed: InstalledProgram
    packets: int = 0
    bytes: int = 0
    last_used_ns: int = 0

    def count(self, size: int, now_ns: int) -> None:
        """Count one packet of `size` bytes."""
        self.packets += 1
        self.bytes += size
        self.last_used_ns = now_ns

    def statistics(self) -> ProgramStatistics:
        """Return the counters."""
        return ProgramStatistics(self.packets, self.bytes, self.last_used_ns)


@dataclass(slots=True)
class Classifier:
    """Masks in the order of their slots, and programs by (slot, masked key)."""

    masks: dict[int, FlowMask] = field(default_factory=lambda: {0: EXACT_MASK})
    classes: dict[tuple[int, FlowKey], Slot] = field(default_factory=dict)

    def find(self, key: FlowKey) -> Slot | None:
        """Return the program for `key`, or None on a miss."""
        for mask_id, mask in self.masks.items():
            slot = self.classes.get((mask_id, masked(key, mask)))
            if slot is not None:
                return slot
        return None

    def put(self, slot: Slot) -> None:
        """Add a program and make its mask visible."""
        installed = slot.installed
        self.classes[installed.mask_id, installed.key] = slot
        if self.masks.get(installed.mask_id) != installed.mask:
            self.masks[installed.mask_id] = installed.mask
            self.masks = dict(sorted(self.masks.items()))

    def discard(self, installed: InstalledProgram) -> None:
        """Remove a program, unless another one has taken its class."""
        place = (installed.mask_id, installed.key)
        slot = self.classes.get(place)
        if slot is not None and slot.installed.program_id == installed.program_id:
            del self.classes[place]

    def drop_mask(self, mask_id: int) -> None:
        """Forget a mask. The exact mask stays."""
        if mask_id:
            self.masks.pop(mask_id, None)
