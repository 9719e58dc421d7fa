"""What a sender leaves to a device must not change what was judged.

A checksum is written, and segments are cut, behind the program: here by a port's interface without
offloads of its own, as a network card without them would have it done.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import UUID

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from midonet.agent.datapath.ebpf import AttachMode
from midonet.agent.datapath.ebpf.loader import OBJECT_PATH, OLDER_OBJECT_PATH, load_object
from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import FlowProgram, Guards, InstalledProgram, LocalOutput
from midonet.model.ids import PortId
from midonet.packets.frame import parse_frame
from tests.contract.datapath_harness import eventually
from tests.contract.ebpf_harness import HASH_SEED, EbpfHarness, ebpf_harness

IN, OUT = (PortId(UUID(int=number)) for number in (0xA1, 0xA2))
LINK = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
DATA = Raw(b"payload " * 20)
WEB = UDP(sport=4000, dport=80) / DATA
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 3, 4, 5
MASK = EMPTY_MASK._replace(eth_dst=EXACT_MASK.eth_dst)
END_MARK = bytes(LINK / IP(src="10.0.0.9", dst="10.0.0.2") / UDP(sport=9, dport=9) / Raw(b"end"))


def header(
    start: int, offset: int, *, gso: int = GSO_NONE, size: int = 0, length: int = 0, flags: int = 1
) -> bytes:
    """Return a virtio_net_hdr. start, offset: of the checksum. length: of all headers."""
    return struct.pack("=BBHHHH", flags, gso, length, size, start, offset)


class Case(NamedTuple):
    """A frame with what its sender asks for, and whether that fits."""

    name: str
    packet: Packet
    start: int
    offset: int
    fits: bool


CASES = [
    Case("UDP", LINK / V4 / WEB, 34, 6, True),
    Case("destination port", LINK / V4 / WEB, 34, 2, False),
    Case("source port", LINK / V4 / WEB, 34, 0, False),
    Case("summed from the address", LINK / V4 / WEB, 26, 14, False),
    Case("destination address", LINK / V4 / WEB, 26, 4, False),
    Case("protocol", LINK / V4 / WEB, 14, 9, False),
    Case("type", LINK / V4 / WEB, 10, 2, False),
    Case("link-layer address", LINK / V4 / WEB, 0, 0, False),
    Case("payload", LINK / V4 / WEB, 60, 10, True),
    Case("UDP as if TCP", LINK / V4 / WEB, 34, 16, False),
    Case("TCP", LINK / V4 / TCP() / DATA, 34, 16, True),
    Case("TCP flags", LINK / V4 / TCP() / DATA, 34, 12, False),
    Case("ICMP type", LINK / V4 / ICMP() / DATA, 34, 0, False),
    Case("ICMP", LINK / V4 / ICMP() / DATA, 34, 2, True),
    Case("SCTP tag", LINK / V4 / SCTP() / DATA, 34, 4, False),
    Case("IPv6 UDP", LINK / V6 / WEB, 54, 6, True),
    Case("IPv6 port", LINK / V6 / WEB, 54, 2, False),
    Case("IPv6 address", LINK / V6 / WEB, 38, 8, False),
    Case("ICMPv6", LINK / V6 / ICMPv6EchoRequest() / DATA, 54, 2, True),
    Case("behind options", LINK / V6 / IPv6ExtHdrDestOpt() / WEB, 62, 6, True),
    Case("in options", LINK / V6 / IPv6ExtHdrDestOpt() / WEB, 54, 0, False),
    Case("first fragment", LINK / IP(flags="MF") / WEB, 34, 6, False),
    Case("later fragment", LINK / IP(frag=50) / WEB, 34, 6, False),
    Case("ARP", LINK / ARP() / DATA, 28, 0, False),
    Case("protocol without ports", LINK / IP(proto=47) / DATA, 34, 20, True),
    Case("VLAN", LINK / Dot1Q(vlan=5) / V4 / WEB, 38, 6, True),
    Case("port in a VLAN", LINK / Dot1Q(vlan=5) / V4 / WEB, 38, 2, False),
    Case("VLAN id", LINK / Dot1Q(vlan=5) / Dot1Q(vlan=6) / V4 / WEB, 18, 0, False),
    Case("inside a VLAN", LINK / Dot1Q(vlan=5) / Dot1Q(vlan=6) / V4 / WEB, 42, 6, True),
]


@pytest.fixture(params=[AttachMode.TCX, AttachMode.CLSACT])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[EbpfHarness]:
    async with ebpf_harness(attach_mode=request.param) as opened:
        for port_id in (IN, OUT):
            opened.add_port(port_id)
        name = opened.interface_name(OUT)
        opened.host.run("ethtool", "-K", name, "tx", "off")
        everything(opened)
        yield opened


def everything(harness: EbpfHarness) -> None:
    """Let every frame to one address pass from IN to OUT."""
    key = parse_frame(END_MARK, hash_seed=HASH_SEED).key
    program = FlowProgram(IN, key, MASK, (LocalOutput(OUT),), guards=Guards(0, 9000), lifetime_s=30)
    harness.datapath.install([InstalledProgram(1, 1, MASK, masked(key, MASK), program)])


async def arrived(harness: EbpfHarness) -> list[bytes]:
    """Return what arrived before a last frame that always does."""
    before = len(harness.delivered(OUT))
    harness.send(IN, END_MARK)
    await eventually(lambda: END_MARK in harness.delivered(OUT)[before:])
    return [frame for frame in harness.delivered(OUT) if frame != END_MARK]


def mismatches(harness: EbpfHarness) -> int:
    return harness.datapath.drops().get((IN, DropReason.OFFLOAD_MISMATCH), 0)


async def test_checksums_are_written_where_the_header_has_one(harness: EbpfHarness) -> None:
    refused = []
    for case in CASES:
        frame = bytes(case.packet)
        before, counted = len(await arrived(harness)), mismatches(harness)
        try:
            harness.tap(IN).send_raw(header(case.start, case.offset), frame)
        except OSError:
            refused.append(case.name)  # by the sender's own kernel
            continue
        found = (await arrived(harness))[before:]
        assert mismatches(harness) - counted == int(not case.fits), case.name
        if not case.fits:
            assert found == [], case.name
            continue
        (received,) = found
        at = case.start + case.offset
        assert received[:at] + received[at + 2 :] == frame[:at] + frame[at + 2 :], case.name
        assert parse_frame(received).key == parse_frame(frame).key, case.name
    assert set(refused) <= {"protocol", "type", "link-layer address", "VLAN id"}


async def test_a_checksum_that_fits_is_completed(harness: EbpfHarness) -> None:
    for packet, place, at in ((LINK / V4 / WEB, 34, 40), (LINK / V6 / WEB, 54, 60)):
        whole = bytes(packet)
        layer = bytes(packet)[place:]
        addresses = whole[26:34] if place == 34 else whole[22:54]
        total = sum(struct.unpack(f"!{len(addresses) // 2}H", addresses)) + 17 + len(layer)
        partial = (total & 0xFFFF) + (total >> 16)
        partial = (partial & 0xFFFF) + (partial >> 16)
        before = len(await arrived(harness))
        frame = whole[:at] + partial.to_bytes(2, "big") + whole[at + 2 :]
        harness.tap(IN).send_raw(header(place, 6), frame)
        assert (await arrived(harness))[before:] == [whole]


class Segments(NamedTuple):
    """A super-packet with what its sender asks for, and whether that fits."""

    name: str
    packet: Packet
    gso: int
    start: int
    offset: int
    fits: bool


BULK = Raw(bytes(2500))
SEGMENTS = [
    Segments("TCP", LINK / V4 / TCP() / BULK, GSO_TCPV4, 34, 16, True),
    Segments("TCP over IPv6", LINK / V6 / TCP() / BULK, GSO_TCPV6, 54, 16, True),
    Segments("UDP", LINK / V4 / UDP(dport=80) / BULK, GSO_UDP_L4, 34, 6, True),
    Segments("UDP over IPv6", LINK / V6 / UDP(dport=80) / BULK, GSO_UDP_L4, 54, 6, True),
    Segments("TCP as UDP", LINK / V4 / TCP() / BULK, GSO_UDP_L4, 34, 16, False),
    Segments("TCP as UDP fragments", LINK / V4 / TCP() / BULK, GSO_UDP, 34, 16, False),
    Segments("UDP as TCP", LINK / V4 / UDP(dport=80) / BULK, GSO_TCPV4, 34, 6, False),
    Segments("IPv4 as IPv6", LINK / V4 / TCP() / BULK, GSO_TCPV6, 34, 16, False),
    Segments("IPv6 as IPv4", LINK / V6 / TCP() / BULK, GSO_TCPV4, 54, 16, False),
    Segments("ICMP", LINK / V4 / ICMP() / BULK, GSO_UDP_L4, 34, 2, False),
    Segments("a fragment", LINK / IP(flags="MF") / TCP() / BULK, GSO_TCPV4, 34, 16, False),
    Segments("a header in the header", LINK / V4 / TCP() / BULK, GSO_TCPV4, 38, 12, False),
]


async def test_segments_are_cut_as_the_header_says(harness: EbpfHarness) -> None:
    refused = []
    for case in SEGMENTS:
        frame = bytes(case.packet)
        before, counted = len(await arrived(harness)), mismatches(harness)
        offload = header(case.start, case.offset, gso=case.gso, size=1000, length=case.start + 20)
        try:
            harness.tap(IN).send_raw(offload, frame)
        except OSError:
            refused.append(case.name)  # by the sender's own kernel
            continue
        found = (await arrived(harness))[before:]
        if case.fits:
            assert mismatches(harness) == counted, case.name
            keys = {parse_frame(each).key for each in found}
            assert keys <= {parse_frame(frame).key}, case.name
        else:
            assert (found, mismatches(harness) - counted) == ([], 1), case.name
    assert not {case.name for case in SEGMENTS if case.fits}.intersection(refused)
    assert "a fragment" not in refused, "one that only the datapath refuses"


def test_an_older_kernel_gets_an_object_of_its_own() -> None:
    """It has all programs, and the kernel takes it."""
    names = []
    for path in (OLDER_OBJECT_PATH, OBJECT_PATH):
        loaded = load_object(path, entries={"upcalls": 1 << 16})
        names.append(sorted(loaded.programs))
        loaded.close()
    assert names[0] == names[1]
