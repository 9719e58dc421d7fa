"""The contract of `Datapath`: which program a packet gets, replacing programs, and guards."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from midonet.agent.datapath.protocol import UpcallReason
from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import Guards, LocalOutput
from midonet.errors import DatapathError
from tests.contract.datapath_harness import DatapathHarness, OpenHarness, eventually
from tests.contract.datapath_steps import (
    DATA,
    DST_MASK,
    ETH,
    IN,
    MAC_A,
    MAC_C,
    OUT,
    TCP_V6,
    THIRD,
    UDP_V4,
    V4,
    V6,
    expect_delivered,
    frame_key,
    program_for,
    rewritten,
    take_upcalls,
)

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


@pytest.mark.parametrize("network", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("flags", ["S", "SA", "FA", "R", "RA"])
async def test_a_segment_that_begins_or_ends_something_comes_up(
    harness: DatapathHarness, network: Packet, flags: str
) -> None:
    data = bytes(ETH / network / TCP(flags="PA") / DATA)
    watched = bytes(ETH / network / TCP(flags=flags) / DATA)
    guards = Guards(tcp_flags_clear=7)
    harness.datapath.install([program_for(harness, data, program_id=7, guards=guards)])
    harness.send(IN, watched)
    harness.send(IN, data)
    await expect_delivered(harness, OUT, data)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    assert (upcall.reason, upcall.program_id) == (UpcallReason.GUARD, 7)
    assert upcall.frame == watched


async def test_nothing_is_lost_of_a_super_packet_with_a_guarded_flag(
    harness: DatapathHarness,
) -> None:
    """What comes up comes up whole; a datapath that copies beginnings lets the segments in front
    of the last one by."""
    if not harness.sends_offloaded:
        pytest.skip("this harness sends no offloaded super-packets")
    data = bytes(ETH / V4 / TCP(sport=1, dport=2, flags="A") / Raw(b"x" * 1000))
    last = bytes(ETH / V4 / TCP(sport=1, dport=2, flags="FA") / Raw(b"x" * 4000))
    harness.datapath.install([program_for(harness, data, guards=Guards(tcp_flags_clear=7))])
    harness.send(IN, last, gso_size=1000)
    (upcall,) = await take_upcalls(harness.datapath, 1)
    assert (upcall.reason, upcall.length) == (UpcallReason.GUARD, len(upcall.frame))
    rest = len(last) - len(upcall.frame)
    await eventually(lambda: sum(map(len, harness.delivered(OUT))) >= rest)
    passed = [Ether(frame)[TCP] for frame in harness.delivered(OUT)]
    came_up = Ether(upcall.frame)[TCP]
    assert sum(len(one.payload) for one in (*passed, came_up)) == 4000
    assert not any(one.flags.F for one in passed)
    assert came_up.flags.F


async def test_a_guard_of_flags_is_for_tcp(harness: DatapathHarness) -> None:
    frame = bytes(ETH / V4 / UDP() / Raw(b"\xff" * 40))
    harness.datapath.install([program_for(harness, frame, guards=Guards(tcp_flags_clear=0xFF))])
    harness.send(IN, frame)
    await expect_delivered(harness, OUT, frame)


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
