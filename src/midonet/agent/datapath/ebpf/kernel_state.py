"""Everything that is open while the datapath is in use, put together in the one right order.

1. lock and file system, 2. maps and programs, 3. tables of an earlier generation copied,
4. injection pair, 5. configuration, 6. programs of another version found, links taken over by
the new ones, 7. tables read back, 8. leftovers removed. Until step 6 the earlier programs forward
by the earlier tables, and those of another version afterwards too, for what is not here yet.
"""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.abi import ConfigFlag, PortFlag
from midonet.agent.datapath.ebpf.class_table import Counters, ProgramTable
from midonet.agent.datapath.ebpf.delivery_table import DeliveryGeneration, DeliveryTable
from midonet.agent.datapath.ebpf.enclosure import Enclosure
from midonet.agent.datapath.ebpf.hooks import (
    INJECT_PROGRAM,
    PORT_PROGRAM,
    SEGMENT_PROGRAM,
    AttachMode,
    FilterAttacher,
    Hooks,
    remove_link,
)
from midonet.agent.datapath.ebpf.injection import Injection
from midonet.agent.datapath.ebpf.loader import load_object, object_for_kernel
from midonet.agent.datapath.ebpf.outputs import Ends, OutputTable
from midonet.agent.datapath.ebpf.pins import CACHES, PinDirectory, TableSizes
from midonet.agent.datapath.ebpf.resizing import copy_tables
from midonet.agent.datapath.ebpf.ring import RingReader
from midonet.agent.datapath.ebpf.rtnetlink import Link, RouteNetlink
from midonet.agent.datapath.ebpf.slots import PortSlot, PortSlots
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.agent.datapath.ebpf.takeover import Takeover
from midonet.agent.datapath.ebpf.tunnel_device import TunnelDevice
from midonet.agent.datapath.ebpf.underlay_table import UnderlayTable
from midonet.agent.flows.drop_reason import DropReason
from midonet.errors import DatapathError
from midonet.model.ids import PortId
from midonet.runtime.clock import Clock

_log = structlog.get_logger("datapath")

_DEFAULT_VXLAN_PORT = 6677
_REASONS = {int(reason): reason for reason in DropReason}


@dataclass(frozen=True, slots=True)
class DatapathSettings:
    """What does not change while an agent runs.

    state_dir: exists. hash_seed: 64 bits, the same in the whole deployment. filters: attaches by
    clsact, for that mode. object_path: None for the build that the running kernel takes.
    """

    state_dir: Path
    hash_seed: int
    sizes: TableSizes
    attach_mode: AttachMode
    filters: FilterAttacher | None
    object_path: Path | None

    @property
    def shares_counters(self) -> bool:
        """Tell whether several CPUs count in one place."""
        return os.sysconf("SC_NPROCESSORS_CONF") > self.sizes.width

    @property
    def owner(self) -> str:
        """The word that names this agent on the links it makes."""
        return f"midonet {self.state_dir.resolve()}"[-200:]


class DropCounters:
    """The drops map through shared memory, and what the agent counts itself."""

    def __init__(self, table: BpfMap) -> None:
        self._memory = mmap.mmap(table.fd, table.entries * 8, mmap.MAP_SHARED)
        self._words = memoryview(self._memory).cast("Q")

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._memory.close()

    def read(self, slot: int) -> dict[DropReason, int]:
        """Return the counters of a slot that are not zero."""
        start = slot * abi.DROP_REASONS
        words = self._words[start : start + abi.DROP_REASONS].tolist()
        return {
            _REASONS[reason]: count
            for reason, count in enumerate(words)
            if count and reason in _REASONS
        }

    def clear(self, slot: int) -> None:
        """Set the counters of a slot to zero."""
        size = abi.DROP_REASONS * 8
        self._memory[slot * size : (slot + 1) * size] = bytes(size)


class KernelState:
    """The open datapath. Making one does the steps of the module docstring."""

    def __init__(self, settings: DatapathSettings, pins: PinDirectory, clock: Clock) -> None:
        self.settings = settings
        self._pins = pins
        self._clock = clock
        self._is_copying = False
        with ExitStack() as stack:
            pins.acquire()
            stack.callback(pins.release)
            pins.mount()
            pins.forget(CACHES)
            self.object_path = settings.object_path or object_for_kernel()
            self.loaded = load_object(
                self.object_path,
                pin_directory=pins.maps,
                unpinned=CACHES,
                entries=settings.sizes.entries,
            )
            stack.callback(self.loaded.close)
            self._copy_earlier_tables()
            self.netlink = RouteNetlink()
            stack.callback(self.netlink.close)
            self.injection = Injection(self.netlink, settings.owner)
            self.takeover = Takeover(self.loaded.maps["earlier"], pins)
            self.injection.open(self._known_near(), beside_another=pins.has_other_versions)
            stack.callback(self.injection.close)
            self.enclosure = Enclosure(self.netlink, settings.owner)
            self.enclosure.open()
            self._write_config()
            self.hooks = Hooks(pins.links, settings.attach_mode, settings.filters)
            self.takeover.begin()
            self.takeover.pin_programs(self.loaded.programs)
            self.hooks.take_over(
                self.loaded.programs,
                self.takeover.links_to_take(),
                spared=self.injection.other_far_ends(),
            )
            self.hooks.attach(self.injection.far_ifindex, INJECT_PROGRAM)
            self.hooks.attach(self.injection.near_ifindex, SEGMENT_PROGRAM)
            self.tunnel_device = TunnelDevice(self.netlink, self.hooks, self.enclosure)
            self.tunnel_device.close_what_is_there()
            self._open_tables(stack)
            self._check_ports()
            if not self.takeover.is_running:
                self.end_takeover()
            self._resources = stack.pop_all()

    def close(self) -> None:
        """Close descriptors and mappings, and give the lock back. The kernel goes on."""
        self.outputs.forget_emitted()
        self._resources.close()

    def _known_near(self) -> int:
        held = self.loaded.maps["config"].get(bytes(4))
        return 0 if held is None else abi.CONFIG.integer(held, "inject_ifindex")

    def copy_what_earlier_programs_forward(self) -> None:
        """Have packets that earlier programs decide on copied up, to be judged."""
        self._is_copying = True
        self._write_config()

    def end_takeover(self) -> None:
        """Let earlier programs go, and what only they knew. Idempotent."""
        self._is_copying = False
        self._write_config()
        self.takeover.end()
        self.injection.remove_others()
        attached = {slot.ifindex for slot in self.slots.attached()}
        for ifindex in self.hooks.attached(PORT_PROGRAM) - attached:
            self.hooks.detach(ifindex, PORT_PROGRAM)

    def _open_tables(self, stack: ExitStack) -> None:
        maps = self.loaded.maps
        self.counters = Counters(maps["statistics"], self.settings.sizes.width)
        stack.callback(self.counters.close)
        self.drops = DropCounters(maps["drops"])
        stack.callback(self.drops.close)
        self.ring = RingReader(maps["upcalls"].fd, maps["upcalls"].entries)
        stack.callback(self.ring.close)
        self.slots = PortSlots(
            maps["ports"],
            maps["interfaces"],
            referenced=self._referenced_slots,
            on_reuse=self.drops.clear,
        )
        boot_ns = self._clock.boot_ns
        self.outputs = OutputTable(
            maps["outputs"], maps["tunnels"], self.slots, self.netlink.route_towards, boot_ns
        )
        stack.callback(self.outputs.close)
        self.programs = ProgramTable(
            maps,
            self.slots,
            self.outputs,
            self.counters,
            max_programs=self.settings.sizes.programs,
            boot_ns=boot_ns,
        )
        stack.callback(self.programs.close)
        self.programs.load()
        self.outputs.tunnels.set_in_use(self._tunnels_in_use)
        generation = DeliveryGeneration(maps["delivery_generation"])
        self.deliveries = DeliveryTable(
            maps["tunnel_keys"], maps["deliveries"], generation, self.slots, self.outputs
        )
        stack.callback(self.deliveries.close)
        self.underlay = UnderlayTable(maps["peers"], generation, self.hooks, self.netlink)
        self.outputs.tunnels.refresh_routes()

    def _referenced_slots(self) -> set[int]:
        return self.deliveries.named_slots() | self.programs.named_slots()

    def _tunnels_in_use(self) -> set[Ends]:
        self.outputs.forget_emitted()
        return self.programs.tunnel_ends()

    def _check_ports(self) -> None:
        """Detach ports whose interface went while nobody looked; hook up the others."""
        for slot in self.slots.attached():
            link = self.netlink.link(slot.interface_name)
            if link is None or link.ifindex != slot.ifindex:
                self.interface_gone(slot)
            else:
                self.enclose(link)
                self.hooks.attach_first(slot.ifindex, PORT_PROGRAM)

    def enclose(self, link: Link) -> None:
        """Keep the interface of an attached port from the host's stack; its program does so too."""
        try:
            self.enclosure.enclose(link)
        except DatapathError as error:
            _log.warning("port_not_enclosed", interface=link.name, error=str(error))

    def restore_enclosure(self) -> None:
        """Make the bridge again when somebody took it away, and keep it down."""
        try:
            self.enclosure.open()
        except (DatapathError, OSError) as error:
            _log.warning("enclosure_missing", error=str(error))
            return
        for slot in self.slots.attached():
            link = self.netlink.link(slot.interface_name)
            if link is not None:
                self.enclose(link)

    def interface_gone(self, slot: PortSlot) -> None:
        """Note that the interface of an attached port does not exist any more."""
        self.hooks.detach(slot.ifindex, PORT_PROGRAM)
        self.programs.remove_port(slot)
        self.slots.detach(slot, PortFlag.GONE)

    def _write_config(self, vxlan_port: int | None = None) -> None:
        table = self.loaded.maps["config"]
        if vxlan_port is None:
            before = table.get(bytes(4))
            held = b"" if before is None else abi.CONFIG.part(before, "vxlan_port")
            vxlan_port = int.from_bytes(held, "big") or _DEFAULT_VXLAN_PORT
        monotonic_ns = int(self._clock.now_s() * 1e9)
        flags = ConfigFlag.SHARED_COUNTERS if self.settings.shares_counters else ConfigFlag(0)
        if self._is_copying:
            flags |= ConfigFlag.COPY_EARLIER
        table.update(
            bytes(4),
            abi.CONFIG.pack(
                abi_version=abi.ABI_VERSION,
                flags=flags,
                hash_seed=self.settings.hash_seed,
                vxlan_port=vxlan_port.to_bytes(2, "big"),
                inject_ifindex=self.injection.near_ifindex,
                segment_ifindex=self.injection.far_ifindex,
                statistics_width=self.settings.sizes.width,
                statistics_stride=self.settings.sizes.programs + 1,
                output_slots=self.loaded.maps["outputs"].entries,
                boot_offset_ns=max(0, self._clock.boot_ns() - monotonic_ns),
            ),
        )

    def set_vxlan_port(self, port: int) -> None:
        """Use another UDP port for VXLAN, in both directions."""
        self._write_config(port)

    def _copy_earlier_tables(self) -> None:
        """Copy the tables of a generation of this ABI version with other sizes.

        Tables of another ABI version are not read: their programs are asked (`takeover.py`).
        """
        prefix = f"v{abi.ABI_VERSION}-"
        for generation in self._pins.other_generations():
            if generation.name.startswith(prefix):
                copy_tables(generation / "maps", self.loaded.maps)

    def drop_counts(self) -> dict[tuple[PortId | None, DropReason], int]:
        """Return what the kernel counted, by ingress port (None: overlay) and reason."""
        owners: list[tuple[PortId | None, int]] = [(None, abi.OVERLAY_SLOT)]
        owners += [(slot.port_id, slot.slot) for slot in self.slots.named()]
        return {
            (port_id, reason): count
            for port_id, slot in owners
            for reason, count in self.drops.read(slot).items()
        }


def remove_from_host(settings: DatapathSettings, pins: PinDirectory) -> None:
    """Remove everything the datapath ever put into the host. Idempotent."""
    pins.acquire()
    netlink = RouteNetlink()
    try:
        TunnelDevice.remove(netlink)  # before the program that closes it
        Enclosure(netlink, settings.owner).remove()
        if settings.filters is not None:
            Hooks(pins.links, AttachMode.CLSACT, settings.filters).detach_all()
        for pin in pins.all_link_pins():
            remove_link(pin)
        pins.remove_all()
        Injection(netlink, settings.owner).remove()
    finally:
        netlink.close()
        pins.release()
