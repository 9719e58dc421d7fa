"""What a simulation says is to become of connections. The shell does it before the packet leaves.

Values only; `midonet.agent.simulation.result` has the other effects of a packet.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from midonet.agent.flow_state.connection import Connection, ConnectionKey, Direction
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
    """

    connection: Connection
    sample: Sample
    replaces: Connection | None = None


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


ConnectionEffect = ConfirmConnection | AdvanceConnection | KillConnection
