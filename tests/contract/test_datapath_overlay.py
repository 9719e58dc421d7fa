"""The contract of `Datapath`: packets to and from other hosts."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from midonet.agent.datapath.protocol import OverlayConfig
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import TunnelOutput
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpVersion
from midonet.packets.overlay import decapsulate, overlay_source_port
from tests.contract.datapath_harness import DatapathHarness, eventually
from tests.contract.datapath_steps import (
    IN,
    OUT,
    TCP_V6,
    THIRD,
    UDP_V4,
    VXLAN_PORT,
    configure_overlay,
    expect_delivered,
    expect_drops,
    frame_key,
    outer_packet,
    program_for,
    rewritten,
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


async def test_a_changed_delivery_holds_for_the_next_packet(harness: DatapathHarness) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    packet = outer_packet(TunnelKind.VXLAN, endpoints, 5, UDP_V4)
    for port_ids, to_out, to_third in (((OUT,), 1, 0), ((THIRD,), 1, 1), ((OUT, THIRD), 2, 2)):
        harness.datapath.set_delivery(5, port_ids)
        harness.send_outer(packet)
        await expect_delivered(harness, OUT, *[UDP_V4] * to_out)
        await expect_delivered(harness, THIRD, *[UDP_V4] * to_third)
    harness.datapath.set_delivery(5, ())
    harness.send_outer(packet)
    await expect_drops(harness, None, DropReason.UNKNOWN_TUNNEL_KEY)


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
