"""The contract of `Datapath`: packets to and from other hosts."""

from __future__ import annotations

from uuid import UUID

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import (
    NO_REWRITE,
    LocalOutput,
    Output,
    Rewrite,
    TunnelOutput,
)
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.overlay import decapsulate, overlay_source_port
from tests.contract.datapath_harness import DatapathHarness, eventually
from tests.contract.datapath_steps import (
    DATA,
    ETH,
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


async def test_an_admitted_port_is_delivered_to_and_sends_nothing(
    harness: DatapathHarness,
) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    datapath = harness.datapath
    packet = outer_packet(TunnelKind.VXLAN, endpoints, 5, UDP_V4)
    before = datapath.attached()
    datapath.detach(OUT)
    new = PortAttachment(OUT, before[OUT])
    taken = PortAttachment(PortId(UUID(int=0xFFFF)), before[IN])
    assert set(datapath.admit([new, taken])) == {taken.port_id}
    datapath.set_delivery(5, (OUT,))
    assert OUT not in datapath.attached()
    harness.send_outer(packet)
    await expect_delivered(harness, OUT, UDP_V4)
    harness.send(OUT, UDP_V4)

    # What was admitted and is not any more is gone, and its interface free.
    assert datapath.admit([]) == {}
    harness.send_outer(packet)
    await expect_drops(harness, None, DropReason.PORT_NOT_ATTACHED)
    other = PortAttachment(THIRD, before[OUT])
    datapath.detach(THIRD)
    assert datapath.admit([other]) == {}
    datapath.admit([])

    assert datapath.admit([new]) == {}
    await datapath.connect(new)
    assert datapath.admit([]) == {}
    assert datapath.attached()[OUT] == before[OUT]
    harness.send_outer(packet)
    await expect_delivered(harness, OUT, UDP_V4, UDP_V4)
    harness.send(OUT, UDP_V4)
    (upcall,) = await datapath.upcalls()
    assert upcall.ingress == OUT


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


def _to(address: str, *layers: Packet) -> bytes:
    """Return a frame of a tenant to an address."""
    packet = IPv6(src="fd00::1", dst=address) if ":" in address else IP(src="10.0.0.1", dst=address)
    for layer in layers:
        packet /= layer
    return bytes(ETH / packet)


def _overlay_packets(address: str) -> list[bytes]:
    """Return frames that hosts might take for tunnelled ones, and pieces of such."""
    vxlan = UDP(sport=50000, dport=VXLAN_PORT)
    data = Raw(b"\x08\0\0\0\0\0\x05\0" + UDP_V4)
    if ":" in address:
        pieces = [IPv6ExtHdrFragment(nh=17, offset=8, m=1), Raw(bytes(64))]
        gre = IPv6ExtHdrDestOpt(nh=47)
        return [
            _to(address, vxlan, data),
            _to(address, *pieces),
            _to(address, gre, Raw(b"\x20\0\x65\x58\0\0\0\x05" + UDP_V4)),
        ]
    later = IP(src="10.0.0.1", dst=address, frag=8, proto=17)
    return [
        _to(address, vxlan, data),
        bytes(ETH / later / Raw(bytes(64))),
        bytes(ETH / IP(src="10.0.0.1", dst=address, options=b"\1\1\1\1") / vxlan / data),
        _to(address, GRE(proto=0x6558), Raw(UDP_V4)),
    ]


@both_versions
@pytest.mark.parametrize("way", ["port", "tunnel", "flood", "rewrite"])
async def test_no_tenant_speaks_to_the_overlay(
    harness: DatapathHarness, version: IpVersion, way: str
) -> None:
    """To the peer's, the host's own and a third host's address, whatever program sends it there."""
    endpoints = harness.endpoints(version)
    harness.datapath.configure_overlay(
        OverlayConfig(
            local_addresses=frozenset((endpoints.local,)),
            peers=frozenset((endpoints.peer,)),
            host_addresses=frozenset((endpoints.stranger,)),
            interface_names=harness.underlay_interfaces,
            vxlan_port=VXLAN_PORT,
        )
    )
    sent = 0
    for address in (endpoints.local, endpoints.peer, endpoints.stranger):
        rewrite, target = NO_REWRITE, str(address)
        if way == "rewrite":
            target = "10.0.0.9" if version is IpVersion.V4 else "fd00::9"
            rewrite = Rewrite(ip_dst=address.value)
        outputs: tuple[Output, ...] = (LocalOutput(OUT, rewrite),)
        if way == "flood":
            outputs += (LocalOutput(THIRD),)
        elif way == "tunnel":
            outputs = (TunnelOutput(TunnelKind.VXLAN, endpoints.local, endpoints.peer, 5),)
        for frame in _overlay_packets(target):
            harness.datapath.install([program_for(harness, frame, outputs)])
            harness.send(IN, frame)
            sent += len(outputs)
    await expect_drops(harness, IN, DropReason.UNDERLAY_SPOOF, sent)
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, OUT, UDP_V4)
    assert harness.delivered(THIRD) == []
    assert harness.sent_outer() == []


@both_versions
async def test_addresses_of_hosts_are_free_for_use_inside_virtual_networks(
    harness: DatapathHarness, version: IpVersion
) -> None:
    """But nothing leaves by an uplink for them."""
    endpoints = configure_overlay(harness, version)
    frames = [
        _to(str(endpoints.peer), UDP(sport=5, dport=VXLAN_PORT + 1), DATA),
        _to(str(endpoints.peer), TCP(sport=5, dport=VXLAN_PORT), DATA),
        _to(str(endpoints.stranger), UDP(sport=5, dport=VXLAN_PORT), DATA),
    ]
    for is_uplink in (False, True):
        for frame in frames:
            outputs = (LocalOutput(OUT, is_uplink=is_uplink),)
            harness.datapath.install([program_for(harness, frame, outputs)])
            harness.send(IN, frame)
    await expect_drops(harness, IN, DropReason.UNDERLAY_SPOOF, 2)
    await expect_delivered(harness, OUT, *frames, frames[2])
    harness.datapath.emit(frames[0], (LocalOutput(OUT, is_uplink=True),))
    await expect_drops(harness, None, DropReason.UNDERLAY_SPOOF)


async def test_an_overlay_packet_for_a_port_that_is_gone_is_dropped(
    harness: DatapathHarness,
) -> None:
    endpoints = configure_overlay(harness, IpVersion.V4)
    harness.datapath.set_delivery(5, (OUT, THIRD))
    harness.datapath.detach(OUT)
    harness.send_outer(outer_packet(TunnelKind.VXLAN, endpoints, 5, UDP_V4))
    await expect_delivered(harness, THIRD, UDP_V4)
    await expect_drops(harness, None, DropReason.PORT_NOT_ATTACHED)
