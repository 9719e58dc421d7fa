"""What the flow table tells its shell to do to the datapath.

A plan is already part of the table's state when it is returned; the shell applies it at once,
before it asks for the next one, in the order of the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from midonet.agent.flows.program import InstalledProgram
from midonet.model.ids import PortId


class MaskSlot(NamedTuple):
    """A slot in the mask list of a port."""

    port_id: PortId
    mask_id: int


class InstallOutcome(Enum):
    """What an install does to the class of the program."""

    NEW = "new"  # the class had no program
    REPLACED = "replaced"  # another program of the class gives way; counters are kept
    UNCHANGED = "unchanged"  # the same program is there already; its lifetime starts again


class RefusalReason(Enum):
    """Why a program is not installed."""

    STALE = "stale"  # a fact it depends on changed since its view; simulate again
    HISTORY_GONE = "history_gone"  # its view is too old to tell; simulate again
    SLOW_PATH = "slow_path"  # it is for its one packet only
    NO_ROOM = "no_room"  # the datapath has no room for it, or the port has had its share


@dataclass(frozen=True, slots=True)
class Refusal:
    """The program is not installed, and the table is as it was."""

    reason: RefusalReason

    @property
    def is_stale(self) -> bool:
        """Tell whether to simulate again; else the packet is carried out by itself."""
        return self.reason in (RefusalReason.STALE, RefusalReason.HISTORY_GONE)


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """Remove programs, then forget masks that no program uses any more."""

    remove: tuple[InstalledProgram, ...] = ()
    free_masks: tuple[MaskSlot, ...] = ()


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """Remove what was evicted, install the entry, remove what it supersedes, forget masks.

    entry: the program with its place; to be installed unless `outcome` is UNCHANGED.
    evicted: least recently used programs that make room.
    superseded: the program that the new one was judged in place of, when its class differs.
    free_masks: as in `RemovalPlan`.
    """

    outcome: InstallOutcome
    entry: InstalledProgram
    evicted: tuple[InstalledProgram, ...] = ()
    superseded: tuple[InstalledProgram, ...] = ()
    free_masks: tuple[MaskSlot, ...] = ()


@dataclass(frozen=True, slots=True)
class InvalidationPlan:
    """Remove some programs at once, judge others again.

    rejudge: the first `urgent` of them before all others, each part most recently used first.
        One that is neither installed again nor removed by `deadline_ns` (boot-time clock; urgent
        ones are due earlier) is removed by `FlowTable.expire`.
    """

    removal: RemovalPlan
    rejudge: tuple[InstalledProgram, ...] = ()
    deadline_ns: int = 0
    urgent: int = 0
