"""Real stacks across two hosts: offloaded TCP, ARP and IPv6 through every kind of tunnel.

[ca]--h1--(underlay)--h2--[cb]
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack
from uuid import UUID

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from midonet.agent.datapath.protocol import PortAttachment, Upcall
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import FlowProgram, InstalledProgram, LocalOutput, TunnelOutput
from midonet.demo.namespaces import Namespace, wire
from midonet.errors import DatapathError
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.checksum import internet_checksum
from midonet.packets.flowkey import FlowKey
from tests.netns.entering import entered, packet_socket
from tests.netns.overlay_pair import KEY, Pair, connect, everything, overlay_drops

TOTAL_BYTES = 24 << 20


def socket_inside(namespace: Namespace, family: socket.AddressFamily) -> socket.socket:
    with entered(namespace):
        made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(30)
    return made


def transfer(
    sender: Namespace, receiver: Namespace, address: str, *, size: int = TOTAL_BYTES
) -> tuple[int, int]:
    """Send so many bytes over TCP; return (bytes received, sum of them)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    received = [0, 0]

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            while data := connection.recv(1 << 20):
                received[0] += len(data)
                received[1] += sum(data[::4096])

    with ExitStack() as stack:
        listener = stack.enter_context(socket_inside(receiver, family))
        listener.bind((address, 5001))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with contextlib.closing(socket_inside(sender, family)) as client:
            client.connect((address, 5001))
            client.sendall(bytes(range(256)) * (size // 256))
            client.shutdown(socket.SHUT_WR)
            thread.join(60)
        assert not thread.is_alive(), "the transfer did not end"
    return received[0], received[1]


def retransmissions(namespace: Namespace) -> int:
    lines = [line.split() for line in namespace.run("cat", "/proc/net/snmp").splitlines()]
    names, values = [line for line in lines if line[0] == "Tcp:"]
    return int(values[names.index("RetransSegs")])


@pytest.mark.parametrize("kind", [TunnelKind.VXLAN, TunnelKind.GRE])
@pytest.mark.parametrize("version", list(IpVersion))
async def test_streams_cross_tunnels_whole(
    pair: Pair, kind: TunnelKind, version: IpVersion
) -> None:
    """The inner packets of both versions, with neighbour discovery, as the stacks make them."""
    one, two = pair
    connect(one, two, kind, version)
    connect(two, one, kind, version)
    for address in ("10.0.0.2", "fd00::2"):
        size, _ = transfer(one.container, two.container, address)
        assert size == TOTAL_BYTES
    packets = one.datapath.statistics()[1]
    assert packets.packets >= 2 * TOTAL_BYTES // 1400, "segments are counted"
    assert packets.bytes >= 2 * TOTAL_BYTES
    for side in pair:
        drops = side.datapath.drops()
        assert not {key: count for key, count in drops.items() if key[0] is None}, drops


@pytest.mark.parametrize("offload", ["on", "off"])
async def test_streams_cross_one_host_whole(
    pair: Pair, namespace: Callable[[str], Namespace], offload: str
) -> None:
    """Two containers of one host; the sender's device may leave segmentation to the kernel."""
    one, _ = pair
    third = namespace("c3")
    wire(one.host, "p1", third, "eth0")
    third.ip("address add 10.0.0.3/24 dev eth0", "address add fd00::3/64 dev eth0 nodad")
    one.container.run("ethtool", "-K", "eth0", "tx", offload, "tso", offload, "gso", offload)
    other = PortId(UUID(int=3))
    with entered(one.host):
        one.datapath.attach(PortAttachment(other, "p1"))
        everything(one, LocalOutput(other))
        program = FlowProgram(other, FlowKey(0, 0), EMPTY_MASK, (LocalOutput(one.port_id),))
        one.datapath.install([InstalledProgram(2, 1, EMPTY_MASK, EMPTY_MASK, program)])
    for address in ("10.0.0.3", "fd00::3"):
        size, _ = transfer(one.container, third, address)
        assert size == TOTAL_BYTES
    # A way that loses super-packets sends every segment again; a slow machine sends a few again.
    assert retransmissions(one.container) < TOTAL_BYTES // 1400 // 4


# Super-packets whose offload is not that of plain TCP.

UDP_SEGMENT = 103
DATAGRAMS, DATAGRAM_SIZE, SENDS = 20, 1000, 5
both = pytest.mark.parametrize("kind", [TunnelKind.VXLAN, TunnelKind.GRE])
versions = pytest.mark.parametrize("version", list(IpVersion))


def send_datagrams(sender: Namespace, receiver: Namespace, address: str) -> int:
    """Send datagrams many at a time, as one super-packet each; return how many arrived whole."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as stack:
        with entered(receiver):
            taken = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        taken.bind((address, 5002))
        with entered(sender):
            out = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        out.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM_SIZE)
        out.connect((address, 5002))
        whole = {bytes((number,)) * DATAGRAM_SIZE for number in range(DATAGRAMS)}
        super_packet = b"".join(sorted(whole))
        arrived = 0
        for _ in range(SENDS):
            out.send(super_packet)
            taken.settimeout(10)
            try:
                for _ in range(DATAGRAMS):
                    arrived += taken.recv(2048) in whole
            except TimeoutError:
                break
        return arrived


@both
@versions
async def test_datagrams_sent_as_one_packet_arrive(
    pair: Pair, kind: TunnelKind, version: IpVersion
) -> None:
    """UDP segmentation offload (QUIC), with an underlay that carries super-packets, and not."""
    one, two = pair
    connect(one, two, kind, version)
    connect(two, one, kind, version)
    for offload in ("on", "off"):
        for host in (one.host, two.host):
            host.run("ethtool", "-K", "u0", "tso", offload, "gso", offload,
                     "tx-udp-segmentation", offload, "tx-udp_tnl-segmentation", offload,
                     "tx-gre-segmentation", offload)  # fmt: skip
        for address in ("10.0.0.2", "fd00::2"):
            arrived = send_datagrams(one.container, two.container, address)
            assert arrived == SENDS * DATAGRAMS, f"{address}, segmentation offload {offload}"
    assert not overlay_drops(one) + overlay_drops(two)


@both
@versions
async def test_a_tunnel_of_tenants_inside_the_overlay(
    pair: Pair, kind: TunnelKind, version: IpVersion
) -> None:
    """Containers that run VXLAN between each other: their packets are in a tunnel already."""
    one, two = pair
    connect(one, two, kind, version)
    connect(two, one, kind, version)
    for name, source, target, prefix, inner in (
        ("four", "10.0.0.1", "10.0.0.2", "10.4.0", "fd04:"),
        ("six", "fd00::1", "fd00::2", "10.6.0", "fd06:"),
    ):
        for number, side, ends in ((1, one, (source, target)), (2, two, (target, source))):
            side.container.ip(
                f"link add {name} type vxlan id 5 local {ends[0]} remote {ends[1]} dstport 4789",
                f"link set {name} mtu 1300 up",
                f"address add {prefix}.{number}/24 dev {name}",
                f"address add {inner}:{number}/64 dev {name} nodad",
            )
        for address in (f"{prefix}.2", f"{inner}:2"):
            size, _ = transfer(one.container, two.container, address, size=TOTAL_BYTES // 4)
            assert size == TOTAL_BYTES // 4
            assert send_datagrams(one.container, two.container, address) == SENDS * DATAGRAMS
        for side in pair:
            side.container.ip(f"link del {name}")
    assert not overlay_drops(one) + overlay_drops(two)


@both
@versions
async def test_a_container_that_routes_what_came_through_a_tunnel(
    pair: Pair, namespace: Callable[[str], Namespace], kind: TunnelKind, version: IpVersion
) -> None:
    """From one host to a router on the other and back to the first: two tunnels one after the
    other, over packets that remember the first."""
    one, two = pair
    third = namespace("c3")
    second_port = {1: PortId(UUID(int=11)), 2: PortId(UUID(int=12))}
    wire(one.host, "p1", third, "eth0")
    wire(two.host, "p1", two.container, "eth1")
    two.container.sysctl("net.ipv4.ip_forward", 1)
    two.container.sysctl("net.ipv6.conf.all.forwarding", 1)
    two.container.ip("link set eth1 mtu 1400", "address add 10.1.0.2/24 dev eth1",
                     "address add fd01::2/64 dev eth1 nodad")  # fmt: skip
    third.ip("link set eth0 mtu 1400", "address add 10.1.0.1/24 dev eth0",
             "address add fd01::1/64 dev eth0 nodad",
             "route add default via 10.1.0.2", "route add default via fd01::2")  # fmt: skip
    one.container.ip("route add default via 10.0.0.2", "route add default via fd00::2")
    connect(one, two, kind, version)
    connect(two, one, kind, version)
    for number, side in ((1, one), (2, two)):
        with entered(side.host):
            side.datapath.attach(PortAttachment(second_port[number], "p1"))
            side.datapath.set_delivery(KEY + 1, (second_port[number],))
    for number, side, other in ((1, one, two), (2, two, one)):
        output = TunnelOutput(kind, side.addresses[version], other.addresses[version], KEY + 1)
        with entered(side.host):
            program = FlowProgram(second_port[number], FlowKey(0, 0), EMPTY_MASK, (output,))
            side.datapath.install([InstalledProgram(2, 1, EMPTY_MASK, EMPTY_MASK, program)])
    for address in ("10.1.0.1", "fd01::1"):
        size, _ = transfer(one.container, third, address, size=TOTAL_BYTES // 4)
        assert size == TOTAL_BYTES // 4
        assert send_datagrams(one.container, third, address) == SENDS * DATAGRAMS
    assert not overlay_drops(one) + overlay_drops(two)


async def test_first_super_packet_of_a_class_comes_up_in_segments(pair: Pair) -> None:
    """It is too long for the copy that the agent gets, and of datagrams nobody sends it again."""
    one, two = pair
    connect(two, one, TunnelKind.VXLAN, IpVersion.V4)
    connect(one, two, TunnelKind.VXLAN, IpVersion.V4)
    one.container.ip("neighbour replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth0")
    output = LocalOutput(one.port_id)
    with entered(one.host):
        program = FlowProgram(one.port_id, FlowKey(0, 0), EMPTY_MASK, (output,))
        one.datapath.remove([InstalledProgram(1, 1, EMPTY_MASK, EMPTY_MASK, program)])
    with entered(one.container):
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with out:
        out.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM_SIZE)
        out.sendto(bytes(DATAGRAMS * DATAGRAM_SIZE), ("10.0.0.2", 5002))
    taken: list[Upcall] = []
    async with asyncio.timeout(10):
        while len(taken) < DATAGRAMS:
            found = await one.datapath.upcalls()
            taken += [upcall for upcall in found if upcall.frame[23:24] == b"\x11"]
    assert [upcall.gso_size for upcall in taken] == [0] * DATAGRAMS
    for upcall in taken:
        assert upcall.length == len(upcall.frame) == 14 + 20 + 8 + DATAGRAM_SIZE


@both
@versions
async def test_fragmentation_offload_of_udp(
    pair: Pair, kind: TunnelKind, version: IpVersion
) -> None:
    """A machine whose driver leaves the fragmentation of datagrams to the device (UFO)."""
    one, two = pair
    connect(one, two, kind, version)
    connect(two, one, kind, version)
    transfer(one.container, two.container, "10.0.0.2", size=1024)  # neighbours know each other
    macs = []
    for side in pair:
        with packet_socket(side.container, "eth0", eth_type=0) as asked:
            macs.append(bytes(asked.getsockname()[4]))
    datagram = bytes(range(250)) * 16
    packet = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=5003) / Raw(datagram)
    frame = macs[1] + macs[0] + b"\x08\x00" + bytes(packet)
    pseudo = bytes(packet)[12:20] + struct.pack("!HH", 17, 8 + len(datagram))
    partial = struct.pack("!H", ~internet_checksum(pseudo) & 0xFFFF)
    frame = frame[:40] + partial + frame[42:]
    needs_checksum, is_ufo, fragment_size = 1, 3, 1352
    offload = struct.pack("=BBHHHH", needs_checksum, is_ufo, 42, fragment_size, 34, 6)
    with entered(two.container):
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taken, packet_socket(one.container, "eth0", eth_type=0) as out:
        taken.settimeout(10)
        taken.bind(("10.0.0.2", 5003))
        out.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
        out.send(offload + frame)
        assert taken.recv(1 << 16) == datagram


async def test_the_port_of_the_overlay_is_taken(pair: Pair) -> None:
    """Who configures the overlay is told, and tunnels work all the same."""
    one, two = pair
    with entered(one.host):
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taken:
        taken.bind(("", 6677))
        for _ in range(2):
            with pytest.raises(DatapathError, match="UDP port 6677"):
                connect(one, two, TunnelKind.VXLAN, IpVersion.V4)
        everything(
            one,
            TunnelOutput(
                TunnelKind.VXLAN, one.addresses[IpVersion.V4], two.addresses[IpVersion.V4], KEY
            ),
        )
        connect(two, one, TunnelKind.VXLAN, IpVersion.V4)
        transfer(one.container, two.container, "10.0.0.2", size=1024)
    connect(one, two, TunnelKind.VXLAN, IpVersion.V4)
    assert "UP" in one.host.run("ip", "-br", "link", "show", "mn-vxlan")
