"""Programs of another ABI version serve what the new tables do not hold yet.

The new programs take over the links at once, with empty tables, and what they do not find they
hand to the earlier program by a tail call: it decides by its own tables, whatever their layout. So
nothing needs to know what another version's tables look like, neither upwards nor downwards. Once
the agent decides on packets, what the earlier programs forward is copied up too, and judged; after
a while, or when something must stop at once, they are let go.

Each generation has an injection pair of its own, so that marks of frames on their way keep the
meaning that they had where they were made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from midonet.agent.datapath.ebpf import abi, syscalls
from midonet.agent.datapath.ebpf.hooks import (
    INJECT_PROGRAM,
    PORT_PROGRAM,
    UNDERLAY_PROGRAM,
    remove_link,
)
from midonet.agent.datapath.ebpf.pins import PinDirectory, link_pins
from midonet.agent.datapath.ebpf.slots import slot_key
from midonet.agent.datapath.ebpf.syscalls import BpfMap

_PLACES = {PORT_PROGRAM: 0, UNDERLAY_PROGRAM: 1}


class Takeover:
    """The earlier map: programs of another version. Pinned, so that it outlives this process."""

    def __init__(self, earlier: BpfMap, pins: PinDirectory) -> None:
        self._earlier = earlier
        self._pins = pins

    @property
    def is_running(self) -> bool:
        """Tell whether earlier programs are asked."""
        return any(self._earlier.get(slot_key(place)) for place in _PLACES.values())

    def begin(self) -> None:
        """Find the earlier programs, before the links change hands."""
        generations = self._of_other_versions()
        if not generations or self.is_running:
            return
        for generation in generations:
            for name in _PLACES:
                pin = generation / "maps" / name
                if pin.exists():
                    self._serve(name, syscalls.open_pin(str(pin)))
            for pin in link_pins(generation / "links"):
                name, _, _ = pin.name.rpartition("-")
                if name in _PLACES:
                    self._serve(name, _program_of(pin))

    def _serve(self, name: str, program: int) -> None:
        try:
            self._earlier.update(slot_key(_PLACES[name]), slot_key(program))
        finally:
            os.close(program)

    def pin_programs(self, programs: Mapping[str, int]) -> None:
        """Leave the programs where another version will look for them.

        They lie beside the maps, because every version removes all that is there. Where links
        are pinned they would do, but filters of older kernels are no pins.
        """
        for name in _PLACES:
            path = self._pins.maps / name
            path.unlink(missing_ok=True)
            syscalls.pin(programs[name], str(path))

    def links_to_take(self) -> list[Path]:
        """Return the links that the new programs take over: not those of earlier injection."""
        kept = {path / "links" for path in self._of_other_versions()}
        return [
            pin
            for pin in self._pins.all_link_pins()
            if pin.parent not in kept or not pin.name.startswith(f"{INJECT_PROGRAM}-")
        ]

    def _of_other_versions(self) -> list[Path]:
        prefix = f"v{abi.ABI_VERSION}-"
        return [p for p in self._pins.other_generations() if not p.name.startswith(prefix)]

    def end(self) -> None:
        """Let the earlier programs go, with their tables. Idempotent."""
        for place in _PLACES.values():
            self._earlier.delete(slot_key(place))
        for path in self._pins.other_generations():
            for pin in link_pins(path / "links"):
                remove_link(pin)
            self._pins.remove_generation(path)


def _program_of(pin: Path) -> int:
    """Return a descriptor of the program behind a link."""
    link = syscalls.open_pin(str(pin))
    try:
        return syscalls.program_by_id(syscalls.link_info(link).program_id)
    finally:
        os.close(link)
