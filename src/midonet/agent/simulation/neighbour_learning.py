"""What a router learns of its neighbours, wherever the message ends.

A request teaches its sender's MAC to whoever answers (RFC 826 "packet reception", RFC 4861
section 7.2.3). When a bridge answers in a router's name, the router learns just as if it had
answered itself; of messages that a bridge keeps from its routers they learn what they would have
merged: a changed MAC of a neighbour they know.
"""

from __future__ import annotations

from collections.abc import Iterator

from midonet.agent.flows.program import SlowPathReason
from midonet.agent.flows.tags import device_tag, neighbour_tag
from midonet.agent.simulation.port_networks import may_be_neighbour
from midonet.agent.simulation.result import RefreshNeighbour
from midonet.agent.simulation.walk import Walk
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.soft_state.reading import Neighbour
from midonet.agent.topology.view import BridgeView, PortView, RouterAttachment
from midonet.model.ids import RouterId
from midonet.packets.addresses import IpAddress, IpVersion, format_mac
from midonet.packets.frame import ParsedFrame
from midonet.packets.neighbour import NeighbourMessage, station

MAX_TAUGHT = 64
"""Routers on a bridge that one message is held against. With more attached, they learn what they
ask for and what is said to them."""


def learn_sender(
    walk: Walk, router_id: RouterId, port: PortView, sender: IpAddress, mac: int | None
) -> None:
    """Enter who spoke to the router, if a neighbour may be called that."""
    mac = station(mac)
    if mac is not None and may_be_neighbour(port, sender):
        walk.findings.effects.append(LearnNeighbour(router_id, sender, mac))


def follow_sender(
    walk: Walk, router_id: RouterId, port: PortView, sender: IpAddress, mac: int | None
) -> bool:
    """Follow a neighbour that the router knows to another MAC; enter nobody new.

    Return whether the router knows it, so that the MAC in the message mattered.
    """
    if not may_be_neighbour(port, sender):
        return False
    walk.findings.tags.append(neighbour_tag(router_id, sender.version, sender.value))
    known = walk.inputs.soft_state.neighbour(router_id, sender)
    if not isinstance(known, Neighbour):
        return False
    mac = station(mac)
    if mac is not None and mac != known.mac:
        walk.findings.effects.append(LearnNeighbour(router_id, sender, mac))
    return True


def take_advertisement(
    walk: Walk, router_id: RouterId, port: PortView, target: IpAddress, message: NeighbourMessage
) -> bool:
    """Enter what an advertisement says (RFC 4861 section 7.2.5); tell whether it concerned us.

    One that nobody asked for enters a new neighbour too (RFC 9131 section 4); how many there may
    be is bounded where they are kept. Without the override flag another MAC only makes the entry
    doubtful.
    """
    if not may_be_neighbour(port, target):
        return False
    known = walk.inputs.soft_state.neighbour(router_id, target)
    mac = message.link_address
    if not isinstance(known, Neighbour):
        if mac is None:
            return False
        walk.findings.effects.append(LearnNeighbour(router_id, target, mac))
    elif mac is None or mac == known.mac:
        if message.is_solicited:
            walk.findings.effects.append(LearnNeighbour(router_id, target, known.mac))
    elif message.is_override:
        walk.findings.effects.append(LearnNeighbour(router_id, target, mac))
    else:
        walk.findings.effects.append(RefreshNeighbour(router_id, port.id, target))
    return True


def tell_attached_routers(
    walk: Walk, bridge: BridgeView, sender: IpAddress, mac: int, reason: SlowPathReason
) -> None:
    """Let the routers on a bridge merge what a broadcast says of its sender."""
    for attachment, port in _attached(walk, bridge):
        if follow_sender(walk, attachment.router_id, port, sender, mac):
            walk.findings.slow_path = reason


def advertise_to_attached_routers(
    walk: Walk, bridge: BridgeView, target: IpAddress, message: NeighbourMessage
) -> None:
    """Let the routers on a bridge take an advertisement to everybody, of neighbours they know."""
    for attachment, port in _attached(walk, bridge):
        if isinstance(walk.inputs.soft_state.neighbour(attachment.router_id, target), Neighbour):
            take_advertisement(walk, attachment.router_id, port, target, message)


def _attached(walk: Walk, bridge: BridgeView) -> Iterator[tuple[RouterAttachment, PortView]]:
    """Yield the router ports on a bridge without VLAN, unless there are too many."""
    if len(bridge.attachments) > MAX_TAUGHT:
        return
    for attachment in bridge.attachments.values():
        if attachment.vlan_id:
            continue
        port = walk.inputs.view.ports.get(attachment.router_port_id)
        walk.findings.tags.append(device_tag(attachment.router_port_id))
        if port is not None:
            yield attachment, port


def neighbour_answer_text(request: ParsedFrame, mac: int) -> str:
    """Return what an answer to a request says, for a trace."""
    if request.arp is not None:
        return (
            f"ARP reply: {IpAddress(IpVersion.V4, request.arp.target_ip)} is at {format_mac(mac)}"
        )
    target = IpAddress(IpVersion.V6, request.nd_target or 0)
    return f"advertisement: {target} is at {format_mac(mac)}"
