"""Numbers of EtherTypes, IP protocols and next headers that this package knows."""

from __future__ import annotations

from enum import IntEnum


class EtherType(IntEnum):
    """EtherTypes (IEEE 802 numbers registry)."""

    IPV4 = 0x0800
    ARP = 0x0806
    TRANSPARENT_BRIDGING = 0x6558
    VLAN = 0x8100
    IPV6 = 0x86DD
    SERVICE_VLAN = 0x88A8


class IpProtocol(IntEnum):
    """IP protocol and next-header numbers (IANA registry)."""

    HOP_BY_HOP = 0
    ICMP = 1
    TCP = 6
    UDP = 17
    ROUTING = 43
    FRAGMENT = 44
    GRE = 47
    ICMPV6 = 58
    NO_NEXT_HEADER = 59
    DESTINATION_OPTIONS = 60
    SCTP = 132


ETHERTYPE_MIN = 0x0600
"""Type fields below this are lengths of 802.3 frames (IEEE 802.3 section 3.2.6)."""
