"""`parse_frame` reads out of a frame what scapy put in."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.ipv4 import Ipv4Header
from midonet.packets.ipv6 import Ipv6Header
from midonet.packets.tcp import TcpHeader
from midonet.packets.udp import UdpHeader

from .scapy_frames import ip_frames, ipv4_frames, ipv6_frames

_TRANSPORT_FIELDS = {TCP: ("sport", "dport"), UDP: ("sport", "dport"), ICMP: ("type", "code")}


def expected_transport(packet: Packet) -> tuple[int, int]:
    for layer, (first, second) in _TRANSPORT_FIELDS.items():
        if layer in packet:
            return getattr(packet[layer], first), getattr(packet[layer], second)
    return (128, 0) if packet.haslayer("ICMPv6 Echo Request") else (135, 0)


def check_link(packet: Packet, parsed: ParsedFrame) -> None:
    tag = packet.getlayer(Dot1Q) or packet.getlayer(Dot1AD)
    assert parsed.key.vlan_tci == (0x1000 | tag.prio << 13 | tag.vlan if tag else 0)
    assert parsed.key.eth_src == int(packet[Ether].src.replace(":", ""), 16)
    assert parsed.key.eth_dst == int(packet[Ether].dst.replace(":", ""), 16)


@given(built=ip_frames, padding=st.integers(0, 20))
def test_fields_of_whole_packets_are_those_that_were_built(built: Packet, padding: int) -> None:
    frame = bytes(built)
    packet = Ether(frame)
    parsed = parse_frame(frame + bytes(padding), hash_seed=1)
    key = parsed.key
    check_link(packet, parsed)
    network = packet[IP] if IP in packet else packet[IPv6]
    assert key.ip_src == int(ipaddress.ip_address(network.src))
    assert key.ip_dst == int(ipaddress.ip_address(network.dst))
    assert (key.ip_frag, key.flow_hash) == (FragmentKind.NONE, parsed.flow_hash(1))
    assert (key.l4_src, key.l4_dst) == expected_transport(built)
    assert parsed.ip_length == len(network)
    if IP in packet:
        assert (key.ip_tos, parsed.ttl, key.ip_proto) == (network.tos, network.ttl, network.proto)
        assert parsed.dont_fragment == bool(network.flags.DF)
    else:
        assert (key.ip_tos, parsed.ttl) == (network.tc, network.hlim)


@given(built=ip_frames)
def test_headers_serialise_to_the_bytes_that_scapy_built(built: Packet) -> None:
    frame = bytes(built)
    parsed = parse_frame(frame)
    codec = Ipv4Header if IP in built else Ipv6Header
    header = codec.parse(frame, parsed.l3_offset)
    data = header.serialise()
    assert data == frame[parsed.l3_offset : parsed.l3_offset + header.size]
    for layer, transport in ((TCP, TcpHeader), (UDP, UdpHeader)):
        if layer in built:
            segment = transport.parse(frame, parsed.l4_offset)
            end = parsed.l4_offset + segment.size
            assert segment.serialise() == frame[parsed.l4_offset : end]


@given(built=ipv4_frames())
def test_ipv4_fragments_keep_addresses_and_only_the_first_has_ports(built: Packet) -> None:
    whole = built / bytes(200)
    whole[IP].flags = 0
    whole[IP].options = []
    reference = parse_frame(bytes(whole)).key
    pieces = fragment(Ether(bytes(whole)), fragsize=64)
    assert len(pieces) > 2
    for index, piece in enumerate(pieces):
        key = parse_frame(bytes(piece)).key
        if index == 0:
            assert key == reference._replace(ip_frag=FragmentKind.FIRST)
        else:
            assert key == reference._replace(ip_frag=FragmentKind.LATER, l4_src=0, l4_dst=0)


@given(built=ipv6_frames())
def test_ipv6_fragments_keep_addresses_and_only_the_first_has_ports(built: Packet) -> None:
    packet = Ether(bytes(built))[IPv6]
    transport = built.lastlayer().underlayer
    whole = (
        IPv6(src=packet.src, dst=packet.dst) / IPv6ExtHdrFragment(id=9) / transport / bytes(2000)
    )
    pieces = fragment6(whole, 1280)
    assert len(pieces) == 2
    keys = [
        parse_frame(bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / p)).key
        for p in pieces
    ]
    assert [key.ip_frag for key in keys] == [FragmentKind.FIRST, FragmentKind.LATER]
    assert (keys[0].l4_src, keys[0].l4_dst) == expected_transport(built)
    assert keys[1]._replace(ip_frag=FragmentKind.FIRST) == keys[0]._replace(l4_src=0, l4_dst=0)
