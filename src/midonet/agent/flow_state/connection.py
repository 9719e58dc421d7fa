"""Connections and what was chosen for them: values only.

Viewpoint: forward is the direction of the packet that began the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

from midonet.agent.flow_state.zone import Zone
from midonet.model.ids import ObjectId, PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple


class Direction(IntEnum):
    """Which way a packet of a connection travels."""

    FORWARD = 0
    RETURN = 1


class Side(Enum):
    """Which end point of the forward packet a binding translates."""

    SOURCE = "source"
    DESTINATION = "destination"


class TcpState(IntEnum):
    """How far a TCP conversation is (RFC 9293 section 3.3.2, as seen from between the ends)."""

    NONE = 0  # not TCP, or nothing seen yet
    SYN_SENT = 1
    SYN_RECEIVED = 2
    ESTABLISHED = 3
    FIN_FORWARD = 4  # the forward side has closed
    FIN_RETURN = 5  # the return side has closed
    CLOSING = 6  # both have
    CLOSED = 7  # reset, or both closures acknowledged


class Endpoint(NamedTuple):
    """An address with a port (or the identifier of an ICMP echo)."""

    version: IpVersion
    address: int
    port: int


class ConnectionKey(NamedTuple):
    """A tuple as it enters a zone."""

    zone: Zone
    tuple: FiveTuple


@dataclass(frozen=True, slots=True)
class Binding:
    """One translation, chosen when the connection began.

    owner: the device that chose it, and alone may undo it: a router, a bridge or a load balancer.
    before, after: the end point on that side of the forward packet.
    """

    owner: ObjectId
    side: Side
    before: Endpoint
    after: Endpoint


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection. It is found by `forward` and by each of `returns`.

    returns: one for each output of the packet that began it, usually one. A tuple that is its own
        inverse, within one zone, has `forward` as its only key.
    bindings: in the order of the forward way.
    initiator: the port where it began.
    is_answered: a packet of the return direction was seen.
    serial: tells it from others under the same keys, before and after; 0 until it is entered.
    """

    forward: ConnectionKey
    returns: tuple[ConnectionKey, ...]
    initiator: PortId
    bindings: tuple[Binding, ...] = ()
    tcp: TcpState = TcpState.NONE
    is_answered: bool = False
    serial: int = 0

    @property
    def keys(self) -> tuple[ConnectionKey, ...]:
        """All its keys, each once."""
        return (self.forward, *self.returns)

    def has(self, key: ConnectionKey) -> bool:
        """Tell whether it is found by a key."""
        return key == self.forward or key in self.returns

    def direction_of(self, key: ConnectionKey) -> Direction:
        """Return the way a packet travels that enters with one of its keys."""
        return Direction.FORWARD if key == self.forward else Direction.RETURN

    def is_same(self, other: Connection) -> bool:
        """Tell whether this is `other`, perhaps at another time of its life."""
        return self.serial == other.serial and self.forward == other.forward
