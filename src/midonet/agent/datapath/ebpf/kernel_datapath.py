"""The datapath contract on eBPF programs.

Viewpoint: ingress is into the virtual network at a port of this host. What is forwarded and how
lies in the kernel's maps; this class writes them and reads the upcall ring. Nothing of it is
needed for installed programs to go on: the agent may end at any point.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog

from midonet.agent.datapath.ebpf.abi import PortFlag
from midonet.agent.datapath.ebpf.hooks import PORT_PROGRAM, AttachMode, FilterAttacher
from midonet.agent.datapath.ebpf.injection import classification_mark, output_mark
from midonet.agent.datapath.ebpf.kernel_state import (
    DatapathSettings,
    KernelState,
    remove_from_host,
)
from midonet.agent.datapath.ebpf.loader import OLDER_OBJECT_PATH
from midonet.agent.datapath.ebpf.offload import NO_OFFLOAD, prepare_super_packet
from midonet.agent.datapath.ebpf.pins import PinDirectory, TableSizes
from midonet.agent.datapath.ebpf.rtnetlink import Link
from midonet.agent.datapath.ebpf.slots import PortSlot
from midonet.agent.datapath.ebpf.upcall_record import parse_upcall, state_frame
from midonet.agent.datapath.protocol import (
    Capabilities,
    OverlayConfig,
    PortAttachment,
    ProgramStatistics,
    Upcall,
)
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import InstalledProgram, Output
from midonet.errors import DatapathError
from midonet.model.ids import PortId
from midonet.packets.protocols import EtherType
from midonet.runtime.clock import Clock, SystemClock

_log = structlog.get_logger("datapath")

_OLDER_KERNEL = (
    "this kernel (before Linux 6.2, or without BTF) does not show programs which checksum a sender"
    " left to a device: one that may send raw packets can have the kernel write into headers that"
    " filters have judged"
)
_STATISTICS_WIDTH_MAX = 16
_SETTLE_S = 0.05
_LINKS_AFTER_S = 0.5
"""Links take the place of filters when no port has been connected for this time, in seconds."""
_TAKEOVER_S = 5.0
"""How long programs of another version are still asked once the agent decides, in seconds: every
class with traffic is judged in that time, and the others come up like any new one."""

_TAG_TYPES = (EtherType.VLAN, EtherType.SERVICE_VLAN)


class EbpfDatapath:
    """A datapath in the kernel of this network namespace.

    All methods run in the namespace of their caller's thread, which is one and the same.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        hash_seed: int,
        clock: Clock | None = None,
        attach_mode: AttachMode = AttachMode.AUTO,
        filters: FilterAttacher | None = None,
        max_programs: int = 65536,
        max_ports: int = 1024,
        object_path: Path | None = None,
    ) -> None:
        """Do nothing yet. state_dir: of this agent; pins live in it.

        filters: attaches by clsact where there is no TCX, or where attach_mode asks for it.
        object_path: None for the build that the running kernel takes.
        """
        cpus = os.sysconf("SC_NPROCESSORS_CONF")
        sizes = TableSizes(max_programs, max_ports + 1, min(cpus, _STATISTICS_WIDTH_MAX))
        self._settings = DatapathSettings(
            state_dir, hash_seed, sizes, attach_mode, filters, object_path
        )
        self._pins = PinDirectory(state_dir, sizes)
        self._clock = clock or SystemClock()
        self._capabilities = Capabilities("ebpf", max_programs, is_persistent=True)
        self._kernel: KernelState | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._counted: Counter[tuple[PortId | None, DropReason]] = Counter()
        self._overlay = OverlayConfig()
        self._waiting: asyncio.Event | None = None
        self._state_sink: Callable[[bytes], None] | None = None
        self._settle_timer: asyncio.TimerHandle | None = None
        self._takeover_timer: asyncio.TimerHandle | None = None
        self._admitted: dict[PortId, int] = {}
        self._linking: asyncio.Task[None] | None = None
        self._links_from_s = 0.0

    @property
    def capabilities(self) -> Capabilities:
        """See `Datapath.capabilities`."""
        return self._capabilities

    @property
    def frame_access(self) -> None:
        """See `Datapath.frame_access`: the interfaces of the host do that."""
        return None

    @property
    def attach_mode(self) -> AttachMode:
        """How programs are attached: TCX or CLSACT. Raises DatapathError when not open."""
        return self._opened().hooks.mode

    def _opened(self) -> KernelState:
        if self._kernel is None:
            raise DatapathError("the datapath is closed")
        return self._kernel

    async def open(self) -> None:
        """See `Datapath.open`. Raises DatapathError, also when another agent is in the way."""
        if self._kernel is None:
            try:
                self._kernel = KernelState(self._settings, self._pins, self._clock)
            except OSError as error:
                raise DatapathError(
                    f"cannot open the kernel datapath: {error}", errno=error.errno or 0
                ) from error
            if self._kernel.object_path == OLDER_OBJECT_PATH:
                _log.warning("offload_not_checked", reason=_OLDER_KERNEL)
            loop = asyncio.get_running_loop()
            loop.add_reader(self._kernel.netlink.news_fd, self._read_news)
            self._make_links_soon(self._kernel)

    async def close(self) -> None:
        """See `Datapath.close`. A waiting `upcalls` returns an empty list."""
        if self._kernel is None:
            return
        if self._linking is not None:
            self._linking.cancel()
            with suppress(asyncio.CancelledError):
                await self._linking
            self._linking = None
        if self._worker is not None:
            await asyncio.to_thread(self._worker.shutdown)
            self._worker = None
        asyncio.get_running_loop().remove_reader(self._kernel.netlink.news_fd)
        for timer in (self._settle_timer, self._takeover_timer):
            if timer is not None:
                timer.cancel()
        self._settle_timer = self._takeover_timer = None
        self._admitted.clear()
        kernel, self._kernel = self._kernel, None
        if self._waiting is not None:
            asyncio.get_running_loop().remove_reader(kernel.ring.fd)
            self._waiting.set()
        kernel.close()

    async def uninstall(self) -> None:
        """See `Datapath.uninstall`. Works on what an ended process left too."""
        await self.close()
        remove_from_host(self._settings, self._pins)

    def begin_deciding(self) -> None:
        """See `Datapath.begin_deciding`."""
        kernel = self._opened()
        if kernel.takeover.is_running and self._takeover_timer is None:
            kernel.copy_what_earlier_programs_forward()
            loop = asyncio.get_running_loop()
            self._takeover_timer = loop.call_later(_TAKEOVER_S, self.end_takeover)

    def end_takeover(self) -> None:
        """See `Datapath.end_takeover`."""
        if self._takeover_timer is not None:
            self._takeover_timer.cancel()
            self._takeover_timer = None
            self._opened().end_takeover()

    # Ports and overlay.

    def enclose(self, interface_names: Iterable[str]) -> Mapping[str, DatapathError]:
        """See `Datapath.enclose`."""
        kernel = self._opened()
        refused: dict[str, DatapathError] = {}
        for name in interface_names:
            link = kernel.netlink.link(name)
            if link is not None:
                try:
                    self._enclose(kernel, link)
                except DatapathError as error:
                    refused[name] = error
        return refused

    def _enclose(self, kernel: KernelState, link: Link) -> None:
        if link.name in self._overlay.interface_names:
            raise DatapathError(
                f"interface {link.name} leads to other hosts: it cannot be a port's",
                errno=errno.EBUSY,
            )
        kernel.enclosure.enclose(link)

    def attach(self, attachment: PortAttachment) -> None:
        """See `Datapath.attach`."""
        kernel = self._opened()
        slot, old_ifindex = self._admitted_slot(kernel, attachment)
        try:
            kernel.hooks.attach(slot.ifindex, PORT_PROGRAM)
        except DatapathError:
            kernel.slots.detach(slot)
            raise
        if old_ifindex:
            kernel.hooks.detach(old_ifindex, PORT_PROGRAM)

    async def connect(self, attachment: PortAttachment) -> None:
        """See `Datapath.connect`. A link waits for a grace period of the kernel (RCU), 10 to 20 ms,
        one after the other: the kernel holds a lock meanwhile. So there is a filter first."""
        kernel = self._opened()
        slot, old_ifindex = self._admitted_slot(kernel, attachment)
        try:
            await self._in_worker(kernel.hooks.attach_first, slot.ifindex, PORT_PROGRAM)
        except DatapathError:
            kernel.slots.detach(slot)
            raise
        self._make_links_soon(kernel)
        now = kernel.slots.find(attachment.port_id)
        if now is None or now.ifindex != slot.ifindex:
            # The interface went, or the port was detached, meanwhile.
            await self._in_worker(kernel.hooks.detach, slot.ifindex, PORT_PROGRAM)
            raise DatapathError(
                f"interface {attachment.interface_name} is gone", errno=errno.ENODEV
            )
        if old_ifindex:
            await self._in_worker(kernel.hooks.detach, old_ifindex, PORT_PROGRAM)

    async def _in_worker(self, call: Callable[[int, str], None], ifindex: int, name: str) -> None:
        if self._worker is None:
            # Made here, so that its thread is in the namespace of the caller's.
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="hooks")
        await asyncio.get_running_loop().run_in_executor(self._worker, call, ifindex, name)

    def _make_links_soon(self, kernel: KernelState) -> None:
        """Have links take the place of filters when no port has come for a while: whoever comes
        meanwhile would wait for them."""
        self._links_from_s = self._clock.now_s() + _LINKS_AFTER_S
        if self._linking is None or self._linking.done():
            self._linking = asyncio.create_task(self._make_links(kernel))

    async def _make_links(self, kernel: KernelState) -> None:
        refused: set[int] = set()
        while waiting := kernel.hooks.without_link(PORT_PROGRAM) - refused:
            left_s = self._links_from_s - self._clock.now_s()
            if left_s > 0:
                await self._clock.sleep(left_s)
                continue
            ifindex = min(waiting)
            try:
                await self._in_worker(kernel.hooks.make_link, ifindex, PORT_PROGRAM)
            except DatapathError as error:
                refused.add(ifindex)  # the filter stays and serves
                _log.warning("link_not_made", interface=ifindex, error=str(error))
            if all(slot.ifindex != ifindex for slot in kernel.slots.attached()):
                await self._in_worker(kernel.hooks.detach, ifindex, PORT_PROGRAM)

    def admit(self, attachments: Iterable[PortAttachment]) -> Mapping[PortId, DatapathError]:
        """See `Datapath.admit`. Another version's program that is at the interface already asks
        for what is installed here from now on."""
        kernel = self._opened()
        wanted = {attachment.port_id: attachment for attachment in attachments}
        for port_id in self._admitted.keys() - wanted.keys():
            self.detach(port_id)
        refused: dict[PortId, DatapathError] = {}
        for port_id, attachment in wanted.items():
            before = kernel.slots.find(port_id)
            if before is None or before.interface_name != attachment.interface_name:
                try:
                    _, self._admitted[port_id] = self._take_slot(kernel, attachment)
                except DatapathError as error:
                    refused[port_id] = error
        return refused

    def _admitted_slot(
        self, kernel: KernelState, attachment: PortAttachment
    ) -> tuple[PortSlot, int]:
        old_ifindex = self._admitted.pop(attachment.port_id, None)
        slot = kernel.slots.find(attachment.port_id)
        if old_ifindex is None or slot is None or slot.interface_name != attachment.interface_name:
            return self._take_slot(kernel, attachment)
        return slot, old_ifindex

    def _take_slot(self, kernel: KernelState, attachment: PortAttachment) -> tuple[PortSlot, int]:
        """Write where a port is; return its slot and the interface it was at before, or 0."""
        name = attachment.interface_name
        link = kernel.netlink.link(name)
        if link is None:
            raise DatapathError(f"interface {name} does not exist", errno=errno.ENODEV)
        for other in kernel.slots.attached():
            if other.ifindex == link.ifindex and other.port_id != attachment.port_id:
                raise DatapathError(
                    f"interface {name} is taken by port {other.port_id}", errno=errno.EBUSY
                )
        self._enclose(kernel, link)
        before = kernel.slots.find(attachment.port_id)
        flags = PortFlag.REDIRECT_PEER if link.peer_is_foreign else PortFlag(0)
        slot = kernel.slots.attach(attachment, link.ifindex, flags)
        has_moved = before is not None and before.ifindex != link.ifindex
        return slot, before.ifindex if before is not None and has_moved else 0

    def detach(self, port_id: PortId) -> None:
        """See `Datapath.detach`."""
        kernel = self._opened()
        slot = kernel.slots.find(port_id)
        self._admitted.pop(port_id, None)
        if slot is not None and slot.flags != PortFlag.IN_USE:
            if slot.ifindex:
                kernel.hooks.detach(slot.ifindex, PORT_PROGRAM)
            kernel.slots.detach(slot)
            kernel.programs.remove_port(slot)

    async def disconnect(self, port_id: PortId) -> None:
        """See `Datapath.disconnect`. What the port's slot says stops its packets at once."""
        kernel = self._opened()
        slot = kernel.slots.find(port_id)
        self._admitted.pop(port_id, None)
        if slot is not None and slot.flags != PortFlag.IN_USE:
            kernel.slots.detach(slot)
            kernel.programs.remove_port(slot)
            if slot.ifindex:
                await self._in_worker(kernel.hooks.detach, slot.ifindex, PORT_PROGRAM)

    def attached(self) -> Mapping[PortId, str]:
        """See `Datapath.attached`."""
        slots = self._kernel.slots.attached() if self._kernel else []
        return {
            slot.port_id: slot.interface_name
            for slot in slots
            if slot.port_id not in self._admitted
        }

    def configure_overlay(self, config: OverlayConfig) -> None:
        """See `Datapath.configure_overlay`.

        Interfaces that do not exist are listened on from when they appear. Without the device
        that owns the UDP port tunnels work all the same, so it comes last. Raises DatapathError.
        """
        kernel = self._opened()
        kernel.set_vxlan_port(config.vxlan_port)
        kernel.underlay.accept(config)
        self._overlay = config
        self._listen(kernel)
        kernel.tunnel_device.own_port(config.vxlan_port)

    def _listen(self, kernel: KernelState) -> None:
        others = {slot.ifindex for slot in kernel.slots.attached()}
        pair = kernel.injection.near_ifindex, kernel.injection.far_ifindex
        others |= {*pair, kernel.tunnel_device.ifindex}
        kernel.underlay.listen(self._overlay.interface_names, others)

    def set_delivery(self, tunnel_key: int, port_ids: tuple[PortId, ...]) -> None:
        """See `Datapath.set_delivery`."""
        self._opened().deliveries.deliver(tunnel_key, port_ids)

    def deliveries(self) -> Mapping[int, tuple[PortId, ...]]:
        """See `Datapath.deliveries`."""
        return self._kernel.deliveries.read() if self._kernel else {}

    # Programs.

    def install(self, entries: Iterable[InstalledProgram]) -> None:
        """See `Datapath.install`. Raises DatapathError for a port that is not attached too."""
        programs = self._opened().programs
        for entry in entries:
            programs.install(entry)

    def remove(self, entries: Iterable[InstalledProgram]) -> None:
        """See `Datapath.remove`."""
        programs = self._opened().programs
        for entry in entries:
            programs.remove(entry.program_id)

    def drop_mask(self, port_id: PortId, mask_id: int) -> None:
        """See `Datapath.drop_mask`."""
        kernel = self._opened()
        slot = kernel.slots.find(port_id)
        if slot is not None:
            kernel.programs.drop_mask(slot, mask_id)

    def installed(self) -> Iterable[InstalledProgram]:
        """See `Datapath.installed`. After a restart tags, regions and learned MACs are empty, and
        `facts` says what the tags were."""
        return self._kernel.programs.installed() if self._kernel else []

    def statistics(
        self, program_ids: Collection[int] | None = None
    ) -> Mapping[int, ProgramStatistics]:
        """See `Datapath.statistics`."""
        return self._kernel.programs.statistics(program_ids) if self._kernel else {}

    # Packets.

    def receive_state(self, sink: Callable[[bytes], None]) -> None:
        """See `Datapath.receive_state`."""
        self._state_sink = sink

    async def upcalls(self, limit: int = 64) -> list[Upcall]:
        """See `Datapath.upcalls`. Raises DatapathError when the datapath is not open."""
        kernel = self._opened()
        while True:
            records = self._take_state(kernel.ring.read(limit))
            parsed = [parse_upcall(record, kernel.slots) for record in records]
            found = [upcall for upcall in parsed if upcall is not None]
            for _ in range(len(parsed) - len(found)):
                self.count_drop(None, DropReason.UNKNOWN_INGRESS_PORT)
            if found:
                return found
            if not parsed:
                await self._wait_for_upcalls(kernel)
            if self._kernel is not kernel:
                return []

    def _take_state(self, records: list[bytes]) -> list[bytes]:
        """Hand state frames over, in order; return the other records."""
        others = []
        for record in records:
            frame = state_frame(record)
            if frame is None:
                others.append(record)
            elif self._state_sink is None:
                self.count_drop(None, DropReason.UNKNOWN_TUNNEL_KEY)
            else:
                self._state_sink(frame)
        return others

    async def _wait_for_upcalls(self, kernel: KernelState) -> None:
        """Wait until the ring is readable. It is watched only meanwhile: it stays readable for
        as long as records are left in it."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting = asyncio.Event()
        loop.add_reader(kernel.ring.fd, waiting.set)
        try:
            await waiting.wait()
        finally:
            self._waiting = None
            if self._kernel is kernel:
                loop.remove_reader(kernel.ring.fd)

    def reinject(self, upcall: Upcall) -> None:
        """See `Datapath.reinject`."""
        kernel = self._opened()
        slot = kernel.slots.find(upcall.ingress)
        if slot is None or not slot.is_attached:
            self.count_drop(upcall.ingress, DropReason.UNKNOWN_INGRESS_PORT)
            return
        if upcall.length > len(upcall.frame):
            self.count_drop(upcall.ingress, DropReason.PACKET_CUT)
            return
        mark = classification_mark(slot.slot, slot.incarnation)
        if not self._send(kernel, upcall.frame, mark, upcall.gso_size):
            self.count_drop(upcall.ingress, DropReason.INJECTION_FAILED)

    def emit(self, frame: bytes, outputs: Iterable[Output], *, gso_size: int = 0) -> None:
        """See `Datapath.emit`."""
        kernel = self._opened()
        is_ipv6 = _eth_type(frame) == EtherType.IPV6
        for output in outputs:
            entry = kernel.outputs.pack(output, is_ipv6=is_ipv6)
            mark = output_mark(kernel.outputs.emit_identifier(entry))
            if not self._send(kernel, frame, mark, gso_size):
                self.count_drop(None, DropReason.INJECTION_FAILED)

    def _send(self, kernel: KernelState, frame: bytes, mark: int, gso_size: int) -> bool:
        offload = NO_OFFLOAD
        if gso_size:
            offload, frame = prepare_super_packet(frame, gso_size)
        return kernel.injection.send(frame, mark, offload)

    # Seeing inside.

    def drops(self) -> Mapping[tuple[PortId | None, DropReason], int]:
        """See `Datapath.drops`. Those that the agent counted start at zero with each process."""
        total = Counter(self._counted)
        if self._kernel is not None:
            total.update(self._kernel.drop_counts())
        return dict(total)

    def count_drop(self, port_id: PortId | None, reason: DropReason) -> None:
        """See `Datapath.count_drop`."""
        self._counted[port_id, reason] += 1

    # News from the kernel.

    def _read_news(self) -> None:
        """Detach ports whose interface went; look at the underlay again once it has settled."""
        kernel = self._opened()
        news = kernel.netlink.news()
        if kernel.enclosure.ifindex in news.changed | news.gone:
            kernel.restore_enclosure()
        for slot in kernel.slots.attached():
            if slot.ifindex in news.gone:
                kernel.interface_gone(slot)
            elif slot.ifindex in news.changed:
                # The other end of a veth may have moved into a container, or back.
                link = kernel.netlink.link(slot.interface_name)
                is_possible = link is not None and link.peer_is_foreign
                kernel.slots.set_peer_redirect(slot, is_possible=is_possible)
                if link is not None:
                    kernel.enclose(link)
        if news.has_changed and self._settle_timer is None:
            loop = asyncio.get_running_loop()
            self._settle_timer = loop.call_later(_SETTLE_S, self._follow_underlay)

    def _follow_underlay(self) -> None:
        self._settle_timer = None
        if self._kernel is None:
            return
        self._kernel.outputs.tunnels.refresh_routes()
        if self._overlay.interface_names:
            # What stands in the way was said when the overlay was configured.
            with suppress(DatapathError):
                self._listen(self._kernel)
        with suppress(DatapathError):
            self._kernel.tunnel_device.restore()


def _eth_type(frame: bytes) -> int:
    """Return the type behind the outermost tag."""
    found = int.from_bytes(frame[12:14], "big")
    return int.from_bytes(frame[16:18], "big") if found in _TAG_TYPES else found
