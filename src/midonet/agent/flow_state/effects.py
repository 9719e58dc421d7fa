"""What a simulation says is to become of connections. The shell does it before the packet leaves.

Values only; `midonet.agent.simulation.result` has the other effects of a packet.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from midonet.agent.flow_state.allocations import Allocation
from midonet.agent.flow_state.connection import Connection, ConnectionKey, Direction
from midonet.agent.flow_state.fragments import NoteFragment, RefuseDatagram
from midonet.agent.flow_state.pool import NatPool
from midonet.agent.flow_state.source_choice import LeaseBlock
from midonet.model.ids import ObjectId
from midonet.packets.flowkey import FlowKey


@dataclass(frozen=True, slots=True)
class Sample:
    """What is needed to judge a connection again: the packet that began it, in short.

    facts: tags of the configuration (devices, chains, groups) that its walk met.
    key, icmp_id: of the packet; it entered at the connection's initiator.
    """

    facts: frozenset[Hashable]
    key: FlowKey
    icmp_id: int = 0


@dataclass(frozen=True, slots=True)
class ConfirmConnection:
    """Effect: the packet begins a connection. If it cannot be entered the packet must not leave.

    replaces: the connection that gives way to it: one that is over, or the same with fewer
        return keys.
    allocations: end points to be reserved for it, all or none.
    """

    connection: Connection
    sample: Sample
    replaces: Connection | None = None
    allocations: tuple[Allocation, ...] = ()


@dataclass(frozen=True, slots=True)
class AdvanceConnection:
    """Effect: a packet of a connection was seen. tcp_flags: its eight flag bits, 0 if not TCP."""

    key: ConnectionKey
    direction: Direction
    tcp_flags: int = 0


@dataclass(frozen=True, slots=True)
class KillConnection:
    """Effect: the connection is over: policy forbids it now, or its address has a new owner."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class NoteExhaustion:
    """Effect: a pool of a device had no end point for the packet."""

    owner: ObjectId
    pool: NatPool


@dataclass(frozen=True, slots=True)
class LeaseAhead:
    """Effect: few end points are left; have a further block before they are used up."""

    wanted: LeaseBlock


ConnectionEffect = (
    ConfirmConnection
    | AdvanceConnection
    | KillConnection
    | NoteFragment
    | RefuseDatagram
    | NoteExhaustion
    | LeaseAhead
)
