"""Frames, programs and expectations that the contract suite of datapaths is written in.

Expected bytes are made by scapy, independently of the code under test.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from midonet.agent.datapath.protocol import Datapath, OverlayConfig, Upcall
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
)
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.frame import parse_frame
from midonet.packets.overlay import encapsulate_gre, encapsulate_vxlan
from tests.contract.datapath_harness import DEADLINE_S, DatapathHarness, Endpoints, eventually

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
TAGGED = ETH / Dot1Q(vlan=7, prio=3) / V4 / UDP() / DATA
UNTAGGED = ETH / V4 / UDP() / DATA


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
