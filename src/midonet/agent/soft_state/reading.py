"""What simulation asks of learnt state. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from midonet.model.ids import BridgeId, PortId, RouterId
from midonet.packets.addresses import IpAddress


class NeighbourState(Enum):
    """What is known of an address without a MAC."""

    UNKNOWN = "unknown"  # never asked, or asked and not answered yet
    FAILED = "failed"  # asked and given up on, for now


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A resolved neighbour. `is_stale`: use it, and ask again."""

    mac: int
    is_stale: bool = False


class SoftState(Protocol):
    """Local replicas of learnt state. Reads never wait."""

    def mac_port(self, bridge_id: BridgeId, vlan: int, mac: int) -> PortId | None:
        """Return the port behind which a MAC is, or None. vlan 0 is untagged."""
        ...

    def bridge_neighbour(self, bridge_id: BridgeId, address: IpAddress) -> int | None:
        """Return the MAC in the bridge's ARP table for an address, or None."""
        ...

    def neighbour(self, router_id: RouterId, address: IpAddress) -> Neighbour | NeighbourState:
        """Return what the router knows of an address."""
        ...
