from __future__ import annotations

import pytest

from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.program import NO_REWRITE, Rewrite
from midonet.errors import DecodeError, InternalError
from midonet.packets.addresses import parse_ip
from midonet.packets.build import Envelope, udp_frame
from midonet.packets.frame import parse_frame
from midonet.packets.neighbour import arp_request

V4 = Envelope(1, 2, parse_ip("10.0.0.1"), parse_ip("10.0.0.2"))
V6 = Envelope(1, 2, parse_ip("fd00::1"), parse_ip("fd00::2"))


def test_no_rewrite_returns_the_same_bytes() -> None:
    assert apply_rewrite(b"anything", NO_REWRITE) == b"anything"
    frame = udp_frame(V4, 1, 2)
    assert apply_rewrite(frame, Rewrite()) is frame


@pytest.mark.parametrize("envelope", [V4, V6])
def test_a_whole_template_is_applied(envelope: Envelope) -> None:
    source = envelope.ip_src._replace(value=7)
    destination = envelope.ip_dst._replace(value=8)
    before = Envelope(1, 2, envelope.ip_src, envelope.ip_dst, vlan_tci=5)
    after = Envelope(0xA, 0xB, source, destination, vlan_tci=0x2006, ttl=62, tos=9)
    rewrite = Rewrite(
        eth_dst=0xB,
        eth_src=0xA,
        pop_vlan=True,
        push_vlan=0x2006,
        ip_src=7,
        ip_dst=8,
        ip_tos=9,
        l4_src=70,
        l4_dst=80,
        ttl_decrement=2,
    )
    assert apply_rewrite(udp_frame(before, 1, 2, b"x"), rewrite) == udp_frame(after, 70, 80, b"x")


def test_a_routed_hop_changes_addresses_and_ttl_only() -> None:
    frame = udp_frame(V4, 1, 2, b"x")
    routed = apply_rewrite(frame, Rewrite(eth_dst=9, eth_src=8, ttl_decrement=1))
    assert routed == udp_frame(Envelope(8, 9, V4.ip_src, V4.ip_dst, ttl=63), 1, 2, b"x")


def test_fields_that_a_frame_has_not_are_left_out() -> None:
    frame = arp_request(1, 2, 3)
    rewrite = Rewrite(ip_src=1, ip_dst=2, ip_tos=3, l4_src=4, l4_dst=5, ttl_decrement=1)
    assert apply_rewrite(frame, rewrite) == frame


def test_cut_copies_are_rewritten_like_the_whole() -> None:
    frame = udp_frame(V4, 1, 2, bytes(3000))
    rewrite = Rewrite(ip_src=9, l4_dst=7, push_vlan=3)
    assert apply_rewrite(frame[:100], rewrite) == apply_rewrite(frame, rewrite)[:104]


def test_bad_frames_are_refused() -> None:
    with pytest.raises(DecodeError):
        apply_rewrite(bytes(13), Rewrite(eth_dst=1))
    with pytest.raises(InternalError):
        apply_rewrite(
            udp_frame(Envelope(1, 2, V4.ip_src, V4.ip_dst, ttl=1), 1, 2), Rewrite(ttl_decrement=1)
        )


def test_rewritten_frames_still_parse_to_the_rewritten_key() -> None:
    frame = apply_rewrite(udp_frame(V6, 1, 2), Rewrite(eth_src=3, l4_src=4))
    assert parse_frame(frame).key == parse_frame(udp_frame(V6, 1, 2)).key._replace(
        eth_src=3, l4_src=4
    )
