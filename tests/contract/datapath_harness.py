"""What the contract suite of datapaths needs of the world around one.

A harness makes interfaces, sends frames into them and collects what comes out. Reading is by
snapshot: each method returns everything since the harness was made, in order, and the suite
waits until a condition on it holds. Nothing but the suite's own packets may appear, so a kernel
harness silences neighbour discovery and the like on its interfaces.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import pytest

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import Datapath, PortAttachment
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip

DEADLINE_S = 60.0
_POLL_S = 0.005


@dataclass(frozen=True)
class Endpoints:
    """Underlay addresses of one version: of this host, of a peer, and of a host that is none."""

    local: IpAddress
    peer: IpAddress
    stranger: IpAddress


class DatapathHarness(Protocol):
    """A datapath, opened and empty, and the wires around it.

    hash_seed: the one the datapath was made with.
    sends_offloaded: `send` can make super-packets (gso_size).
    underlay_interfaces: names for `OverlayConfig.interface_names`.
    """

    @property
    def datapath(self) -> Datapath: ...

    @property
    def hash_seed(self) -> int: ...

    @property
    def sends_offloaded(self) -> bool: ...

    @property
    def underlay_interfaces(self) -> frozenset[str]: ...

    def add_port(
        self, port_id: PortId, *, upcalls_per_second: int = 5000, upcall_burst: int = 1000
    ) -> PortAttachment:
        """Make an interface and attach the port to it."""
        ...

    def send(self, port_id: PortId, frame: bytes, *, gso_size: int = 0) -> None:
        """Let a frame of at least 14 bytes arrive at a port's interface."""
        ...

    def delivered(self, port_id: PortId) -> list[bytes]:
        """Return the frames that left by a port's interface."""
        ...

    def endpoints(self, version: IpVersion) -> Endpoints:
        """Return the underlay addresses in use."""
        ...

    def send_outer(self, packet: bytes) -> None:
        """Let an outer IP packet arrive at this host."""
        ...

    def sent_outer(self) -> list[bytes]:
        """Return the outer IP packets that left this host for the peer, link headers removed."""
        ...


OpenHarness = Callable[..., AbstractAsyncContextManager[DatapathHarness]]
"""Opens a harness; takes `max_programs: int` as its one keyword argument."""


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` is true. Fails after DEADLINE_S."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(_POLL_S)


class MemoryHarness:
    """The memory datapath on a switchboard, with the peer's address listened on."""

    hash_seed = 0x0123_4567_89AB_CDEF
    sends_offloaded = True
    underlay_interfaces: frozenset[str] = frozenset()

    def __init__(self, max_programs: int) -> None:
        self.underlay = InProcessUnderlay()
        self.datapath = MemoryDatapath(
            self.underlay, hash_seed=self.hash_seed, max_programs=max_programs
        )
        self._delivered: dict[PortId, list[bytes]] = {}
        self._outer: list[bytes] = []
        self.datapath.subscribe(lambda port, frame: self.delivered(port).append(frame))
        peers = (self.endpoints(IpVersion.V4).peer, self.endpoints(IpVersion.V6).peer)
        self.underlay.listen(peers, self._outer.append)

    def add_port(
        self, port_id: PortId, *, upcalls_per_second: int = 5000, upcall_burst: int = 1000
    ) -> PortAttachment:
        attachment = PortAttachment(port_id, f"tap{port_id.int}", upcalls_per_second, upcall_burst)
        self.datapath.attach(attachment)
        return attachment

    def send(self, port_id: PortId, frame: bytes, *, gso_size: int = 0) -> None:
        self.datapath.receive(port_id, frame, gso_size)

    def delivered(self, port_id: PortId) -> list[bytes]:
        return self._delivered.setdefault(port_id, [])

    def endpoints(self, version: IpVersion) -> Endpoints:
        prefix = "192.0.2." if version is IpVersion.V4 else "2001:db8::"
        return Endpoints(*(parse_ip(prefix + str(host)) for host in (1, 2, 3)))

    def send_outer(self, packet: bytes) -> None:
        self.underlay.send(packet)

    def sent_outer(self) -> list[bytes]:
        return self._outer


@asynccontextmanager
async def memory_harness(max_programs: int = 1024) -> AsyncIterator[MemoryHarness]:
    """Open a `MemoryHarness`."""
    harness = MemoryHarness(max_programs)
    await harness.datapath.open()
    try:
        yield harness
    finally:
        await harness.datapath.uninstall()


def ebpf_harness(max_programs: int = 1024) -> AbstractAsyncContextManager[DatapathHarness]:
    """Open an `EbpfHarness`. Imported late: that module needs this one."""
    from tests.contract.ebpf_harness import ebpf_harness as open_ebpf

    return open_ebpf(max_programs)


HARNESSES = [
    pytest.param(memory_harness, id="memory"),
    pytest.param(
        ebpf_harness,
        id="ebpf",
        marks=[
            pytest.mark.privileged,
            pytest.mark.skipif(os.geteuid() != 0, reason="needs root for eBPF and namespaces"),
        ],
    ),
]
"""Every datapath that the contract suite runs against."""
