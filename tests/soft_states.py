"""Soft state of the small networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from midonet.agent.simulation.result import Effect
from midonet.agent.soft_state.lessons import LearnMac, LearnNeighbour, MoveBridgeNeighbour
from midonet.agent.soft_state.reading import Neighbour, NeighbourState
from midonet.model.ids import BridgeId, PortId, RouterId
from midonet.packets.addresses import IpAddress


@dataclass(slots=True)
class DictSoftState:
    """Soft state in dictionaries. What is not there is unknown."""

    macs: dict[tuple[BridgeId, int, int], PortId] = field(default_factory=dict)
    bridge_neighbours: dict[tuple[BridgeId, IpAddress], int] = field(default_factory=dict)
    neighbours: dict[tuple[RouterId, IpAddress], Neighbour | NeighbourState] = field(
        default_factory=dict
    )

    def mac_port(self, bridge_id: BridgeId, vlan: int, mac: int) -> PortId | None:
        return self.macs.get((bridge_id, vlan, mac))

    def bridge_neighbour(self, bridge_id: BridgeId, address: IpAddress) -> int | None:
        return self.bridge_neighbours.get((bridge_id, address))

    def neighbour(self, router_id: RouterId, address: IpAddress) -> Neighbour | NeighbourState:
        return self.neighbours.get((router_id, address), NeighbourState.UNKNOWN)

    def apply(self, effects: Iterable[Effect]) -> None:
        """Take over what a simulation learnt."""
        for effect in effects:
            if isinstance(effect, LearnMac):
                entry = effect.entry
                self.macs[entry.bridge_id, entry.vlan, entry.mac] = entry.port_id
            elif isinstance(effect, LearnNeighbour):
                self.neighbours[effect.router_id, effect.address] = Neighbour(effect.mac)
            elif isinstance(effect, MoveBridgeNeighbour):
                self.bridge_neighbours[effect.bridge_id, effect.address] = effect.mac
