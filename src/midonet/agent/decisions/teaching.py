"""Whether a packet of a program would teach the agent something, had it come up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from midonet.agent.flow_state.effects import (
    AdvanceConnection,
    ConfirmConnection,
    KillConnection,
    LeaseAhead,
    NoteExhaustion,
)
from midonet.agent.flow_state.fragments import NoteFragment, RefuseDatagram
from midonet.agent.flows.program import InstalledProgram
from midonet.agent.simulation.result import Effect, RefreshNeighbour
from midonet.agent.soft_state.lessons import LearnMac, LearnNeighbour, MoveBridgeNeighbour
from midonet.agent.soft_state.reading import SoftState


def would_teach(
    installed: InstalledProgram, effects: Iterable[Effect], soft_state: SoftState
) -> bool:
    """Tell whether a packet would teach something that is not known.

    Only a real packet teaches, so a program that keeps such packets from coming up must go.
    A program from before a restart (it has no tags yet) is judged when tables may not be
    here; what they lack then says nothing. It is judged once more when they come.
    """
    is_adopted = not installed.program.tags
    for effect in effects:
        match effect:
            case LearnMac(entry):
                place = soft_state.mac_port(entry.bridge_id, entry.vlan, entry.mac)
                if place != entry.port_id and not (is_adopted and place is None):
                    return True
            case LearnNeighbour() | MoveBridgeNeighbour():
                return True
            case ConfirmConnection():
                return True
            case (
                RefreshNeighbour()
                | AdvanceConnection()
                | KillConnection()
                | NoteFragment()
                | RefuseDatagram()
                | NoteExhaustion()
                | LeaseAhead()
            ):
                pass  # asked for as long as traffic uses the entry, packets or not
            case _:
                assert_never(effect)
    return False
