"""Frames made by scapy, an implementation that shares no code with ours."""

from __future__ import annotations

from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

ports = st.integers(0, 0xFFFF)
macs = st.integers(0, 2**48 - 1)
ipv4_addresses = st.integers(0, 2**32 - 1)
ipv6_addresses = st.integers(0, 2**128 - 1).filter(lambda value: value >> 32 != 0xFFFF)
"""All but IPv4-mapped ones, which are malformed on a wire."""
bytes8 = st.integers(0, 255)


def mac_text(value: int) -> str:
    return value.to_bytes(6, "big").hex(":")


def ipv4_text(value: int) -> str:
    return ".".join(str(octet) for octet in value.to_bytes(4, "big"))


def ipv6_text(value: int) -> str:
    return value.to_bytes(16, "big").hex(":", 2)


@st.composite
def links(draw: st.DrawFn) -> Packet:
    """Draw an Ethernet header with no tag or one that names a VLAN."""
    link = Ether(src=mac_text(draw(macs)), dst=mac_text(draw(macs)))
    for tag in draw(st.sampled_from(((), (Dot1Q,), (Dot1AD,)))):
        link /= tag(vlan=draw(st.integers(1, 4095)), prio=draw(st.integers(0, 7)))
    return link


@st.composite
def transports(draw: st.DrawFn, *, is_ipv6: bool) -> Packet:
    """Draw a transport header with some payload."""
    kind = draw(st.sampled_from(("tcp", "udp", "icmp")))
    if kind == "tcp":
        options = draw(st.sampled_from(([], [("MSS", 1460)], [("NOP", None)] * 4)))
        header = TCP(
            sport=draw(ports), dport=draw(ports), flags=draw(bytes8), seq=7, options=options
        )
    elif kind == "udp":
        header = UDP(sport=draw(ports), dport=draw(ports))
    elif is_ipv6:
        header = draw(st.sampled_from((ICMPv6EchoRequest(id=7, seq=8), ICMPv6ND_NS(tgt="fd00::1"))))
    else:
        header = ICMP(type=8, id=draw(ports), seq=3)
    return header / Raw(draw(st.binary(max_size=64)))


@st.composite
def ipv4_frames(draw: st.DrawFn) -> Packet:
    """Draw an unfragmented IPv4 frame."""
    network = IP(
        src=ipv4_text(draw(ipv4_addresses)),
        dst=ipv4_text(draw(ipv4_addresses)),
        tos=draw(bytes8),
        ttl=draw(bytes8),
        id=draw(ports),
        flags=draw(st.sampled_from((0, "DF"))),
        options=[IPOption_NOP()] * draw(st.sampled_from((0, 4, 40))),
    )
    return draw(links()) / network / draw(transports(is_ipv6=False))


@st.composite
def ipv6_frames(draw: st.DrawFn) -> Packet:
    """Draw an IPv6 frame, perhaps with extension headers, not fragmented."""
    packet = draw(links()) / IPv6(
        src=ipv6_text(draw(ipv6_addresses)),
        dst=ipv6_text(draw(ipv6_addresses)),
        tc=draw(bytes8),
        hlim=draw(bytes8),
        fl=draw(st.integers(0, 2**20 - 1)),
    )
    for extension in draw(
        st.sampled_from(
            (
                (),
                (IPv6ExtHdrHopByHop(),),
                (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()),
                (IPv6ExtHdrFragment(offset=0, m=0, id=7),),
            )
        )
    ):
        packet /= extension
    return packet / draw(transports(is_ipv6=True))


ip_frames = st.one_of(ipv4_frames(), ipv6_frames())
