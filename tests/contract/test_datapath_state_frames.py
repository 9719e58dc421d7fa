"""The contract of `Datapath`: state frames of other hosts reach the agent, others do not."""

from __future__ import annotations

import asyncio

import pytest

from midonet.agent.datapath.protocol import STATE_FRAME_BYTES, STATE_KEY, Upcall
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import TunnelOutput
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpVersion
from midonet.packets.overlay import decapsulate
from tests.contract.datapath_harness import DatapathHarness, Endpoints, eventually
from tests.contract.datapath_steps import (
    ETH,
    IN,
    UDP_V4,
    VXLAN_PORT,
    configure_overlay,
    expect_drops,
    outer_packet,
)

STATE = bytes(ETH)[:12] + b"\x88\xb5" + bytes(range(40))


class _Reader:
    """Reads upcalls meanwhile, and remembers what came in which order."""

    def __init__(self, harness: DatapathHarness) -> None:
        self._harness = harness
        self.seen: list[bytes | Upcall] = []

    async def __aenter__(self) -> _Reader:
        self._harness.datapath.receive_state(self.seen.append)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self.seen += await self._harness.datapath.upcalls()


def _state(endpoints: Endpoints, kind: TunnelKind, frame: bytes) -> bytes:
    return outer_packet(kind, endpoints, STATE_KEY, frame)


@pytest.mark.parametrize("kind", [TunnelKind.VXLAN, TunnelKind.GRE])
@pytest.mark.parametrize("version", list(IpVersion))
async def test_a_state_frame_reaches_the_agent(
    harness: DatapathHarness, kind: TunnelKind, version: IpVersion
) -> None:
    endpoints = configure_overlay(harness, version)
    async with _Reader(harness) as reader:
        for frame in (STATE, UDP_V4, STATE):
            harness.send_outer(_state(endpoints, kind, frame))
        await eventually(lambda: len(reader.seen) == 3)
    assert reader.seen == [STATE, UDP_V4, STATE]


async def test_state_comes_before_packets_that_came_later(harness: DatapathHarness) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    harness.send_outer(_state(endpoints, TunnelKind.VXLAN, STATE))
    # Sent without a reader: both wait, in whatever the datapath keeps them.
    harness.send(IN, UDP_V4)
    async with _Reader(harness) as reader:
        await eventually(lambda: len(reader.seen) == 2)
    first, second = reader.seen
    assert first == STATE
    assert isinstance(second, Upcall)
    assert second.frame == UDP_V4


async def test_an_agent_that_does_not_ask_gets_none(harness: DatapathHarness) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    harness.send_outer(_state(endpoints, TunnelKind.VXLAN, STATE))
    harness.send(IN, UDP_V4)
    (upcall,) = await harness.datapath.upcalls()
    assert upcall.frame == UDP_V4
    await expect_drops(harness, None, DropReason.UNKNOWN_TUNNEL_KEY)


async def test_state_of_strangers_and_of_any_length_is_refused(harness: DatapathHarness) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    stranger = Endpoints(endpoints.local, endpoints.stranger, endpoints.stranger)
    longest = STATE + bytes(STATE_FRAME_BYTES - len(STATE))
    async with _Reader(harness) as reader:
        harness.send_outer(_state(stranger, TunnelKind.VXLAN, STATE))
        harness.send_outer(_state(endpoints, TunnelKind.VXLAN, longest + b"\0"))
        harness.send_outer(_state(endpoints, TunnelKind.VXLAN, longest))
        await eventually(lambda: reader.seen)
    assert reader.seen == [longest]
    await expect_drops(harness, None, DropReason.UNKNOWN_PEER)
    await expect_drops(harness, None, DropReason.OVERLAY_MALFORMED)


async def test_state_is_sent_like_any_frame(harness: DatapathHarness) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    output = TunnelOutput(TunnelKind.VXLAN, endpoints.local, endpoints.peer, STATE_KEY)
    harness.datapath.emit(STATE, (output,))
    await eventually(harness.sent_outer)
    (outer,) = harness.sent_outer()
    opened = decapsulate(outer, VXLAN_PORT)
    assert (opened.tunnel_key, opened.inner) == (STATE_KEY, STATE)
