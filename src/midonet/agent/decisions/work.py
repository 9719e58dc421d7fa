"""What waits to be decided on, and what is counted of it."""

from __future__ import annotations

from dataclasses import dataclass

from midonet.agent.datapath.protocol import Upcall
from midonet.agent.simulation.result import GeneratedPacket

MAX_GENERATED_DEPTH = 4
"""How many times a generated packet may give rise to another."""

MAX_GENERATED_TOTAL = 256
"""Packets that may be generated because of one, over all depths."""


@dataclass(slots=True)
class Allowance:
    """How many more packets may be generated because of one."""

    packets: int = MAX_GENERATED_TOTAL

    def take(self) -> bool:
        """Take one; False when there is none left."""
        self.packets -= 1
        return self.packets >= 0


@dataclass(frozen=True, slots=True)
class Generated:
    """A packet made by a device, on its way. allowance: of all that came of the same packet."""

    packet: GeneratedPacket
    depth: int
    allowance: Allowance


Work = Upcall | Generated


@dataclass(slots=True)
class Counters:
    """Numbers of decisions since the start."""

    upcalls: int = 0
    simulations: int = 0
    duplicates: int = 0
    rejudged: int = 0
    slow_path: int = 0
