"""The flow key: every header field that a datapath can match, in the order of the kernel ABI.

Viewpoint: the frame as it entered at its ingress port. Integers are plain numbers. The same
shape with one-bits where a field matters is a flow mask (`midonet.agent.flows.mask`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class FragmentKind(IntEnum):
    """Position of an IP packet in its datagram (RFC 791 section 3.2, RFC 8200 section 4.5)."""

    NONE = 0
    FIRST = 1
    LATER = 2


VLAN_PRESENT = 0x1000
"""Bit set in `FlowKey.vlan_tci` of a tagged frame (the place of the DEI bit, as in Linux)."""


class FlowKey(NamedTuple):
    """Header fields of one frame.

    eth_dst, eth_src: 48-bit MAC addresses.
    eth_type: 16 bits, of the payload behind the outermost tag; 0 for an 802.3 length frame.
    vlan_tci: 0 when untagged, else VLAN_PRESENT | PCP << 13 | VID of the outermost tag.
    ip_proto: IP protocol / last next-header; for ARP the low 8 bits of the operation.
    ip_tos: TOS or traffic class, 8 bits (DSCP << 2 | ECN).
    ip_frag: a FragmentKind.
    ip_src, ip_dst: 32 bits (IPv4; ARP: sender and target protocol address) or 128 (IPv6).
    l4_src, l4_dst: TCP, UDP and SCTP ports; ICMP and ICMPv6: type and code. 0 when there are
        none, and always 0 in a later fragment.
    flow_hash: direction-symmetric keyed hash of the original tuple
        (`midonet.packets.flow_hash`); only the bits a choice consumed are ever matched.
    """

    eth_dst: int
    eth_src: int
    eth_type: int = 0
    vlan_tci: int = 0
    ip_proto: int = 0
    ip_tos: int = 0
    ip_frag: int = 0
    ip_src: int = 0
    ip_dst: int = 0
    l4_src: int = 0
    l4_dst: int = 0
    flow_hash: int = 0
