"""The packets that ask for a neighbour: ARP requests and neighbour solicitations."""

from __future__ import annotations

from midonet.agent.simulation.result import GeneratedPacket, ResolveNeighbour
from midonet.agent.topology.view import PortView, TopologyView
from midonet.model.ids import PortId, RouterId
from midonet.packets.addresses import IpAddress
from midonet.packets.neighbour import neighbour_request


def question_packet(view: TopologyView, what: ResolveNeighbour) -> GeneratedPacket | None:
    """Return the packet that asks for an address out of a router port.

    None when the port is gone or has no address of that version to ask from.
    """
    port = view.ports.get(what.port_id)
    source = _source_address(port, what.address) if port is not None else None
    if port is None or source is None:
        return None
    return GeneratedPacket(what.port_id, neighbour_request(port.mac, source, what.address))


def port_towards(view: TopologyView, router_id: RouterId, address: IpAddress) -> PortId | None:
    """Return the router port in whose network an address lies, or None."""
    router = view.routers.get(router_id)
    for port_id in router.port_ids if router is not None else ():
        port = view.ports.get(port_id)
        if port is not None and any(prefix.contains(address) for prefix in port.addresses):
            return port_id
    return None


def _source_address(port: PortView, target: IpAddress) -> IpAddress | None:
    """Choose the port's address in the target's network, else its first of that version."""
    candidates = [prefix for prefix in port.addresses if prefix.version is target.version]
    for prefix in candidates:
        if prefix.contains(target):
            return prefix.address
    return candidates[0].address if candidates else None
