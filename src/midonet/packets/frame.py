"""From a frame to its flow key: the one parser of the simulation's input.

The kernel program computes the same key by the same rules. All numbers are in network byte
order on the wire; `length` is the size of the frame as received, which may exceed the bytes at
hand (an upcall copies at most 2048). "Malformed" raises DecodeError here and is the drop reason
MALFORMED there. No checksum is looked at: a datapath neither verifies nor repairs them.

They read a frame as its receiver will. Where receivers differ among each other the frame is
malformed: a filter would judge one packet and the receiver take another.

1. A frame has at least 14 bytes, else it is malformed. eth_dst, eth_src: bytes 0-5, 6-11. The
   type field T is at 12, and L3 starts at 14.
2. Tags (T is 0x8100 or 0x88A8), each of which is at least 4 bytes with another type field behind
   it, else malformed. A tag with VID 0 in front of or behind the first one that names a VLAN is a
   priority tag: receivers take away any number of them, so they are taken away here, and what
   leaves is without. More than four are malformed. The first tag that names a VLAN makes vlan_tci
   0x1000 | (TCI & 0xEFFF); T is then read again behind it, and L3 starts at 18. A second one that
   names a VLAN is not looked into: eth_type is its T, and rule 4 applies. (A tag that the kernel
   keeps in metadata is the outermost one; the frame is then four bytes longer than what is in
   memory.)
3. T below 0x0600 is an 802.3 length: eth_type is 0. Malformed if an 802.2 SNAP header (0xAA 0xAA)
   follows whose organisation is 0 or 0x0000F8 and whose type is a tag's, IPv4, IPv6 or ARP: some
   receivers take it as those (RFC 1042). Otherwise eth_type is T.
4. All other key fields are 0 unless T is IPv4, IPv6 or ARP.
5. ARP (0x0806): at least 28 bytes of L3, else malformed. If protocol space is 0x0800, hlen 6, plen
   4 and the operation below 256, whatever the hardware space (Linux takes 1 and 6): ip_proto is
   the operation, ip_src and ip_dst are the sender and target protocol addresses. Otherwise those
   fields are 0; no receiver takes such a message.
6. IPv4 (0x0800): malformed if fewer than 20 bytes of L3, version is not 4, or IHL < 5. The
   packet size is the total-length field; malformed if it is below IHL * 4 or goes beyond
   `length` (Ethernet padding behind the packet is no part of it). For an offloaded super-packet
   (gso_size not 0) that field is not looked at: the packet size is `length` minus the L3
   offset, and malformed if that is below IHL * 4. ip_proto, ip_tos, ip_src, ip_dst are the
   header's. ip_frag: LATER if the fragment offset is not 0, else FIRST if MF is set, else NONE.
   L4 starts at IHL * 4; options are skipped unread (with a source route the destination is the
   next hop of it, and the receiver there is who reads the option).
7. IPv6 (0x86DD): malformed if fewer than 40 bytes of L3, version is not 6, or an address is
   IPv4-mapped (::ffff:0:0/96), which applications take for an IPv4 address. The packet size is
   40 plus the payload-length field, malformed if it goes beyond `length`; for a super-packet it
   is `length` minus the L3 offset. Jumbograms of other senders than that do not exist here.
   ip_tos is the traffic class.
8. IPv6 extension headers: next-header values 0 (hop-by-hop), 43 (routing) and 60 (destination
   options) are walked, size (byte 1 + 1) * 8, and 44 (fragment), size 8. A fragment header with
   offset not 0 makes ip_frag LATER, else with M set FIRST, else (atomic fragment) it changes
   nothing. Malformed: a header that has not 8 bytes or does not end within the packet; a second
   fragment header; a seventh header of these kinds; more than 1024 bytes of them together.
   Any other next-header value ends the walk and is ip_proto; so does a fragment header that
   says LATER, and ip_proto is then its next-header field.
9. LATER fragments: l4_src and l4_dst are 0, and nothing behind the IP headers is read. Malformed
   if one begins within the header that rule 10 reads in the first: it could only change what was
   judged there (RFC 1858, RFC 3128).
10. L4, for NONE and FIRST. It must lie within the packet, else malformed: TCP (6) 20 bytes,
    UDP (17) 8, SCTP (132) 12, ICMP (1) on IPv4 8, ICMPv6 (58) on IPv6 8. l4_src and l4_dst are
    the two 16-bit words at its start, for ICMP and ICMPv6 the type and the code (one byte
    each). For every other protocol (ICMP on IPv6 and ICMPv6 on IPv4 too) they are 0. For NONE
    the header's own length must lie between that size and the end of the packet, else malformed:
    the data offset of TCP, the length field of UDP (not looked at in a super-packet).
11. A header that the rules above read, but that lies beyond the bytes at hand, is malformed.
12. flow_hash covers IPv4 and IPv6 frames (for all others it is 0): version, ip_proto, ip_src,
    ip_dst, and the ports when ip_proto is TCP, UDP or SCTP and ip_frag is NONE, else ports 0.
    `parse_frame` leaves it 0 unless it is given the seed.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

import msgspec

from midonet.errors import DecodeError
from midonet.packets.addresses import IpVersion
from midonet.packets.arp import ArpMessage
from midonet.packets.flow_hash import flow_hash
from midonet.packets.flowkey import VLAN_PRESENT, FlowKey, FragmentKind
from midonet.packets.ipv6 import PayloadLocation, locate_payload
from midonet.packets.nd import NdOptionKind, find_link_address, link_addresses
from midonet.packets.protocols import ETHERTYPE_MIN, EtherType, IpProtocol

# Plain integers: comparing with an enumeration member costs more than the rest of a branch.
_IPV4, _IPV6, _ARP = int(EtherType.IPV4), int(EtherType.IPV6), int(EtherType.ARP)
_TAG_TYPES = frozenset((int(EtherType.VLAN), int(EtherType.SERVICE_VLAN)))
_READ_TYPES = _TAG_TYPES | {_IPV4, _IPV6, _ARP}
_PRIORITY_TAGS_MAX = 4
_SNAP_ORGANISATIONS = frozenset((0, 0xF8))
_MAPPED_PREFIX = 0xFFFF
_NONE, _FIRST, _LATER = (int(kind) for kind in FragmentKind)
_ICMP, _ICMPV6 = int(IpProtocol.ICMP), int(IpProtocol.ICMPV6)
_TCP, _UDP, _SCTP = int(IpProtocol.TCP), int(IpProtocol.UDP), int(IpProtocol.SCTP)
_PORT_PROTOCOLS = frozenset((_TCP, _UDP, _SCTP))
_L4_SIZE_V4 = {_TCP: 20, _UDP: 8, _SCTP: 12, _ICMP: 8}
_L4_SIZE_V6 = {_TCP: 20, _UDP: 8, _SCTP: 12, _ICMPV6: 8}

_ETHERNET = Struct("!HIHIH")
_TAG = Struct("!HH")
_IPV4_HEADER = Struct("!BBHHHBBHII")
_IPV6_HEADER = Struct("!IHBBQQQQ")
_WORDS = Struct("!HH")
_ECHO_TYPES_V4 = frozenset((0, 8))
_ECHO_TYPES_V6 = frozenset((128, 129))

_ND_OPTIONS = {
    133: (8, NdOptionKind.SOURCE_LINK_ADDRESS),
    134: (16, NdOptionKind.SOURCE_LINK_ADDRESS),
    135: (24, NdOptionKind.SOURCE_LINK_ADDRESS),
    136: (24, NdOptionKind.TARGET_LINK_ADDRESS),
}
"""ND message type: (size of the fixed part in bytes, the link-layer option it carries)."""


class ParsedFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame with what is known of it from its headers.

    frame: the bytes at hand, from the destination MAC on, tag in place, priority tags taken away.
    length: size of the frame as received, in bytes, priority tags not counted.
    gso_size: payload bytes of one segment of an offloaded super-packet, 0 when it is not one.
    key: the flow key (rules in the module docstring).
    ttl: TTL or hop limit; 0 when not IP.
    l3_offset: 14 or 18. l4_offset: where the bytes behind the IP headers start, whatever the
        protocol; 0 in a later fragment and when not IP.
    ip_length: size of the IP packet in bytes, header included; of one segment of a super-packet;
        0 when not IP.
    dont_fragment: routers may not fragment the packet: the DF bit, and always so on IPv6.
    arp: of an ARP frame for Ethernet and IPv4, else None.
    nd_target: target of a neighbour solicitation or advertisement, None when it is not one or
        fails the validity checks of RFC 4861 section 7.1 (the checksum aside).
    nd_link_address: MAC in the source (RS, RA, NS) or target (NA) link-layer address option.
    icmp_id: identifier of an ICMP or ICMPv6 echo request or reply, else 0.
    """

    frame: bytes
    length: int
    gso_size: int
    key: FlowKey
    ttl: int = 0
    l3_offset: int = 14
    l4_offset: int = 0
    ip_length: int = 0
    dont_fragment: bool = False
    arp: ArpMessage | None = None
    nd_target: int | None = None
    nd_link_address: int | None = None
    icmp_id: int = 0

    @property
    def ip_version(self) -> IpVersion | None:
        """Version of the IP packet inside; None when it is not one."""
        if self.key.eth_type == _IPV4:
            return IpVersion.V4
        return IpVersion.V6 if self.key.eth_type == _IPV6 else None

    @property
    def is_cut(self) -> bool:
        """Tell whether the frame as received was longer than the bytes at hand."""
        return self.length > len(self.frame)

    @property
    def packet_length(self) -> int:
        """Size of the whole IP packet in bytes, all segments of a super-packet; 0 if not IP."""
        if self.gso_size and self.ip_length:
            return self.length - self.l3_offset
        return self.ip_length

    @property
    def tcp_flags(self) -> int:
        """The eight flag bits of a TCP segment with a header; 0 for anything else."""
        if self.key.ip_proto != _TCP or not self.l4_offset:
            return 0
        return self.frame[self.l4_offset + 13]

    def flow_hash(self, seed: int) -> int:
        """Return the flow hash of this frame under a 64-bit seed (rule 12)."""
        return key_flow_hash(self.key, seed)


class _Network(NamedTuple):
    """What an IP header says. `end`: offset in the frame of the end of the packet."""

    protocol: int
    tos: int
    fragment: int
    source: int
    destination: int
    ttl: int
    l4_offset: int
    end: int
    dont_fragment: bool


def key_flow_hash(key: FlowKey, seed: int) -> int:
    """Return the flow hash of a key under a 64-bit seed (rule 12)."""
    if key.eth_type not in (_IPV4, _IPV6):
        return 0
    has_ports = key.ip_frag == _NONE and key.ip_proto in _PORT_PROTOCOLS
    return flow_hash(
        seed,
        is_ipv6=key.eth_type == _IPV6,
        protocol=key.ip_proto,
        source=(key.ip_src, key.l4_src if has_ports else 0),
        destination=(key.ip_dst, key.l4_dst if has_ports else 0),
    )


def parse_frame(
    frame: bytes, *, length: int | None = None, gso_size: int = 0, hash_seed: int | None = None
) -> ParsedFrame:
    """Parse a frame by the rules of the module docstring.

    length: size as received in bytes, when `frame` is a cut copy. gso_size: payload bytes of a
    segment of an offloaded super-packet. hash_seed: fills `key.flow_hash` when given.
    Raises DecodeError when the frame is malformed, never anything else, for any bytes.
    """
    size = len(frame)
    if length is None:
        length = size
    elif length < size:
        raise DecodeError("frame is longer than its stated length")
    if size < 14:
        raise DecodeError("Ethernet header truncated")
    dst_high, dst_low, src_high, src_low, eth_type = _ETHERNET.unpack_from(frame)
    eth_dst = dst_high << 32 | dst_low
    eth_src = src_high << 32 | src_low
    vlan_tci = 0
    l3_offset = 14
    if eth_type in _TAG_TYPES:
        frame, vlan_tci = _settle_tags(frame)
        length -= size - len(frame)
        l3_offset = 18 if vlan_tci else 14
        eth_type = frame[l3_offset - 2] << 8 | frame[l3_offset - 1]
    if eth_type == _IPV4:
        network = _parse_ipv4(frame, l3_offset, length, gso_size)
    elif eth_type == _IPV6:
        network = _parse_ipv6(frame, l3_offset, length, gso_size)
    else:
        if eth_type < ETHERTYPE_MIN:
            _refuse_disguise(frame, l3_offset)
            eth_type = 0
        link = FlowKey(eth_dst, eth_src, eth_type, vlan_tci)
        if eth_type == _ARP:
            return _parse_arp(frame, length, gso_size, link, l3_offset)
        return ParsedFrame(frame, length, gso_size, link, 0, l3_offset)
    l4_src, l4_dst, icmp_id = _parse_transport(frame, network, eth_type, gso_size)
    protocol, tos, fragment, source, destination, ttl, l4_offset, end, dont_fragment = network
    key = FlowKey(
        eth_dst, eth_src, eth_type, vlan_tci, protocol, tos, fragment, source, destination,
        l4_src, l4_dst,
    )  # fmt: skip
    if hash_seed is not None:
        key = key._replace(flow_hash=key_flow_hash(key, hash_seed))
    nd_target = nd_link_address = None
    if protocol == _ICMPV6 and ttl == 255 and eth_type == _IPV6 and l4_src in _ND_OPTIONS:
        nd_target, nd_link_address = _parse_nd(frame, network, l4_src, l4_dst)
    ip_length = end - l3_offset
    if gso_size:
        ip_length = _segment_length(frame, network, l3_offset, gso_size)
    return ParsedFrame(
        frame, length, gso_size, key, ttl, l3_offset,
        0 if fragment == _LATER else l4_offset, ip_length, dont_fragment, None,
        nd_target, nd_link_address, icmp_id,
    )  # fmt: skip


def _settle_tags(frame: bytes) -> tuple[bytes, int]:
    """Return (frame without priority tags, vlan_tci of the key) of a tagged frame (rule 2)."""
    at = 12
    popped = 0
    kept = b""
    vlan_tci = 0
    while (frame[at] << 8 | frame[at + 1]) in _TAG_TYPES:
        if len(frame) < at + 6:
            raise DecodeError("VLAN tag truncated")
        tci = frame[at + 2] << 8 | frame[at + 3]
        if not tci & 0xFFF:
            popped += 1
            if popped > _PRIORITY_TAGS_MAX:
                raise DecodeError("too many priority tags")
        elif vlan_tci:
            break
        else:
            vlan_tci = tci & 0xEFFF | VLAN_PRESENT
            kept = frame[at : at + 4]
        at += 4
    return frame[:12] + kept + frame[at:] if popped else frame, vlan_tci


def _refuse_disguise(frame: bytes, offset: int) -> None:
    """Raise DecodeError when SNAP carries what other rules read (rule 3)."""
    snap = frame[offset : offset + 8]
    if (
        len(snap) == 8
        and snap[0] & 0xFE == snap[1] & 0xFE == 0xAA
        and int.from_bytes(snap[3:6], "big") in _SNAP_ORGANISATIONS
        and int.from_bytes(snap[6:], "big") in _READ_TYPES
    ):
        raise DecodeError("an 802.3 frame carries what some receivers take for Ethernet")


def _parse_ipv4(frame: bytes, offset: int, length: int, gso_size: int) -> _Network:
    if len(frame) < offset + 20:
        raise DecodeError("IPv4 header truncated")
    version_ihl, tos, total, _, flags, ttl, protocol, _, source, destination = (
        _IPV4_HEADER.unpack_from(frame, offset)
    )
    header_size = (version_ihl & 15) << 2
    if version_ihl >> 4 != 4 or header_size < 20:
        raise DecodeError("IPv4 header has another version or is too short")
    if gso_size:
        total = length - offset
    if total < header_size or offset + total > length:
        raise DecodeError("IPv4 total length contradicts the frame")
    l4_offset = offset + header_size
    if l4_offset > len(frame):
        raise DecodeError("IPv4 options truncated")
    fragment = _FIRST if flags & 0x2000 else _NONE
    if flags & 0x1FFF:
        fragment = _LATER
        if (flags & 0x1FFF) * 8 < _L4_SIZE_V4.get(protocol, 0):
            raise DecodeError("a later fragment begins within the transport header")
    return _Network(
        protocol, tos, fragment, source, destination, ttl, l4_offset, offset + total,
        bool(flags & 0x4000),
    )  # fmt: skip


def _parse_ipv6(frame: bytes, offset: int, length: int, gso_size: int) -> _Network:
    if len(frame) < offset + 40:
        raise DecodeError("IPv6 header truncated")
    word, payload, next_header, ttl, src_high, src_low, dst_high, dst_low = (
        _IPV6_HEADER.unpack_from(frame, offset)
    )
    if word >> 28 != 6:
        raise DecodeError("IPv6 header has another version")
    if not (src_high and dst_high) and (
        (not src_high and src_low >> 32 == _MAPPED_PREFIX)
        or (not dst_high and dst_low >> 32 == _MAPPED_PREFIX)
    ):
        raise DecodeError("IPv4-mapped address on the wire")
    end = length if gso_size else offset + 40 + payload
    if end > length:
        raise DecodeError("IPv6 payload length contradicts the frame")
    location = PayloadLocation(next_header, offset + 40, _NONE)
    if next_header in (0, 43, 44, 60):
        location = locate_payload(frame, next_header, offset + 40, min(end, len(frame)))
        if location.fragment == _LATER:
            size = _L4_SIZE_V6.get(location.protocol, 0)
            if location.fragment_offset < size:
                raise DecodeError("a later fragment begins within the transport header")
    return _Network(
        location.protocol, word >> 20 & 0xFF, int(location.fragment),
        src_high << 64 | src_low, dst_high << 64 | dst_low, ttl, location.offset, end, True,
    )  # fmt: skip


def _parse_transport(
    frame: bytes, network: _Network, eth_type: int, gso_size: int
) -> tuple[int, int, int]:
    """Return (l4_src, l4_dst, icmp_id), zeros when there are none (rules 9 and 10)."""
    protocol = network.protocol
    size = (_L4_SIZE_V4 if eth_type == _IPV4 else _L4_SIZE_V6).get(protocol)
    if size is None or network.fragment == _LATER:
        return 0, 0, 0
    offset = network.l4_offset
    if offset + size > network.end or offset + size > len(frame):
        raise DecodeError("transport header truncated")
    if protocol in _PORT_PROTOCOLS:
        source, destination = _WORDS.unpack_from(frame, offset)
        if network.fragment == _NONE:
            header_size = size
            if protocol == _TCP:
                header_size = (frame[offset + 12] >> 4) * 4
            elif protocol == _UDP and not gso_size:
                header_size = frame[offset + 4] << 8 | frame[offset + 5]
            if header_size < size or offset + header_size > network.end:
                raise DecodeError("transport header contradicts the packet's length")
        return source, destination, 0
    kind = frame[offset]
    echo_types = _ECHO_TYPES_V4 if protocol == _ICMP else _ECHO_TYPES_V6
    identifier = frame[offset + 4] << 8 | frame[offset + 5] if kind in echo_types else 0
    return kind, frame[offset + 1], identifier


def _parse_arp(
    frame: bytes, length: int, gso_size: int, link: FlowKey, l3_offset: int
) -> ParsedFrame:
    if len(frame) < l3_offset + 28:
        raise DecodeError("ARP message truncated")
    try:
        arp = ArpMessage.parse(frame, l3_offset)
    except DecodeError:
        return ParsedFrame(frame, length, gso_size, link, 0, l3_offset)
    if arp.operation > 0xFF:
        return ParsedFrame(frame, length, gso_size, link, 0, l3_offset)
    key = link._replace(ip_proto=arp.operation, ip_src=arp.sender_ip, ip_dst=arp.target_ip)
    return ParsedFrame(frame, length, gso_size, key, 0, l3_offset, arp=arp)


def _parse_nd(
    frame: bytes, network: _Network, kind: int, code: int
) -> tuple[int | None, int | None]:
    """Return (target, link address) of an ND message whose hop limit is 255."""
    start = network.l4_offset
    end = min(network.end, len(frame))
    size, option = _ND_OPTIONS[kind]
    if code or network.fragment != _NONE or start + size > end:
        return None, None
    target = None
    if size == 24:
        target = int.from_bytes(frame[start + 8 : start + 24], "big")
        if target >> 120 == 0xFF:  # a multicast target is invalid
            return None, None
    return target, find_link_address(frame, start + size, end, option)


def discovered_addresses(packet: ParsedFrame) -> tuple[int, ...] | None:
    """Return every MAC that the link-layer address options of a solicitation or advertisement (RS,
    RA, NS, NA) name; None when it is no valid one (RFC 4861 section 6.1 and 7.1), or cut."""
    key = packet.key
    size, _ = _ND_OPTIONS.get(key.l4_src, (0, None))
    is_valid = packet.ttl == 255 and not key.l4_dst and key.ip_proto == _ICMPV6 and size
    end = packet.l3_offset + packet.packet_length
    if not is_valid or key.eth_type != _IPV6 or end > len(packet.frame):
        return None
    return link_addresses(packet.frame, packet.l4_offset + size, end)


def _segment_length(frame: bytes, network: _Network, l3_offset: int, gso_size: int) -> int:
    """Return the size of the IP packet that one segment of a super-packet will be, in bytes."""
    header = network.l4_offset - l3_offset
    if network.fragment != _LATER:
        if network.protocol == _TCP:
            header += (frame[network.l4_offset + 12] >> 4) * 4
        elif network.protocol == IpProtocol.UDP:
            header += 8
    return header + gso_size
