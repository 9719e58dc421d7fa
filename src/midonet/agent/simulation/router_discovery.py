"""ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861) at router ports.

A router answers for the VIPs of its load balancer as well (`vip_discovery.py`).

Every packet that ends here is looked at one by one: nothing is installed for what was answered
or learnt.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.simulation.answers import packet_as_received
from midonet.agent.simulation.header import IP_DST, IP_PROTO, IP_SRC, L4_SRC
from midonet.agent.simulation.neighbour_learning import (
    follow_sender,
    learn_sender,
    neighbour_answer_text,
    take_advertisement,
)
from midonet.agent.simulation.port_networks import is_own, may_be_neighbour
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.router_advertising import answer_solicitation
from midonet.agent.simulation.trace import Answered
from midonet.agent.simulation.vip_discovery import has_vip
from midonet.agent.simulation.walk import Dropped, Ended, Outcome, Walk
from midonet.agent.topology.view import PortView, RouterView
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.arp import ArpMessage, ArpOperation
from midonet.packets.nd import NdType
from midonet.packets.neighbour import neighbour_message, neighbour_reply, station


def process_arp(walk: Walk, router: RouterView, port: PortView) -> Outcome:
    """Answer a request for an address of the port, learn from what concerns it.

    A message to somebody else only moves a neighbour that is known (RFC 826: merge).
    """
    header, arp = walk.header, walk.inputs.packet.arp
    fields = [header.read(field) for field in (IP_PROTO, IP_SRC, IP_DST)]
    if arp is None or not any(fields):
        # A frame that is no ARP of Ethernet and IPv4 has zeros there, and so has its class.
        return Dropped(DropReason.MALFORMED)
    sender = IpAddress(IpVersion.V4, arp.sender_ip)
    is_probe = sender.value == 0
    if not (is_probe or may_be_neighbour(port, sender)):
        return Dropped(DropReason.NOT_FOR_ROUTER)
    walk.findings.slow_path = SlowPathReason.ARP_CONTENT
    if station(arp.sender_mac) is None:
        return Dropped(DropReason.MALFORMED)
    target = IpAddress(IpVersion.V4, arp.target_ip)
    is_for_us = is_own(port, target)
    if arp.operation == ArpOperation.REQUEST and (is_for_us or has_vip(walk, router, port, target)):
        learn_sender(walk, router.id, port, sender, arp.sender_mac)
        frame = neighbour_reply(packet_as_received(walk), port.mac)
        walk.findings.generated.append(GeneratedPacket(port.id, frame))
        if walk.findings.steps is not None:
            walk.step(Answered(port.id, neighbour_answer_text(walk.inputs.packet, port.mac)))
        return Ended.TAKEN
    if not is_probe and _is_announcement_to(arp, port, is_for_us):
        learn_sender(walk, router.id, port, sender, arp.sender_mac)
        return Ended.TAKEN
    if not is_probe and arp.operation in (ArpOperation.REQUEST, ArpOperation.REPLY):
        follow_sender(walk, router.id, port, sender, arp.sender_mac)
    return Dropped(DropReason.NOT_FOR_ROUTER)


def _is_announcement_to(arp: ArpMessage, port: PortView, is_for_us: bool) -> bool:
    """Tell whether the message is gratuitous, or a reply to this port."""
    if arp.sender_ip == arp.target_ip:
        return arp.operation in (ArpOperation.REQUEST, ArpOperation.REPLY)
    return arp.operation == ArpOperation.REPLY and is_for_us and arp.target_mac == port.mac


def process_discovery(walk: Walk, router: RouterView, port: PortView) -> Outcome:
    """Answer a solicitation for an address of the port, learn from what concerns it.

    A solicitation of routers is answered by a port that advertises; redirects are not served.
    """
    kind = walk.header.read(L4_SRC)
    # The target, the flags and the options are no part of the flow key.
    walk.findings.slow_path = SlowPathReason.NEIGHBOUR_DISCOVERY
    if kind == NdType.ROUTER_SOLICITATION and port.advertising is not None:
        is_answered = answer_solicitation(walk, router.id, port, port.id)
        return Ended.TAKEN if is_answered else Dropped(DropReason.MALFORMED)
    if kind not in (NdType.NEIGHBOUR_SOLICITATION, NdType.NEIGHBOUR_ADVERTISEMENT):
        return Dropped(DropReason.LOCAL_NOT_HANDLED)
    message = neighbour_message(walk.inputs.packet)
    if message is None:
        return Dropped(DropReason.MALFORMED)
    target = IpAddress(IpVersion.V6, message.target)
    if message.kind is NdType.NEIGHBOUR_ADVERTISEMENT:
        is_taken = take_advertisement(walk, router.id, port, target, message)
        return Ended.TAKEN if is_taken else Dropped(DropReason.NOT_FOR_ROUTER)
    if not (is_own(port, target) or has_vip(walk, router, port, target)):
        return Dropped(DropReason.NOT_FOR_ROUTER)
    source = IpAddress(IpVersion.V6, walk.header.read(IP_SRC))
    learn_sender(walk, router.id, port, source, message.link_address)
    frame = neighbour_reply(packet_as_received(walk), port.mac, is_router=True)
    walk.findings.generated.append(GeneratedPacket(port.id, frame))
    if walk.findings.steps is not None:
        walk.step(Answered(port.id, neighbour_answer_text(walk.inputs.packet, port.mac)))
    return Ended.TAKEN
