from __future__ import annotations

import pytest

from midonet.errors import DecodeError, InternalError
from midonet.packets.addresses import parse_ip
from midonet.packets.build import Envelope, udp_frame
from midonet.packets.checksum import internet_checksum
from midonet.packets.overlay import (
    decapsulate,
    encapsulate_gre,
    encapsulate_vxlan,
    overlay_source_port,
)

PORT = 6677
A4, B4 = parse_ip("192.0.2.1"), parse_ip("192.0.2.2")
A6, B6 = parse_ip("2001:db8::1"), parse_ip("2001:db8::2")
INNER = udp_frame(Envelope(1, 2, parse_ip("10.0.0.1"), parse_ip("10.0.0.2")), 1, 2, b"inner")


def vxlan(inner: bytes = INNER, *, over_ipv6: bool = False) -> bytes:
    local, remote = (A6, B6) if over_ipv6 else (A4, B4)
    return encapsulate_vxlan(
        inner, key=0xABCDEF, local=local, remote=remote, source_port=50000, udp_port=PORT
    )


def gre(inner: bytes = INNER, *, over_ipv6: bool = False) -> bytes:
    local, remote = (A6, B6) if over_ipv6 else (A4, B4)
    return encapsulate_gre(inner, key=0xABCDEF, local=local, remote=remote)


@pytest.mark.parametrize("over_ipv6", [False, True])
@pytest.mark.parametrize("encapsulate", [vxlan, gre])
def test_what_is_encapsulated_comes_out_again(encapsulate, over_ipv6: bool) -> None:  # type: ignore[no-untyped-def]
    packet = encapsulate(over_ipv6=over_ipv6)
    source, destination, key, inner = decapsulate(packet, PORT)
    assert (source, destination) == ((A6, B6) if over_ipv6 else (A4, B4))
    assert (key, inner) == (0xABCDEF, INNER)


def test_vxlan_bytes_over_ipv4() -> None:
    packet = vxlan(bytes(14))
    assert packet[:10].hex() == "45000032000040004011"
    assert internet_checksum(packet[:20]) == 0
    assert packet[12:20].hex() == "c0000201c0000202"
    assert packet[20:36].hex() == "c3501a15001e0000" + "08000000abcdef00"
    assert len(vxlan()) == len(INNER) + 36  # the overhead on the wire is 50 with Ethernet


def test_gre_bytes_over_ipv6() -> None:
    packet = gre(bytes(14), over_ipv6=True)
    assert packet[:8].hex() == "6000000000162f40"
    assert packet[40:48].hex() == "2000655800abcdef"


def test_outer_source_port_is_taken_from_the_hash() -> None:
    assert overlay_source_port(0) == 0xC000
    assert overlay_source_port(0xFFFFFFFF) == 0xFFFF
    assert overlay_source_port(0x12345678) == 0xC000 | 0x1678


def test_inner_frames_must_have_an_ethernet_header_and_fit() -> None:
    for encapsulate in (vxlan, gre):
        with pytest.raises(DecodeError):
            encapsulate(bytes(13))
        with pytest.raises(DecodeError):
            encapsulate(bytes(0x10000))
    with pytest.raises(InternalError):
        encapsulate_gre(INNER, key=1, local=A4, remote=B6)


def test_ethernet_padding_behind_the_outer_packet_is_left_out() -> None:
    for packet in (vxlan(bytes(14)), gre(bytes(14))):
        assert decapsulate(packet + bytes(9), PORT).inner == bytes(14)


@pytest.mark.parametrize("over_ipv6", [False, True])
def test_truncated_overlay_packets_are_decode_errors(over_ipv6: bool) -> None:
    for packet in (vxlan(over_ipv6=over_ipv6), gre(over_ipv6=over_ipv6)):
        for size in range(len(packet)):
            with pytest.raises(DecodeError):
                decapsulate(packet[:size], PORT)


def changed(packet: bytes, offset: int, value: str) -> bytes:
    new = bytes.fromhex(value)
    return packet[:offset] + new + packet[offset + len(new) :]


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(changed(vxlan(), 6, "2000"), id="first outer fragment"),
        pytest.param(changed(vxlan(), 6, "0003"), id="later outer fragment"),
        pytest.param(changed(vxlan(), 9, "06"), id="outer TCP"),
        pytest.param(changed(vxlan(), 22, "12b5"), id="another UDP port"),
        pytest.param(changed(vxlan(), 24, "000f"), id="UDP length too short"),
        pytest.param(changed(vxlan(), 24, "ffff"), id="UDP length too long"),
        pytest.param(changed(vxlan(), 28, "00"), id="no VNI flag"),
        pytest.param(changed(vxlan(), 2, "0010"), id="total length below the header"),
        pytest.param(changed(vxlan(over_ipv6=True), 6, "2c"), id="IPv6 fragment header"),
        pytest.param(changed(gre(), 20, "0000"), id="no key"),
        pytest.param(changed(gre(), 20, "3000"), id="sequence number"),
        pytest.param(changed(gre(), 20, "a000"), id="checksum"),
        pytest.param(changed(gre(), 22, "0800"), id="inner IPv4"),
        pytest.param(vxlan(bytes(14))[:-1], id="inner frame too short"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_other_packets_are_decode_errors(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        decapsulate(packet, PORT)


def test_an_inner_frame_without_a_header_is_a_decode_error() -> None:
    packet = vxlan(bytes(14))
    shorter = changed(changed(packet, 2, "0031"), 24, "001d")
    with pytest.raises(DecodeError):
        decapsulate(shorter, PORT)
