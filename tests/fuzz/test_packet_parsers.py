"""Damaged frames and overlay packets: a result or a named error, never anything else."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.program import Rewrite
from midonet.errors import DecodeError, InternalError
from midonet.packets.addresses import parse_ip
from midonet.packets.build import (
    Envelope,
    answering,
    echo_request_frame,
    ip_frame,
    tcp_frame,
    udp_frame,
)
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.icmp_echo import echo_reply, is_echo_request
from midonet.packets.icmp_error import IcmpError, icmp_error
from midonet.packets.neighbour import (
    arp_request,
    is_neighbour_request,
    neighbour_reply,
    neighbour_solicitation,
)
from midonet.packets.overlay import decapsulate, encapsulate_gre, encapsulate_vxlan
from midonet.packets.tcp import TcpHeader
from midonet.packets.tcp_reset import tcp_reset

V4 = Envelope(1, 2, parse_ip("10.0.0.1"), parse_ip("10.0.0.2"))
V6 = Envelope(1, 2, parse_ip("fd00::1"), parse_ip("fd00::2"), vlan_tci=5)
EXTENSIONS = bytes.fromhex("3c000000000000002c01" + "00" * 14 + "0600000100000007" + "00" * 24)
FRAMES = (
    udp_frame(V4, 1, 2, b"data"),
    tcp_frame(V6, TcpHeader(1, 2), b"data"),
    echo_request_frame(V4, 1),
    echo_request_frame(V6, 1),
    arp_request(1, 2, 3),
    neighbour_solicitation(1, V6.ip_src.value, V6.ip_dst.value),
    ip_frame(V6, 0, EXTENSIONS),
)
OVERLAY = tuple(
    packet
    for local, remote in ((V4.ip_src, V4.ip_dst), (V6.ip_src, V6.ip_dst))
    for packet in (
        encapsulate_vxlan(FRAMES[0], key=1, local=local, remote=remote, source_port=1, udp_port=2),
        encapsulate_gre(FRAMES[0], key=1, local=local, remote=remote),
    )
)
EVERYTHING = Rewrite(
    eth_dst=1,
    eth_src=2,
    pop_vlan=True,
    push_vlan=3,
    ip_src=4,
    ip_dst=5,
    ip_tos=6,
    l4_src=7,
    l4_dst=8,
    ttl_decrement=1,
)


@st.composite
def damaged(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """Draw a sample with some bytes overwritten, and perhaps cut or lengthened."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    end = draw(st.integers(0, len(data)) | st.just(len(data)))
    return bytes(data[:end]) + draw(st.binary(max_size=8))


def check_parsed(parsed: ParsedFrame) -> None:
    """Check what every consumer relies on, and that answers can be built."""
    assert 0 <= parsed.l4_offset <= len(parsed.frame)
    assert parsed.l3_offset <= len(parsed.frame)
    assert parsed.tcp_flags <= 255
    parsed.flow_hash(7)
    if parsed.ip_version is not None:
        error = icmp_error(IcmpError.TOO_BIG, parsed, answering(parsed), mtu_bytes=1400)
        assert parse_frame(error).ip_length <= 1280
    if is_neighbour_request(parsed):
        assert not is_neighbour_request(parse_frame(neighbour_reply(parsed, 9)))
    if is_echo_request(parsed):
        parse_frame(echo_reply(parsed))
    with suppress(DecodeError):
        tcp_reset(parsed)


@given(
    frame=damaged(FRAMES) | st.binary(max_size=80),
    missing=st.integers(0, 3000),
    gso_size=st.sampled_from((0, 0, 1, 1448)),
)
def test_any_frame_is_parsed_or_malformed(frame: bytes, missing: int, gso_size: int) -> None:
    try:
        parsed = parse_frame(frame, length=len(frame) + missing, gso_size=gso_size, hash_seed=3)
    except DecodeError:
        return
    check_parsed(parsed)


@given(frame=damaged(FRAMES) | st.binary(max_size=80))
def test_any_frame_is_rewritten_or_refused(frame: bytes) -> None:
    with suppress(DecodeError, InternalError):
        changed = apply_rewrite(frame, EVERYTHING)
        assert changed[:14].hex() == "0000000000010000000000028100"
        key = parse_frame(changed, length=len(changed) + 70000).key
        before = parse_frame(frame, length=len(frame) + 70000).key
        if before.ip_frag == 0 and before.ip_proto in (6, 17) and before.eth_type != 0x0806:
            assert (key.l4_src, key.l4_dst) == (7, 8)


@given(packet=damaged(OVERLAY) | st.binary(max_size=80))
def test_any_outer_packet_is_taken_apart_or_malformed(packet: bytes) -> None:
    with suppress(DecodeError):
        assert len(decapsulate(packet, 2).inner) >= 14
