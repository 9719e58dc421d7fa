"""Build the frames of address resolution: ARP (RFC 826) and neighbour discovery (RFC 4861)."""

from __future__ import annotations

from typing import NamedTuple

from midonet.errors import DecodeError, InternalError
from midonet.packets.addresses import MAC_BROADCAST, IpAddress, IpVersion, is_multicast_mac
from midonet.packets.arp import ArpMessage, ArpOperation
from midonet.packets.build import Envelope, ethernet_frame, frame_tag, icmpv6_frame
from midonet.packets.checksum import transport_checksum
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.nd import (
    NdOption,
    NdOptionKind,
    NdType,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterAdvertisement,
    RouterSolicitation,
    link_address_option,
)
from midonet.packets.protocols import EtherType, IpProtocol

ALL_NODES = 0xFF02 << 112 | 1
"""ff02::1, RFC 4291 section 2.7.1."""
_SOLICITED_NODE = 0xFF02 << 112 | 0x1_FF00_0000
_ND_HOP_LIMIT = 255


def solicited_node_address(address: int) -> int:
    """Return the solicited-node multicast address of an IPv6 address (RFC 4291 2.7.1)."""
    return _SOLICITED_NODE | address & 0xFF_FFFF


def multicast_mac(address: int) -> int:
    """Return the group MAC of an IPv6 multicast address (RFC 2464 section 7)."""
    return 0x3333_0000_0000 | address & 0xFFFF_FFFF


def arp_request(
    sender_mac: int, sender_ip: int, target_ip: int, *, eth_dst: int = MAC_BROADCAST
) -> bytes:
    """Return an ARP request. With sender and target equal it is an announcement (RFC 5227)."""
    message = ArpMessage(ArpOperation.REQUEST, sender_mac, sender_ip, 0, target_ip)
    return ethernet_frame(eth_dst, sender_mac, EtherType.ARP, message.serialise())


def arp_reply(
    sender_mac: int,
    sender_ip: int,
    target_mac: int,
    target_ip: int,
    *,
    vlan_tci: int | None = None,
) -> bytes:
    """Return an ARP reply to `target_mac`: `sender_ip` is at `sender_mac`."""
    message = ArpMessage(ArpOperation.REPLY, sender_mac, sender_ip, target_mac, target_ip)
    return ethernet_frame(
        target_mac, sender_mac, EtherType.ARP, message.serialise(), vlan_tci=vlan_tci
    )


def neighbour_solicitation(sender_mac: int, sender_ip: int, target: int) -> bytes:
    """Return a solicitation for `target` to its solicited-node group (RFC 4861 section 7.2.2).

    The link-layer option is left out when the sender is the unspecified address (4.3).
    """
    group = solicited_node_address(target)
    options: tuple[NdOption, ...] = ()
    if sender_ip:
        options = (link_address_option(NdOptionKind.SOURCE_LINK_ADDRESS, sender_mac),)
    envelope = _nd_envelope(sender_mac, multicast_mac(group), sender_ip, group)
    return icmpv6_frame(envelope, NeighbourSolicitation(target, options).serialise())


def neighbour_advertisement(
    sender_mac: int,
    target: int,
    eth_dst: int,
    ip_dst: int,
    *,
    is_router: bool = False,
    is_solicited: bool = True,
    is_override: bool = True,
    vlan_tci: int | None = None,
) -> bytes:
    """Return an advertisement: `target` is at `sender_mac` (RFC 4861 section 7.2.4)."""
    options = (link_address_option(NdOptionKind.TARGET_LINK_ADDRESS, sender_mac),)
    message = NeighbourAdvertisement(target, is_router, is_solicited, is_override, options)
    envelope = _nd_envelope(sender_mac, eth_dst, target, ip_dst, vlan_tci)
    return icmpv6_frame(envelope, message.serialise())


def unsolicited_advertisement(sender_mac: int, target: int, *, is_router: bool = False) -> bytes:
    """Return an announcement to all nodes (RFC 4861 section 7.2.6)."""
    return neighbour_advertisement(
        sender_mac,
        target,
        multicast_mac(ALL_NODES),
        ALL_NODES,
        is_router=is_router,
        is_solicited=False,
    )


def neighbour_request(sender_mac: int, sender: IpAddress, target: IpAddress) -> bytes:
    """Return the ARP request or neighbour solicitation that asks for the MAC of `target`."""
    if sender.version != target.version:
        raise InternalError("neighbour request with addresses of different IP versions")
    if target.version == IpVersion.V4:
        return arp_request(sender_mac, sender.value, target.value)
    return neighbour_solicitation(sender_mac, sender.value, target.value)


def is_neighbour_request(frame: ParsedFrame) -> bool:
    """Tell whether the frame is an ARP request or a valid neighbour solicitation."""
    if frame.arp is not None:
        return frame.arp.operation == ArpOperation.REQUEST
    return frame.nd_target is not None and frame.key.l4_src == NdType.NEIGHBOUR_SOLICITATION


class NeighbourMessage(NamedTuple):
    """A valid neighbour solicitation or advertisement.

    link_address: the source's MAC of a solicitation, the target's of an advertisement; None when
        it is not told or names no single station.
    is_solicited, is_override: flags of an advertisement (RFC 4861 section 4.4), else False.
    """

    kind: NdType
    target: int
    link_address: int | None
    is_solicited: bool = False
    is_override: bool = False


def neighbour_message(frame: ParsedFrame) -> NeighbourMessage | None:
    """Return what a solicitation or an advertisement says, None unless it is valid.

    Tested is all of RFC 4861 sections 7.1.1 and 7.1.2: hop limit, code, size and target
    (`ParsedFrame.nd_target`), the checksum, every option, the destination of a probe, and that
    no group is told that it was solicited.
    """
    key = frame.key
    if frame.nd_target is None or frame.is_cut:
        return None
    message = frame.frame[frame.l4_offset : frame.l3_offset + frame.packet_length]
    if transport_checksum(message, key.ip_src, key.ip_dst, IpProtocol.ICMPV6):
        return None
    try:
        if key.l4_src == NdType.NEIGHBOUR_SOLICITATION:
            return _solicitation(NeighbourSolicitation.parse(message), key.ip_src, key.ip_dst)
        return _advertisement(NeighbourAdvertisement.parse(message), key.ip_dst)
    except DecodeError:
        return None


def router_solicitation(frame: ParsedFrame) -> RouterSolicitation | None:
    """Return a router solicitation, None unless it is valid (RFC 4861 section 6.1.1)."""
    key = frame.key
    if frame.ttl != _ND_HOP_LIMIT or frame.is_cut or key.ip_frag != FragmentKind.NONE:
        return None
    message = frame.frame[frame.l4_offset : frame.l3_offset + frame.packet_length]
    if transport_checksum(message, key.ip_src, key.ip_dst, IpProtocol.ICMPV6):
        return None
    try:
        found = RouterSolicitation.parse(message)
    except DecodeError:
        return None
    return None if not key.ip_src and found.link_address is not None else found


def router_advertisement(
    message: RouterAdvertisement,
    sender_mac: int,
    sender_ip: int,
    *,
    eth_dst: int | None = None,
    ip_dst: int = ALL_NODES,
    vlan_tci: int | None = None,
) -> bytes:
    """Return an advertisement (RFC 4861 section 6.2.3). sender_ip: link-local, as it must be.

    eth_dst: a station, for one that only it is to see (RFC 6085); None is the group of `ip_dst`.
    """
    destination = multicast_mac(ip_dst) if eth_dst is None else eth_dst
    envelope = _nd_envelope(sender_mac, destination, sender_ip, ip_dst, vlan_tci)
    return icmpv6_frame(envelope, message.serialise())


def _solicitation(
    message: NeighbourSolicitation, source: int, destination: int
) -> NeighbourMessage | None:
    if not source and (
        destination >> 24 != _SOLICITED_NODE >> 24 or message.link_address is not None
    ):
        return None
    return NeighbourMessage(message.TYPE, message.target, station(message.link_address))


def _advertisement(message: NeighbourAdvertisement, destination: int) -> NeighbourMessage | None:
    if message.is_solicited and destination >> 120 == 0xFF:
        return None
    return NeighbourMessage(
        message.TYPE,
        message.target,
        station(message.link_address),
        message.is_solicited,
        message.is_override,
    )


def station(mac: int | None) -> int | None:
    """Return a MAC if it can be that of one station, else None (RFC 1812 section 3.3.2)."""
    return mac if mac and not is_multicast_mac(mac) else None


def neighbour_reply(request: ParsedFrame, mac: int, *, is_router: bool = False) -> bytes:
    """Return the answer to an ARP request or solicitation: its target is at `mac`.

    The answer has the tag of the request. A solicitation from the unspecified address (duplicate
    address detection) is answered to all nodes (RFC 4861 section 7.2.4).
    Raises InternalError when the frame is not a request (`is_neighbour_request`).
    """
    tag = frame_tag(request)
    if not is_neighbour_request(request):
        raise InternalError("neighbour reply to a frame that does not ask")
    if request.arp is not None:
        arp = request.arp
        return arp_reply(mac, arp.target_ip, arp.sender_mac, arp.sender_ip, vlan_tci=tag)
    if request.nd_target is None:
        raise InternalError("neighbour solicitation without a target")
    is_probe = request.key.ip_src == 0
    return neighbour_advertisement(
        mac,
        request.nd_target,
        multicast_mac(ALL_NODES) if is_probe else request.key.eth_src,
        ALL_NODES if is_probe else request.key.ip_src,
        is_router=is_router,
        is_solicited=not is_probe,
        vlan_tci=tag,
    )


def _nd_envelope(
    eth_src: int, eth_dst: int, ip_src: int, ip_dst: int, vlan_tci: int | None = None
) -> Envelope:
    """Hop limit 255 proves to the receiver that no router was between (RFC 4861 section 3.1)."""
    return Envelope(
        eth_src,
        eth_dst,
        IpAddress(IpVersion.V6, ip_src),
        IpAddress(IpVersion.V6, ip_dst),
        vlan_tci,
        ttl=_ND_HOP_LIMIT,
    )
