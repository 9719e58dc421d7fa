"""The contract between the agent and whatever moves the packets.

One contract suite (`tests/contract/test_datapath_*.py`) runs against every implementation.
All methods are called from one asyncio task at a time; the synchronous ones return in
microseconds (map operations), the asynchronous ones may wait.

Viewpoint: ingress is into the virtual network at a port of this host.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import InstalledProgram, Output
from midonet.errors import DatapathError
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress

__all__ = [
    "MASKS_PER_PORT",
    "STATE_FRAME_BYTES",
    "STATE_KEY",
    "Capabilities",
    "Datapath",
    "FrameAccess",
    "InstalledProgram",
    "OverlayConfig",
    "PortAttachment",
    "ProgramStatistics",
    "Upcall",
    "UpcallReason",
]

STATE_KEY = 0xFFFFFF
"""Tunnel key of state frames: what agents tell each other of connections."""

STATE_FRAME_BYTES = 2048
"""Longest state frame, from the destination MAC on; longer ones are OVERLAY_MALFORMED."""

MASKS_PER_PORT = 32
"""Length of a port's mask list. Slot 0 is always the exact mask."""


class UpcallReason(IntEnum):
    """Why a packet came up. Shared with the kernel program."""

    MISS = 1  # no program of its class
    GUARD = 2  # a program exists, but its TTL or length guard failed
    PROGRAM = 3  # the program says so
    EARLIER = 4  # a copy: another version's program decided, if it had one of its class
    STATE = 5  # not a packet of a port: a state frame (`Datapath.receive_state`)


@dataclass(frozen=True, slots=True)
class Upcall:
    """A packet that needs a decision.

    frame: the frame from the destination MAC on, outermost VLAN tag in place, checksums
        complete; may be cut (then `length` is greater than its size).
    length: size of the frame as received, in bytes. gso_size: payload bytes of one segment of
        an offloaded super-packet, 0 when it is not one.
    program_id: of the program whose guard failed or that said so; 0 on a miss.
    received_ns: boot-time clock.
    """

    ingress: PortId
    frame: bytes
    length: int
    reason: UpcallReason
    gso_size: int = 0
    program_id: int = 0
    flow_hash: int = 0
    received_ns: int = 0


@dataclass(frozen=True, slots=True)
class ProgramStatistics:
    """Counters of one program. last_used_ns: boot-time clock, 0 when never used."""

    packets: int
    bytes: int
    last_used_ns: int


@dataclass(frozen=True, slots=True)
class PortAttachment:
    """Where a virtual port meets the world.

    interface_name: in the agent's network namespace (kernel datapaths).
    upcalls_per_second, upcall_burst: the port's budget.
    copies_per_second, copy_burst: the same for the outputs of packets that have several: a
        broadcast on a bridge with 1,000 ports is 999. A packet over it is dropped (COPY_RATE).
    """

    port_id: PortId
    interface_name: str
    upcalls_per_second: int = 5000
    upcall_burst: int = 1000
    copies_per_second: int = 200_000
    copy_burst: int = 20_000


@dataclass(frozen=True, slots=True)
class OverlayConfig:
    """How overlay packets are accepted.

    peers: underlay addresses from which overlay packets are accepted; others are dropped.
    local_addresses: this host's own tunnel end points.
    interface_names: underlay interfaces on which they are accepted (kernel datapaths).
    host_addresses: underlay addresses of all hosts of the deployment, as far as they are known.
    """

    local_addresses: frozenset[IpAddress] = frozenset()
    peers: frozenset[IpAddress] = frozenset()
    interface_names: frozenset[str] = frozenset()
    vxlan_port: int = 6677
    host_addresses: frozenset[IpAddress] = frozenset()

    @property
    def protected_addresses(self) -> frozenset[IpAddress]:
        """Addresses that no tenant may reach (`flows.underlay_guard`)."""
        return self.host_addresses | self.local_addresses | self.peers


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this datapath can do. max_programs: capacity of the class table."""

    name: str
    max_programs: int
    is_persistent: bool
    rewrites_tcp_segments: bool = True


class FrameAccess(Protocol):
    """Frames put in and seen by hand, for a datapath whose ports are no kernel interfaces."""

    def receive(self, port_id: PortId, frame: bytes, gso_size: int = 0) -> None:
        """Take a frame in at an attached port, as if it arrived at its interface.

        gso_size: payload bytes of one segment of an offloaded super-packet, else 0.
        """
        ...

    def subscribe(self, sink: Callable[[PortId, bytes], None]) -> Callable[[], None]:
        """Hand every frame that leaves by a local port to `sink`, until the result is called."""
        ...


class Datapath(Protocol):
    """Moves packets by installed programs; hands up what has none."""

    @property
    def capabilities(self) -> Capabilities:
        """Return what this datapath can do."""
        ...

    @property
    def frame_access(self) -> FrameAccess | None:
        """Return how frames are put in and seen by hand; None where interfaces do that."""
        ...

    async def open(self) -> None:
        """Take the datapath into use. Persistent ones come up with what they held before."""
        ...

    async def close(self) -> None:
        """Stop reading upcalls. Persistent ones keep forwarding what they know."""
        ...

    async def uninstall(self) -> None:
        """Remove everything this datapath ever put into the host. Idempotent."""
        ...

    def begin_deciding(self) -> None:
        """The agent has its topology and decides on packets from now on.

        A persistent datapath that took over from another version lets that one's programs serve
        what is not installed yet, hands up copies (EARLIER), and lets them go after a while.
        """
        ...

    def end_takeover(self) -> None:
        """Let another version's programs go at once: something they allow must stop.

        Does nothing before `begin_deciding`, and when there are none.
        """
        ...

    # Ports and overlay.

    def enclose(self, interface_names: Iterable[str]) -> Mapping[str, DatapathError]:
        """Keep interfaces from the host's own stack until they are taken out by hand.

        What enters there is dropped unless a port is attached; detaching changes nothing of it.
        Attaching encloses too. Names without an interface are ignored. Return what stands in the
        way, by name.
        """
        ...

    def attach(self, attachment: PortAttachment) -> None:
        """Connect a port. Attaching it again with the same interface changes nothing.

        Raises DatapathError when the interface does not exist or is taken by another port.
        """
        ...

    def detach(self, port_id: PortId) -> None:
        """Disconnect a port and forget its programs and masks. Unknown ports are ignored."""
        ...

    def admit(self, attachments: Iterable[PortAttachment]) -> Mapping[PortId, DatapathError]:
        """Let packets be delivered to ports whose own packets do not come in yet.

        `connect` is to follow. Admitted ports of an earlier call that are not among these are
        withdrawn. Return what stands in the way, by port.
        """
        ...

    async def connect(self, attachment: PortAttachment) -> None:
        """Do what `attach` does, without holding up the event loop while the kernel waits.

        Packets of the port may come in before this returns.
        """
        ...

    async def disconnect(self, port_id: PortId) -> None:
        """Do what `detach` does, without holding up the event loop while the kernel waits."""
        ...

    def attached(self) -> Mapping[PortId, str]:
        """Return the attached ports and their interfaces, as read back from the datapath."""
        ...

    def configure_overlay(self, config: OverlayConfig) -> None:
        """Replace the overlay configuration."""
        ...

    def set_delivery(self, tunnel_key: int, port_ids: tuple[PortId, ...]) -> None:
        """Deliver overlay packets with `tunnel_key` to these local ports; () forgets the key."""
        ...

    def deliveries(self) -> Mapping[int, tuple[PortId, ...]]:
        """Return what `set_delivery` holds, as read back from the datapath."""
        ...

    # Programs.

    def install(self, entries: Iterable[InstalledProgram]) -> None:
        """Install or replace programs, atomically each: a packet sees the old or the new one.

        The entry's mask becomes visible in the port's list after the program. Raises
        DatapathError (errno ENOSPC) when the class table is full; entries before it stay.
        """
        ...

    def remove(self, entries: Iterable[InstalledProgram]) -> None:
        """Remove programs. Those already gone are ignored."""
        ...

    def drop_mask(self, port_id: PortId, mask_id: int) -> None:
        """Forget a mask that no program of the port uses any more."""
        ...

    def installed(self) -> Iterable[InstalledProgram]:
        """Return the programs held, as far as a persistent datapath can read them back."""
        ...

    def statistics(
        self, program_ids: Collection[int] | None = None
    ) -> Mapping[int, ProgramStatistics]:
        """Return the counters of programs that were used, by program id.

        program_ids: of these only.
        """
        ...

    # Packets.

    def receive_state(self, sink: Callable[[bytes], None]) -> None:
        """Hand state frames of other hosts to `sink`, one sink at a time, from `open` on.

        A state frame is an overlay packet of a peer with `STATE_KEY`; `sink` gets its inner frame
        while `upcalls` runs, before that returns any packet that arrived later. Nobody has
        looked into the frame. Without a sink they are dropped (UNKNOWN_TUNNEL_KEY).
        """
        ...

    async def upcalls(self, limit: int = 64) -> list[Upcall]:
        """Wait for packets that need a decision and return up to `limit` of them."""
        ...

    def reinject(self, upcall: Upcall) -> None:
        """Send the packet of an upcall through classification again, after an install.

        A packet that still finds no program or fails a guard is dropped (NOT_REINJECTED), and
        so is one that was cut (PACKET_CUT); none comes up a second time.
        """
        ...

    def emit(self, frame: bytes, outputs: Iterable[Output], *, gso_size: int = 0) -> None:
        """Send a frame out by `outputs`, once each, with their rewrites.

        No program's statistics change. An output that fails is a drop without ingress port.
        """
        ...

    # Seeing inside.

    def drops(self) -> Mapping[tuple[PortId | None, DropReason], int]:
        """Return the number of packets dropped, by ingress port (None: overlay) and reason."""
        ...

    def count_drop(self, port_id: PortId | None, reason: DropReason) -> None:
        """Count a drop that the agent decided on."""
        ...
