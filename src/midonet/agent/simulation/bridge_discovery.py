"""ARP (RFC 826) and neighbour solicitation (RFC 4861) on bridges.

A bridge answers for the router ports attached to it, for VIPs behind them (`vip_discovery.py`),
and for the addresses in its own table, so such requests are flooded nowhere. What a request teaches
goes to whom it was for all the same: a router takes it from here, the owner of an address in the
table gets the request itself. A probe (RFC 5227, duplicate address detection) is answered by owners
only, as a table may be wrong. Router ports see no other broadcasts; of those the routers are told
what they would have merged.

A router is answered for in its own VLAN only. In a VLAN nothing else is looked into: the bridge's
table is of frames without one, and router ports there see what is flooded. A bridge without VLANs
does not look into tagged frames at all.
"""

from __future__ import annotations

from midonet.agent.flows.program import SlowPathReason
from midonet.agent.flows.tags import bridge_neighbour_tag
from midonet.agent.simulation.answers import packet_as_seen
from midonet.agent.simulation.header import IP_DST, IP_PROTO, IP_SRC
from midonet.agent.simulation.link_local import link_local_mac
from midonet.agent.simulation.neighbour_learning import (
    advertise_to_attached_routers,
    learn_sender,
    neighbour_answer_text,
    tell_attached_routers,
)
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.trace import Answered
from midonet.agent.simulation.vip_discovery import attached_vip
from midonet.agent.simulation.walk import Ended, Outcome, ToEgress, Walk
from midonet.agent.soft_state.lessons import MoveBridgeNeighbour
from midonet.agent.topology.view import BridgeView, PortView, RouterAttachment
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.arp import ArpOperation
from midonet.packets.nd import NdType
from midonet.packets.neighbour import (
    NeighbourMessage,
    neighbour_message,
    neighbour_reply,
    station,
)


def process_arp(walk: Walk, bridge: BridgeView, port: PortView, vlan: int) -> Outcome | None:
    """Answer or redirect a broadcast ARP frame of a VLAN (0: none); None to flood it."""
    header, arp = walk.header, walk.inputs.packet.arp
    if header.vlan_id() not in (0, vlan):
        return None
    # Read before anything is decided: a frame that is no ARP of Ethernet and IPv4 has zeros there,
    # and what is installed for it must not hold for one that is.
    operation, sender = header.read(IP_PROTO), IpAddress(IpVersion.V4, header.read(IP_SRC))
    target = IpAddress(IpVersion.V4, header.read(IP_DST))
    if arp is None or operation not in (ArpOperation.REQUEST, ArpOperation.REPLY):
        return None
    is_gratuitous = sender == target
    attachment = _attachment(walk, bridge, vlan, target)
    if operation == ArpOperation.REQUEST and not is_gratuitous:
        attachment = attachment or attached_vip(walk, bridge, vlan, target)
        mac = attachment.mac if attachment else _table_mac(walk, bridge, vlan, target)
        if mac is not None:
            walk.findings.slow_path = SlowPathReason.ARP_CONTENT
            # Whoever probes for its own address must not be told that it is taken.
            if mac != arp.sender_mac and station(arp.sender_mac) is not None:
                if attachment is not None:
                    return _answer_for_router(walk, port, attachment, sender, arp.sender_mac)
                if sender.value:
                    return _answer_for_owner(walk, bridge, port, mac)
    elif attachment is not None and not vlan:
        return _to_router(walk, attachment)
    if sender.value and not vlan:
        reason = SlowPathReason.ARP_CONTENT
        tell_attached_routers(walk, bridge, sender, arp.sender_mac, reason)
        if is_gratuitous:
            _move_neighbour(walk, bridge, target, station(arp.sender_mac), reason)
    return None


def process_solicitation(
    walk: Walk, bridge: BridgeView, port: PortView, vlan: int
) -> Outcome | None:
    """Answer a multicast neighbour solicitation of a VLAN (0: none); None to flood it."""
    # The target is no part of the flow key, so nothing learnt here may be installed.
    walk.findings.slow_path = SlowPathReason.NEIGHBOUR_DISCOVERY
    message = neighbour_message(walk.inputs.packet)
    if message is None or walk.header.vlan_id() not in (0, vlan):
        return None
    target = IpAddress(IpVersion.V6, message.target)
    if message.kind is NdType.NEIGHBOUR_ADVERTISEMENT:
        if not vlan:
            _take_announcement(walk, bridge, target, message)
        return None
    attachment = _attachment(walk, bridge, vlan, target) or attached_vip(walk, bridge, vlan, target)
    mac = attachment.mac if attachment else _table_mac(walk, bridge, vlan, target)
    if mac is None or mac == walk.inputs.packet.key.eth_src:
        return None
    source = IpAddress(IpVersion.V6, walk.header.read(IP_SRC))
    if attachment is not None:
        return _answer_for_router(walk, port, attachment, source, message.link_address)
    return _answer_for_owner(walk, bridge, port, mac) if source.value else None


def _answer_for_router(
    walk: Walk,
    port: PortView,
    attachment: RouterAttachment,
    sender: IpAddress,
    sender_mac: int | None,
) -> Outcome:
    """Answer in the name of an attached router, and let it learn who asked."""
    router_port = walk.port(attachment.router_port_id)
    if isinstance(router_port, PortView):
        learn_sender(walk, attachment.router_id, router_port, sender, sender_mac)
    is_router = sender.version is IpVersion.V6
    request = packet_as_seen(walk, walk.header)
    frame = neighbour_reply(request, attachment.mac, is_router=is_router)
    return _answered(walk, port, attachment.mac, frame)


def _answer_for_owner(walk: Walk, bridge: BridgeView, port: PortView, mac: int) -> Outcome:
    """Answer from the bridge's table. The owner of the address gets the request beside that."""
    request = packet_as_seen(walk, walk.header)
    outcome = _answered(walk, port, mac, neighbour_reply(request, mac))
    owner_id = walk.inputs.soft_state.mac_port(bridge.id, 0, mac)
    owner = walk.inputs.view.ports.get(owner_id) if owner_id is not None else None
    if owner is None or owner.id == port.id or owner.bridge_id != bridge.id:
        return outcome
    return ToEgress(owner)


def _answered(walk: Walk, port: PortView, mac: int, frame: bytes) -> Outcome:
    if walk.findings.steps is not None:
        walk.step(Answered(port.id, neighbour_answer_text(walk.inputs.packet, mac)))
    walk.findings.generated.append(GeneratedPacket(port.id, frame))
    return Ended.TAKEN


def _take_announcement(
    walk: Walk, bridge: BridgeView, target: IpAddress, message: NeighbourMessage
) -> None:
    """Let the bridge's table, and the routers, follow an advertisement to everybody."""
    reason = SlowPathReason.NEIGHBOUR_DISCOVERY
    mac = message.link_address
    if message.is_override:
        _move_neighbour(walk, bridge, target, mac, reason)
    advertise_to_attached_routers(walk, bridge, target, message)


def _attachment(
    walk: Walk, bridge: BridgeView, vlan: int, target: IpAddress
) -> RouterAttachment | None:
    walk.findings.tags.append(bridge_neighbour_tag(bridge.id, target.version, target.value))
    attachment = bridge.attachment_by_address.get((vlan, target))
    if attachment is None and target.version is IpVersion.V6:
        mac = link_local_mac(target.value)
        attachment = bridge.attachments.get((vlan, mac)) if mac is not None else None
    return attachment


def _table_mac(walk: Walk, bridge: BridgeView, vlan: int, target: IpAddress) -> int | None:
    return None if vlan else walk.inputs.soft_state.bridge_neighbour(bridge.id, target)


def _to_router(walk: Walk, attachment: RouterAttachment) -> Outcome:
    port = walk.port(attachment.bridge_port_id)
    return ToEgress(port) if isinstance(port, PortView) else port


def _move_neighbour(
    walk: Walk, bridge: BridgeView, address: IpAddress, mac: int | None, reason: SlowPathReason
) -> None:
    """Follow an announcement of an address that the table holds; others are not entered."""
    walk.findings.tags.append(bridge_neighbour_tag(bridge.id, address.version, address.value))
    known = walk.inputs.soft_state.bridge_neighbour(bridge.id, address)
    if known is None:
        return
    walk.findings.slow_path = reason
    if mac is not None and known != mac:
        walk.findings.effects.append(MoveBridgeNeighbour(bridge.id, address, mac))
