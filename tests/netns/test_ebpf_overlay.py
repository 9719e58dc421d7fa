"""Real stacks across two hosts: offloaded TCP, ARP and IPv6 through every kind of tunnel.

[ca]--h1--(underlay)--h2--[cb]
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from midonet.agent.datapath.ebpf import EbpfDatapath
from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import FlowProgram, InstalledProgram, LocalOutput, TunnelOutput
from midonet.demo.namespaces import Namespace, wire
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.packets.flowkey import FlowKey
from tests.contract.ebpf_harness import HASH_SEED
from tests.netns.entering import entered

TOTAL_BYTES = 24 << 20
KEY = 7


@dataclass
class Side:
    """One host with its container."""

    host: Namespace
    container: Namespace
    datapath: EbpfDatapath
    port_id: PortId
    addresses: dict[IpVersion, IpAddress]


Pair = tuple[Side, Side]


@pytest.fixture
async def pair(namespace: Callable[[str], Namespace]) -> AsyncIterator[Pair]:
    """Two hosts joined by a wire, each with a container whose packets nobody handles yet."""
    async with AsyncExitStack() as stack:
        hosts = [namespace("h1"), namespace("h2")]
        wire(hosts[0], "u0", hosts[1], "u0")
        sides = [await make_side(n, host, namespace, stack) for n, host in enumerate(hosts, 1)]
        yield sides[0], sides[1]


async def make_side(
    number: int, host: Namespace, namespace: Callable[[str], Namespace], stack: AsyncExitStack
) -> Side:
    container = namespace(f"c{number}")
    wire(host, "p0", container, "eth0")
    host.sysctl("net.ipv6.conf.p0.disable_ipv6", 1)
    host.ip(
        f"address add 192.0.2.{number}/24 dev u0", f"address add 2001:db8::{number}/64 dev u0 nodad"
    )
    container.ip(
        "link set eth0 mtu 1400",
        f"address add 10.0.0.{number}/24 dev eth0",
        f"address add fd00::{number}/64 dev eth0 nodad",
    )
    state_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="midonet-"))
    datapath = EbpfDatapath(Path(state_dir), hash_seed=HASH_SEED, max_programs=64, max_ports=8)
    port_id = PortId(UUID(int=number))

    async def uninstall() -> None:
        with entered(host):
            await datapath.uninstall()

    stack.push_async_callback(uninstall)
    with entered(host):
        await datapath.open()
        datapath.attach(PortAttachment(port_id, "p0"))
    addresses = {
        IpVersion.V4: parse_ip(f"192.0.2.{number}"),
        IpVersion.V6: parse_ip(f"2001:db8::{number}"),
    }
    return Side(host, container, datapath, port_id, addresses)


def connect(side: Side, other: Side, kind: TunnelKind, version: IpVersion) -> None:
    """Send all that enters at the port of `side` to the port of `other`."""
    local, remote = side.addresses[version], other.addresses[version]
    with entered(side.host):
        side.datapath.configure_overlay(
            OverlayConfig(frozenset((local,)), frozenset((remote,)), frozenset(("u0",)))
        )
        side.datapath.set_delivery(KEY, (side.port_id,))
        everything(side, TunnelOutput(kind, local, remote, KEY))


def everything(side: Side, output: LocalOutput | TunnelOutput) -> None:
    program = FlowProgram(side.port_id, FlowKey(0, 0), EMPTY_MASK, (output,))
    side.datapath.install([InstalledProgram(1, 1, EMPTY_MASK, EMPTY_MASK, program)])


def socket_inside(namespace: Namespace, family: socket.AddressFamily) -> socket.socket:
    with entered(namespace):
        made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(30)
    return made


def transfer(sender: Namespace, receiver: Namespace, address: str) -> tuple[int, int]:
    """Send TOTAL_BYTES over TCP; return (bytes received, sum of them)."""
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
            client.sendall(bytes(range(256)) * (TOTAL_BYTES // 256))
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
    assert retransmissions(one.container) < 100
