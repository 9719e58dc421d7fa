"""A datapath of another ABI version goes on serving until the agent has judged its traffic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from midonet.agent.datapath.ebpf import AttachMode, EbpfDatapath, abi, kernel_datapath
from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment, UpcallReason
from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import (
    FlowProgram,
    InstalledProgram,
    LocalOutput,
    Output,
    TunnelOutput,
)
from midonet.agent.underlay.clsact import Clsact
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.frame import parse_frame
from midonet.packets.overlay import encapsulate_vxlan
from tests.contract.datapath_harness import eventually
from tests.contract.ebpf_harness import HASH_SEED, EbpfHarness, ebpf_harness

IN, OUT = PortId(UUID(int=0xA1)), PortId(UUID(int=0xA2))
FRAME = bytes(
    Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
    / IP(src="10.0.0.1", dst="10.0.0.2")
    / UDP(sport=1, dport=2)
    / Raw(b"data" * 10)
)
MASK = EMPTY_MASK._replace(eth_dst=EXACT_MASK.eth_dst)
KEY = 77


def entry(*outputs: Output, reason: DropReason | None = None) -> InstalledProgram:
    key = parse_frame(FRAME, hash_seed=HASH_SEED).key
    program = FlowProgram(IN, key, MASK, outputs, reason, lifetime_s=30.0)
    return InstalledProgram(1, 1, MASK, masked(key, MASK), program)


class Host:
    """One host through versions of its datapath. Made with the present version in use."""

    def __init__(
        self, harness: EbpfHarness, mode: AttachMode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.harness = harness
        self.datapath = harness.datapath
        self._mode = mode
        self.filters = Clsact()
        self._monkeypatch = monkeypatch
        self._number = abi.ABI_VERSION
        endpoints = harness.endpoints(IpVersion.V4)
        self.tunnel = TunnelOutput(TunnelKind.VXLAN, endpoints.local, endpoints.peer, 9)
        self.overlay = OverlayConfig(
            frozenset((endpoints.local,)),
            frozenset((endpoints.peer,)),
            frozenset(("u0",)),
            vxlan_port=4789,
        )
        self._outer = encapsulate_vxlan(
            FRAME,
            key=KEY,
            local=endpoints.peer,
            remote=endpoints.local,
            source_port=50000,
            udp_port=4789,
        )
        for port_id in (IN, OUT):
            harness.add_port(port_id)
        self.datapath.configure_overlay(self.overlay)
        self.datapath.set_delivery(KEY, (OUT,))
        self.datapath.install([entry(self.tunnel, LocalOutput(OUT))])

    async def become_other_version(self) -> None:
        """Another process comes up whose ABI version is another one."""
        await self.datapath.close()
        self._number += 1
        self._monkeypatch.setattr(abi, "ABI_VERSION", self._number)
        await self.open()

    async def restart(self) -> None:
        await self.datapath.close()
        await self.open()

    async def open(self) -> None:
        self.datapath = EbpfDatapath(
            self.harness.state_dir,
            hash_seed=HASH_SEED,
            max_programs=1024,
            max_ports=16,
            attach_mode=self._mode,
            filters=self.filters,
        )
        await self.datapath.open()

    async def passes(self) -> None:
        """A frame from a port is flooded to a port and a tunnel, and one from a tunnel arrives."""
        delivered = len(self.harness.delivered(OUT))
        sent = len(self.harness.sent_outer())
        self.harness.send(IN, FRAME)
        await eventually(lambda: len(self.harness.delivered(OUT)) == delivered + 1)
        await eventually(lambda: len(self.harness.sent_outer()) == sent + 1)
        self.harness.send_outer(self._outer)
        await eventually(lambda: len(self.harness.delivered(OUT)) == delivered + 2)

    def attach(self) -> None:
        for port_id in (IN, OUT):
            name = self.harness.interface_name(port_id)
            self.datapath.attach(PortAttachment(port_id, name))

    def generations(self) -> int:
        found = (self.harness.state_dir / "bpf").iterdir()
        return len([path for path in found if "." not in path.name])


@pytest.fixture(params=[AttachMode.TCX, AttachMode.CLSACT], ids=["tcx", "clsact"])
async def host(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Host]:
    async with ebpf_harness(attach_mode=request.param) as harness:
        made = Host(harness, request.param, monkeypatch)
        await made.passes()
        yield made
        await made.datapath.uninstall()
        made.filters.close()
        assert not [n for n in harness.host.run("ip", "-o", "link").split() if "mn-inj" in n]
        await harness.datapath.open()


async def test_the_earlier_version_serves_until_the_agent_decides(host: Host) -> None:
    """The store is away: nothing is attached, configured or installed, twice."""
    await host.become_other_version()
    assert not list(host.datapath.installed())
    await host.passes()
    await host.restart()
    await host.passes()
    host.attach()
    await host.passes()
    assert host.datapath.drops() == {}


async def test_what_the_earlier_version_forwards_comes_up_as_a_copy(host: Host) -> None:
    await host.become_other_version()
    host.attach()
    host.datapath.configure_overlay(host.overlay)
    host.datapath.set_delivery(KEY, (OUT,))
    await host.passes()
    host.datapath.begin_deciding()
    await host.passes()
    async with asyncio.timeout(5):
        upcalls = await host.datapath.upcalls()
    assert [upcall.reason for upcall in upcalls] == [UpcallReason.EARLIER]
    assert upcalls[0].frame == FRAME
    host.datapath.install([entry(host.tunnel, LocalOutput(OUT))])
    await host.passes()
    assert host.datapath.statistics()[1].packets == 1
    host.datapath.end_takeover()
    assert host.generations() == 1
    await host.passes()
    assert host.datapath.drops() == {}


async def test_what_must_stop_stops_at_once(host: Host) -> None:
    await host.become_other_version()
    host.attach()
    host.datapath.begin_deciding()
    host.datapath.end_takeover()
    delivered = len(host.harness.delivered(OUT))
    host.harness.send(IN, FRAME)
    async with asyncio.timeout(5):
        [upcall] = await host.datapath.upcalls()
    assert upcall.reason is UpcallReason.MISS
    assert len(host.harness.delivered(OUT)) == delivered


async def test_it_ends_by_itself(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_datapath, "_TAKEOVER_S", 0.05)
    await host.become_other_version()
    host.attach()
    host.datapath.begin_deciding()
    await eventually(lambda: host.generations() == 1)


async def test_the_way_back_and_forth_before_anything_was_judged(host: Host) -> None:
    await host.become_other_version()
    await host.become_other_version()
    await host.passes()


async def test_an_interface_whose_port_is_gone_is_let_go(host: Host) -> None:
    await host.become_other_version()
    name = host.harness.interface_name(OUT)
    host.datapath.attach(PortAttachment(OUT, name))
    host.datapath.begin_deciding()
    host.datapath.end_takeover()
    delivered = len(host.harness.delivered(OUT))
    host.harness.send(IN, FRAME)
    host.datapath.attach(PortAttachment(IN, host.harness.interface_name(IN)))
    host.harness.send(IN, FRAME)
    async with asyncio.timeout(5):
        upcalls = await host.datapath.upcalls()
    assert [upcall.reason for upcall in upcalls] == [UpcallReason.MISS]
    assert len(host.harness.delivered(OUT)) == delivered
