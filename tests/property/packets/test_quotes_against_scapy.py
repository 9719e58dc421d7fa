"""Quotes found and edited, with every checksum of quote and error computed anew by scapy."""

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
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.program import DeepRewrite, Rewrite
from midonet.packets.frame import parse_frame
from midonet.packets.icmp_quote import find_quote

from .scapy_frames import ipv4_addresses, ipv4_text, ipv6_addresses, ipv6_text, ports

V4_ERRORS = ((3, 1), (3, 3), (3, 4), (11, 0), (12, 0))
V6_ERRORS = (ICMPv6DestUnreach, ICMPv6TimeExceeded, ICMPv6PacketTooBig)


@st.composite
def quoted(draw: st.DrawFn, *, is_ipv6: bool) -> Packet:
    """Draw a packet that somebody complains about."""
    kind = draw(st.sampled_from(("tcp", "udp", "request", "reply")))
    pair = draw(ports), draw(ports)
    header: Packet
    if kind == "tcp":
        header = TCP(sport=pair[0], dport=pair[1], seq=draw(ports))
    elif kind == "udp":
        header = UDP(sport=pair[0], dport=pair[1])
    elif is_ipv6:
        header = (ICMPv6EchoRequest if kind == "request" else ICMPv6EchoReply)(id=pair[0], seq=3)
    else:
        header = ICMP(type=8 if kind == "request" else 0, id=pair[0], seq=3)
    header = header / Raw(draw(st.binary(min_size=1, max_size=40)))
    if not is_ipv6:
        options = draw(st.sampled_from((b"", b"\1\1\1\1")))
        return IP(
            src=ipv4_text(draw(ipv4_addresses)), dst=ipv4_text(draw(ipv4_addresses)),
            options=options and [(b"\1" * 4)], ttl=1,
        ) / header  # fmt: skip
    source, destination = (ipv6_text(draw(ipv6_addresses)) for _ in range(2))
    extensions = draw(st.sampled_from(((), (IPv6ExtHdrDestOpt,), (IPv6ExtHdrFragment,))))
    network: Packet = IPv6(src=source, dst=destination, hlim=1)
    for extension in extensions:
        network = network / (
            extension(m=0, offset=0) if extension is IPv6ExtHdrFragment else extension()
        )
    return network / header


def error_about(inner: bytes, kind: object, *, tagged: bool) -> Packet:
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    if tagged:
        link = link / Dot1Q(vlan=7)
    if isinstance(kind, tuple):
        return (
            link
            / IP(src="192.0.2.1", dst="192.0.2.2")
            / ICMP(type=kind[0], code=kind[1])
            / Raw(inner)
        )
    return link / IPv6(src="2001:db8::1", dst="2001:db8::2") / kind() / Raw(inner)  # type: ignore[operator]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Packet, object, bool, DeepRewrite, int]:
    is_ipv6 = draw(st.booleans())
    addresses = ipv6_addresses if is_ipv6 else ipv4_addresses
    deep = DeepRewrite(
        quoted_src=draw(st.none() | addresses),
        quoted_dst=draw(st.none() | addresses),
        quoted_l4_src=draw(st.none() | ports),
        quoted_l4_dst=draw(st.none() | ports),
    )
    kind = draw(st.sampled_from(V6_ERRORS if is_ipv6 else V4_ERRORS))
    cut = draw(st.sampled_from((0, 8, 12)))
    return draw(quoted(is_ipv6=is_ipv6)), kind, draw(st.booleans()), deep, cut


def changed(inner: Packet, deep: DeepRewrite) -> bytes:
    """Return what scapy makes of the quoted packet: fields set, checksums computed anew."""
    packet = inner.__class__(bytes(inner))
    text = ipv6_text if packet.version == 6 else ipv4_text
    if deep.quoted_src is not None:
        packet.src = text(deep.quoted_src)
    if deep.quoted_dst is not None:
        packet.dst = text(deep.quoted_dst)
    for layer in (TCP, UDP):
        if layer in packet:
            if deep.quoted_l4_src is not None:
                packet[layer].sport = deep.quoted_l4_src
            if deep.quoted_l4_dst is not None:
                packet[layer].dport = deep.quoted_l4_dst
            del packet[layer].chksum
    for layer, field in (
        (ICMP, "chksum"),
        (ICMPv6EchoRequest, "cksum"),
        (ICMPv6EchoReply, "cksum"),
    ):
        if layer in packet:
            for identifier in (deep.quoted_l4_src, deep.quoted_l4_dst):
                if identifier is not None:
                    packet[layer].id = identifier
            delattr(packet[layer], field)
    if packet.version == 4:
        del packet.chksum
    return bytes(packet)


@given(cases())
def test_edits_of_a_quote_equal_building_it_anew(
    case: tuple[Packet, object, bool, DeepRewrite, int],
) -> None:
    inner, kind, tagged, deep, cut = case
    original = bytes(inner)
    transport = len(original) - len(bytes(inner.lastlayer().underlayer or inner))
    size = transport + cut if cut else len(original)
    frame = bytes(error_about(original[:size], kind, tagged=tagged))
    got = apply_rewrite(frame, Rewrite(deep=deep))
    expected = bytes(error_about(changed(inner, deep)[:size], kind, tagged=tagged))
    assert got.hex() == expected.hex()
    quote = find_quote(parse_frame(got))
    assert quote is not None
    assert quote.tuple is not None


@given(st.binary(max_size=90), st.booleans(), st.sampled_from((1, 2, 3, 4, 5, 11, 12)))
def test_any_bytes_behind_an_error_are_a_quote_or_none(
    data: bytes, is_ipv6: bool, kind: int
) -> None:
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    header = bytes((kind, 0, 0, 0, 0, data[0] if data else 0, 0, 0))
    network = IPv6(nh=58) if is_ipv6 else IP(proto=1, src="192.0.2.1", dst="192.0.2.2")
    packet = parse_frame(bytes(link / network / Raw(header + data)))
    quote = find_quote(packet)
    deep = DeepRewrite(quoted_src=1, quoted_dst=2, quoted_l4_src=3, quoted_l4_dst=4)
    after = apply_rewrite(packet.frame, Rewrite(deep=deep))
    assert len(after) == len(packet.frame)
    if quote is None:
        assert after == packet.frame
    else:
        assert packet.l4_offset + 8 == quote.l3_offset <= quote.end <= len(packet.frame)


@given(ports, ports, st.booleans(), st.booleans())
def test_identifier_of_an_echo_equals_building_it_anew(
    old: int, new: int, is_ipv6: bool, is_reply: bool
) -> None:
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")

    def echo(identifier: int) -> bytes:
        if is_ipv6:
            message = (ICMPv6EchoReply if is_reply else ICMPv6EchoRequest)(id=identifier, seq=5)
            return bytes(link / IPv6(src="fd00::1", dst="fd00::2") / message / Raw(b"payload"))
        header = ICMP(type=0 if is_reply else 8, id=identifier, seq=5)
        return bytes(link / IP(src="10.0.0.1", dst="10.0.0.2") / header / Raw(b"payload"))

    assert apply_rewrite(echo(old), Rewrite(deep=DeepRewrite(icmp_id=new))) == echo(new)
