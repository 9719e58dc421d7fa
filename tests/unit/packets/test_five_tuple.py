"""Five-tuples: of what, and the reply's is the inverse."""

from __future__ import annotations

import pytest

from midonet.packets.addresses import IpVersion, parse_ip
from midonet.packets.build import (
    Envelope,
    echo_request_frame,
    icmp_frame,
    ip_frame,
    udp_frame,
)
from midonet.packets.five_tuple import FiveTuple, five_tuple
from midonet.packets.frame import parse_frame
from midonet.packets.icmp_echo import echo_reply
from midonet.packets.icmpv4 import Icmpv4Header

A, B = "10.0.0.1", "10.0.0.2"
A6, B6 = "2001:db8::1", "2001:db8::2"


def _udp(source: str, destination: str) -> bytes:
    envelope = Envelope(1 << 40 | 2, 1 << 41, parse_ip(source), parse_ip(destination))
    return udp_frame(envelope, 4000, 53, b"")


@pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)])
def test_ports_are_the_ends_of_a_datagram(source: str, destination: str) -> None:
    version = parse_ip(source).version
    whole = FiveTuple(version, 17, parse_ip(source).value, 4000, parse_ip(destination).value, 53)

    assert five_tuple(parse_frame(_udp(source, destination))) == whole


@pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)])
def test_the_reply_to_an_echo_has_the_inverse_tuple(source: str, destination: str) -> None:
    envelope = Envelope(1 << 40 | 2, 1 << 41, parse_ip(source), parse_ip(destination))
    request = parse_frame(echo_request_frame(envelope, 77, 1, b"data"))
    asked = five_tuple(request)

    assert asked is not None
    assert (asked.source_port, asked.destination_port) == (77, 77)
    assert five_tuple(parse_frame(echo_reply(request))) == asked.inverse()


def test_an_inverse_of_an_inverse_is_the_tuple() -> None:
    one = FiveTuple(IpVersion.V4, 6, 1, 2, 3, 4)

    assert one.inverse() == FiveTuple(IpVersion.V4, 6, 3, 4, 1, 2)
    assert one.inverse().inverse() == one


def test_what_has_no_ends_has_no_tuple() -> None:
    envelope = Envelope(1 << 40 | 2, 1 << 41, parse_ip(A), parse_ip(B))
    error = icmp_frame(envelope, Icmpv4Header(3, 1, 0), bytes(28))
    later = bytearray(_udp(A, B))
    later[20:22] = (0x0001).to_bytes(2, "big")

    assert five_tuple(parse_frame(error)) is None
    assert five_tuple(parse_frame(bytes(later) + bytes(16))) is None
    assert five_tuple(parse_frame(ip_frame(envelope, 47, bytes(8)))) is None
    assert five_tuple(parse_frame(bytes(12) + b"\x88\xcc" + bytes(46))) is None
