"""Port security: what a machine may say of itself, checked where its packets enter a bridge.

It speaks from its own MACs, each with its own addresses (`AllowedSources`), in Ethernet, in IP and
in what ARP and neighbour discovery carry; it is no DHCP server and no router. These pass though
they come from no address of the port:

- IPv4: a DHCP client's request from 0.0.0.0, and an ARP probe for an address of the port.
- IPv6: the link-local address made of the MAC (RFC 4291 appendix A); from the unspecified address
  duplicate address detection for an address of the port, router solicitations and listener
  reports (RFC 4862, RFC 4861 section 4.1, RFC 3590).

Reserved and multicast sources never pass, whatever the pairs say. What cannot be looked into does
not pass: ARP of another kind than Ethernet and IPv4, neighbour discovery that is invalid or
in fragments (RFC 6980), a frame in a second VLAN tag.

Bodies of ARP and neighbour discovery are no part of the flow key: where one matters, the outcome
holds for that packet only.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.simulation.header import (
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMPV6,
    IP_PROTO_UDP,
    IP_SRC,
    L4_DST,
    L4_SRC,
    Header,
)
from midonet.agent.simulation.link_local import link_local_address
from midonet.agent.simulation.trace import CheckedSource
from midonet.agent.simulation.walk import Dropped, Walk
from midonet.agent.topology.address_set import AddressSet
from midonet.agent.topology.view import PortView
from midonet.packets.address_kinds import AddressKind
from midonet.packets.addresses import IpVersion
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import discovered_addresses
from midonet.packets.nd import NdType
from midonet.packets.protocols import EtherType

_V4, _V6 = IpVersion.V4, IpVersion.V6
_BROADCAST = 0xFFFF_FFFF
_TAGS = frozenset((int(EtherType.VLAN), int(EtherType.SERVICE_VLAN)))
_DHCP_SERVER, _DHCP_CLIENT, _DHCPV6_CLIENT = 67, 68, 546
_NONE, _LATER = int(FragmentKind.NONE), int(FragmentKind.LATER)
_SOLICITS, _ADVERTISES = int(NdType.NEIGHBOUR_SOLICITATION), int(NdType.NEIGHBOUR_ADVERTISEMENT)
_ROUTER_SOLICITS = 133
_ROUTER_SPEAKS = frozenset((134, 137))
"""Router advertisement and redirect (RFC 4861 sections 4.2 and 4.5)."""
_FROM_UNSPECIFIED = frozenset((131, 132, _ROUTER_SOLICITS, _SOLICITS, 143))
"""ICMPv6 types that may come from ::, reports of listeners among them."""

Offence = tuple[DropReason, str] | None
"""Why a packet does not pass, by name and in words."""


def is_of_stranger(walk: Walk, port: PortView) -> bool:
    """Tell whether a packet comes from a MAC that port security does not allow."""
    allowed = port.allowed_sources
    return allowed is not None and allowed.addresses_of(walk.header.read(ETH_SRC)) is None


def check_source(walk: Walk, port: PortView) -> Dropped | None:
    """Return the end of a packet that port security does not let in."""
    allowed = port.allowed_sources
    if allowed is None or walk.inputs.is_generated or walk.branch.devices > 1:
        return None  # what a rule lets enter here, say, is not the machine's
    mac = walk.header.read(ETH_SRC)
    addresses = allowed.addresses_of(mac)
    offence: Offence = DropReason.SPOOFED_MAC, "the source MAC is not allowed at the port"
    if addresses is not None:
        offence = _Sender(walk, mac, addresses).offence()
    if walk.findings.steps is not None:
        walk.step(CheckedSource(port.id, "" if offence is None else offence[1]))
    return None if offence is None else Dropped(offence[0], object_id=port.id)


class _Sender:
    """Checks one packet of a MAC that is allowed."""

    def __init__(self, walk: Walk, mac: int, addresses: AddressSet) -> None:
        self._walk = walk
        self._header: Header = walk.header
        self._mac = mac
        self._addresses = addresses

    def offence(self) -> Offence:
        """Return why the packet does not pass."""
        eth_type = self._header.read(ETH_TYPE)
        if eth_type == ETH_TYPE_IPV4:
            return self._of_ipv4()
        if eth_type == ETH_TYPE_IPV6:
            return self._of_ipv6()
        if eth_type == ETH_TYPE_ARP:
            return self._of_arp()
        if eth_type in _TAGS:
            return DropReason.SPOOFED_ADDRESS, "a frame in a second VLAN tag is not looked into"
        return None

    # Addresses.

    def _is_own(self, version: IpVersion, field: int) -> bool:
        """Tell whether an address of the header is one of the MAC's."""
        header = self._header
        kind = header.address_kind(field, version)
        if kind in (AddressKind.RESERVED, AddressKind.MULTICAST):
            return False
        member = self._addresses.lookup(version, header.values[field])
        header.record_prefix(field, member.proof, version.bits)
        if member.is_member or version is _V4:
            return member.is_member
        return header.within(field, link_local_address(self._mac), 128, 128)

    def _is_own_target(self, target: int) -> bool:
        """Tell whether the target of a message, no part of the key, is one of the MAC's."""
        member = self._addresses.lookup(_V6, target)
        return member.is_member or target == link_local_address(self._mac)

    # IP.

    def _of_ipv4(self) -> Offence:
        if not self._is_own(_V4, IP_SRC) and not self._is_dhcp_request():
            return DropReason.SPOOFED_ADDRESS, "the source address is not the MAC's"
        if self._is_udp_to(_DHCP_CLIENT):
            return DropReason.UNTRUSTED_SERVER, "it answers DHCP clients"
        return None

    def _is_dhcp_request(self) -> bool:
        header = self._header
        return (
            header.read(IP_SRC) == 0
            and header.read(IP_DST) == _BROADCAST
            and header.read(IP_FRAG) == _NONE
            and self._is_udp_to(_DHCP_SERVER)
            and header.read(L4_SRC) == _DHCP_CLIENT
        )

    def _is_udp_to(self, port: int) -> bool:
        header = self._header
        if header.read(IP_PROTO) != IP_PROTO_UDP or header.read(IP_FRAG) == _LATER:
            return False
        found = header.values[L4_DST]
        header.record(L4_DST, 0xFFFF if found >> 8 == port >> 8 else 0xFF00)
        return found == port

    def _of_ipv6(self) -> Offence:
        header = self._header
        kind = None
        if header.read(IP_PROTO) == IP_PROTO_ICMPV6 and header.read(IP_FRAG) != _LATER:
            kind = header.read(L4_SRC)
        if not self._is_own(_V6, IP_SRC) and not self._is_unspecified(kind):
            return DropReason.SPOOFED_ADDRESS, "the source address is not the MAC's"
        if kind in _ROUTER_SPEAKS:
            return DropReason.UNTRUSTED_SERVER, "it speaks as a router"
        if kind in (_ROUTER_SOLICITS, _SOLICITS, _ADVERTISES):
            return self._of_discovery(kind)
        if self._is_udp_to(_DHCPV6_CLIENT):
            return DropReason.UNTRUSTED_SERVER, "it answers DHCP clients"
        return None

    def _is_unspecified(self, kind: int | None) -> bool:
        header = self._header
        return (
            kind in _FROM_UNSPECIFIED and header.read(IP_SRC) == 0 and header.read(IP_FRAG) == _NONE
        )

    # Bodies.

    def _of_discovery(self, kind: int) -> Offence:
        header, packet = self._header, self._walk.inputs.packet
        self._only_this_packet(SlowPathReason.NEIGHBOUR_DISCOVERY)
        options = discovered_addresses(packet)
        if header.read(IP_FRAG) != _NONE or options is None:
            return DropReason.SPOOFED_NEIGHBOUR, "it is no valid message of discovery"
        if kind != _ROUTER_SOLICITS:
            target = packet.nd_target
            if target is None:
                return DropReason.SPOOFED_NEIGHBOUR, "it is no valid message of discovery"
            speaks_of_itself = kind == _ADVERTISES or header.read(IP_SRC) == 0
            if speaks_of_itself and not self._is_own_target(target):
                return DropReason.SPOOFED_NEIGHBOUR, "it claims an address that is not the MAC's"
        if any(address != self._mac for address in options):
            return DropReason.SPOOFED_NEIGHBOUR, "it names another MAC than it comes from"
        return None

    def _of_arp(self) -> Offence:
        header, arp = self._header, self._walk.inputs.packet.arp
        is_probe = header.read(IP_SRC) == 0 if arp is not None else False
        if arp is not None and not self._is_own(_V4, IP_DST if is_probe else IP_SRC):
            if is_probe:
                self._only_this_packet(SlowPathReason.ARP_CONTENT)
            return DropReason.SPOOFED_NEIGHBOUR, "it claims an address that is not the MAC's"
        self._only_this_packet(SlowPathReason.ARP_CONTENT)
        if arp is None:
            return DropReason.SPOOFED_NEIGHBOUR, "it is no ARP of Ethernet and IPv4"
        if arp.sender_mac != self._mac:
            return DropReason.SPOOFED_NEIGHBOUR, "it names another MAC than it comes from"
        return None

    def _only_this_packet(self, reason: SlowPathReason) -> None:
        findings = self._walk.findings
        findings.slow_path = findings.slow_path or reason
