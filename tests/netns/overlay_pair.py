"""Two hosts joined by a wire, each with a container and a datapath of its own, without agents.

[ca]--h1--(underlay)--h2--[cb]
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

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


@asynccontextmanager
async def open_pair(namespace: Callable[[str], Namespace]) -> AsyncIterator[Pair]:
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
        side.datapath.set_delivery(KEY, (side.port_id,))
        side.datapath.configure_overlay(
            OverlayConfig(frozenset((local,)), frozenset((remote,)), frozenset(("u0",)))
        )
        everything(side, TunnelOutput(kind, local, remote, KEY))


def everything(side: Side, output: LocalOutput | TunnelOutput) -> None:
    program = FlowProgram(side.port_id, FlowKey(0, 0), EMPTY_MASK, (output,))
    side.datapath.install([InstalledProgram(1, 1, EMPTY_MASK, EMPTY_MASK, program)])


def overlay_drops(side: Side) -> list[object]:
    return [key for key in side.datapath.drops() if key[0] is None]
