"""Packets that are longer than a tunnel takes."""

from __future__ import annotations

import pytest

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.simulation.fragmentation import fragment
from midonet.agent.simulation.result import Consume, Drop, Forward
from midonet.packets.addresses import parse_ip
from midonet.packets.checksum import internet_checksum
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import parse_frame
from tests.unit.agent.simulation.frames import M1, M2, M3, tcp, udp
from tests.worlds import World, rule

R1 = "02:00:00:00:01:01"


def world() -> World:
    """A router between a local port and a bridge whose other port is far away."""
    made = World("h1").router("r").bridge("b")
    made.port("in", on="r", host="h1", mac=R1, addresses=("10.0.1.1/24", "fd00:1::1/64"))
    made.port("out", on="r", addresses=("10.0.2.1/24", "fd00:2::1/64")).attach("out", "b")
    made.port("far", on="b", host="h2", key=77).tunnel("h2", max_inner_length=1400)
    made.neighbour("r", "10.0.2.5", M3).neighbour("r", "fd00:2::5", M3).mac_at("b", M3, "far")
    return made.neighbour("r", "10.0.1.5", M1)


def test_packet_that_just_fits_passes_with_a_guard() -> None:
    result = world().simulate("in", udp(eth_dst=R1, size=1400 - 28))
    assert isinstance(result, Forward)
    assert result.program.guards.max_length == 1400
    assert result.program.slow_path is None


def test_packet_that_must_not_be_fragmented_is_reported_with_the_size() -> None:
    made = world()
    result = made.simulate("in", udp(eth_dst=R1, size=1400, df=True))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.MTU_EXCEEDED
    assert result.program.slow_path is SlowPathReason.GUARD
    (delivery,) = made.settle(result)
    packet = delivery.packet
    assert (delivery.place, packet.key.l4_src, packet.key.l4_dst) == ("in", 3, 4)
    assert packet.key.ip_src == parse_ip("10.0.1.1").value
    offset = packet.l4_offset
    assert delivery.frame[offset + 6 : offset + 8] == (1400).to_bytes(2, "big")


def test_ipv6_packet_too_big() -> None:
    made = world()
    result = made.simulate("in", udp("fd00:1::5", "fd00:2::5", eth_dst=R1, size=1400))
    assert isinstance(result, Drop)
    (delivery,) = made.settle(result)
    assert delivery.packet.key.l4_src == 2
    offset = delivery.packet.l4_offset
    assert delivery.frame[offset + 4 : offset + 8] == (1400).to_bytes(4, "big")


def test_other_ipv4_packets_are_fragmented_by_the_router() -> None:
    made = world()
    frame = udp(eth_dst=R1, size=3000)
    result = made.simulate("in", frame)
    assert isinstance(result, Consume)
    deliveries = made.settle(result)
    assert [delivery.place for delivery in deliveries] == [77, 77, 77]
    packets = [delivery.packet for delivery in deliveries]
    assert all(packet.ip_length <= 1400 for packet in packets)
    assert [packet.key.ip_frag for packet in packets] == [
        FragmentKind.FIRST,
        FragmentKind.LATER,
        FragmentKind.LATER,
    ]
    assert all(packet.ttl == 63 for packet in packets)
    payload = b"".join(delivery.frame[34:] for delivery in deliveries)
    assert payload == frame[34:]


def test_super_packets_are_measured_by_segment() -> None:
    made = world()
    frame = tcp(eth_dst=R1) + bytes(8000)
    small = parse_frame(frame, gso_size=1300)
    assert isinstance(made.simulate("in", small), Forward)
    large = made.simulate("in", parse_frame(frame, gso_size=1380))
    assert isinstance(large, Drop)
    assert large.reason is DropReason.MTU_EXCEEDED


def test_bridge_drops_what_is_too_long_silently() -> None:
    made = World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h2")
    result = made.mac_at("b", M2, "p2").simulate("p1", udp(size=1500))
    assert isinstance(result, Drop)
    assert (result.reason, result.generated) == (DropReason.MTU_EXCEEDED, ())
    assert result.program.slow_path is SlowPathReason.GUARD


def test_tag_takes_four_bytes_of_a_tunnel() -> None:
    made = World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h2")
    made.tunnel("h2", max_inner_length=1400).mac_at("b", M2, "p2")
    result = made.simulate("p1", udp(vlan=5))
    assert isinstance(result, Forward)
    assert result.program.guards.max_length == 1396


@pytest.mark.parametrize("limit", [68, 100, 576, 1400])
def test_fragments_carry_the_whole_payload(limit: int) -> None:
    frame = bytearray(udp(size=1472))
    # Two options: record route (not copied) and router alert (copied).
    options = bytes((7, 3, 4, 148, 4, 0, 0, 0))
    frame[14] = 0x47
    frame[16:18] = (1508).to_bytes(2, "big")
    frame[34:34] = options
    packet = parse_frame(bytes(frame))
    fragments = [parse_frame(piece) for piece in fragment(packet, limit)]
    data = b""
    for piece in fragments:
        header_size = (piece.frame[14] & 0xF) * 4
        assert piece.ip_length <= limit
        assert internet_checksum(piece.frame[14 : 14 + header_size]) == 0
        assert int.from_bytes(piece.frame[20:22], "big") & 0x1FFF == len(data) // 8
        data += piece.frame[14 + header_size :]
    assert data == bytes(frame[42:])
    assert bytes((148, 4, 0, 0)) in fragments[1].frame[34:38]
    assert not int.from_bytes(fragments[-1].frame[20:22], "big") & 0x2000


def test_no_fragments_without_room() -> None:
    assert fragment(parse_frame(udp(size=100)), 20) == ()


def test_fragments_of_a_rejected_datagram_are_not_answered_towards_the_egress() -> None:
    made = world().chain("no", rule("reject")).port("far", on="b", host="h2", outbound="no")
    result = made.simulate("in", udp(eth_dst=R1, size=1000))
    assert isinstance(result, Drop)
    (delivery,) = made.settle(result)
    assert delivery.place == "in"
    assert made.send("in", udp(eth_dst=R1, size=1000, ttl=1))[0].place == "in"
