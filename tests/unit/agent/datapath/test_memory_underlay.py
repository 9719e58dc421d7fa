"""Underlays of the memory datapath, and two hosts that talk over them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest

from midonet.agent.datapath.memory import (
    InProcessUnderlay,
    MemoryDatapath,
    UdpUnderlay,
    Underlay,
)
from midonet.agent.datapath.memory.carriers import outer_addresses
from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LocalOutput, TunnelOutput
from midonet.errors import DatapathError
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress, parse_ip
from midonet.packets.overlay import encapsulate_gre

HOST_A, HOST_B = parse_ip("127.0.1.1"), parse_ip("127.0.1.2")
SIX_A, SIX_B = parse_ip("fd00::a"), parse_ip("fd00::b")
PORT_A, PORT_B = PortId(UUID(int=1)), PortId(UUID(int=2))
FRAME = bytes.fromhex("02000000000b02000000000a9000") + b"payload"
KEY = 0x1234


def packet(source: IpAddress, destination: IpAddress, inner: bytes = FRAME) -> bytes:
    return encapsulate_gre(inner, key=KEY, local=source, remote=destination)


def free_udp_ports(count: int) -> list[int]:
    """Return UDP ports that were free a moment ago on all loopback addresses."""
    with_sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for one in with_sockets:
            one.bind(("0.0.0.0", 0))
        return [one.getsockname()[1] for one in with_sockets]
    finally:
        for one in with_sockets:
            one.close()


def udp_endpoints() -> dict[IpAddress, tuple[str, int]]:
    """Return endpoints of two IPv4 and two IPv6 hosts on loopback."""
    ports = free_udp_ports(4)
    return {
        HOST_A: ("127.0.1.1", ports[0]),
        HOST_B: ("127.0.1.2", ports[1]),
        SIX_A: ("127.0.1.1", ports[2]),
        SIX_B: ("127.0.1.2", ports[3]),
    }


@pytest.mark.parametrize(
    "data", [b"", b"\x45", b"\x60" + bytes(38), b"\x45" + bytes(18), b"\x10" + bytes(60)]
)
def test_addresses_of_rubbish_are_none(data: bytes) -> None:
    assert outer_addresses(data) is None


def test_addresses_are_read_from_both_versions() -> None:
    assert outer_addresses(packet(HOST_A, HOST_B)) == (HOST_A, HOST_B)
    assert outer_addresses(packet(SIX_A, SIX_B)) == (SIX_A, SIX_B)


def test_a_switchboard_delivers_to_the_destination() -> None:
    underlay = InProcessUnderlay()
    got: list[bytes] = []
    listener = underlay.listen([HOST_B, SIX_B], got.append)
    assert underlay.send(packet(HOST_A, HOST_B))
    assert underlay.send(packet(SIX_A, SIX_B))
    assert got == [packet(HOST_A, HOST_B), packet(SIX_A, SIX_B)]
    underlay.send(packet(HOST_B, HOST_A))
    underlay.send(b"")
    assert underlay.undeliverable == 2
    listener.close()
    listener.close()
    underlay.send(packet(HOST_A, HOST_B))
    assert underlay.undeliverable == 3
    assert len(got) == 2


def test_a_switchboard_gives_an_address_once_until_it_is_closed() -> None:
    underlay = InProcessUnderlay()
    first = underlay.listen([HOST_A], print)
    with pytest.raises(DatapathError):
        underlay.listen([HOST_B, HOST_A], print)
    first.close()
    underlay.listen([HOST_B, HOST_A], print).close()


def test_a_switchboard_never_delivers_within_a_delivery() -> None:
    underlay = InProcessUnderlay()
    events: list[str] = []

    def at_b(_: bytes) -> None:
        events.append("b starts")
        underlay.send(packet(HOST_B, HOST_A))
        events.append("b ends")

    underlay.listen([HOST_A], lambda _: events.append("a"))
    underlay.listen([HOST_B], at_b)
    underlay.send(packet(HOST_A, HOST_B))
    assert events == ["b starts", "b ends", "a"]


async def test_udp_underlay_refuses_an_endpoint_that_is_taken() -> None:
    endpoints = udp_endpoints()
    first, second = UdpUnderlay(endpoints), UdpUnderlay(endpoints)
    listener = first.listen([HOST_A], print)
    with pytest.raises(DatapathError):
        second.listen([HOST_B, HOST_A], print)
    listener.close()
    listener.close()
    second.listen([HOST_B, HOST_A], print).close()


async def test_udp_underlay_sends_only_from_its_own_addresses() -> None:
    underlay = UdpUnderlay(udp_endpoints())
    assert not underlay.send(packet(HOST_A, HOST_B))
    assert not underlay.send(b"rubbish")
    listener = underlay.listen([HOST_A], print)
    assert underlay.send(packet(HOST_A, HOST_B))
    too_long = packet(HOST_A, HOST_B, FRAME + bytes(65_480))
    assert not underlay.send(too_long)
    assert underlay.undeliverable == 1
    listener.close()


async def test_udp_underlay_survives_datagrams_nobody_expects() -> None:
    endpoints = udp_endpoints()
    underlay = UdpUnderlay(endpoints)
    got: asyncio.Queue[bytes] = asyncio.Queue()
    listener = underlay.listen([HOST_A], got.put_nowait)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (b"", b"rubbish"):
            sender.sendto(data, endpoints[HOST_A])
    async with asyncio.timeout(60):
        assert [await got.get(), await got.get()] == [b"", b"rubbish"]
    listener.close()


@asynccontextmanager
async def host(
    underlay: Underlay, port_id: PortId, local: IpAddress, peer: IpAddress
) -> AsyncIterator[MemoryDatapath]:
    datapath = MemoryDatapath(underlay)
    await datapath.open()
    try:
        datapath.attach(PortAttachment(port_id, "tap0"))
        datapath.configure_overlay(
            OverlayConfig(local_addresses=frozenset((local,)), peers=frozenset((peer,)))
        )
        yield datapath
    finally:
        await datapath.uninstall()


def one_switchboard() -> Callable[[], Underlay]:
    underlay = InProcessUnderlay()
    return lambda: underlay


def separate_udp() -> Callable[[], Underlay]:
    endpoints = udp_endpoints()
    return lambda: UdpUnderlay(endpoints)


@pytest.mark.parametrize("make", [one_switchboard, separate_udp])
@pytest.mark.parametrize("kind", [TunnelKind.VXLAN, TunnelKind.GRE])
@pytest.mark.parametrize(("local", "remote"), [(HOST_A, HOST_B), (SIX_A, SIX_B)])
async def test_two_hosts_exchange_frames(
    make: Callable[[], Callable[[], Underlay]],
    kind: TunnelKind,
    local: IpAddress,
    remote: IpAddress,
) -> None:
    underlay_of = make()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(host(underlay_of(), PORT_A, local, remote))
        second = await stack.enter_async_context(host(underlay_of(), PORT_B, remote, local))
        got: asyncio.Queue[tuple[PortId, bytes]] = asyncio.Queue()
        unsubscribe = second.subscribe(lambda port, frame: got.put_nowait((port, frame)))
        second.set_delivery(KEY, (PORT_B,))
        first.emit(FRAME, [TunnelOutput(kind, local, remote, KEY)])
        async with asyncio.timeout(60):
            assert await got.get() == (PORT_B, FRAME)
        unsubscribe()
        second.emit(FRAME, [LocalOutput(PORT_B)])
        assert got.empty()
        assert dict(first.drops()) == {}


async def test_a_tunnel_that_cannot_be_sent_is_a_named_drop() -> None:
    underlay = UdpUnderlay(udp_endpoints())
    async with host(underlay, PORT_A, HOST_A, HOST_B) as datapath:
        outputs = [
            TunnelOutput(TunnelKind.VXLAN, HOST_B, HOST_A, KEY),  # not an address of this host
            TunnelOutput(TunnelKind.VXLAN, HOST_A, SIX_B, KEY),  # versions differ
            TunnelOutput(TunnelKind.GRE, HOST_A, HOST_B, KEY),
        ]
        datapath.emit(FRAME, outputs)
        assert datapath.drops() == {(None, DropReason.ENCAP_FAILED): 2}
        datapath.emit(bytes(5), outputs[2:])
        assert datapath.drops() == {(None, DropReason.ENCAP_FAILED): 3}


async def test_moving_the_tunnel_end_point_frees_the_old_one() -> None:
    underlay = InProcessUnderlay()
    async with host(underlay, PORT_A, HOST_A, HOST_B) as datapath:
        datapath.configure_overlay(OverlayConfig(local_addresses=frozenset((SIX_A,))))
        underlay.listen([HOST_A], print).close()
        with pytest.raises(DatapathError):
            underlay.listen([SIX_A], print)
    underlay.listen([SIX_A], print).close()
