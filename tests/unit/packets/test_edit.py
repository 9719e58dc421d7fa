from __future__ import annotations

import pytest

from midonet.errors import InternalError
from midonet.packets.addresses import parse_ip
from midonet.packets.arp import ArpMessage
from midonet.packets.build import Envelope, ip_frame, tcp_frame, udp_frame
from midonet.packets.checksum import internet_checksum, transport_checksum
from midonet.packets.edit import FrameEditor
from midonet.packets.frame import parse_frame
from midonet.packets.neighbour import arp_request, neighbour_solicitation
from midonet.packets.sctp import SctpHeader, crc32c
from midonet.packets.tcp import TcpHeader

SRC, DST = 0x020000000001, 0x020000000002
V4 = Envelope(SRC, DST, parse_ip("10.0.0.1"), parse_ip("10.0.0.2"))
V6 = Envelope(SRC, DST, parse_ip("fd00::1"), parse_ip("fd00::2"))


def editor(frame: bytes) -> FrameEditor:
    return FrameEditor(parse_frame(frame))


def test_ethernet_addresses_are_written() -> None:
    edit = editor(udp_frame(V4, 1, 2))
    edit.set_eth_dst(0x0A0B0C0D0E0F)
    edit.set_eth_src(1)
    key = parse_frame(edit.frame()).key
    assert (key.eth_dst, key.eth_src) == (0x0A0B0C0D0E0F, 1)


def test_a_tag_is_pushed_in_front_and_popped_again() -> None:
    frame = udp_frame(V4, 1, 2, b"x")
    edit = editor(frame)
    edit.push_vlan(0xE064)
    assert edit.frame()[12:18].hex() == "8100e0640800"
    edit.set_ip_src(5)
    edit.set_l4_dst(7)
    edit.pop_vlan()
    expected = udp_frame(Envelope(SRC, DST, parse_ip("0.0.0.5"), V4.ip_dst), 1, 7, b"x")
    assert edit.frame() == expected


def test_popping_an_untagged_frame_changes_nothing() -> None:
    frame = udp_frame(V4, 1, 2)
    edit = editor(frame)
    edit.pop_vlan()
    assert edit.frame() == frame


def test_popping_the_outer_tag_leaves_the_inner_one() -> None:
    frame = bytes.fromhex("020000000002020000000001" + "88a80005" + "81000006" + "0800" + "00" * 30)
    edit = editor(frame)
    edit.pop_vlan()
    assert edit.frame() == frame[:12] + frame[16:]


@pytest.mark.parametrize("version", [4, 6])
def test_all_edits_of_a_packet_equal_building_it_anew(version: int) -> None:
    old = V4 if version == 4 else V6
    source, destination = (
        (parse_ip("192.0.2.1"), parse_ip("198.51.100.9"))
        if version == 4
        else (parse_ip("2001:db8::1"), parse_ip("2001:db8:ffff::9"))
    )
    new = Envelope(SRC, DST, source, destination, ttl=62, tos=0xB8)
    frames = (
        (tcp_frame(old, TcpHeader(1, 2, 3), b"odd"), tcp_frame(new, TcpHeader(9, 8, 3), b"odd")),
        (udp_frame(old, 1, 2, b"odd"), udp_frame(new, 9, 8, b"odd")),
    )
    for before, after in frames:
        edit = editor(before)
        edit.set_ip_src(source.value)
        edit.set_ip_dst(destination.value)
        edit.set_ip_tos(0xB8)
        edit.set_l4_src(9)
        edit.set_l4_dst(8)
        edit.decrement_ttl(2)
        assert edit.frame() == after


def test_an_icmpv6_checksum_follows_the_addresses() -> None:
    frame = neighbour_solicitation(SRC, V6.ip_src.value, V6.ip_dst.value)
    edit = editor(frame)
    edit.set_ip_src(V6.ip_src.value + 7)
    message = edit.frame()[54:]
    key = parse_frame(edit.frame()).key
    assert key.ip_src == V6.ip_src.value + 7
    assert transport_checksum(message, key.ip_src, key.ip_dst, 58) == 0


def test_a_udp_checksum_of_zero_stays_zero() -> None:
    frame = bytearray(udp_frame(V4, 1, 2, b"data"))
    frame[40:42] = b"\0\0"
    edit = editor(bytes(frame))
    edit.set_ip_dst(77)
    edit.set_l4_src(78)
    assert edit.frame()[40:42] == b"\0\0"


def test_a_udp_checksum_never_becomes_zero() -> None:
    frame = udp_frame(V4, 1, 2)
    checksum = int.from_bytes(frame[40:42], "big")
    edit = editor(frame)
    edit.set_l4_src(1 + checksum)  # makes the sum all ones
    assert edit.frame()[40:42] == b"\xff\xff"


def test_wrong_checksums_stay_wrong() -> None:
    frame = bytearray(udp_frame(V4, 1, 2, b"data"))
    frame[24] ^= 0x40
    frame[40] ^= 0x40
    edit = editor(bytes(frame))
    edit.set_ip_src(99)
    edit.decrement_ttl()
    edited = edit.frame()
    assert internet_checksum(edited[14:34]) != 0
    assert transport_checksum(edited[34:], 99, V4.ip_dst.value, 17) not in (0, 0xFFFF)


def test_later_fragments_keep_their_payload() -> None:
    frame = bytearray(udp_frame(V4, 1, 2, bytes(range(64))))
    frame[20:22] = b"\x00\x04"
    edit = editor(bytes(frame))
    edit.set_ip_src(99)
    edit.set_l4_src(5)
    edit.set_l4_dst(5)
    assert edit.frame()[34:] == bytes(frame[34:])
    assert parse_frame(edit.frame()).key.ip_src == 99


def test_first_fragments_have_their_checksum_updated() -> None:
    whole = udp_frame(V4, 1, 2, bytes(range(64)))
    first = bytearray(whole[: 34 + 24])
    first[16:18] = (20 + 24).to_bytes(2, "big")
    first[20:22] = b"\x20\x00"
    edit = editor(bytes(first))
    edit.set_ip_src(99)
    expected = udp_frame(
        Envelope(SRC, DST, parse_ip("0.0.0.99"), V4.ip_dst), 1, 2, bytes(range(64))
    )
    assert edit.frame()[34:] == expected[34 : 34 + 24]


@pytest.mark.parametrize("envelope", [V4, V6])
def test_sctp_checksums_follow_the_ports_and_padding_is_left_out(envelope: Envelope) -> None:
    def packet(source: int, destination: int) -> bytes:
        chunk = b"\x01\x02\x03\x04 some chunk"
        bare = SctpHeader(source, destination, 7).serialise() + chunk
        checksum = int.from_bytes(crc32c(bare).to_bytes(4, "little"), "big")
        return SctpHeader(source, destination, 7, checksum).serialise() + chunk

    edit = editor(ip_frame(envelope, 132, packet(1, 2)) + bytes(9))
    edit.set_l4_src(40000)
    edit.set_l4_dst(50000)
    edit.set_ip_src(1)
    offset = 14 + (40 if envelope.is_ipv6 else 20)
    assert edit.frame()[offset:] == packet(40000, 50000) + bytes(9)


def test_edits_without_a_field_do_nothing() -> None:
    frame = arp_request(SRC, 1, 2)
    edit = editor(frame)
    edit.set_ip_src(5)
    edit.set_ip_dst(5)
    edit.set_ip_tos(5)
    edit.set_l4_src(5)
    edit.set_l4_dst(5)
    edit.decrement_ttl()
    assert edit.frame() == frame
    assert ArpMessage.parse(edit.frame(), 14).sender_ip == 1
    other = ip_frame(V4, 47, bytes(20))
    edit = editor(other)
    edit.set_l4_src(5)
    assert edit.frame() == other


@pytest.mark.parametrize("envelope", [V4, V6])
def test_a_ttl_is_never_taken_to_zero(envelope: Envelope) -> None:
    edit = editor(udp_frame(Envelope(SRC, DST, envelope.ip_src, envelope.ip_dst, ttl=2), 1, 2))
    edit.decrement_ttl()
    with pytest.raises(InternalError):
        edit.decrement_ttl()
