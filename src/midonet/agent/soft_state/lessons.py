"""What a packet teaches: simulation says it, the replicas take it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from midonet.agent.flows.program import LearnedMac
from midonet.model.ids import BridgeId, RouterId
from midonet.packets.addresses import IpAddress


@dataclass(frozen=True, slots=True)
class LearnMac:
    """Effect: the bridge saw a source MAC; put it in its table (vlan 0 is untagged)."""

    entry: LearnedMac


@dataclass(frozen=True, slots=True)
class LearnNeighbour:
    """Effect: a router learnt the MAC of an address from ARP or ND."""

    router_id: RouterId
    address: IpAddress
    mac: int


@dataclass(frozen=True, slots=True)
class MoveBridgeNeighbour:
    """Effect: an address in a bridge's ARP table announced itself with another MAC."""

    bridge_id: BridgeId
    address: IpAddress
    mac: int
