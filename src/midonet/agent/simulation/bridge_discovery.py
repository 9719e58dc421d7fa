"""ARP (RFC 826) and neighbour solicitation (RFC 4861) on bridges.

A bridge answers for the router ports attached to it and for the addresses in its own table, so
such requests never leave the host. Router ports see no other broadcasts. Tagged frames are not
looked into.
"""

from __future__ import annotations

from midonet.agent.flows.program import SlowPathReason
from midonet.agent.flows.tags import bridge_neighbour_tag
from midonet.agent.simulation.header import IP_DST, IP_PROTO, IP_SRC, L4_SRC
from midonet.agent.simulation.link_local import link_local_mac
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.trace import Answered
from midonet.agent.simulation.walk import Ended, Outcome, ToEgress, Walk
from midonet.agent.soft_state.lessons import MoveBridgeNeighbour
from midonet.agent.topology.view import BridgeView, PortView, RouterAttachment
from midonet.packets.addresses import IpAddress, IpVersion, format_mac
from midonet.packets.arp import ArpOperation
from midonet.packets.nd import NdType
from midonet.packets.neighbour import neighbour_reply


def process_arp(walk: Walk, bridge: BridgeView, port: PortView) -> Outcome | None:
    """Answer or redirect a broadcast ARP frame; None to flood it."""
    header, arp = walk.header, walk.packet.arp
    if header.vlan_id():
        return None
    # Read before anything is decided: a frame that is no ARP of Ethernet and IPv4 has zeros there,
    # and what is installed for it must not hold for one that is.
    operation, sender = header.read(IP_PROTO), header.read(IP_SRC)
    target = IpAddress(IpVersion.V4, header.read(IP_DST))
    if arp is None:
        return None
    is_gratuitous = sender == target.value
    attachment = _attachment(walk, bridge, target)
    if operation == ArpOperation.REQUEST and not is_gratuitous:
        mac = attachment.mac if attachment else _table_mac(walk, bridge, target)
        if mac is None:
            return None
        walk.slow_path = SlowPathReason.ARP_CONTENT
        # Whoever probes for its own address must not be told that it is taken.
        if mac == arp.sender_mac:
            return None
        if walk.steps is not None:
            walk.step(Answered(port.id, f"ARP reply: {target} is at {format_mac(mac)}"))
        walk.generated.append(GeneratedPacket(port.id, neighbour_reply(walk.packet, mac)))
        return Ended.TAKEN
    if attachment is not None:
        return _to_router(walk, attachment)
    if is_gratuitous:
        _move_neighbour(walk, bridge, target, arp.sender_mac, SlowPathReason.ARP_CONTENT)
    return None


def process_solicitation(walk: Walk, bridge: BridgeView, port: PortView) -> Outcome | None:
    """Answer a multicast neighbour solicitation; None to flood it."""
    packet = walk.packet
    # The target is no part of the flow key, so nothing learnt here may be installed.
    walk.slow_path = SlowPathReason.NEIGHBOUR_DISCOVERY
    if packet.nd_target is None or walk.header.vlan_id():
        return None
    target = IpAddress(IpVersion.V6, packet.nd_target)
    if walk.header.read(L4_SRC) == NdType.NEIGHBOUR_ADVERTISEMENT:
        if packet.nd_link_address is not None:
            _move_neighbour(
                walk, bridge, target, packet.nd_link_address, SlowPathReason.NEIGHBOUR_DISCOVERY
            )
        return None
    attachment = _attachment(walk, bridge, target)
    mac = attachment.mac if attachment else _table_mac(walk, bridge, target)
    if mac is None or mac == packet.key.eth_src:
        return None
    if walk.steps is not None:
        walk.step(Answered(port.id, f"advertisement: {target} is at {format_mac(mac)}"))
    frame = neighbour_reply(packet, mac, is_router=attachment is not None)
    walk.generated.append(GeneratedPacket(port.id, frame))
    return Ended.TAKEN


def _attachment(walk: Walk, bridge: BridgeView, target: IpAddress) -> RouterAttachment | None:
    walk.tags.append(bridge_neighbour_tag(bridge.id, target.version, target.value))
    attachment = bridge.attachment_by_address.get(target)
    if attachment is None and target.version is IpVersion.V6:
        mac = link_local_mac(target.value)
        attachment = bridge.attachments.get(mac) if mac is not None else None
    return attachment


def _table_mac(walk: Walk, bridge: BridgeView, target: IpAddress) -> int | None:
    return walk.soft_state.bridge_neighbour(bridge.id, target)


def _to_router(walk: Walk, attachment: RouterAttachment) -> Outcome:
    port = walk.port(attachment.bridge_port_id)
    return ToEgress(port) if isinstance(port, PortView) else port


def _move_neighbour(
    walk: Walk, bridge: BridgeView, address: IpAddress, mac: int, reason: SlowPathReason
) -> None:
    """Follow an announcement of an address that the table holds; others are not entered."""
    walk.tags.append(bridge_neighbour_tag(bridge.id, address.version, address.value))
    known = walk.soft_state.bridge_neighbour(bridge.id, address)
    if known is None:
        return
    walk.slow_path = reason
    if known != mac:
        walk.effects.append(MoveBridgeNeighbour(bridge.id, address, mac))
