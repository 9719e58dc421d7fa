"""A frame for a flow key: the inverse of `midonet.packets.frame.parse_frame`.

A program that must be judged again has its key, but not the packet it was made for. Everything
the simulation may put into an installable program is in the key, so that a minimal frame with
the same key leads to the same program.
"""

from __future__ import annotations

from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.program import Rewrite
from midonet.packets.arp import ArpMessage
from midonet.packets.ethernet import EthernetHeader, VlanTag
from midonet.packets.five_tuple import five_tuple
from midonet.packets.flowkey import VLAN_PRESENT, FlowKey, FragmentKind
from midonet.packets.frame import parse_frame
from midonet.packets.ipv4 import Ipv4Header
from midonet.packets.ipv6 import FragmentHeader, Ipv6Header
from midonet.packets.protocols import EtherType, IpProtocol
from midonet.packets.sctp import SctpHeader
from midonet.packets.tcp import TcpFlag, TcpHeader
from midonet.packets.udp import UdpHeader

_FRAGMENT_NEXT_HEADER = 44
_ICMP = frozenset((IpProtocol.ICMP, IpProtocol.ICMPV6))
_ECHO_ANSWERS = {8: 0, 128: 129}
_LATER_OFFSET = 24
"""Bytes into the packet at which a later fragment begins: behind every transport header."""


def synthesise_frame(key: FlowKey, *, icmp_id: int = 0) -> bytes:
    """Return a frame whose flow key is `key` (`flow_hash` aside), as short as its headers allow.

    icmp_id: identifier of an ICMP echo, which is no part of the key. The TTL is 64, and a TCP
    segment goes on with what was begun (ACK), as those that programs let by. A key that no
    frame has (ICMP numbers above 255, a broken combination) gives a frame with another key, or a
    malformed one.
    """
    tags: tuple[VlanTag, ...] = ()
    if key.vlan_tci & VLAN_PRESENT:
        tags = (VlanTag(key.vlan_tci & ~VLAN_PRESENT),)
    header = EthernetHeader(key.eth_dst, key.eth_src, key.eth_type, tags).serialise()
    if key.eth_type == EtherType.ARP:
        return header + ArpMessage(key.ip_proto, key.eth_src, key.ip_src, 0, key.ip_dst).serialise()
    if key.eth_type == EtherType.IPV4:
        return header + _ipv4(key, icmp_id)
    if key.eth_type == EtherType.IPV6:
        return header + _ipv6(key, icmp_id)
    return header


def answer_key(key: FlowKey) -> FlowKey:
    """Return the key of a packet that answers one with `key`: its ends change places, and an
    ICMP echo request becomes its reply."""
    l4 = key.l4_dst, key.l4_src
    if key.ip_proto in _ICMP:
        l4 = _ECHO_ANSWERS.get(key.l4_src, key.l4_src), key.l4_dst
    return key._replace(
        eth_dst=key.eth_src,
        eth_src=key.eth_dst,
        ip_src=key.ip_dst,
        ip_dst=key.ip_src,
        l4_src=l4[0],
        l4_dst=l4[1],
    )


def answer_frame(frame: bytes, rewrite: Rewrite) -> bytes | None:
    """Return a minimal frame that answers `frame` as its receiver got it; None for what has no
    five-tuple, and so no answer that could be told from others.

    rewrite: how the frame was changed on its way. Raises DecodeError when it is malformed.
    """
    delivered = parse_frame(apply_rewrite(frame, rewrite))
    if five_tuple(delivered) is None:
        return None
    return synthesise_frame(answer_key(delivered.key), icmp_id=delivered.icmp_id)


def _ipv4(key: FlowKey, icmp_id: int) -> bytes:
    payload = _transport(key, icmp_id)
    return (
        Ipv4Header(
            source=key.ip_src,
            destination=key.ip_dst,
            protocol=key.ip_proto,
            total_length=20 + len(payload),
            tos=key.ip_tos,
            more_fragments=key.ip_frag == FragmentKind.FIRST,
            fragment_offset=_LATER_OFFSET if key.ip_frag == FragmentKind.LATER else 0,
        ).serialise()
        + payload
    )


def _ipv6(key: FlowKey, icmp_id: int) -> bytes:
    payload = _transport(key, icmp_id)
    next_header = key.ip_proto
    if key.ip_frag:
        is_first = key.ip_frag == FragmentKind.FIRST
        fragment = FragmentHeader(key.ip_proto, 0 if is_first else _LATER_OFFSET, is_first, 0)
        payload = fragment.serialise() + payload
        next_header = _FRAGMENT_NEXT_HEADER
    return (
        Ipv6Header(
            source=key.ip_src,
            destination=key.ip_dst,
            next_header=next_header,
            payload_length=len(payload),
            traffic_class=key.ip_tos,
        ).serialise()
        + payload
    )


def _transport(key: FlowKey, icmp_id: int) -> bytes:
    if key.ip_frag == FragmentKind.LATER:
        return bytes(8)
    match key.ip_proto:
        case IpProtocol.TCP:
            return TcpHeader(key.l4_src, key.l4_dst, flags=TcpFlag.ACK).serialise()
        case IpProtocol.UDP:
            return UdpHeader(key.l4_src, key.l4_dst).serialise()
        case IpProtocol.SCTP:
            return SctpHeader(key.l4_src, key.l4_dst).serialise()
        case IpProtocol.ICMP | IpProtocol.ICMPV6:
            number = icmp_id.to_bytes(2, "big")
            return bytes((key.l4_src & 0xFF, key.l4_dst & 0xFF, 0, 0)) + number + bytes(2)
        case _:
            return bytes(8)
