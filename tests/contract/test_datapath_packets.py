"""The contract of `Datapath`: packets that the agent takes, puts back and sends."""

from __future__ import annotations

import asyncio

import pytest
from scapy.layers.inet import IP, UDP

from midonet.agent.datapath.protocol import Upcall, UpcallReason
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import Guards, LocalOutput, Rewrite, TunnelOutput
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpVersion
from midonet.packets.overlay import decapsulate
from tests.contract.datapath_harness import DEADLINE_S, DatapathHarness, eventually
from tests.contract.datapath_steps import (
    DATA,
    ETH,
    IN,
    OUT,
    TCP_V6,
    THIRD,
    UDP_V4,
    V4,
    VXLAN_PORT,
    configure_overlay,
    expect_delivered,
    expect_drops,
    program_for,
    take_upcalls,
)


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
    await expect_drops(harness, IN, DropReason.NOT_REINJECTED)
    harness.datapath.install([program_for(harness, UDP_V4, guards=Guards(ttl_above=200))])
    harness.datapath.reinject(upcall)
    await expect_drops(harness, IN, DropReason.NOT_REINJECTED, 2)
    harness.send(IN, TCP_V6)
    (next_upcall,) = await take_upcalls(harness.datapath, 1)
    assert next_upcall.frame == TCP_V6


async def test_a_cut_packet_is_not_reinjected(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    cut = Upcall(IN, UDP_V4, len(UDP_V4) + 1, UpcallReason.MISS)
    harness.datapath.reinject(cut)
    await expect_drops(harness, IN, DropReason.PACKET_CUT)
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
