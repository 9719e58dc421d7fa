"""What a packet's walk sees of its connection, and of whom it asks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from midonet.agent.flow_state.connection import Connection, Direction


class Standing(Enum):
    """What a packet is to the connections that are known."""

    NEW = "new"  # of none; it may begin one
    KNOWN = "known"  # of one
    RELATED = "related"  # an ICMP error about a packet of one
    UNKNOWN = "unknown"  # perhaps of one that another host knows


@dataclass(frozen=True, slots=True)
class Sight:
    """What a walk sees of the packet's connection.

    direction: the way the packet itself travels, of an ICMP error too. connection: None when
    there is none; never None when KNOWN or RELATED.
    """

    standing: Standing
    direction: Direction = Direction.FORWARD
    connection: Connection | None = None

    @property
    def is_return(self) -> bool:
        """Tell whether the packet travels towards where its connection began."""
        return self.direction is Direction.RETURN
