"""The contract of `Datapath`: rewrites and outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LocalOutput, Rewrite, TunnelOutput
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpVersion, parse_ip
from midonet.packets.overlay import decapsulate
from tests.contract.datapath_harness import DatapathHarness, eventually
from tests.contract.datapath_steps import (
    ABSENT,
    DATA,
    ETH,
    IN,
    MAC_B,
    MAC_C,
    OUT,
    TAGGED,
    THIRD,
    UDP_V4,
    UNTAGGED,
    V4,
    V6,
    VXLAN_PORT,
    configure_overlay,
    expect_delivered,
    expect_drops,
    program_for,
)

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
