"""Frames that receivers read in more than one way: the kernel and Python read them alike.

A frame is read as its receiver will read it, or it is malformed: nothing gets past a filter that
the receiver then takes for something else.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, LLC, SNAP, Dot3, Ether
from scapy.packet import Packet, Raw

from midonet.agent.datapath.ebpf.loader import LoadedObject
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import parse_frame
from tests.bpf.test_parse import check, kernel_parse

LINK = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
V4 = IP(src="10.0.0.1", dst="10.0.0.2")
V6 = IPv6(src="fd00::1", dst="fd00::2")
SSH = TCP(sport=1, dport=22, flags="S")
DNS = UDP(sport=1, dport=53) / Raw(b"x" * 8)


class Reading(NamedTuple):
    """A frame and what is read: (type, tag, protocol, L4 destination), None: malformed."""

    name: str
    frame: bytes
    read: tuple[int, int, int, int] | None


def tags(*values: str) -> bytes:
    """Return link-layer addresses and tags, each as 8 hexadecimal digits, before V4 / SSH."""
    return bytes(Ether(**LINK))[:12] + bytes.fromhex("".join(values))


def with_tags(*values: str) -> bytes:
    return tags(*values) + bytes(Ether(**LINK) / V4 / SSH)[12:]


def changed(packet: Packet, at: int, data: bytes) -> bytes:
    frame = bytes(packet)
    return frame[:at] + data + frame[at + len(data) :]


SSH_V4 = (0x0800, 0, 6, 22)
SSH_V6 = (0x86DD, 0, 6, 22)
VLAN_5 = 0x1005
ETHER = Ether(**LINK)
OPTIONS, LAST = b"\x3c" + bytes(7), b"\x06" + bytes(7)
SNAPPED = bytes(V4 / SSH)


def snap(organisation: int, eth_type: int) -> bytes:
    return bytes(Dot3(**LINK) / LLC() / SNAP(OUI=organisation, code=eth_type) / Raw(SNAPPED))


READINGS = [
    Reading("one priority tag", with_tags("81000000"), SSH_V4),
    Reading("priority with PCP", with_tags("8100e000"), SSH_V4),
    Reading("two priority tags", with_tags("81000000", "81000000"), SSH_V4),
    Reading("service priority tag", with_tags("88a80000", "81000000"), SSH_V4),
    Reading("four priority tags", with_tags(*["81000000", "88a80000"] * 2), SSH_V4),
    Reading("five priority tags", with_tags(*["81000000"] * 5), None),
    Reading("priority before VLAN", with_tags("81000000", "81000005"), (0x0800, VLAN_5, 6, 22)),
    Reading("priority behind VLAN", with_tags("81000005", "81000000"), (0x0800, VLAN_5, 6, 22)),
    Reading(
        "priority on both sides",
        with_tags("88a82000", "88a80005", "81000000", "81004000"),
        (0x0800, VLAN_5, 6, 22),
    ),
    Reading("VLAN in VLAN", with_tags("81000005", "81000007"), (0x8100, VLAN_5, 0, 0)),
    Reading(
        "VLAN in VLAN behind priority",
        with_tags("81000000", "81000005", "81000000", "88a80007", "81000000"),
        (0x88A8, VLAN_5, 0, 0),
    ),
    Reading("another tag", with_tags("91000000"), (0x9100, 0, 0, 0)),
    Reading("cut tag", tags("81000000", "8100") + b"\0", None),
    Reading("cut inner tag", tags("81000005", "8100") + b"\0", None),
    Reading("SNAP", snap(0, 0x0800), None),
    Reading("SNAP by a bridge", snap(0xF8, 0x0800), None),
    Reading("SNAP with ARP", snap(0, 0x0806), None),
    Reading("SNAP with a tag", snap(0, 0x8100), None),
    Reading("SNAP of a vendor", snap(0x00000C, 0x2000), (0, 0, 0, 0)),
    Reading("spanning tree", bytes(Dot3(**LINK) / LLC() / Raw(bytes(35))), (0, 0, 0, 0)),
    Reading("SNAP in a VLAN", tags("81000005") + snap(0, 0x0800)[12:], None),
    Reading("ARP", bytes(ETHER / ARP(pdst="10.0.0.2")), (0x0806, 0, 1, 0)),
    Reading("ARP of IEEE 802", changed(ETHER / ARP(), 14, b"\0\x06"), (0x0806, 0, 1, 0)),
    Reading("ARP of Firewire", changed(ETHER / ARP(), 14, b"\0\x18"), (0x0806, 0, 1, 0)),
    Reading("ARP with odd hlen", changed(ETHER / ARP(), 18, b"\x08"), (0x0806, 0, 0, 0)),
    Reading("ARP with odd plen", changed(ETHER / ARP(), 19, b"\x10"), (0x0806, 0, 0, 0)),
    Reading("ARP operation 257", bytes(ETHER / ARP(op=257)), (0x0806, 0, 0, 0)),
    Reading("short ARP", bytes(ETHER / ARP())[:-1], None),
    Reading(
        "source route",
        bytes(ETHER / IP(dst="10.0.0.2", options=b"\x83\x07\x04\x0a\x00\x00\x63\x00") / SSH),
        SSH_V4,
    ),
    Reading("most options", bytes(ETHER / IP(dst="10.0.0.2", options=b"\x01" * 40) / SSH), SSH_V4),
    Reading("padding", bytes(ETHER / V4 / SSH) + bytes(30), SSH_V4),
    Reading("header in the padding", bytes(ETHER / IP(len=39) / SSH), None),
    Reading("beyond the frame", bytes(ETHER / IP(len=41) / SSH), None),
    Reading("shorter than its header", bytes(ETHER / IP(len=19) / SSH), None),
    Reading("length zero", bytes(ETHER / IP(len=0) / SSH), None),
    Reading("IPv6 in IPv4", changed(ETHER / V4 / SSH, 14, b"\x65"), None),
    Reading("first fragment", bytes(ETHER / IP(flags="MF") / SSH), SSH_V4),
    Reading("tiny first fragment", bytes(ETHER / IP(flags="MF", proto=6) / Raw(b"x" * 16)), None),
    Reading("fragment in the header", bytes(ETHER / IP(frag=1, proto=6) / Raw(b"x" * 16)), None),
    Reading("fragment at 16", bytes(ETHER / IP(frag=2, proto=6) / Raw(b"x" * 16)), None),
    Reading(
        "fragment behind it", bytes(ETHER / IP(frag=3, proto=6) / Raw(b"x" * 16)), (0x0800, 0, 6, 0)
    ),
    Reading("TCP offset 4", bytes(ETHER / V4 / TCP(dataofs=4) / Raw(b"x" * 30)), None),
    Reading("TCP offset too long", bytes(ETHER / V4 / TCP(dataofs=15) / Raw(b"x" * 30)), None),
    Reading("TCP without flags", bytes(ETHER / V4 / TCP(dport=22, flags=0)), SSH_V4),
    Reading("UDP length 7", bytes(ETHER / V4 / UDP(len=7) / Raw(b"x" * 8)), None),
    Reading("UDP length 0", bytes(ETHER / V6 / UDP(len=0) / Raw(b"x" * 8)), None),
    Reading("UDP too long", bytes(ETHER / V4 / UDP(len=17) / Raw(b"x" * 8)), None),
    Reading(
        "UDP shorter",
        bytes(ETHER / V4 / UDP(dport=9, len=9) / Raw(b"x" * 8)),
        (0x0800, 0, 17, 9),
    ),
    Reading("IPv6", bytes(ETHER / V6 / SSH), SSH_V6),
    Reading("mapped source", bytes(ETHER / IPv6(src="::ffff:10.0.0.1") / SSH), None),
    Reading("mapped destination", bytes(ETHER / IPv6(dst="::ffff:10.0.0.1") / SSH), None),
    Reading("payload length zero", bytes(ETHER / IPv6(plen=0, nh=6) / SSH), None),
    Reading(
        "payload length zero, nothing follows",
        bytes(ETHER / IPv6(plen=0, nh=59)) + bytes(20),
        (0x86DD, 0, 59, 0),
    ),
    Reading("hop by hop", bytes(ETHER / V6 / IPv6ExtHdrHopByHop() / SSH), SSH_V6),
    Reading("routing", bytes(ETHER / V6 / IPv6ExtHdrRouting(addresses=["fd00::3"]) / SSH), SSH_V6),
    Reading(
        "options on both sides",
        bytes(ETHER / V6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / SSH),
        SSH_V6,
    ),
    Reading(
        "jumbogram",
        bytes(ETHER / IPv6(plen=0) / IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)]) / DNS),
        None,
    ),
    Reading(
        "options without a length", bytes(ETHER / IPv6(plen=0) / IPv6ExtHdrHopByHop() / DNS), None
    ),
    Reading("six headers", bytes(ETHER / IPv6(nh=60) / Raw(OPTIONS * 5 + LAST) / SSH), SSH_V6),
    Reading("seven headers", bytes(ETHER / IPv6(nh=60) / Raw(OPTIONS * 6 + LAST) / SSH), None),
    Reading("authentication", bytes(ETHER / V6 / AH() / Raw(bytes(SSH))), (0x86DD, 0, 51, 0)),
    Reading("encryption", bytes(ETHER / V6 / ESP(data=bytes(40))), (0x86DD, 0, 50, 0)),
    Reading("nothing follows", bytes(ETHER / IPv6(nh=59) / SSH), (0x86DD, 0, 59, 0)),
    Reading("unknown header", bytes(ETHER / IPv6(nh=253) / SSH), (0x86DD, 0, 253, 0)),
    Reading("atomic fragment", bytes(ETHER / V6 / IPv6ExtHdrFragment(m=0, offset=0) / SSH), SSH_V6),
    Reading("IPv6 first fragment", bytes(ETHER / V6 / IPv6ExtHdrFragment(m=1) / SSH), SSH_V6),
    Reading(
        "IPv6 tiny first fragment",
        bytes(ETHER / V6 / IPv6ExtHdrFragment(m=1, nh=6) / Raw(b"x" * 16)),
        None,
    ),
    Reading(
        "IPv6 fragment in the header",
        bytes(ETHER / V6 / IPv6ExtHdrFragment(offset=1, nh=6) / Raw(b"x" * 16)),
        None,
    ),
    Reading(
        "IPv6 fragment behind it",
        bytes(ETHER / V6 / IPv6ExtHdrFragment(offset=3, nh=6) / Raw(b"x" * 16)),
        (0x86DD, 0, 6, 0),
    ),
    Reading(
        "fragment of a fragment",
        bytes(ETHER / V6 / IPv6ExtHdrFragment(m=1) / IPv6ExtHdrFragment(m=1) / SSH),
        None,
    ),
    Reading(
        "first fragment without its header",
        bytes(ETHER / V6 / IPv6ExtHdrFragment(m=1, nh=60) / Raw(b"\x06\x00" + bytes(6))),
        None,
    ),
]


@pytest.mark.parametrize("reading", READINGS, ids=[reading.name for reading in READINGS])
def test_both_parsers_read_what_the_receiver_reads(probe: LoadedObject, reading: Reading) -> None:
    assert check(probe, reading.frame) is (reading.read is not None)
    if reading.read is not None:
        key = parse_frame(reading.frame).key
        assert (key.eth_type, key.vlan_tci, key.ip_proto, key.l4_dst) == reading.read


@pytest.mark.parametrize("reading", READINGS, ids=[reading.name for reading in READINGS])
def test_a_super_packet_is_read_alike(probe: LoadedObject, reading: Reading) -> None:
    check(probe, reading.frame, 500)


def test_what_leaves_is_without_priority_tags(probe: LoadedObject) -> None:
    for reading in READINGS:
        if reading.read is None:
            continue
        parsed = parse_frame(reading.frame)
        _, _, _, left, tag = kernel_parse(probe, reading.frame)
        if tag:
            left = left[:12] + struct.pack("!HH", 0x8100, tag & 0xFFFF) + left[12:]
        plain = parsed.frame
        if parsed.key.vlan_tci:
            plain = plain[:12] + b"\x81\x00" + plain[14:]
        assert left == plain, reading.name


def test_fragments_say_what_they_are(probe: LoadedObject) -> None:
    kinds = {
        reading.name: parse_frame(reading.frame).key.ip_frag for reading in READINGS if reading.read
    }
    assert kinds["atomic fragment"] == FragmentKind.NONE
    assert kinds["first fragment"] == kinds["IPv6 first fragment"] == FragmentKind.FIRST
    assert kinds["fragment behind it"] == kinds["IPv6 fragment behind it"] == FragmentKind.LATER
