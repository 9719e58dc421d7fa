"""Port slots: the small numbers by which the kernel knows ports, and what is attached to them.

A slot belongs to a port from the first time it is named, attached or not, so that programs can
deliver to ports that come later. It passes to another port only when the table is full and
nothing refers to it any more, and then with another incarnation, so that what still names it
drops instead of delivering to the wrong port.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.abi import PortFlag
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.agent.datapath.protocol import PortAttachment
from midonet.errors import DatapathError
from midonet.model.ids import PortId

_NANOSECONDS = 1_000_000_000


class PortSlot(NamedTuple):
    """A slot as the kernel has it. ifindex is 0 unless attached."""

    slot: int
    port_id: PortId
    incarnation: int
    flags: PortFlag
    ifindex: int
    interface_name: str

    @property
    def is_attached(self) -> bool:
        """Tell whether packets enter and leave by an interface."""
        return PortFlag.ATTACHED in self.flags


def slot_key(slot: int) -> bytes:
    """Return the key of a slot in the maps that are indexed by it."""
    return slot.to_bytes(4, abi.HOST_ORDER)


def _parse(slot: int, value: bytes) -> PortSlot:
    port_id, flags, ifindex, incarnation, *_, name, _, _ = abi.PORT.struct.unpack(value)
    return PortSlot(
        slot,
        PortId(UUID(bytes=port_id)),
        incarnation,
        PortFlag(flags),
        ifindex,
        name.split(b"\0", 1)[0].decode(),
    )


class PortSlots:
    """The slot table: kernel maps, with a copy here that is read back from them.

    referenced: returns the slots that programs, outputs and deliveries name.
    on_reuse: called with a slot that passes to another port, to clear its counters.
    """

    def __init__(
        self,
        ports: BpfMap,
        interfaces: BpfMap,
        *,
        referenced: Callable[[], set[int]],
        on_reuse: Callable[[int], None],
    ) -> None:
        self._ports = ports
        self._interfaces = interfaces
        self._referenced = referenced
        self._on_reuse = on_reuse
        self._by_slot: dict[int, PortSlot] = {}
        self._by_id: dict[PortId, PortSlot] = {}
        self._incarnations: dict[int, int] = {}
        for key, value in ports.items():
            found = _parse(int.from_bytes(key, abi.HOST_ORDER), value)
            if PortFlag.IN_USE in found.flags:
                self._keep(found)
            self._incarnations[found.slot] = found.incarnation

    def _keep(self, slot: PortSlot) -> None:
        self._by_slot[slot.slot] = slot
        self._by_id[slot.port_id] = slot

    def find(self, port_id: PortId) -> PortSlot | None:
        """Return the slot of a port that was named before."""
        return self._by_id.get(port_id)

    def at(self, slot: int) -> PortSlot | None:
        """Return what is in a slot."""
        return self._by_slot.get(slot)

    def named(self) -> list[PortSlot]:
        """Return all slots that belong to a port."""
        return list(self._by_slot.values())

    def attached(self) -> list[PortSlot]:
        """Return the slots of attached ports."""
        return [slot for slot in self._by_slot.values() if slot.is_attached]

    def name(self, port_id: PortId) -> PortSlot:
        """Return the slot of a port, giving it one the first time. Raises DatapathError."""
        known = self._by_id.get(port_id)
        if known is not None:
            return known
        number = self._free_slot()
        incarnation = self._incarnations.get(number, 0) + 1 & 0xFFFF_FFFF
        made = PortSlot(number, port_id, incarnation, PortFlag.IN_USE, 0, "")
        self._ports.update(
            slot_key(number),
            abi.PORT.pack(port_id=port_id.bytes, flags=made.flags, incarnation=incarnation),
        )
        self._incarnations[number] = incarnation
        self._keep(made)
        return made

    def _free_slot(self) -> int:
        for number in range(1, self._ports.entries):
            if number not in self._by_slot:
                return number
        referenced = self._referenced()
        for number, slot in self._by_slot.items():
            if number not in referenced and not slot.is_attached:
                del self._by_slot[number], self._by_id[slot.port_id]
                self._on_reuse(number)
                return number
        raise DatapathError("the port table is full", errno=errno.ENOSPC)

    def attach(self, attachment: PortAttachment, ifindex: int, flags: PortFlag) -> PortSlot:
        """Write that a port is at an interface; packets are taken in from now on."""
        known = self.name(attachment.port_id)
        if known.ifindex not in (0, ifindex):
            self._interfaces.delete(slot_key(known.ifindex))
        interval = _NANOSECONDS // max(attachment.upcalls_per_second, 1)
        copy_interval = _NANOSECONDS // max(attachment.copies_per_second, 1)
        flags |= PortFlag.IN_USE | PortFlag.ATTACHED
        slot = known._replace(
            flags=flags, ifindex=ifindex, interface_name=attachment.interface_name
        )
        self._ports.update(
            slot_key(slot.slot),
            abi.PORT.pack(
                port_id=attachment.port_id.bytes,
                flags=flags,
                ifindex=ifindex,
                incarnation=slot.incarnation,
                upcall_interval_ns=interval,
                upcall_burst_ns=interval * attachment.upcall_burst,
                copy_interval_ns=copy_interval,
                copy_burst_ns=copy_interval * attachment.copy_burst,
                interface_name=attachment.interface_name.encode(),
            ),
        )
        self._interfaces.update(
            slot_key(ifindex), abi.INTERFACE.pack(slot=slot.slot, incarnation=slot.incarnation)
        )
        self._keep(slot)
        return slot

    def set_peer_redirect(self, slot: PortSlot, *, is_possible: bool) -> None:
        """Write whether the other end of an attached port's interface is in another namespace."""
        flags = slot.flags & ~PortFlag.REDIRECT_PEER
        if is_possible:
            flags |= PortFlag.REDIRECT_PEER
        value = self._ports.get(slot_key(slot.slot))
        if flags == slot.flags or value is None:
            return
        start, size = abi.PORT.offsets["flags"]
        packed = int(flags).to_bytes(size, abi.HOST_ORDER)
        self._ports.update(slot_key(slot.slot), value[:start] + packed + value[start + size :])
        self._keep(slot._replace(flags=flags))

    def detach(self, slot: PortSlot, extra: PortFlag | None = None) -> None:
        """Write that a port is at no interface. The slot stays its own."""
        if slot.ifindex:
            self._interfaces.delete(slot_key(slot.ifindex))
        flags = PortFlag.IN_USE if extra is None else PortFlag.IN_USE | extra
        self._ports.update(
            slot_key(slot.slot),
            abi.PORT.pack(port_id=slot.port_id.bytes, flags=flags, incarnation=slot.incarnation),
        )
        self._keep(slot._replace(flags=flags, ifindex=0, interface_name=""))
