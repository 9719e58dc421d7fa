"""Generated frames: address resolution, echo replies, ICMP errors, resets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from midonet.errors import DecodeError, InternalError
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.packets.build import (
    Envelope,
    answering,
    echo_request_frame,
    icmp_frame,
    ip_frame,
    tcp_frame,
    udp_frame,
)
from midonet.packets.checksum import internet_checksum, transport_checksum
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.icmp_echo import echo_reply, is_echo_request
from midonet.packets.icmp_error import IcmpError, icmp_error
from midonet.packets.icmpv4 import Icmpv4Header
from midonet.packets.icmpv6 import Icmpv6Header
from midonet.packets.nd import NeighbourAdvertisement
from midonet.packets.neighbour import (
    ALL_NODES,
    arp_reply,
    arp_request,
    is_neighbour_request,
    neighbour_advertisement,
    neighbour_reply,
    neighbour_request,
    neighbour_solicitation,
    unsolicited_advertisement,
)
from midonet.packets.tcp import TcpFlag, TcpHeader
from midonet.packets.tcp_reset import tcp_reset

SRC, DST = 0x020000000001, 0x020000000002
V4 = Envelope(SRC, DST, parse_ip("10.0.0.1"), parse_ip("10.0.0.2"))
V6 = Envelope(SRC, DST, parse_ip("fd00::1"), parse_ip("fd00::2"))
BOTH = pytest.mark.parametrize("envelope", [V4, V6], ids=["IPv4", "IPv6"])


def transport_is_valid(frame: ParsedFrame) -> bool:
    """Tell whether every checksum of the packet is right."""
    segment = frame.frame[frame.l4_offset : frame.l3_offset + frame.ip_length]
    if frame.ip_version is IpVersion.V4:
        header = frame.frame[frame.l3_offset : frame.l4_offset]
        if internet_checksum(header):
            return False
        if frame.key.ip_proto == 1:
            return internet_checksum(segment) == 0
    key = frame.key
    return transport_checksum(segment, key.ip_src, key.ip_dst, key.ip_proto) in (0, 0xFFFF)


def ends(frame: ParsedFrame) -> tuple[int, int, int, int]:
    return frame.key.eth_src, frame.key.eth_dst, frame.key.ip_src, frame.key.ip_dst


@BOTH
def test_built_frames_have_valid_checksums_and_their_tag(envelope: Envelope) -> None:
    tagged = replace(envelope, vlan_tci=0x2005, ttl=9, tos=4)
    for frame in (
        udp_frame(tagged, 1, 2, b"odd"),
        tcp_frame(tagged, TcpHeader(1, 2, checksum=99), b"odd"),
        echo_request_frame(tagged, 77, 1, b"odd"),
    ):
        parsed = parse_frame(frame)
        assert transport_is_valid(parsed)
        assert (parsed.key.vlan_tci, parsed.ttl, parsed.key.ip_tos) == (0x3005, 9, 4)


def test_versions_may_not_be_mixed() -> None:
    with pytest.raises(InternalError):
        udp_frame(replace(V4, ip_dst=V6.ip_dst), 1, 2)
    with pytest.raises(InternalError):
        icmp_frame(V4, Icmpv6Header(128))
    with pytest.raises(InternalError):
        icmp_frame(V6, Icmpv4Header(8))
    with pytest.raises(InternalError):
        neighbour_request(SRC, V4.ip_src, V6.ip_dst)
    with pytest.raises(InternalError):
        answering(parse_frame(arp_request(SRC, 1, 2)))


def test_arp_request_and_its_reply() -> None:
    request = parse_frame(neighbour_request(SRC, V4.ip_src, V4.ip_dst))
    assert is_neighbour_request(request)
    assert request.key.eth_dst == 0xFFFFFFFFFFFF
    reply = parse_frame(neighbour_reply(request, DST))
    assert reply.frame == arp_reply(DST, V4.ip_dst.value, SRC, V4.ip_src.value)
    assert (reply.key.eth_dst, reply.key.eth_src) == (SRC, DST)
    assert not is_neighbour_request(reply)
    with pytest.raises(InternalError):
        neighbour_reply(reply, DST)


def test_replies_keep_the_tag_of_the_request() -> None:
    frame = arp_request(SRC, 1, 2)
    tagged = parse_frame(frame[:12] + bytes.fromhex("81002005") + frame[12:])
    assert parse_frame(neighbour_reply(tagged, DST)).key.vlan_tci == 0x3005


def test_solicitation_and_its_advertisement() -> None:
    request = parse_frame(neighbour_request(SRC, V6.ip_src, V6.ip_dst))
    assert is_neighbour_request(request)
    assert transport_is_valid(request)
    assert request.ttl == 255
    assert request.key.eth_dst == 0x3333FF000002
    assert IpAddress(IpVersion.V6, request.key.ip_dst) == parse_ip("ff02::1:ff00:2")
    reply = parse_frame(neighbour_reply(request, DST, is_router=True))
    assert transport_is_valid(reply)
    assert ends(reply) == (DST, SRC, V6.ip_dst.value, V6.ip_src.value)
    message = NeighbourAdvertisement.parse(reply.frame[reply.l4_offset :])
    assert (message.is_router, message.is_solicited, message.is_override) == (True, True, True)
    assert (reply.nd_target, reply.nd_link_address) == (V6.ip_dst.value, DST)
    assert not is_neighbour_request(reply)


def test_duplicate_address_detection_is_answered_to_all_nodes() -> None:
    probe = parse_frame(neighbour_solicitation(SRC, 0, V6.ip_dst.value))
    assert probe.nd_link_address is None
    reply = parse_frame(neighbour_reply(probe, DST))
    assert reply.frame == unsolicited_advertisement(DST, V6.ip_dst.value)
    assert (reply.key.eth_dst, reply.key.ip_dst) == (0x333300000001, ALL_NODES)
    assert not NeighbourAdvertisement.parse(reply.frame[reply.l4_offset :]).is_solicited


@BOTH
def test_echo_reply_swaps_the_ends_and_keeps_the_data(envelope: Envelope) -> None:
    request = parse_frame(echo_request_frame(replace(envelope, vlan_tci=5), 77, 3, b"payload"))
    assert is_echo_request(request)
    reply = parse_frame(echo_reply(request))
    assert transport_is_valid(reply)
    assert ends(reply) == (DST, SRC, envelope.ip_dst.value, envelope.ip_src.value)
    assert (reply.icmp_id, reply.key.l4_src, reply.key.vlan_tci) == (
        77,
        envelope.is_ipv6 * 129,
        0x1005,
    )
    assert reply.frame.endswith(b"payload")
    assert not is_echo_request(reply)


@BOTH
def test_echo_reply_from_another_address_is_valid(envelope: Envelope) -> None:
    request = parse_frame(echo_request_frame(envelope, 77))
    source = envelope.ip_src._replace(value=envelope.ip_src.value + 99)
    reply = parse_frame(echo_reply(request, ip_src=source))
    assert transport_is_valid(reply)
    assert reply.key.ip_src == source.value


def test_damaged_echo_request_gets_a_damaged_reply() -> None:
    frame = bytearray(echo_request_frame(V4, 77, 3, b"payload"))
    frame[-1] ^= 1
    assert not transport_is_valid(parse_frame(echo_reply(parse_frame(bytes(frame)))))


def test_only_whole_echo_requests_are_answered() -> None:
    request = echo_request_frame(V4, 77, 3, b"payload")
    fragment = bytearray(request)
    fragment[20] |= 0x20
    for frame in (
        parse_frame(udp_frame(V4, 8, 0)),
        parse_frame(bytes(fragment)),
        parse_frame(request[:-1], length=len(request)),
    ):
        with pytest.raises(DecodeError):
            echo_reply(frame)


@pytest.mark.parametrize(
    ("error", "v4", "v6"),
    [
        (IcmpError.NO_ROUTE, (3, 0), (1, 0)),
        (IcmpError.ADDRESS_UNREACHABLE, (3, 1), (1, 3)),
        (IcmpError.PORT_UNREACHABLE, (3, 3), (1, 4)),
        (IcmpError.PROHIBITED, (3, 13), (1, 1)),
        (IcmpError.TOO_BIG, (3, 4), (2, 0)),
        (IcmpError.TIME_EXCEEDED, (11, 0), (3, 0)),
    ],
)
def test_icmp_errors_by_kind(error: IcmpError, v4: tuple[int, int], v6: tuple[int, int]) -> None:
    for envelope, expected in ((V4, v4), (V6, v6)):
        offending = parse_frame(udp_frame(envelope, 1, 2, b"payload") + bytes(4))
        router = envelope.ip_src._replace(value=envelope.ip_src.value + 99)
        frame = icmp_error(error, offending, answering(offending, ip_src=router), mtu_bytes=1400)
        parsed = parse_frame(frame)
        assert transport_is_valid(parsed)
        assert (parsed.key.l4_src, parsed.key.l4_dst) == expected
        assert ends(parsed) == (DST, SRC, router.value, envelope.ip_src.value)
        assert parsed.key.ip_tos == (0 if envelope.is_ipv6 else 0xC0)
        assert frame[parsed.l4_offset + 8 :] == offending.frame[14:-4]
        word = int.from_bytes(frame[parsed.l4_offset + 4 : parsed.l4_offset + 8], "big")
        assert word == (1400 if error is IcmpError.TOO_BIG else 0)


@pytest.mark.parametrize(("envelope", "limit"), [(V4, 576), (V6, 1280)])
def test_icmp_errors_quote_as_much_as_fits(envelope: Envelope, limit: int) -> None:
    offending = parse_frame(udp_frame(envelope, 1, 2, bytes(3000)))
    parsed = parse_frame(icmp_error(IcmpError.NO_ROUTE, offending, answering(offending)))
    assert parsed.ip_length == limit
    cut = parse_frame(offending.frame[:200], length=len(offending.frame))
    short = parse_frame(icmp_error(IcmpError.NO_ROUTE, cut, answering(cut)))
    assert short.frame.endswith(offending.frame[14:200])


def test_icmp_error_about_another_version_is_refused() -> None:
    offending = parse_frame(udp_frame(V6, 1, 2))
    with pytest.raises(InternalError):
        icmp_error(IcmpError.NO_ROUTE, offending, V4)


@BOTH
@pytest.mark.parametrize(
    ("flags", "payload", "answer"),
    [
        (TcpFlag.SYN, b"", (0, 1001, TcpFlag.RST | TcpFlag.ACK)),
        (TcpFlag.SYN | TcpFlag.FIN, b"abc", (0, 1005, TcpFlag.RST | TcpFlag.ACK)),
        (TcpFlag.ACK, b"abc", (5000, 0, TcpFlag.RST)),
        (TcpFlag.SYN | TcpFlag.ACK, b"", (5000, 0, TcpFlag.RST)),
    ],
)
def test_resets_by_rfc_9293(
    envelope: Envelope, flags: int, payload: bytes, answer: tuple[int, int, int]
) -> None:
    header = TcpHeader(4000, 80, 1000, 5000, flags, options=bytes(4))
    frame = tcp_reset(parse_frame(tcp_frame(envelope, header, payload) + bytes(3)))
    assert frame is not None
    parsed = parse_frame(frame)
    assert transport_is_valid(parsed)
    assert ends(parsed) == (DST, SRC, envelope.ip_dst.value, envelope.ip_src.value)
    reset = TcpHeader.parse(frame, parsed.l4_offset)
    assert (reset.source_port, reset.destination_port) == (80, 4000)
    assert (reset.sequence, reset.acknowledgment, reset.flags) == answer


def test_a_reset_acknowledges_across_the_wrap_of_sequence_numbers() -> None:
    frame = tcp_reset(parse_frame(tcp_frame(V4, TcpHeader(1, 2, 0xFFFFFFFF))))
    assert frame is not None
    assert TcpHeader.parse(frame, 34).acknowledgment == 0


def test_a_reset_is_not_answered_and_other_packets_are_refused() -> None:
    assert tcp_reset(parse_frame(tcp_frame(V4, TcpHeader(1, 2, flags=TcpFlag.RST)))) is None
    for frame in (udp_frame(V4, 1, 2), arp_request(SRC, 1, 2), ip_frame(V4, 47, bytes(20))):
        with pytest.raises(DecodeError):
            tcp_reset(parse_frame(frame))


def test_advertisement_to_one_neighbour_keeps_its_tag() -> None:
    frame = neighbour_advertisement(DST, V6.ip_dst.value, SRC, V6.ip_src.value, vlan_tci=7)
    assert parse_frame(frame).key.vlan_tci == 0x1007
