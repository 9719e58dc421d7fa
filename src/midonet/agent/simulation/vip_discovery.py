"""Who answers ARP and neighbour discovery for a VIP: the router that names its load balancer, at
ports on whose networks the VIP is. A bridge does it for the routers attached to it.
"""

from __future__ import annotations

from midonet.agent.flows.tags import RouteRegion, device_tag
from midonet.agent.simulation.neighbour_learning import MAX_TAUGHT
from midonet.agent.simulation.walk import Walk
from midonet.agent.topology.view import BridgeView, PortView, RouterAttachment, RouterView
from midonet.packets.addresses import IpAddress


def has_vip(walk: Walk, router: RouterView, port: PortView, address: IpAddress) -> bool:
    """Tell whether a router answers for an address, because of a VIP, at one of its ports."""
    if router.load_balancer_id is None or not any(
        prefix.contains(address) for prefix in port.addresses
    ):
        return False
    findings = walk.findings
    findings.tags.append(device_tag(router.load_balancer_id))
    bits = address.version.bits
    findings.regions.append(
        RouteRegion(router.load_balancer_id, address.version, address.value, bits)
    )
    balancer = walk.inputs.view.balancers.get(router.load_balancer_id)
    return (
        balancer is not None
        and balancer.admin_state_up
        and balancer.addresses.lookup(*address).is_member
    )


def attached_vip(
    walk: Walk, bridge: BridgeView, vlan: int, address: IpAddress
) -> RouterAttachment | None:
    """Return the router port on a bridge that a VIP is behind, None when there is none.

    A bridge with too many routers does not look: it is a network between routers.
    """
    if len(bridge.attachments) > MAX_TAUGHT:
        return None
    view = walk.inputs.view
    for (at_vlan, _), attachment in bridge.attachments.items():
        port = view.ports.get(attachment.router_port_id)
        if at_vlan != vlan or port is None:
            continue
        walk.findings.tags += (device_tag(port.id), device_tag(attachment.router_id))
        router = view.routers.get(attachment.router_id)
        if router is not None and has_vip(walk, router, port, address):
            return attachment
    return None
