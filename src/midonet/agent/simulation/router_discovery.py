"""ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861) at router ports.

Every packet that ends here is looked at one by one: nothing is installed for what was answered
or learnt.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.simulation.answers import packet_as_seen
from midonet.agent.simulation.header import IP_DST, IP_PROTO, IP_SRC, L4_SRC
from midonet.agent.simulation.link_local import link_local_address
from midonet.agent.simulation.port_networks import on_link
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.trace import Answered
from midonet.agent.simulation.walk import Dropped, Ended, Outcome, Walk
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.topology.view import PortView, RouterView
from midonet.packets.addresses import IpAddress, IpVersion, format_mac, is_multicast_mac
from midonet.packets.arp import ArpMessage, ArpOperation
from midonet.packets.nd import NdType
from midonet.packets.neighbour import neighbour_reply


def process_arp(walk: Walk, router: RouterView, port: PortView) -> Outcome:
    """Answer a request for an address of the port, learn from what concerns it."""
    header, arp = walk.header, walk.packet.arp
    for field in (IP_PROTO, IP_SRC, IP_DST):
        header.read(field)
    if arp is None:
        return Dropped(DropReason.MALFORMED)
    sender = IpAddress(IpVersion.V4, arp.sender_ip)
    own = {prefix.value for prefix in port.addresses if prefix.version is IpVersion.V4}
    is_probe = sender.value == 0
    if sender.value in own or not (is_probe or on_link(port, sender)):
        return Dropped(DropReason.NOT_FOR_ROUTER)
    walk.slow_path = SlowPathReason.ARP_CONTENT
    if arp.operation == ArpOperation.REQUEST and arp.target_ip in own:
        if not is_probe:
            _learn(walk, router, sender, arp.sender_mac)
        frame = neighbour_reply(packet_as_seen(walk, header), port.mac)
        walk.generated.append(GeneratedPacket(port.id, frame))
        if walk.steps is not None:
            own_address = IpAddress(IpVersion.V4, arp.target_ip)
            walk.step(Answered(port.id, f"ARP reply: {own_address} is at {format_mac(port.mac)}"))
        return Ended.TAKEN
    if not is_probe and _is_announcement_to(arp, port, own):
        _learn(walk, router, sender, arp.sender_mac)
        return Ended.TAKEN
    return Dropped(DropReason.NOT_FOR_ROUTER)


def _is_announcement_to(arp: ArpMessage, port: PortView, own: set[int]) -> bool:
    """Tell whether the message is gratuitous, or a reply to this port."""
    if arp.sender_ip == arp.target_ip:
        return True
    return (
        arp.operation == ArpOperation.REPLY and arp.target_ip in own and arp.target_mac == port.mac
    )


def process_discovery(walk: Walk, router: RouterView, port: PortView) -> Outcome:
    """Answer a solicitation for an address of the port, learn from what concerns it.

    Router solicitations and redirects are not served.
    """
    packet = walk.packet
    kind = walk.header.read(L4_SRC)
    # The target and the options are no part of the flow key.
    walk.slow_path = SlowPathReason.NEIGHBOUR_DISCOVERY
    if kind not in (NdType.NEIGHBOUR_SOLICITATION, NdType.NEIGHBOUR_ADVERTISEMENT):
        return Dropped(DropReason.LOCAL_NOT_HANDLED)
    if packet.nd_target is None:
        return Dropped(DropReason.MALFORMED)
    mac = packet.nd_link_address
    if kind == NdType.NEIGHBOUR_SOLICITATION:
        own = {prefix.value for prefix in port.addresses if prefix.version is IpVersion.V6}
        if packet.nd_target not in own | {link_local_address(port.mac)}:
            return Dropped(DropReason.NOT_FOR_ROUTER)
        source = IpAddress(IpVersion.V6, walk.header.read(IP_SRC))
        if mac is not None and source.value and on_link(port, source):
            _learn(walk, router, source, mac)
        frame = neighbour_reply(packet_as_seen(walk, walk.header), port.mac, is_router=True)
        walk.generated.append(GeneratedPacket(port.id, frame))
        if walk.steps is not None:
            own_address = IpAddress(IpVersion.V6, packet.nd_target)
            walk.step(
                Answered(port.id, f"advertisement: {own_address} is at {format_mac(port.mac)}")
            )
        return Ended.TAKEN
    target = IpAddress(IpVersion.V6, packet.nd_target)
    if mac is None or not on_link(port, target):
        return Dropped(DropReason.NOT_FOR_ROUTER)
    _learn(walk, router, target, mac)
    return Ended.TAKEN


def _learn(walk: Walk, router: RouterView, address: IpAddress, mac: int) -> None:
    if mac and not is_multicast_mac(mac):
        walk.effects.append(LearnNeighbour(router.id, address, mac))
