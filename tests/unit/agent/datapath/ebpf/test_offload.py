"""What a sender left to its device is completed, and prepared for frames sent whole."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from midonet.agent.datapath.ebpf.offload import (
    NO_OFFLOAD,
    complete_checksum,
    prepare_super_packet,
)

V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
FRAMES = [
    pytest.param(Ether() / V4 / TCP(sport=1, dport=2) / Raw(b"abc"), 34, 16, id="tcp4"),
    pytest.param(Ether() / V6 / TCP(sport=1, dport=2) / Raw(b"abc"), 54, 16, id="tcp6"),
    pytest.param(Ether() / V4 / UDP(sport=1, dport=2) / Raw(b"abc"), 34, 6, id="udp4"),
    pytest.param(Ether() / Dot1Q(vlan=3) / V6 / UDP(sport=1, dport=2), 58, 6, id="tagged"),
]


def folded(data: bytes) -> int:
    total = int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
    return total or 0xFFFF


def partial(frame: bytes, start: int, relative: int) -> bytes:
    """Return the frame as a stack sends it that leaves the checksum to its device."""
    size = 4 if frame[start - 20] == 0x45 and start in (34, 38) else 16
    addresses = frame[start - 2 * size : start]
    protocol = 6 if relative == 16 else 17
    pseudo = folded(addresses + struct.pack("!HH", protocol, len(frame) - start))
    at = start + relative
    return frame[:at] + pseudo.to_bytes(2, "big") + frame[at + 2 :]


@pytest.mark.parametrize(("packet", "start", "relative"), FRAMES)
def test_a_partial_checksum_is_completed(packet: Packet, start: int, relative: int) -> None:
    frame = bytes(packet)
    unfinished = partial(frame, start, relative)
    assert unfinished != frame
    assert complete_checksum(unfinished) == frame
    assert complete_checksum(unfinished + bytes(9)) == frame + bytes(9), "padding is no data"


@pytest.mark.parametrize(
    "packet",
    [
        Ether() / V4 / TCP(chksum=0x1234),
        Ether() / V4 / UDP(chksum=0),
        Ether() / V4 / ICMP(),
        Ether() / IP(frag=3, proto=17) / Raw(b"x" * 20),
        Ether() / ARP(),
        Raw(b"\0" * 14),
        Raw(b"\0" * 12 + b"\x08\x00" + b"\x45"),
    ],
    ids=["wrong", "none", "icmp", "fragment", "arp", "empty", "malformed"],
)
def test_other_frames_stay_as_they_are(packet: Packet) -> None:
    assert complete_checksum(bytes(packet)) == bytes(packet)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (Ether() / V4 / TCP() / Raw(b"x" * 3000), (1, 1, 54, 1000, 34, 16)),
        (Ether() / V6 / TCP() / Raw(b"x" * 3000), (1, 4, 74, 1000, 54, 16)),
        (Ether() / V4 / UDP() / Raw(b"x" * 3000), (1, 5, 42, 1000, 34, 6)),
    ],
    ids=["tcp4", "tcp6", "udp4"],
)
def test_a_super_packet_says_how_it_is_cut(packet: Packet, expected: tuple[int, ...]) -> None:
    frame = bytes(packet)
    offload, prepared = prepare_super_packet(frame, 1000)
    assert struct.unpack("=BBHHHH", offload) == expected
    start, relative = expected[4:]
    assert complete_checksum(prepared) == frame
    assert prepared[: start + relative] == frame[: start + relative]


@pytest.mark.parametrize("packet", [Ether() / ARP(), Raw(b"x" * 13)], ids=["arp", "malformed"])
def test_what_cannot_be_cut_goes_as_it_is(packet: Packet) -> None:
    assert prepare_super_packet(bytes(packet), 1000) == (NO_OFFLOAD, bytes(packet))
