"""From the address of a next hop to its MAC.

A linked router's MAC is known from its port. Behind a bridge the attached router ports and the
bridge's table are asked first, then the router's own neighbour table, which the shell fills by
ARP or neighbour solicitation.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.tags import bridge_neighbour_tag, mac_tag, neighbour_tag
from midonet.agent.simulation import answers
from midonet.agent.simulation.link_local import link_local_mac
from midonet.agent.simulation.port_networks import on_link
from midonet.agent.simulation.result import Await, RefreshNeighbour, ResolveNeighbour
from midonet.agent.simulation.trace import LookedUpNeighbour
from midonet.agent.simulation.walk import Dropped, Refusal, Walk
from midonet.agent.soft_state.reading import Neighbour, NeighbourState
from midonet.agent.topology.view import BridgeView, PortView, RouterView
from midonet.model.ids import BridgeId
from midonet.packets.addresses import IpAddress, IpVersion


def resolve_mac(
    walk: Walk, router: RouterView, port: PortView, address: IpAddress
) -> int | Refusal:
    """Return the MAC of `address` behind a router port, or why the packet cannot go there."""
    if port.host_id is None:
        if port.peer_port_id is None:
            return Dropped(DropReason.PORT_UNPLUGGED, object_id=port.id)
        peer = walk.port(port.peer_port_id)
        if not isinstance(peer, PortView):
            return peer
        if peer.router_id is not None:
            return peer.mac
        known = _ask_bridge(walk, peer, peer.bridge_id, address) if peer.bridge_id else None
        if known is not None:
            return known
    if not on_link(port, address):
        answers.answer_unreachable(walk)
        return Dropped(DropReason.NEIGHBOUR_UNRESOLVED)
    return _ask_table(walk, router, port, address)


def _ask_bridge(
    walk: Walk, port: PortView, bridge_id: BridgeId, address: IpAddress
) -> int | Refusal | None:
    """Ask the bridge to which the router is attached by `port`, in the VLAN of that port."""
    vlan = port.vlan_id
    bridge = walk.bridge(bridge_id)
    if not isinstance(bridge, BridgeView):
        return bridge
    walk.findings.tags.append(bridge_neighbour_tag(bridge.id, address.version, address.value))
    attachment = bridge.attachment_by_address.get((vlan, address))
    if attachment is not None:
        return attachment.mac
    if address.version is IpVersion.V6:
        mac = link_local_mac(address.value)
        if mac is not None:
            walk.findings.tags.append(mac_tag(bridge.id, vlan, mac))
            if (vlan, mac) in bridge.attachments:
                return mac
    if vlan:
        return None  # the table is of frames without VLAN
    known = walk.inputs.soft_state.bridge_neighbour(bridge.id, address)
    if walk.findings.steps is not None:
        walk.step(LookedUpNeighbour(bridge.id, address, known))
    return known


def _ask_table(walk: Walk, router: RouterView, port: PortView, address: IpAddress) -> int | Refusal:
    walk.findings.tags.append(neighbour_tag(router.id, address.version, address.value))
    neighbour = walk.inputs.soft_state.neighbour(router.id, address)
    if walk.findings.steps is not None:
        known = neighbour.mac if isinstance(neighbour, Neighbour) else None
        walk.step(LookedUpNeighbour(router.id, address, known))
    if isinstance(neighbour, Neighbour):
        if neighbour.is_stale:
            walk.findings.effects.append(RefreshNeighbour(router.id, port.id, address))
        return neighbour.mac
    if neighbour is NeighbourState.UNKNOWN:
        return Await(ResolveNeighbour(router.id, port.id, address))
    answers.answer_unreachable(walk)
    return Dropped(DropReason.NEIGHBOUR_UNRESOLVED)
