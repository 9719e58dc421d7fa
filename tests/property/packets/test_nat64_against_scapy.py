"""Packets in the other IP version equal what scapy builds there, all checksums computed anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.frame import parse_frame
from midonet.packets.nat64 import FamilyChange, change_family

from .scapy_frames import bytes8, ipv4_addresses, ipv4_text, ipv6_addresses, ipv6_text, ports

LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
PAIRS = (
    ((3, 1), ICMPv6DestUnreach(code=3), "v4"),
    ((3, 3), ICMPv6DestUnreach(code=4), "both"),
    ((3, 10), ICMPv6DestUnreach(code=1), "both"),
    ((11, 0), ICMPv6TimeExceeded(code=0), "both"),
)
"""(type and code of IPv4, error of IPv6, where translation leads from one to the other)."""


def ends(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, int]]:
    four = {name: draw(ipv4_addresses) for name in ("src", "dst")}
    six = {name: draw(ipv6_addresses) for name in ("src", "dst")}
    return four, six


def packet(kind: str, version: int, addresses: dict[str, int], header: dict[str, int]) -> Packet:
    """Return an IP packet. header: sport, dport, tos, ttl, seq."""
    network: Packet
    if version == 4:
        source, destination = (ipv4_text(addresses[name]) for name in ("src", "dst"))
        network = IP(
            src=source, dst=destination, tos=header["tos"], ttl=header["ttl"], id=0, flags=0
        )
    else:
        source, destination = (ipv6_text(addresses[name]) for name in ("src", "dst"))
        network = IPv6(src=source, dst=destination, tc=header["tos"], hlim=header["ttl"])
    transport: Packet
    if kind == "tcp":
        transport = TCP(sport=header["sport"], dport=header["dport"], seq=header["seq"])
    elif kind == "udp":
        transport = UDP(sport=header["sport"], dport=header["dport"])
    elif version == 4:
        transport = ICMP(type=8 if kind == "request" else 0, id=header["sport"], seq=3)
    else:
        echo = ICMPv6EchoRequest if kind == "request" else ICMPv6EchoReply
        transport = echo(id=header["sport"], seq=3)
    return network / transport / Raw(b"payload of some bytes")


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, int], dict[str, int], dict[str, int], bool]:
    four, six = ends(draw)
    header = {
        "sport": draw(ports),
        "dport": draw(ports),
        "tos": draw(bytes8),
        "ttl": draw(st.integers(1, 255)),
        "seq": draw(ports),
    }
    kind = draw(st.sampled_from(("tcp", "udp", "request", "reply")))
    return kind, four, six, header, draw(st.booleans())


@given(cases())
def test_packet_in_the_other_version_equals_building_it_there(
    case: tuple[str, dict[str, int], dict[str, int], dict[str, int], bool],
) -> None:
    kind, four, six, header, tagged = case
    link = LINK / Dot1Q(vlan=7) if tagged else LINK
    in4 = bytes(link / packet(kind, 4, four, header))
    in6 = bytes(link / packet(kind, 6, six, header))
    down = FamilyChange(IpVersion.V4, four["src"], four["dst"])
    up = FamilyChange(IpVersion.V6, six["src"], six["dst"])
    assert change_family(parse_frame(in6), down).hex() == in4.hex()
    assert change_family(parse_frame(in4), up).hex() == in6.hex()


@given(cases(), st.sampled_from(PAIRS), ports, ports)
def test_error_in_the_other_version_quotes_the_packet_there(
    case: tuple[str, dict[str, int], dict[str, int], dict[str, int], bool],
    pair: tuple[tuple[int, int], Packet, str],
    sport: int,
    dport: int,
) -> None:
    kind, four, six, header, _ = case
    if kind in ("request", "reply"):
        dport = sport
    other = {**header, "sport": sport, "dport": dport}
    numbers, error6, way = pair

    def in_four(ports_of: dict[str, int]) -> bytes:
        inner = bytes(packet(kind, 4, four, ports_of))
        error = ICMP(type=numbers[0], code=numbers[1])
        return bytes(LINK / IP(src="192.0.2.1", dst="192.0.2.2", id=0) / error / Raw(inner))

    def in_six(ports_of: dict[str, int]) -> bytes:
        inner = bytes(packet(kind, 6, six, ports_of))
        return bytes(LINK / IPv6(src="2001:db8::1", dst="2001:db8::2") / error6 / Raw(inner))

    protocol = {"tcp": (6, 6), "udp": (17, 17)}.get(kind, (1, 58))
    quoted4 = FiveTuple(IpVersion.V4, protocol[0], four["src"], sport, four["dst"], dport)
    quoted6 = FiveTuple(IpVersion.V6, protocol[1], six["src"], sport, six["dst"], dport)
    down = FamilyChange(IpVersion.V4, 0xC0000201, 0xC0000202, quoted4)
    high = 0x20010DB8 << 96
    up = FamilyChange(IpVersion.V6, high | 1, high | 2, quoted6)
    assert change_family(parse_frame(in_six(header)), down).hex() == in_four(other).hex()
    if way == "both":
        assert change_family(parse_frame(in_four(header)), up).hex() == in_six(other).hex()


def test_sizes_of_too_big_follow_the_headers() -> None:
    inner4 = bytes(IP(src="10.0.0.1", dst="10.0.0.2", id=0) / UDP(sport=1, dport=2) / Raw(b"x"))
    inner6 = bytes(IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2) / Raw(b"x"))
    quoted4 = FiveTuple(IpVersion.V4, 17, 0x0A000001, 1, 0x0A000002, 2)
    quoted6 = FiveTuple(IpVersion.V6, 17, (0xFD00 << 112) | 1, 1, (0xFD00 << 112) | 2, 2)
    too_big4 = (
        LINK / IP(src="192.0.2.1", dst="192.0.2.2", id=0) / ICMP(type=3, code=4, nexthopmtu=1400)
    )
    too_big6 = LINK / IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6PacketTooBig(mtu=1420)
    high = 0x20010DB8 << 96
    up = FamilyChange(IpVersion.V6, high | 1, high | 2, quoted6)
    down = FamilyChange(IpVersion.V4, 0xC0000201, 0xC0000202, quoted4)
    frame4, frame6 = bytes(too_big4 / Raw(inner4)), bytes(too_big6 / Raw(inner6))
    assert change_family(parse_frame(frame4), up).hex() == frame6.hex()
    assert change_family(parse_frame(frame6), down).hex() == frame4.hex()
