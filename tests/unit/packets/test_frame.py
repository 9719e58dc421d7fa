"""The numbered rules of `midonet.packets.frame`, one by one."""

from __future__ import annotations

import msgspec
import pytest

from midonet.errors import DecodeError
from midonet.packets.addresses import IpVersion, parse_ip
from midonet.packets.build import Envelope, ethernet_frame, ip_frame, tcp_frame, udp_frame
from midonet.packets.flow_hash import flow_hash
from midonet.packets.flowkey import FlowKey, FragmentKind
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.ipv4 import Ipv4Header
from midonet.packets.ipv6 import Ipv6Header
from midonet.packets.neighbour import arp_request, neighbour_advertisement, neighbour_solicitation
from midonet.packets.tcp import TcpFlag, TcpHeader

SRC, DST = 0x020000000001, 0x020000000002
V4 = Envelope(SRC, DST, parse_ip("10.0.0.1"), parse_ip("10.0.0.2"))
V6 = Envelope(SRC, DST, parse_ip("fd00::1"), parse_ip("fd00::2"))
PORTS = bytes.fromhex("c0000050") + bytes(20)
TCP = PORTS[:12] + b"\x50" + PORTS[13:]
UDP = PORTS[:4] + b"\0\x08" + PORTS[6:]
A4, B4 = 0x0A000001, 0x0A000002
A6, B6 = V6.ip_src.value, V6.ip_dst.value


def v4_frame(payload: bytes, protocol: int, *, total: int | None = None, **fields: object) -> bytes:
    size = 20 + len(fields.get("options", b""))  # type: ignore[arg-type]
    header = Ipv4Header(A4, B4, protocol, size + len(payload) if total is None else total, **fields)  # type: ignore[arg-type]
    return ethernet_frame(DST, SRC, 0x0800, header.serialise() + payload)


def v6_frame(payload: bytes, next_header: int, *, length: int | None = None) -> bytes:
    header = Ipv6Header(A6, B6, next_header, len(payload) if length is None else length)
    return ethernet_frame(DST, SRC, 0x86DD, header.serialise() + payload)


def malformed(frame: bytes, **arguments: int) -> None:
    with pytest.raises(DecodeError):
        parse_frame(frame, **arguments)


def test_tcp_over_ipv4_fills_every_field() -> None:
    frame = tcp_frame(
        Envelope(SRC, DST, V4.ip_src, V4.ip_dst, ttl=63, tos=0xB9, dont_fragment=True),
        TcpHeader(49152, 80, flags=TcpFlag.SYN | TcpFlag.ECE),
        b"data",
    )
    parsed = parse_frame(frame)
    assert parsed == ParsedFrame(
        frame,
        58,
        0,
        FlowKey(DST, SRC, 0x0800, 0, 6, 0xB9, FragmentKind.NONE, A4, B4, 49152, 80),
        ttl=63,
        l3_offset=14,
        l4_offset=34,
        ip_length=44,
        dont_fragment=True,
    )
    assert parsed.tcp_flags == TcpFlag.SYN | TcpFlag.ECE
    assert parsed.ip_version is IpVersion.V4
    assert not parsed.is_cut


def test_udp_over_ipv6_fills_every_field() -> None:
    parsed = parse_frame(udp_frame(V6, 53, 5353, b"data"))
    assert parsed.key == FlowKey(DST, SRC, 0x86DD, 0, 17, 0, 0, A6, B6, 53, 5353)
    assert (parsed.ttl, parsed.l4_offset, parsed.ip_length) == (64, 54, 52)
    assert parsed.dont_fragment
    assert parsed.ip_version is IpVersion.V6
    assert parsed.tcp_flags == 0


def test_rule_1_a_frame_needs_an_ethernet_header() -> None:
    malformed(b"")
    malformed(bytes(13))
    assert parse_frame(bytes(14)).key == FlowKey(0, 0)


MACS = "020000000002020000000001"


@pytest.mark.parametrize("tpid", ["8100", "88a8"])
def test_rule_2_only_the_outermost_vlan_is_read(tpid: str) -> None:
    packet = udp_frame(V4, 1, 2)[14:]
    single = parse_frame(bytes.fromhex(f"{MACS}{tpid}f0640800") + packet)
    assert single.key == FlowKey(DST, SRC, 0x0800, 0xF064, 17, 0, 0, A4, B4, 1, 2)
    assert (single.l3_offset, single.l4_offset) == (18, 38)
    double = parse_frame(bytes.fromhex(f"{MACS}{tpid}000a810000140800") + packet)
    assert double.key == FlowKey(DST, SRC, 0x8100, 0x100A)
    malformed(bytes.fromhex(f"{MACS}{tpid}0064"))
    malformed(bytes.fromhex(f"{MACS}{tpid}00648100000a"))


@pytest.mark.parametrize(
    ("tags", "left"),
    [
        ("8100e000", ""),
        ("88a80000", ""),
        ("81000000" * 2, ""),
        ("8100000088a8000081002000", ""),
        ("81000000" * 4, ""),
        ("810000008100f064", "8100f064"),
        ("8100f06481000000", "8100f064"),
        ("8100200088a8f0648100000081000000", "88a8f064"),
    ],
)
def test_rule_2_priority_tags_are_taken_away(tags: str, left: str) -> None:
    rest = udp_frame(V4, 1, 2)[12:]
    parsed = parse_frame(bytes.fromhex(MACS + tags) + rest)
    assert parsed == parse_frame(bytes.fromhex(MACS + left) + rest)
    assert parsed.frame == bytes.fromhex(MACS + left) + rest
    assert (parsed.key.ip_proto, parsed.key.l4_dst) == (17, 2)
    assert parsed.key.vlan_tci == (0xF064 if left else 0)


def test_rule_2_priority_tags_are_bounded() -> None:
    rest = udp_frame(V4, 1, 2)[12:]
    malformed(bytes.fromhex(MACS + "81000000" * 5) + rest)
    malformed(bytes.fromhex(MACS + "8100f064" + "81000000" * 5) + rest)
    malformed(bytes.fromhex(MACS + "81000000" * 2))
    cut = parse_frame(bytes.fromhex(MACS + "81000000" * 2) + rest, length=500)
    assert (cut.length, cut.is_cut) == (492, True)


def test_rule_2_a_vlan_within_a_vlan_is_not_looked_into() -> None:
    rest = udp_frame(V4, 1, 2)[12:]
    frame = bytes.fromhex(MACS + "8100f06488a8000581000000") + rest
    parsed = parse_frame(frame)
    assert parsed.key == FlowKey(DST, SRC, 0x88A8, 0xF064)
    assert parsed.frame == frame
    other = parse_frame(bytes.fromhex(MACS + "91000000") + rest)
    assert other.key == FlowKey(DST, SRC, 0x9100), "no tag that receivers take away"


def test_rule_3_a_length_field_is_no_type() -> None:
    assert parse_frame(ethernet_frame(DST, SRC, 0x05FF, bytes(60))).key == FlowKey(DST, SRC, 0)
    assert parse_frame(ethernet_frame(DST, SRC, 0x0600, b"")).key == FlowKey(DST, SRC, 0x0600)
    tagged = parse_frame(ethernet_frame(DST, SRC, 0x0026, bytes(60), vlan_tci=5))
    assert tagged.key == FlowKey(DST, SRC, 0, 0x1005)


@pytest.mark.parametrize("organisation", ["000000", "0000f8"])
@pytest.mark.parametrize("eth_type", ["0800", "0806", "86dd", "8100", "88a8"])
@pytest.mark.parametrize("saps", ["aaaa03", "abab03", "aaaa13"])
def test_rule_3_what_snap_disguises_is_malformed(
    organisation: str, eth_type: str, saps: str
) -> None:
    snap = bytes.fromhex(saps + organisation + eth_type)
    malformed(ethernet_frame(DST, SRC, 0x0026, snap + bytes(30)))
    malformed(ethernet_frame(DST, SRC, 0x0026, snap + bytes(30), vlan_tci=5))


@pytest.mark.parametrize(
    "payload", ["424203000000", "aaaa0300000c2000", "aaaa03000000809b", "aaaa"]
)
def test_rule_3_other_802_3_frames_pass(payload: str) -> None:
    """Spanning tree, CDP, AppleTalk, and a header that ends too early."""
    frame = ethernet_frame(DST, SRC, 0x0026, bytes.fromhex(payload))
    assert parse_frame(frame).key == FlowKey(DST, SRC, 0)


def test_rule_5_arp_addresses_are_in_the_key() -> None:
    parsed = parse_frame(arp_request(SRC, A4, B4))
    assert parsed.key == FlowKey(0xFFFFFFFFFFFF, SRC, 0x0806, 0, 1, 0, 0, A4, B4)
    assert parsed.arp is not None
    assert (parsed.arp.operation, parsed.arp.sender_mac, parsed.arp.target_mac) == (1, SRC, 0)
    assert (parsed.ttl, parsed.ip_length, parsed.l4_offset, parsed.ip_version) == (0, 0, 0, None)


@pytest.mark.parametrize("hardware", [0, 1, 6, 24, 0xFFFF])
def test_rule_5_whatever_the_hardware_space_arp_is_read(hardware: int) -> None:
    frame = arp_request(SRC, A4, B4)
    parsed = parse_frame(frame[:14] + hardware.to_bytes(2, "big") + frame[16:])
    assert parsed == msgspec.structs.replace(parse_frame(frame), frame=parsed.frame)


@pytest.mark.parametrize(
    ("at", "value"), [(16, "86dd"), (18, "08"), (18, "00"), (19, "10"), (19, "00"), (20, "0101")]
)
def test_rule_5_arp_that_nobody_takes_has_zeros_and_short_arp_is_malformed(
    at: int, value: str
) -> None:
    frame = arp_request(SRC, A4, B4)
    changed = bytes.fromhex(value)
    other = parse_frame(frame[:at] + changed + frame[at + len(changed) :])
    assert other.key == FlowKey(0xFFFFFFFFFFFF, SRC, 0x0806)
    assert other.arp is None
    malformed(frame[:-1])


def test_rule_6_ipv4_header_contradictions_are_malformed() -> None:
    good = v4_frame(TCP, 6)
    malformed(good[:33])
    malformed(good[:14] + b"\x65" + good[15:])
    malformed(good[:14] + b"\x44" + good[15:])
    malformed(v4_frame(PORTS, 6, total=len(PORTS) + 21))
    malformed(v4_frame(PORTS, 6, total=19))
    malformed(v4_frame(b"", 6, total=20)[:14] + b"\x4f" + v4_frame(b"", 6, total=20)[15:])


def test_rule_6_padding_and_options_are_skipped() -> None:
    padded = parse_frame(v4_frame(TCP, 6, options=bytes(8)) + bytes(6))
    assert (padded.l4_offset, padded.ip_length, padded.key.l4_dst) == (42, 52, 80)
    malformed(v4_frame(PORTS[:19], 6) + bytes(30))  # padding is not transport header


def test_rules_6_and_9_ipv4_fragments() -> None:
    first = parse_frame(v4_frame(PORTS, 6, more_fragments=True))
    assert (first.key.ip_frag, first.key.l4_dst, first.l4_offset) == (FragmentKind.FIRST, 80, 34)
    for more in (True, False):
        later = parse_frame(v4_frame(PORTS, 6, more_fragments=more, fragment_offset=24))
        assert later.key == FlowKey(DST, SRC, 0x0800, 0, 6, 0, FragmentKind.LATER, A4, B4)
        assert (later.l4_offset, later.ip_length) == (0, 44)
    malformed(v4_frame(PORTS[:8], 6, more_fragments=True))  # RFC 1858: tiny first fragment
    assert parse_frame(v4_frame(b"x", 6, fragment_offset=24)).key.l4_src == 0


@pytest.mark.parametrize(("protocol", "least"), [(6, 24), (17, 8), (132, 16), (1, 8), (47, 8)])
def test_rule_9_a_later_fragment_begins_behind_the_transport_header(
    protocol: int, least: int
) -> None:
    """RFC 1858: else it could change flags of a header that was judged in the first."""

    def ipv6(offset: int) -> bytes:
        header = bytes((protocol, 0)) + offset.to_bytes(2, "big") + bytes(4)
        return v6_frame(header + PORTS, 44)

    for offset in range(8, 40, 8):
        if offset < least:
            malformed(v4_frame(PORTS, protocol, fragment_offset=offset))
            malformed(ipv6(offset))
        else:
            for frame in (v4_frame(PORTS, protocol, fragment_offset=offset), ipv6(offset)):
                assert parse_frame(frame).key.ip_frag == FragmentKind.LATER


def test_rule_6_a_super_packet_is_as_long_as_its_frame() -> None:
    segments = bytes(3000)
    frame = v4_frame(TCP[:12] + b"\x80" + TCP[13:20] + bytes(12) + segments, 6, total=0)
    malformed(frame)
    parsed = parse_frame(frame, gso_size=1448)
    assert (parsed.ip_length, parsed.packet_length) == (20 + 32 + 1448, 3052)
    cut = parse_frame(frame[:200], length=len(frame), gso_size=1448)
    assert cut.key == parsed.key
    assert cut.is_cut
    datagrams = parse_frame(v4_frame(PORTS + segments, 17), gso_size=1000)
    assert datagrams.ip_length == 1028
    sctp = parse_frame(v6_frame(PORTS + segments, 132), gso_size=1000)
    assert sctp.ip_length == 1040


def test_rule_7_ipv6_header_contradictions_are_malformed() -> None:
    good = v6_frame(TCP, 6)
    malformed(good[:53])
    malformed(good[:14] + b"\x45" + good[15:])
    malformed(v6_frame(TCP, 6, length=len(TCP) + 1))
    assert parse_frame(v6_frame(TCP, 6, length=0), gso_size=100).key.l4_dst == 80
    malformed(v6_frame(TCP, 6, length=0))


@pytest.mark.parametrize("address", ["::ffff:10.0.0.1", "::ffff:0.0.0.0", "::ffff:ffff:ffff"])
def test_rule_7_ipv4_mapped_addresses_are_malformed(address: str) -> None:
    mapped, plain = parse_ip(address).value, B6
    for ends in ((mapped, plain), (plain, mapped)):
        header = Ipv6Header(*ends, 59, 0)
        malformed(ethernet_frame(DST, SRC, 0x86DD, header.serialise()))
    near = Ipv6Header(parse_ip("::fffe:10.0.0.1").value, parse_ip("::10.0.0.1").value, 59, 0)
    assert parse_frame(ethernet_frame(DST, SRC, 0x86DD, near.serialise())).ip_version == 6


def test_rule_7_no_jumbograms() -> None:
    """A receiver of a payload length of zero reads to the end of what it got."""
    jumbo = bytes((17, 0, 0xC2, 4)) + (70000).to_bytes(4, "big")
    for options in (jumbo, extension(17)):
        malformed(v6_frame(options + UDP, 0, length=0))


def extension(next_header: int, units: int = 0) -> bytes:
    return bytes((next_header, units)) + bytes(6 + 8 * units)


def test_rule_8_extension_headers_are_walked() -> None:
    chain = extension(60) + extension(43, 2) + extension(6)
    parsed = parse_frame(v6_frame(chain + TCP, 0))
    assert (parsed.key.ip_proto, parsed.key.l4_src, parsed.key.l4_dst) == (6, 49152, 80)
    assert (parsed.l4_offset, parsed.ip_length) == (54 + 40, 40 + 40 + 24)


def test_rule_8_bounds_of_the_walk() -> None:
    six = extension(60) * 5 + extension(17)
    assert parse_frame(v6_frame(six + UDP, 60)).key.l4_dst == 80
    malformed(v6_frame(extension(60) * 6 + extension(17) + PORTS, 60))
    most = extension(17, 127)
    assert parse_frame(v6_frame(most + UDP, 60)).l4_offset == 54 + 1024
    malformed(v6_frame(extension(17, 128) + PORTS, 60))
    malformed(v6_frame(extension(17, 3) + bytes(23), 60)[: 54 + 31], length=54 + 31)
    malformed(v6_frame(extension(17)[:7], 0))


def test_rule_8_counts_a_seventh_header_that_is_a_later_fragment() -> None:
    later = bytes((17, 0, 0, 8, 0, 0, 0, 1))
    five, six = extension(60) * 4 + extension(44), extension(60) * 5 + extension(44)
    assert parse_frame(v6_frame(five + later + PORTS, 60)).key.ip_frag == FragmentKind.LATER
    malformed(v6_frame(six + later + PORTS, 60))


def test_rule_8_ipv6_fragments() -> None:
    def fragment(offset_flags: int, payload: bytes = UDP, next_header: int = 17) -> ParsedFrame:
        header = bytes((next_header, 0)) + offset_flags.to_bytes(2, "big") + bytes(4)
        return parse_frame(v6_frame(header + payload, 44))

    assert (fragment(0).key.ip_frag, fragment(0).key.l4_dst) == (FragmentKind.NONE, 80)
    assert (fragment(1).key.ip_frag, fragment(1).key.l4_dst) == (FragmentKind.FIRST, 80)
    later = fragment(0x0010, b"piece", 60)
    assert (later.key.ip_frag, later.key.ip_proto) == (FragmentKind.LATER, 60)
    assert (later.key.l4_dst, later.l4_offset) == (0, 0)
    malformed(
        v6_frame(bytes((44, 0, 0, 1)) + bytes(4) + bytes((17, 0, 0, 1)) + bytes(4) + PORTS, 44)
    )
    malformed(v6_frame(bytes((17, 0, 0, 1)) + bytes(3), 44))


@pytest.mark.parametrize(("protocol", "header"), [(6, TCP[:20]), (17, UDP[:8]), (132, PORTS[:12])])
def test_rule_10_ports_need_a_whole_transport_header(protocol: int, header: bytes) -> None:
    for build in (v4_frame, v6_frame):
        key = parse_frame(build(header, protocol)).key
        assert (key.l4_src, key.l4_dst) == (49152, 80)
        malformed(build(header[:-1], protocol))


@pytest.mark.parametrize("words", range(16))
def test_rule_10_the_data_offset_of_tcp_lies_within_the_packet(words: int) -> None:
    header = PORTS[:12] + bytes((words << 4,)) + PORTS[13:]
    for build in (v4_frame, v6_frame):
        if 5 <= words <= 6:
            assert parse_frame(build(header, 6)).key.l4_dst == 80
        else:
            malformed(build(header, 6) + bytes(60))
            malformed(build(header, 6), gso_size=10)
    first = parse_frame(v4_frame(header, 6, more_fragments=True))
    assert first.key.l4_dst == 80, "options may be in the next fragment"


@pytest.mark.parametrize("length", [0, 7, 8, 24, 25, 0xFFFF])
def test_rule_10_the_length_of_udp_lies_within_the_packet(length: int) -> None:
    header = PORTS[:4] + length.to_bytes(2, "big") + PORTS[6:]
    for build in (v4_frame, v6_frame):
        if 8 <= length <= 24:
            assert parse_frame(build(header, 17)).key.l4_dst == 80
        else:
            malformed(build(header, 17) + bytes(60))
            assert parse_frame(build(header, 17), gso_size=10).key.l4_dst == 80


def test_rule_10_icmp_type_code_and_identifier() -> None:
    echo = parse_frame(v4_frame(bytes.fromhex("0800000012340001"), 1))
    assert (echo.key.l4_src, echo.key.l4_dst, echo.icmp_id) == (8, 0, 0x1234)
    error = parse_frame(v4_frame(bytes.fromhex("0304000012340001"), 1))
    assert (error.key.l4_src, error.key.l4_dst, error.icmp_id) == (3, 4, 0)
    reply = parse_frame(v6_frame(bytes.fromhex("8100000012340001"), 58))
    assert (reply.key.l4_src, reply.key.l4_dst, reply.icmp_id) == (129, 0, 0x1234)
    malformed(v4_frame(bytes(7), 1))
    malformed(v6_frame(bytes(7), 58))


@pytest.mark.parametrize("protocol", [2, 47, 50, 51, 59, 255])
def test_rule_10_other_protocols_have_no_ports(protocol: int) -> None:
    for build in (v4_frame, v6_frame):
        for payload in (b"", PORTS):
            key = parse_frame(build(payload, protocol)).key
            assert (key.ip_proto, key.l4_src, key.l4_dst) == (protocol, 0, 0)
    assert parse_frame(v6_frame(PORTS, 1)).key.l4_src == 0
    assert parse_frame(v4_frame(PORTS, 58)).key.l4_src == 0


def test_rule_11_a_cut_copy_has_the_key_of_the_whole() -> None:
    frame = udp_frame(V4, 1, 2, bytes(3000))
    cut = parse_frame(frame[:42], length=len(frame))
    assert cut.key == parse_frame(frame).key
    assert (cut.ip_length, cut.is_cut) == (3028, True)
    malformed(frame[:41], length=len(frame))
    malformed(frame, length=len(frame) - 1)


SEED = 0x0123456789ABCDEF


def test_rule_12_flow_hash_is_the_same_both_ways() -> None:
    there = parse_frame(udp_frame(V4, 1, 2), hash_seed=SEED)
    back = parse_frame(udp_frame(Envelope(DST, SRC, V4.ip_dst, V4.ip_src), 2, 1), hash_seed=SEED)
    assert there.key.flow_hash == back.key.flow_hash == there.flow_hash(SEED)
    assert there.key.flow_hash == flow_hash(
        SEED, is_ipv6=False, protocol=17, source=(A4, 1), destination=(B4, 2)
    )
    assert parse_frame(udp_frame(V4, 1, 2)).key.flow_hash == 0


def test_rule_12_fragments_and_icmp_hash_without_ports() -> None:
    expected = flow_hash(SEED, is_ipv6=False, protocol=17, source=(A4, 0), destination=(B4, 0))
    for fields in ({"more_fragments": True}, {"fragment_offset": 8}):
        assert parse_frame(v4_frame(PORTS, 17, **fields)).flow_hash(SEED) == expected
    requests = {
        parse_frame(v6_frame(bytes((kind,)) + bytes(7), 58)).flow_hash(SEED) for kind in (128, 129)
    }
    assert len(requests) == 1
    assert parse_frame(arp_request(SRC, A4, B4), hash_seed=SEED).key.flow_hash == 0


def test_neighbour_discovery_content_is_read() -> None:
    asked = parse_frame(neighbour_solicitation(SRC, A6, B6))
    assert (asked.nd_target, asked.nd_link_address) == (B6, SRC)
    told = parse_frame(neighbour_advertisement(DST, B6, SRC, A6))
    assert (told.nd_target, told.nd_link_address) == (B6, DST)
    probe = parse_frame(neighbour_solicitation(SRC, 0, B6))
    assert (probe.nd_target, probe.nd_link_address) == (B6, None)


def test_invalid_neighbour_discovery_is_not_believed() -> None:
    frame = neighbour_solicitation(SRC, A6, B6)
    forwarded = bytearray(frame)
    forwarded[21] = 254
    code = bytearray(frame)
    code[55] = 1
    multicast = bytearray(frame)
    multicast[62] = 0xFF
    for bad in (forwarded, code, multicast):
        parsed = parse_frame(bytes(bad))
        assert (parsed.nd_target, parsed.nd_link_address) == (None, None)
    empty_option = bytearray(frame)
    empty_option[79] = 0
    assert parse_frame(bytes(empty_option)).nd_link_address is None
    truncated = ip_frame(
        Envelope(SRC, DST, V6.ip_src, V6.ip_dst, ttl=255), 58, b"\x87\0" + bytes(10)
    )
    assert parse_frame(truncated).nd_target is None
