"""What waits to be decided on, and what is counted of it."""

from __future__ import annotations

from dataclasses import dataclass

from midonet.agent.datapath.protocol import Upcall, UpcallReason
from midonet.agent.flows.plans import InstallOutcome, Refusal
from midonet.agent.flows.program import FlowProgram, LocalOutput, Output
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


def outputs_of(packet: GeneratedPacket, program: FlowProgram) -> tuple[Output, ...]:
    """Return the outputs by which a generated packet leaves."""
    if not packet.is_local:
        return program.outputs
    return tuple(one for one in program.outputs if isinstance(one, LocalOutput))


Work = Upcall | Generated


@dataclass(slots=True)
class Counters:
    """Numbers of decisions since the start."""

    upcalls: int = 0
    simulations: int = 0
    duplicates: int = 0
    rejudged: int = 0
    slow_path: int = 0


def is_stale(outcome: InstallOutcome | Refusal) -> bool:
    """Tell whether a program was refused because facts it depends on have changed."""
    return isinstance(outcome, Refusal) and outcome.is_stale


def is_settled(upcall: Upcall, program: FlowProgram) -> bool:
    """Tell whether the packet is only a copy. What is decided for one packet at a time was never
    installed, so no other version's program knew it."""
    return upcall.reason is UpcallReason.EARLIER and program.slow_path is None
