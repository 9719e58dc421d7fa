"""The contract of `Datapath`, against every implementation.

Expected bytes are made by scapy, independently of the code under test.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from midonet.agent.datapath.protocol import (
    Datapath,
    OverlayConfig,
    PortAttachment,
    Upcall,
    UpcallReason,
)
from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import EMPTY_MASK, FlowMask
from midonet.agent.flows.program import (
    NO_GUARDS,
    FlowProgram,
    Guards,
    InstalledProgram,
    LocalOutput,
    Output,
    Rewrite,
    TunnelOutput,
)
from midonet.errors import DatapathError
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion, parse_ip
from midonet.packets.frame import parse_frame
from midonet.packets.overlay import (
    decapsulate,
    encapsulate_gre,
    encapsulate_vxlan,
    overlay_source_port,
)
from tests.contract.datapath_harness import (
    DEADLINE_S,
    HARNESSES,
    DatapathHarness,
    Endpoints,
    OpenHarness,
    eventually,
)

IN = PortId(UUID(int=0xA1))
OUT = PortId(UUID(int=0xA2))
THIRD = PortId(UUID(int=0xA3))
ABSENT = PortId(UUID(int=0xAF))

MAC_A, MAC_B, MAC_C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
DST_MASK = EMPTY_MASK._replace(eth_dst=EXACT_MASK.eth_dst)
VXLAN_PORT = 6677

ETH = Ether(src=MAC_A, dst=MAC_B)
V4 = IP(src="10.0.0.1", dst="10.0.0.2", ttl=64)
V6 = IPv6(src="fd00::1", dst="fd00::2", hlim=64)
DATA = Raw(b"data" * 10)
UDP_V4 = bytes(ETH / V4 / UDP(sport=1000, dport=2000) / DATA)
TCP_V6 = bytes(ETH / V6 / TCP(sport=1000, dport=2000, flags="S") / DATA)


@pytest.fixture(params=HARNESSES)
def open_harness(request: pytest.FixtureRequest) -> OpenHarness:
    """Return what opens a harness of the datapath under test."""
    opener: OpenHarness = request.param
    return opener


@pytest.fixture
async def harness(open_harness: OpenHarness) -> AsyncIterator[DatapathHarness]:
    """Open a harness with three ports."""
    async with open_harness(max_programs=1024) as opened:
        for port_id in (IN, OUT, THIRD):
            opened.add_port(port_id)
        yield opened


def frame_key(frame: bytes, harness: DatapathHarness) -> FlowMask:
    return parse_frame(frame, hash_seed=harness.hash_seed).key


def program_for(
    harness: DatapathHarness,
    frame: bytes,
    outputs: tuple[Output, ...] = (LocalOutput(OUT),),
    *,
    program_id: int = 1,
    mask_id: int = 1,
    mask: FlowMask = DST_MASK,
    ingress: PortId = IN,
    guards: Guards = NO_GUARDS,
    drop_reason: DropReason | None = None,
) -> InstalledProgram:
    """Return a program, placed, whose class `frame` belongs to."""
    key = frame_key(frame, harness)
    program = FlowProgram(ingress, key, mask, outputs, drop_reason=drop_reason, guards=guards)
    return InstalledProgram(program_id, mask_id, mask, masked(key, mask), program)


async def take_upcalls(datapath: Datapath, count: int) -> list[Upcall]:
    """Wait for exactly `count` upcalls."""
    taken: list[Upcall] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(taken) < count:
            taken += await datapath.upcalls(count - len(taken))
    return taken


async def expect_delivered(harness: DatapathHarness, port_id: PortId, *frames: bytes) -> None:
    """Wait until a port has delivered exactly `frames`."""
    await eventually(lambda: len(harness.delivered(port_id)) >= len(frames))
    assert harness.delivered(port_id) == list(frames)


async def expect_drops(
    harness: DatapathHarness, port_id: PortId | None, reason: DropReason, count: int = 1
) -> None:
    """Wait until the counter of (port, reason) is `count`."""
    await eventually(lambda: harness.datapath.drops().get((port_id, reason), 0) >= count)
    assert harness.datapath.drops()[port_id, reason] == count


def rewritten(packet: Packet) -> bytes:
    """Serialise a packet with its checksums and lengths computed anew."""
    fresh = Ether(bytes(packet))
    for layer in (IP, UDP, TCP, ICMP, ICMPv6EchoRequest):
        if layer in fresh:
            for name in ("chksum", "cksum"):
                if name in fresh[layer].fields:
                    del fresh[layer].fields[name]
    return bytes(fresh)


# Classification.


async def test_a_packet_without_a_program_comes_up(harness: DatapathHarness) -> None:
    harness.send(IN, UDP_V4)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    assert (upcall.ingress, upcall.frame, upcall.length) == (IN, UDP_V4, len(UDP_V4))
    assert (upcall.reason, upcall.program_id, upcall.gso_size) == (UpcallReason.MISS, 0, 0)
    assert upcall.flow_hash == frame_key(UDP_V4, harness).flow_hash
    assert upcall.received_ns > 0


async def test_an_installed_program_forwards_its_class(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.send(IN, UDP_V4)
    harness.send(IN, TCP_V6)
    await expect_delivered(harness, OUT, UDP_V4, TCP_V6)
    other = bytes(Ether(src=MAC_A, dst=MAC_C) / V4 / UDP() / DATA)
    harness.send(IN, other)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    assert upcall.frame == other


async def test_the_exact_mask_matches_one_key_only(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4, mask_id=0, mask=EXACT_MASK)])
    other = bytes(ETH / V4 / UDP(sport=1000, dport=2001) / DATA)
    harness.send(IN, UDP_V4)
    harness.send(IN, other)
    await expect_delivered(harness, OUT, UDP_V4)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    assert upcall.frame == other


@pytest.mark.parametrize(
    "frame",
    [
        UDP_V4,
        TCP_V6,
        bytes(ETH / Dot1Q(vlan=7, prio=3) / V4 / UDP() / DATA),
        bytes(ETH / ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2")),
        bytes(ETH / V4 / ICMP(type=8, id=5, seq=1) / DATA),
        bytes(ETH / V6 / ICMPv6EchoRequest(id=5) / DATA),
        bytes(ETH / IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB8, flags="MF") / UDP() / DATA),
        bytes(ETH / IP(src="10.0.0.1", dst="10.0.0.2", frag=9, proto=17) / DATA),
        bytes(ETH / IP(src="10.0.0.1", dst="10.0.0.2", proto=89) / DATA),
        bytes(Ether(src=MAC_A, dst="ff:ff:ff:ff:ff:ff", type=0x9000) / DATA),
    ],
    ids=["udp4", "tcp6", "vlan", "arp", "ping4", "ping6", "first", "later", "ospf", "other"],
)
async def test_every_kind_of_frame_has_the_key_of_the_parser(
    harness: DatapathHarness, frame: bytes
) -> None:
    """A program for the exact key of the Python parser must match in the datapath."""
    harness.datapath.install([program_for(harness, frame, mask_id=0, mask=EXACT_MASK)])
    harness.send(IN, frame)
    await expect_delivered(harness, OUT, frame)


async def test_a_program_under_a_superset_of_its_mask_matches_the_narrower_class(
    harness: DatapathHarness,
) -> None:
    superset = DST_MASK._replace(l4_dst=0xFFFF)
    wide = program_for(harness, UDP_V4)
    narrow = replace(wide, mask=superset, key=masked(wide.program.key, superset))
    harness.datapath.install([narrow])
    other = bytes(ETH / V4 / UDP(sport=1000, dport=2001) / DATA)
    harness.send(IN, UDP_V4)
    harness.send(IN, other)
    await expect_delivered(harness, OUT, UDP_V4)
    assert (await take_upcalls(harness.datapath, 1))[0].frame == other


async def test_all_slots_of_a_mask_list_are_searched(harness: DatapathHarness) -> None:
    frames = [bytes(ETH / V4 / UDP(sport=1, dport=1 << bit) / DATA) for bit in range(15)]
    frames += [bytes(ETH / V4 / UDP(sport=1 << bit, dport=0) / DATA) for bit in range(15)]
    frames.append(bytes(Ether(src=MAC_A, dst=MAC_C) / V4 / UDP(sport=0, dport=0) / DATA))
    masks = [EMPTY_MASK._replace(l4_dst=1 << bit) for bit in range(15)]
    masks += [EMPTY_MASK._replace(l4_src=1 << bit, l4_dst=0xFFFF) for bit in range(15)]
    masks.append(DST_MASK)
    harness.datapath.install(
        program_for(harness, frame, program_id=slot, mask_id=slot, mask=mask)
        for slot, (frame, mask) in enumerate(zip(frames, masks, strict=True), start=1)
    )
    for frame in frames:
        harness.send(IN, frame)
    await expect_delivered(harness, OUT, *frames)


async def test_the_flow_hash_can_be_matched_bit_by_bit(harness: DatapathHarness) -> None:
    mask = DST_MASK._replace(flow_hash=1)
    frames = [bytes(ETH / V4 / UDP(sport=port, dport=53) / DATA) for port in range(1000, 1016)]
    even = [f for f in frames if not frame_key(f, harness).flow_hash & 1]
    odd = [f for f in frames if frame_key(f, harness).flow_hash & 1]
    assert even
    assert odd
    harness.datapath.install(
        [
            program_for(harness, even[0], mask=mask),
            program_for(harness, odd[0], (LocalOutput(THIRD),), program_id=2, mask=mask),
        ]
    )
    for frame in frames:
        harness.send(IN, frame)
    await expect_delivered(harness, OUT, *even)
    await expect_delivered(harness, THIRD, *odd)


async def test_two_ports_have_separate_programs_for_one_key(harness: DatapathHarness) -> None:
    harness.datapath.install(
        [
            program_for(harness, UDP_V4),
            program_for(harness, UDP_V4, (LocalOutput(IN),), program_id=2, ingress=THIRD),
        ]
    )
    harness.send(THIRD, UDP_V4)
    await expect_delivered(harness, IN, UDP_V4)
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, OUT, UDP_V4)
    assert {i: s.packets for i, s in harness.datapath.statistics().items()} == {1: 1, 2: 1}


# Replacing and removing.


async def test_replacing_a_program_keeps_its_counters(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, OUT, UDP_V4)
    harness.datapath.install([program_for(harness, UDP_V4, (LocalOutput(THIRD),))])
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, THIRD, UDP_V4)
    assert harness.delivered(OUT) == [UDP_V4]
    statistics = harness.datapath.statistics()[1]
    assert (statistics.packets, statistics.bytes) == (2, 2 * len(UDP_V4))


async def test_a_removed_program_forwards_no_more(harness: DatapathHarness) -> None:
    entry = program_for(harness, UDP_V4)
    harness.datapath.install([entry])
    harness.datapath.remove([entry])
    harness.datapath.drop_mask(IN, 1)
    harness.datapath.remove([entry])
    harness.send(IN, UDP_V4)
    assert (await take_upcalls(harness.datapath, 1))[0].reason is UpcallReason.MISS
    assert harness.delivered(OUT) == []
    assert 1 not in harness.datapath.statistics()


async def test_an_id_used_again_starts_with_fresh_counters(harness: DatapathHarness) -> None:
    entry = program_for(harness, UDP_V4)
    harness.datapath.install([entry])
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, OUT, UDP_V4)
    harness.datapath.remove([entry])
    mask = DST_MASK._replace(eth_type=0xFFFF)
    harness.datapath.install([program_for(harness, TCP_V6, mask=mask, mask_id=2)])
    harness.send(IN, TCP_V6)
    await expect_delivered(harness, OUT, UDP_V4, TCP_V6)
    assert harness.datapath.statistics()[1].packets == 1


async def test_a_mask_slot_can_hold_another_mask_after_it_was_dropped(
    harness: DatapathHarness,
) -> None:
    first = program_for(harness, UDP_V4)
    harness.datapath.install([first])
    harness.datapath.remove([first])
    harness.datapath.drop_mask(IN, 1)
    mask = EMPTY_MASK._replace(l4_dst=0xFFFF)
    harness.datapath.install([program_for(harness, UDP_V4, program_id=2, mask=mask)])
    other_mac = bytes(Ether(src=MAC_A, dst=MAC_C) / V4 / UDP(sport=1, dport=2000) / DATA)
    harness.send(IN, other_mac)
    await expect_delivered(harness, OUT, other_mac)


async def test_what_is_installed_can_be_read_back(harness: DatapathHarness) -> None:
    entries = [
        program_for(harness, UDP_V4, mask_id=0, mask=EXACT_MASK),
        program_for(harness, UDP_V4, program_id=2),
    ]
    harness.datapath.install(entries)
    held = {e.program_id: (e.mask_id, e.mask, e.key) for e in harness.datapath.installed()}
    assert held == {e.program_id: (e.mask_id, e.mask, e.key) for e in entries}


async def test_a_full_class_table_refuses_and_keeps_what_went_before(
    open_harness: OpenHarness,
) -> None:
    async with open_harness(max_programs=4) as harness:
        harness.add_port(IN)
        harness.add_port(OUT)
        frames = [bytes(ETH / V4 / UDP(sport=1, dport=port) / DATA) for port in range(5)]
        mask = EMPTY_MASK._replace(l4_dst=0xFFFF)
        entries = [
            program_for(harness, frame, program_id=i, mask=mask)
            for i, frame in enumerate(frames, start=1)
        ]
        with pytest.raises(DatapathError) as caught:
            harness.datapath.install(entries)
        assert caught.value.errno == errno.ENOSPC
        harness.datapath.install(entries[:4])
        for frame in frames[:4]:
            harness.send(IN, frame)
        await expect_delivered(harness, OUT, *frames[:4])
        harness.datapath.remove(entries[:1])
        harness.datapath.install([replace(entries[4], program_id=1)])
        harness.send(IN, frames[4])
        await expect_delivered(harness, OUT, *frames)


# Guards.


@pytest.mark.parametrize("network", [V4, V6], ids=["v4", "v6"])
async def test_a_ttl_that_is_too_low_comes_up(harness: DatapathHarness, network: Packet) -> None:
    good = bytes(ETH / network / UDP() / DATA)
    low = Ether(good)
    low[type(network)].setfieldval("ttl" if network is V4 else "hlim", 2)
    guards = Guards(ttl_above=2)
    harness.datapath.install([program_for(harness, good, program_id=7, guards=guards)])
    harness.send(IN, good)
    harness.send(IN, rewritten(low))
    await expect_delivered(harness, OUT, good)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    assert (upcall.reason, upcall.program_id) == (UpcallReason.GUARD, 7)
    assert upcall.frame == rewritten(low)
    assert harness.datapath.statistics()[7].packets == 1


@pytest.mark.parametrize("network", [V4, V6], ids=["v4", "v6"])
async def test_a_packet_that_is_too_long_comes_up(
    harness: DatapathHarness, network: Packet
) -> None:
    fits = bytes(ETH / network / UDP() / Raw(b"x" * 100))
    long = bytes(ETH / network / UDP() / Raw(b"x" * 101))
    guards = Guards(max_length=len(fits) - 14)
    harness.datapath.install([program_for(harness, fits, guards=guards)])
    harness.send(IN, fits)
    harness.send(IN, long)
    await expect_delivered(harness, OUT, fits)
    assert (await take_upcalls(harness.datapath, 1))[0].reason is UpcallReason.GUARD


async def test_padding_is_not_part_of_the_guarded_length(harness: DatapathHarness) -> None:
    short = bytes(ETH / V4 / UDP() / Raw(b"x"))
    padded = short.ljust(60, b"\0")
    guards = Guards(max_length=len(short) - 14)
    harness.datapath.install([program_for(harness, short, guards=guards)])
    harness.send(IN, padded)
    await expect_delivered(harness, OUT, padded)


async def test_guards_do_not_apply_to_frames_that_are_not_ip(harness: DatapathHarness) -> None:
    frame = bytes(ETH / ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"))
    guards = Guards(ttl_above=255, max_length=1)
    harness.datapath.install([program_for(harness, frame, guards=guards)])
    harness.send(IN, frame)
    await expect_delivered(harness, OUT, frame)


async def test_the_length_of_a_super_packet_is_that_of_one_segment(
    harness: DatapathHarness,
) -> None:
    if not harness.sends_offloaded:
        pytest.skip("this harness sends no offloaded super-packets")
    frame = bytes(ETH / V4 / TCP(sport=1, dport=2, flags="A") / Raw(b"x" * 4000))
    harness.datapath.install([program_for(harness, frame, guards=Guards(max_length=1500))])
    harness.send(IN, frame, gso_size=1460)
    await eventually(lambda: harness.datapath.statistics().get(1))
    harness.send(IN, frame, gso_size=1461)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    assert (upcall.reason, upcall.gso_size) == (UpcallReason.GUARD, 1461)
    assert upcall.length == len(frame)


# Rewrites and outputs.


REWRITE_V4 = Rewrite(
    eth_dst=0x02000000000C,
    eth_src=0x02000000000D,
    ip_src=parse_ip("192.0.2.9").value,
    ip_dst=parse_ip("198.51.100.7").value,
    ip_tos=0x28,
    l4_src=4444,
    l4_dst=8080,
    ttl_decrement=2,
)
REWRITE_V6 = replace(
    REWRITE_V4, ip_src=parse_ip("2001:db8::9").value, ip_dst=parse_ip("2001:db8:1::7").value
)
NEW_ETH = Ether(src="02:00:00:00:00:0d", dst=MAC_C)
NEW_V4 = IP(src="192.0.2.9", dst="198.51.100.7", tos=0x28, ttl=62)
NEW_V6 = IPv6(src="2001:db8::9", dst="2001:db8:1::7", tc=0x28, hlim=62)


@pytest.mark.parametrize(
    ("before", "rewrite", "after"),
    [
        (
            ETH / V4 / UDP(sport=1, dport=2) / DATA,
            REWRITE_V4,
            NEW_ETH / NEW_V4 / UDP(sport=4444, dport=8080) / DATA,
        ),
        (
            ETH / V4 / TCP(sport=1, dport=2, flags="PA", seq=7) / DATA,
            REWRITE_V4,
            NEW_ETH / NEW_V4 / TCP(sport=4444, dport=8080, flags="PA", seq=7) / DATA,
        ),
        (
            ETH / V6 / UDP(sport=1, dport=2) / DATA,
            REWRITE_V6,
            NEW_ETH / NEW_V6 / UDP(sport=4444, dport=8080) / DATA,
        ),
        (
            ETH / V6 / TCP(sport=1, dport=2, flags="PA", seq=7) / DATA,
            REWRITE_V6,
            NEW_ETH / NEW_V6 / TCP(sport=4444, dport=8080, flags="PA", seq=7) / DATA,
        ),
        (
            ETH / V4 / ICMP(type=8, id=5, seq=1) / DATA,
            Rewrite(ip_dst=REWRITE_V4.ip_dst, ttl_decrement=1),
            ETH / IP(src="10.0.0.1", dst="198.51.100.7", ttl=63) / ICMP(type=8, id=5, seq=1) / DATA,
        ),
        (
            ETH / V6 / ICMPv6EchoRequest(id=5, seq=1) / DATA,
            Rewrite(ip_dst=REWRITE_V6.ip_dst, ttl_decrement=1),
            ETH
            / IPv6(src="fd00::1", dst="2001:db8:1::7", hlim=63)
            / ICMPv6EchoRequest(id=5, seq=1)
            / DATA,
        ),
    ],
    ids=["udp4", "tcp4", "udp6", "tcp6", "ping4", "ping6"],
)
async def test_a_rewrite_changes_fields_and_checksums(
    harness: DatapathHarness, before: Packet, rewrite: Rewrite, after: Packet
) -> None:
    frame = bytes(before)
    harness.datapath.install([program_for(harness, frame, (LocalOutput(OUT, rewrite),))])
    harness.send(IN, frame)
    await expect_delivered(harness, OUT, bytes(after))


async def test_a_udp_packet_without_checksum_keeps_none(harness: DatapathHarness) -> None:
    frame = bytes(ETH / V4 / UDP(sport=1, dport=2, chksum=0) / DATA)
    after = bytes(NEW_ETH / NEW_V4 / UDP(sport=4444, dport=8080, chksum=0) / DATA)
    harness.datapath.install([program_for(harness, frame, (LocalOutput(OUT, REWRITE_V4),))])
    harness.send(IN, frame)
    await expect_delivered(harness, OUT, after)


TAGGED = ETH / Dot1Q(vlan=7, prio=3) / V4 / UDP() / DATA
UNTAGGED = ETH / V4 / UDP() / DATA


@pytest.mark.parametrize(
    ("before", "rewrite", "after"),
    [
        (UNTAGGED, Rewrite(push_vlan=100), ETH / Dot1Q(vlan=100) / V4 / UDP() / DATA),
        (TAGGED, Rewrite(pop_vlan=True), UNTAGGED),
        (
            TAGGED,
            Rewrite(pop_vlan=True, push_vlan=5 << 13 | 9),
            ETH / Dot1Q(vlan=9, prio=5) / V4 / UDP() / DATA,
        ),
        (
            TAGGED,
            Rewrite(eth_src=0x02000000000D, ttl_decrement=1),
            Ether(src="02:00:00:00:00:0d", dst=MAC_B)
            / Dot1Q(vlan=7, prio=3)
            / IP(src="10.0.0.1", dst="10.0.0.2", ttl=63)
            / UDP()
            / DATA,
        ),
    ],
    ids=["push", "pop", "swap", "rewrite-behind-tag"],
)
async def test_vlan_tags_are_popped_and_pushed(
    harness: DatapathHarness, before: Packet, rewrite: Rewrite, after: Packet
) -> None:
    frame = bytes(before)
    harness.datapath.install([program_for(harness, frame, (LocalOutput(OUT, rewrite),))])
    harness.send(IN, frame)
    await expect_delivered(harness, OUT, bytes(after))


async def test_a_flood_gives_each_output_its_own_rewrite(harness: DatapathHarness) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    outputs = (
        LocalOutput(OUT, Rewrite(push_vlan=100, ttl_decrement=1)),
        TunnelOutput(
            TunnelKind.VXLAN, endpoints.local, endpoints.peer, 0x77, Rewrite(eth_src=0x02000000000D)
        ),
        LocalOutput(THIRD),
    )
    frame = bytes(UNTAGGED)
    harness.datapath.install([program_for(harness, frame, outputs)])
    harness.send(IN, frame)
    lower = IP(src="10.0.0.1", dst="10.0.0.2", ttl=63)
    await expect_delivered(harness, OUT, bytes(ETH / Dot1Q(vlan=100) / lower / UDP() / DATA))
    await expect_delivered(harness, THIRD, frame)
    await eventually(harness.sent_outer)
    (outer,) = harness.sent_outer()
    new_source = Ether(src="02:00:00:00:00:0d", dst=MAC_B)
    assert decapsulate(outer, VXLAN_PORT).inner == bytes(new_source / V4 / UDP() / DATA)
    assert harness.datapath.statistics()[1].packets == 1


async def test_a_packet_may_leave_by_the_port_it_came_in(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4, (LocalOutput(IN),))])
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, IN, UDP_V4)


async def test_one_failing_output_does_not_stop_the_others(harness: DatapathHarness) -> None:
    outputs = (LocalOutput(ABSENT), LocalOutput(OUT))
    harness.datapath.install([program_for(harness, UDP_V4, outputs)])
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, OUT, UDP_V4)
    await expect_drops(harness, IN, DropReason.PORT_NOT_ATTACHED)


# Drops.


async def test_a_drop_program_counts_its_reason(harness: DatapathHarness) -> None:
    entry = program_for(harness, UDP_V4, (), drop_reason=DropReason.FILTERED)
    harness.datapath.install([entry])
    harness.send(IN, UDP_V4)
    harness.send(IN, UDP_V4)
    await expect_drops(harness, IN, DropReason.FILTERED, 2)
    statistics = harness.datapath.statistics()[1]
    assert (statistics.packets, statistics.bytes) == (2, 2 * len(UDP_V4))
    assert statistics.last_used_ns > 0


async def test_a_malformed_frame_is_dropped(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.send(IN, UDP_V4[:30])
    await expect_drops(harness, IN, DropReason.MALFORMED)
    assert harness.delivered(OUT) == []


async def test_the_agent_can_count_drops_of_its_own(harness: DatapathHarness) -> None:
    harness.datapath.count_drop(IN, DropReason.AWAIT_TIMEOUT)
    harness.datapath.count_drop(IN, DropReason.AWAIT_TIMEOUT)
    harness.datapath.count_drop(None, DropReason.INTERNAL)
    drops = harness.datapath.drops()
    assert drops[IN, DropReason.AWAIT_TIMEOUT] == 2
    assert drops[None, DropReason.INTERNAL] == 1


async def test_upcalls_over_the_budget_of_a_port_are_dropped(open_harness: OpenHarness) -> None:
    async with open_harness(max_programs=16) as harness:
        harness.add_port(IN, upcalls_per_second=1, upcall_burst=3)
        harness.add_port(OUT)
        for _ in range(20):
            harness.send(IN, UDP_V4)
        harness.send(OUT, UDP_V4)
        counted = (IN, DropReason.UPCALL_RATE)
        # A slow machine may gain a token or two on the way.
        await eventually(lambda: harness.datapath.drops().get(counted, 0) >= 14)
        came_up = 20 - harness.datapath.drops()[counted]
        assert 3 <= came_up <= 6
        upcalls = await take_upcalls(harness.datapath, came_up + 1)
        assert [u.ingress for u in upcalls].count(OUT) == 1


async def test_no_frame_breaks_the_datapath(open_harness: OpenHarness) -> None:
    """Every frame comes up, is forwarded or is counted as dropped, whatever its bytes."""
    random = Random(1)
    async with open_harness(max_programs=16) as harness:
        harness.add_port(IN, upcalls_per_second=100_000, upcall_burst=10_000)
        harness.add_port(OUT)
        seeds = [UDP_V4, TCP_V6, bytes(TAGGED), bytes(ETH / ARP(psrc="10.0.0.1"))]
        frames = []
        for _ in range(300):
            fuzzed = bytearray(random.choice(seeds))
            for _ in range(random.randrange(4)):
                fuzzed[random.randrange(6, len(fuzzed))] = random.randrange(256)
            # Linux itself drops a tagged frame of less than 20 bytes before any hook.
            frames.append(bytes(fuzzed[: random.randrange(20, len(fuzzed) + 1)]))
        last = bytes(ETH / V4 / UDP(sport=7, dport=7))
        for frame in (*frames, last):
            harness.send(IN, frame)
        taken: list[Upcall] = []
        while not taken or taken[-1].frame != last:
            taken += await take_upcalls(harness.datapath, 1)
        malformed = harness.datapath.drops().get((IN, DropReason.MALFORMED), 0)
        assert len(taken) + malformed == len(frames) + 1
        harness.datapath.install([program_for(harness, UDP_V4)])
        harness.send(IN, UDP_V4)
        await expect_delivered(harness, OUT, UDP_V4)


# Overlay.


def configure_overlay(harness: DatapathHarness, version: IpVersion) -> Endpoints:
    """Accept the peer of this version. Returns the addresses in use."""
    endpoints = harness.endpoints(version)
    harness.datapath.configure_overlay(
        OverlayConfig(
            local_addresses=frozenset((endpoints.local,)),
            peers=frozenset((endpoints.peer,)),
            interface_names=harness.underlay_interfaces,
            vxlan_port=VXLAN_PORT,
        )
    )
    return endpoints


def outer_packet(
    kind: TunnelKind, endpoints: Endpoints, key: int, inner: bytes, *, stranger: bool = False
) -> bytes:
    """Return an overlay packet from the peer (or a stranger) to this host."""
    source = endpoints.stranger if stranger else endpoints.peer
    local = endpoints.local
    if kind is TunnelKind.GRE:
        return encapsulate_gre(inner, key=key, local=source, remote=local)
    return encapsulate_vxlan(
        inner, key=key, local=source, remote=local, source_port=50000, udp_port=VXLAN_PORT
    )


both_kinds = pytest.mark.parametrize("kind", [TunnelKind.VXLAN, TunnelKind.GRE])
both_versions = pytest.mark.parametrize("version", list(IpVersion))


@both_kinds
@both_versions
async def test_a_tunnel_output_encapsulates(
    harness: DatapathHarness, kind: TunnelKind, version: IpVersion
) -> None:
    endpoints = configure_overlay(harness, version)
    output = TunnelOutput(kind, endpoints.local, endpoints.peer, 0xABCDEF)
    harness.datapath.install([program_for(harness, UDP_V4, (output,))])
    harness.send(IN, UDP_V4)
    await eventually(harness.sent_outer)
    (outer,) = harness.sent_outer()
    opened = decapsulate(outer, VXLAN_PORT)
    assert opened == (endpoints.local, endpoints.peer, 0xABCDEF, UDP_V4)
    header = IP(outer) if version is IpVersion.V4 else IPv6(outer)
    if version is IpVersion.V4:
        assert header.flags == "DF"
        assert bytes(header)[10:12] == rewritten(Ether() / header)[24:26]
    if kind is TunnelKind.VXLAN:
        flow_hash = frame_key(UDP_V4, harness).flow_hash
        assert header[UDP].sport == overlay_source_port(flow_hash)


@both_kinds
@both_versions
async def test_an_overlay_packet_is_delivered_by_its_key(
    harness: DatapathHarness, kind: TunnelKind, version: IpVersion
) -> None:
    endpoints = configure_overlay(harness, version)
    harness.datapath.set_delivery(0x12345, (OUT,))
    harness.datapath.set_delivery(0x12346, (OUT, THIRD))
    assert dict(harness.datapath.deliveries()) == {0x12345: (OUT,), 0x12346: (OUT, THIRD)}
    harness.send_outer(outer_packet(kind, endpoints, 0x12345, UDP_V4))
    await expect_delivered(harness, OUT, UDP_V4)
    harness.send_outer(outer_packet(kind, endpoints, 0x12346, TCP_V6))
    await expect_delivered(harness, OUT, UDP_V4, TCP_V6)
    await expect_delivered(harness, THIRD, TCP_V6)


@both_kinds
async def test_an_overlay_packet_with_an_unknown_key_is_dropped(
    harness: DatapathHarness, kind: TunnelKind
) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    harness.datapath.set_delivery(5, (OUT,))
    harness.datapath.set_delivery(5, ())
    assert dict(harness.datapath.deliveries()) == {}
    harness.send_outer(outer_packet(kind, endpoints, 5, UDP_V4))
    await expect_drops(harness, None, DropReason.UNKNOWN_TUNNEL_KEY)
    assert harness.delivered(OUT) == []


@both_kinds
@both_versions
async def test_an_overlay_packet_from_a_stranger_is_dropped(
    harness: DatapathHarness, kind: TunnelKind, version: IpVersion
) -> None:
    endpoints = configure_overlay(harness, version)
    harness.datapath.set_delivery(5, (OUT,))
    harness.send_outer(outer_packet(kind, endpoints, 5, UDP_V4, stranger=True))
    await expect_drops(harness, None, DropReason.UNKNOWN_PEER)
    assert harness.delivered(OUT) == []


async def test_a_peer_that_was_taken_off_the_list_is_a_stranger(harness: DatapathHarness) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    harness.datapath.set_delivery(5, (OUT,))
    packet = outer_packet(TunnelKind.VXLAN, endpoints, 5, UDP_V4)
    harness.send_outer(packet)
    await expect_delivered(harness, OUT, UDP_V4)
    harness.datapath.configure_overlay(
        OverlayConfig(
            local_addresses=frozenset((endpoints.local,)),
            interface_names=harness.underlay_interfaces,
        )
    )
    harness.send_outer(packet)
    await expect_drops(harness, None, DropReason.UNKNOWN_PEER)


@both_kinds
async def test_a_malformed_overlay_packet_is_dropped(
    harness: DatapathHarness, kind: TunnelKind
) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    harness.datapath.set_delivery(5, (OUT,))
    damaged = bytearray(outer_packet(kind, endpoints, 5, UDP_V4))
    damaged[28 if kind is TunnelKind.VXLAN else 20] = 0  # no VNI, or no key
    harness.send_outer(bytes(damaged))
    await expect_drops(harness, None, DropReason.OVERLAY_MALFORMED)
    assert harness.delivered(OUT) == []


async def test_an_overlay_packet_for_a_port_that_is_gone_is_dropped(
    harness: DatapathHarness,
) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    harness.datapath.set_delivery(5, (OUT, THIRD))
    harness.datapath.detach(OUT)
    harness.send_outer(outer_packet(TunnelKind.VXLAN, endpoints, 5, UDP_V4))
    await expect_delivered(harness, THIRD, UDP_V4)
    await expect_drops(harness, None, DropReason.PORT_NOT_ATTACHED)


# Ports.


async def test_attached_ports_can_be_read_back(harness: DatapathHarness) -> None:
    assert set(harness.datapath.attached()) == {IN, OUT, THIRD}


async def test_attaching_again_changes_nothing(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    before = dict(harness.datapath.attached())
    harness.datapath.attach(PortAttachment(IN, before[IN]))
    assert dict(harness.datapath.attached()) == before
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, OUT, UDP_V4)


async def test_an_interface_belongs_to_one_port(harness: DatapathHarness) -> None:
    taken = harness.datapath.attached()[IN]
    with pytest.raises(DatapathError):
        harness.datapath.attach(PortAttachment(ABSENT, taken))
    assert ABSENT not in harness.datapath.attached()


async def test_a_detached_port_forgets_its_programs(harness: DatapathHarness) -> None:
    interface = harness.datapath.attached()[IN]
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.datapath.detach(IN)
    harness.datapath.detach(IN)
    harness.datapath.detach(ABSENT)
    assert IN not in harness.datapath.attached()
    assert list(harness.datapath.installed()) == []
    harness.datapath.attach(PortAttachment(IN, interface))
    harness.send(IN, UDP_V4)
    assert (await take_upcalls(harness.datapath, 1))[0].reason is UpcallReason.MISS
    assert harness.delivered(OUT) == []


async def test_a_program_to_a_detached_port_drops(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.datapath.detach(OUT)
    harness.send(IN, UDP_V4)
    await expect_drops(harness, IN, DropReason.PORT_NOT_ATTACHED)


# Packets from the agent.


async def test_a_reinjected_packet_follows_the_new_program(harness: DatapathHarness) -> None:
    harness.send(IN, UDP_V4)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.datapath.reinject(upcall)
    await expect_delivered(harness, OUT, UDP_V4)
    await eventually(lambda: harness.datapath.statistics()[1].packets == 1)


async def test_a_reinjected_packet_never_comes_up_again(harness: DatapathHarness) -> None:
    harness.send(IN, UDP_V4)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    harness.datapath.reinject(upcall)
    await expect_drops(harness, IN, DropReason.INTERNAL)
    harness.datapath.install([program_for(harness, UDP_V4, guards=Guards(ttl_above=200))])
    harness.datapath.reinject(upcall)
    await expect_drops(harness, IN, DropReason.INTERNAL, 2)
    harness.send(IN, TCP_V6)
    (next_upcall,) = await take_upcalls(harness.datapath, 1)
    assert next_upcall.frame == TCP_V6


async def test_a_cut_packet_is_not_reinjected(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    cut = Upcall(IN, UDP_V4, len(UDP_V4) + 1, UpcallReason.MISS)
    harness.datapath.reinject(cut)
    await expect_drops(harness, IN, DropReason.INTERNAL)
    assert harness.delivered(OUT) == []


async def test_an_emitted_frame_leaves_by_its_outputs(harness: DatapathHarness) -> None:
    endpoints = configure_overlay(harness, IpVersion.V6)
    harness.datapath.emit(
        UDP_V4,
        [
            LocalOutput(OUT),
            LocalOutput(THIRD, Rewrite(ttl_decrement=1)),
            TunnelOutput(TunnelKind.GRE, endpoints.local, endpoints.peer, 9),
        ],
    )
    await expect_delivered(harness, OUT, UDP_V4)
    lower = IP(src="10.0.0.1", dst="10.0.0.2", ttl=63)
    await expect_delivered(harness, THIRD, bytes(ETH / lower / UDP(sport=1000, dport=2000) / DATA))
    await eventually(harness.sent_outer)
    assert decapsulate(harness.sent_outer()[0], VXLAN_PORT).inner == UDP_V4
    assert dict(harness.datapath.statistics()) == {}


async def test_waiting_for_upcalls_can_be_cancelled(harness: DatapathHarness) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await harness.datapath.upcalls()
    harness.send(IN, UDP_V4)
    assert len(await take_upcalls(harness.datapath, 1)) == 1


async def test_upcalls_come_in_batches_up_to_the_limit(harness: DatapathHarness) -> None:
    frames = [bytes(ETH / V4 / UDP(sport=1, dport=port) / DATA) for port in range(10)]
    for frame in frames:
        harness.send(IN, frame)
    taken: list[Upcall] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(taken) < len(frames):
            batch = await harness.datapath.upcalls(4)
            assert 1 <= len(batch) <= 4
            taken += batch
    assert [upcall.frame for upcall in taken] == frames


async def test_uninstalling_twice_is_harmless(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    await harness.datapath.uninstall()
    await harness.datapath.uninstall()
    assert dict(harness.datapath.attached()) == {}
    assert list(harness.datapath.installed()) == []
