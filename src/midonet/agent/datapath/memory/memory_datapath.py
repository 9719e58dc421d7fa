"""The datapath contract in Python: what the kernel program does, packet by packet.

Viewpoint: ingress is into the virtual network at a port of this host.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from midonet.agent.datapath.memory.carriers import Listener, Underlay, outer_addresses
from midonet.agent.datapath.memory.classifier import Classifier, Slot
from midonet.agent.datapath.protocol import (
    STATE_FRAME_BYTES,
    STATE_KEY,
    Capabilities,
    FrameAccess,
    OverlayConfig,
    PortAttachment,
    ProgramStatistics,
    Upcall,
    UpcallReason,
)
from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.classification import meets_guards
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import InstalledProgram, LocalOutput, Output, TunnelOutput
from midonet.agent.flows.underlay_guard import reaches_underlay
from midonet.errors import DatapathError, DecodeError, InternalError
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress
from midonet.packets.flowkey import FlowKey
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.overlay import (
    decapsulate,
    encapsulate_gre,
    encapsulate_vxlan,
    overlay_source_port,
)
from midonet.runtime.clock import Clock, SystemClock
from midonet.runtime.token_bucket import TokenBucket

UPCALL_QUEUE_LENGTH = 4096
"""Upcalls that wait for the agent, of all ports together."""

DeliverySink = Callable[[PortId, bytes], None]


@dataclass(slots=True)
class _AttachedPort:
    attachment: PortAttachment
    bucket: TokenBucket
    copies: TokenBucket
    classifier: Classifier = field(default_factory=Classifier)


class MemoryDatapath:
    """A datapath without a kernel.

    Frames enter by `receive` and leave to the sinks of `subscribe`; outer packets travel by the
    underlay given. Offloaded super-packets are delivered and tunnelled whole.
    """

    def __init__(
        self,
        underlay: Underlay,
        *,
        hash_seed: int = 0,
        clock: Clock | None = None,
        max_programs: int = 65536,
        upcall_queue_length: int = UPCALL_QUEUE_LENGTH,
    ) -> None:
        """Make an empty datapath. hash_seed: 64-bit deployment-wide key of the flow hash."""
        self._underlay = underlay
        self._hash_seed = hash_seed
        self._clock = clock or SystemClock()
        self._capabilities = Capabilities("memory", max_programs, is_persistent=False)
        self._upcall_queue_length = upcall_queue_length
        self._ports: dict[PortId, _AttachedPort] = {}
        self._programs: dict[int, Slot] = {}
        self._overlay = OverlayConfig()
        self._protected: frozenset[IpAddress] = frozenset()
        self._listener: Listener | None = None
        self._admitted: set[PortId] = set()
        self._deliveries: dict[int, tuple[PortId, ...]] = {}
        self._upcalls: deque[Upcall] = deque()
        self._has_upcalls = asyncio.Event()
        self._state_frames: deque[bytes] = deque()
        self._state_sink: Callable[[bytes], None] | None = None
        self._is_open = False
        self._drops: Counter[tuple[PortId | None, DropReason]] = Counter()
        self._sinks: dict[int, DeliverySink] = {}
        self._next_sink = 0

    @property
    def capabilities(self) -> Capabilities:
        """See `Datapath.capabilities`."""
        return self._capabilities

    @property
    def frame_access(self) -> FrameAccess:
        """See `Datapath.frame_access`."""
        return self

    async def open(self) -> None:
        """See `Datapath.open`."""
        self._is_open = True
        self._listen()

    async def close(self) -> None:
        """See `Datapath.close`. A waiting `upcalls` returns an empty list."""
        self._is_open = False
        self._has_upcalls.set()
        self._stop_listening()

    async def uninstall(self) -> None:
        """See `Datapath.uninstall`."""
        await self.close()
        self._ports.clear()
        self._admitted.clear()
        self._programs.clear()
        self._deliveries.clear()
        self._upcalls.clear()
        self._state_frames.clear()
        self._overlay = OverlayConfig()

    def begin_deciding(self) -> None:
        """See `Datapath.begin_deciding`. Nothing is there from before."""

    def end_takeover(self) -> None:
        """See `Datapath.end_takeover`."""

    # Ports and overlay.

    def enclose(self, interface_names: Iterable[str]) -> Mapping[str, DatapathError]:
        """See `Datapath.enclose`. There is no host's stack here."""
        return {}

    def attach(self, attachment: PortAttachment) -> None:
        """See `Datapath.attach`. Every interface name is taken to exist."""
        for port_id, port in self._ports.items():
            taken = port.attachment.interface_name == attachment.interface_name
            if taken and port_id != attachment.port_id:
                raise DatapathError(
                    f"interface {attachment.interface_name} is taken by port {port_id}",
                    errno=errno.EBUSY,
                )
        known = self._ports.get(attachment.port_id)
        self._admitted.discard(attachment.port_id)
        if known is not None and known.attachment == attachment:
            return
        bucket = TokenBucket(
            attachment.upcalls_per_second, attachment.upcall_burst, self._clock.boot_ns()
        )
        classifier = known.classifier if known else Classifier()
        copies = TokenBucket(
            attachment.copies_per_second, attachment.copy_burst, self._clock.boot_ns()
        )
        self._ports[attachment.port_id] = _AttachedPort(attachment, bucket, copies, classifier)

    def admit(self, attachments: Iterable[PortAttachment]) -> Mapping[PortId, DatapathError]:
        """See `Datapath.admit`."""
        wanted = {attachment.port_id: attachment for attachment in attachments}
        for port_id in self._admitted - wanted.keys():
            self.detach(port_id)
        refused: dict[PortId, DatapathError] = {}
        for port_id, attachment in wanted.items():
            is_new = port_id not in self._ports
            try:
                self.attach(attachment)
            except DatapathError as error:
                refused[port_id] = error
            else:
                if is_new:
                    self._admitted.add(port_id)
        return refused

    async def connect(self, attachment: PortAttachment) -> None:
        """See `Datapath.connect`."""
        self.attach(attachment)

    async def disconnect(self, port_id: PortId) -> None:
        """See `Datapath.disconnect`."""
        self.detach(port_id)

    def detach(self, port_id: PortId) -> None:
        """See `Datapath.detach`."""
        port = self._ports.pop(port_id, None)
        self._admitted.discard(port_id)
        if port is not None:
            for slot in port.classifier.classes.values():
                self._programs.pop(slot.installed.program_id, None)

    def attached(self) -> Mapping[PortId, str]:
        """See `Datapath.attached`."""
        return {
            port_id: port.attachment.interface_name
            for port_id, port in self._ports.items()
            if port_id not in self._admitted
        }

    def configure_overlay(self, config: OverlayConfig) -> None:
        """See `Datapath.configure_overlay`.

        Raises DatapathError when an underlay address cannot be listened on.
        """
        has_moved = config.local_addresses != self._overlay.local_addresses
        self._overlay = config
        self._protected = config.protected_addresses
        if has_moved or self._listener is None:
            self._stop_listening()
            self._listen()

    def set_delivery(self, tunnel_key: int, port_ids: tuple[PortId, ...]) -> None:
        """See `Datapath.set_delivery`."""
        if port_ids:
            self._deliveries[tunnel_key] = port_ids
        else:
            self._deliveries.pop(tunnel_key, None)

    def deliveries(self) -> Mapping[int, tuple[PortId, ...]]:
        """See `Datapath.deliveries`."""
        return dict(self._deliveries)

    # Programs.

    def install(self, entries: Iterable[InstalledProgram]) -> None:
        """See `Datapath.install`. Raises DatapathError for a port that is not attached too."""
        for entry in entries:
            port = self._ports.get(entry.program.ingress)
            if port is None:
                raise DatapathError(
                    f"port {entry.program.ingress} is not attached", errno=errno.ENODEV
                )
            slot = self._programs.get(entry.program_id)
            if slot is None:
                if len(self._programs) >= self._capabilities.max_programs:
                    raise DatapathError("the class table is full", errno=errno.ENOSPC)
                slot = self._programs[entry.program_id] = Slot(entry)
            elif _place(slot.installed) != _place(entry):
                self._withdraw(slot.installed)
            slot.installed = entry
            port.classifier.put(slot)

    def remove(self, entries: Iterable[InstalledProgram]) -> None:
        """See `Datapath.remove`."""
        for entry in entries:
            slot = self._programs.pop(entry.program_id, None)
            if slot is not None:
                self._withdraw(slot.installed)

    def drop_mask(self, port_id: PortId, mask_id: int) -> None:
        """See `Datapath.drop_mask`."""
        port = self._ports.get(port_id)
        if port is not None:
            port.classifier.drop_mask(mask_id)

    def installed(self) -> Iterable[InstalledProgram]:
        """See `Datapath.installed`."""
        return [slot.installed for slot in self._programs.values()]

    def statistics(
        self, program_ids: Collection[int] | None = None
    ) -> Mapping[int, ProgramStatistics]:
        """See `Datapath.statistics`."""
        wanted = self._programs.keys() if program_ids is None else program_ids
        found = {i: self._programs[i] for i in wanted if i in self._programs}
        return {i: slot.statistics() for i, slot in found.items() if slot.packets}

    # Packets.

    def receive(self, port_id: PortId, frame: bytes, gso_size: int = 0) -> None:
        """Take a frame in at a port, as if it arrived at its interface.

        gso_size: payload bytes of one segment of an offloaded super-packet, else 0.
        """
        if port_id in self._admitted:
            self._drop(port_id, DropReason.UNKNOWN_INGRESS_PORT)
            return
        self._process(port_id, frame, gso_size, is_reinjected=False)

    def subscribe(self, sink: DeliverySink) -> Callable[[], None]:
        """Hand every frame that leaves by a local port to `sink`, until the result is called."""
        number = self._next_sink
        self._next_sink += 1
        self._sinks[number] = sink

        def unsubscribe() -> None:
            self._sinks.pop(number, None)

        return unsubscribe

    def receive_state(self, sink: Callable[[bytes], None]) -> None:
        """See `Datapath.receive_state`."""
        self._state_sink = sink

    async def upcalls(self, limit: int = 64) -> list[Upcall]:
        """See `Datapath.upcalls`. Raises DatapathError when the datapath is not open."""
        if not self._is_open:
            raise DatapathError("the datapath is closed")
        self._hand_over_state()
        while not self._upcalls and self._is_open:
            self._has_upcalls.clear()
            await self._has_upcalls.wait()
            self._hand_over_state()
        return [self._upcalls.popleft() for _ in range(min(limit, len(self._upcalls)))]

    def reinject(self, upcall: Upcall) -> None:
        """See `Datapath.reinject`."""
        if upcall.length > len(upcall.frame):
            self._drop(upcall.ingress, DropReason.PACKET_CUT)
            return
        self._process(upcall.ingress, upcall.frame, upcall.gso_size, is_reinjected=True)

    def emit(self, frame: bytes, outputs: Iterable[Output], *, gso_size: int = 0) -> None:
        """See `Datapath.emit`."""
        try:
            parsed = parse_frame(frame, gso_size=gso_size, hash_seed=self._hash_seed)
        except DecodeError:
            key = FlowKey(0, 0)  # no packet of IP; and the source port of the tunnel
        else:
            key = parsed.key
        for output in outputs:
            self._output(None, frame, key, output)

    # Seeing inside.

    def drops(self) -> Mapping[tuple[PortId | None, DropReason], int]:
        """See `Datapath.drops`."""
        return MappingProxyType(dict(self._drops))

    def count_drop(self, port_id: PortId | None, reason: DropReason) -> None:
        """See `Datapath.count_drop`."""
        self._drop(port_id, reason)

    # Inside.

    def _process(
        self, port_id: PortId, frame: bytes, gso_size: int, *, is_reinjected: bool
    ) -> None:
        port = self._ports.get(port_id)
        if port is None:
            self._drop(port_id, DropReason.UNKNOWN_INGRESS_PORT)
            return
        try:
            parsed = parse_frame(frame, gso_size=gso_size, hash_seed=self._hash_seed)
        except DecodeError:
            self._drop(port_id, DropReason.MALFORMED)
            return
        slot = port.classifier.find(parsed.key)
        if slot is not None and meets_guards(slot.installed.program.guards, parsed):
            self._run(slot, parsed)
        elif is_reinjected:
            self._drop(port_id, DropReason.NOT_REINJECTED)
        elif slot is None:
            self._raise_upcall(port, parsed, UpcallReason.MISS, 0)
        else:
            self._raise_upcall(port, parsed, UpcallReason.GUARD, slot.installed.program_id)

    def _run(self, slot: Slot, parsed: ParsedFrame) -> None:
        program = slot.installed.program
        slot.count(parsed.length, self._clock.boot_ns())
        if program.drop_reason is not None:
            self._drop(program.ingress, program.drop_reason)
            return
        copies = len(program.outputs)
        port = self._ports.get(program.ingress)
        if copies > 1 and port and not port.copies.take(self._clock.boot_ns(), copies):
            self._drop(program.ingress, DropReason.COPY_RATE)
            return
        for output in program.outputs:
            self._output(program.ingress, parsed.frame, parsed.key, output)

    def _raise_upcall(
        self, port: _AttachedPort, parsed: ParsedFrame, reason: UpcallReason, program_id: int
    ) -> None:
        now_ns = self._clock.boot_ns()
        port_id = port.attachment.port_id
        if not port.bucket.take(now_ns):
            self._drop(port_id, DropReason.UPCALL_RATE)
            return
        if len(self._upcalls) >= self._upcall_queue_length:
            self._drop(port_id, DropReason.UPCALL_RING_FULL)
            return
        self._upcalls.append(
            Upcall(
                port_id,
                parsed.frame,
                parsed.length,
                reason,
                gso_size=parsed.gso_size,
                program_id=program_id,
                flow_hash=parsed.key.flow_hash,
                received_ns=now_ns,
            )
        )
        self._has_upcalls.set()

    def _output(self, ingress: PortId | None, frame: bytes, key: FlowKey, output: Output) -> None:
        if reaches_underlay(key, output, self._protected, self._overlay.vxlan_port):
            self._drop(ingress, DropReason.UNDERLAY_SPOOF)
            return
        try:
            rewritten = apply_rewrite(frame, output.rewrite)
        except (DecodeError, InternalError):
            self._drop(ingress, DropReason.REWRITE_FAILED)
            return
        if isinstance(output, LocalOutput):
            self._deliver(ingress, output.port_id, rewritten)
        elif not self._tunnel(rewritten, key.flow_hash, output):
            self._drop(ingress, DropReason.ENCAP_FAILED)

    def _deliver(self, ingress: PortId | None, port_id: PortId, frame: bytes) -> None:
        if port_id not in self._ports:
            self._drop(ingress, DropReason.PORT_NOT_ATTACHED)
            return
        for sink in tuple(self._sinks.values()):
            sink(port_id, frame)

    def _tunnel(self, frame: bytes, flow_hash: int, output: TunnelOutput) -> bool:
        key, local, remote = output.tunnel_key, output.local, output.remote
        try:
            if output.kind is TunnelKind.GRE:
                outer = encapsulate_gre(frame, key=key, local=local, remote=remote)
            else:
                outer = encapsulate_vxlan(
                    frame,
                    key=key,
                    local=local,
                    remote=remote,
                    source_port=overlay_source_port(flow_hash),
                    udp_port=self._overlay.vxlan_port,
                )
        except (DecodeError, InternalError):
            return False
        return self._underlay.send(outer)

    def _receive_outer(self, packet: bytes) -> None:
        addresses = outer_addresses(packet)
        if addresses is None:
            self._drop(None, DropReason.OVERLAY_MALFORMED)
            return
        if addresses.source not in self._overlay.peers:
            self._drop(None, DropReason.UNKNOWN_PEER)
            return
        try:
            opened = decapsulate(packet, self._overlay.vxlan_port)
        except DecodeError:
            self._drop(None, DropReason.OVERLAY_MALFORMED)
            return
        if opened.tunnel_key == STATE_KEY:
            self._take_state(opened.inner)
            return
        port_ids = self._deliveries.get(opened.tunnel_key)
        if port_ids is None:
            self._drop(None, DropReason.UNKNOWN_TUNNEL_KEY)
            return
        for port_id in port_ids:
            self._deliver(None, port_id, opened.inner)

    def _take_state(self, frame: bytes) -> None:
        """Keep a state frame until upcalls are asked for: a sink is not called by a sender."""
        if len(frame) > STATE_FRAME_BYTES:
            self._drop(None, DropReason.OVERLAY_MALFORMED)
        elif len(self._state_frames) >= self._upcall_queue_length:
            self._drop(None, DropReason.UPCALL_RING_FULL)
        else:
            self._state_frames.append(frame)
            self._has_upcalls.set()

    def _hand_over_state(self) -> None:
        while self._state_frames:
            frame = self._state_frames.popleft()
            if self._state_sink is None:
                self._drop(None, DropReason.UNKNOWN_TUNNEL_KEY)
            else:
                self._state_sink(frame)

    def _listen(self) -> None:
        if self._is_open and self._listener is None and self._overlay.local_addresses:
            addresses = sorted(self._overlay.local_addresses)
            self._listener = self._underlay.listen(addresses, self._receive_outer)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _withdraw(self, installed: InstalledProgram) -> None:
        port = self._ports.get(installed.program.ingress)
        if port is not None:
            port.classifier.discard(installed)

    def _drop(self, port_id: PortId | None, reason: DropReason) -> None:
        self._drops[port_id, reason] += 1


def _place(installed: InstalledProgram) -> tuple[object, ...]:
    """Return where a program is found: its class."""
    return installed.program.ingress, installed.mask_id, installed.key
