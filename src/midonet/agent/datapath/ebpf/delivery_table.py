"""Tunnel keys that are delivered at this host."""

from __future__ import annotations

import errno

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.outputs import OutputTable
from midonet.agent.datapath.ebpf.slots import PortSlots, slot_key
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.agent.flows.program import LocalOutput
from midonet.errors import DatapathError
from midonet.model.ids import PortId


class DeliveryGeneration:
    """Tells the program that what it remembers of peers and deliveries is void."""

    def __init__(self, table: BpfMap) -> None:
        self._table = table
        self._next = int.from_bytes(table.get(bytes(4)) or b"", abi.HOST_ORDER)
        self.advance()  # an earlier process may have ended between a change and this

    def advance(self) -> None:
        """Call after each change, before anything that the old entries name is taken away."""
        self._next += 1
        self._table.update(bytes(4), self._next.to_bytes(8, abi.HOST_ORDER))


class DeliveryTable:
    """The deliveries map. Several ports behind one key are outputs of the outputs map."""

    def __init__(
        self,
        table: BpfMap,
        generation: DeliveryGeneration,
        slots: PortSlots,
        outputs: OutputTable,
    ) -> None:
        self._table = table
        self._generation = generation
        self._slots = slots
        self._outputs = outputs

    def deliver(self, tunnel_key: int, port_ids: tuple[PortId, ...]) -> None:
        """Deliver a key to these ports; () forgets it. Raises DatapathError."""
        key = slot_key(tunnel_key)
        before = self._table.get(key)
        if not port_ids:
            self._table.delete(key)
        else:
            try:
                self._table.update(key, self._pack(port_ids))
            except OSError as error:
                raise DatapathError(
                    f"cannot deliver tunnel key {tunnel_key}: {error}", errno=error.errno or 0
                ) from error
        self._generation.advance()
        if before is not None:
            _, _, first, count, _ = abi.DELIVERY.struct.unpack(before)
            self._outputs.release(first, count)

    def _pack(self, port_ids: tuple[PortId, ...]) -> bytes:
        if len(port_ids) == 1:
            slot = self._slots.name(port_ids[0])
            return abi.DELIVERY.pack(port=slot.slot, incarnation=slot.incarnation)
        if len(port_ids) > abi.OUTPUTS_MAX:
            raise DatapathError(
                f"a key is delivered to at most {abi.OUTPUTS_MAX} ports", errno=errno.E2BIG
            )
        entries = [self._outputs.pack(LocalOutput(port), is_ipv6=False) for port in port_ids]
        return abi.DELIVERY.pack(
            first_output=self._outputs.store(entries), output_count=len(entries)
        )

    def read(self) -> dict[int, tuple[PortId, ...]]:
        """Return what the kernel holds. Keys of ports that are not known any more are left out."""
        found = {}
        for key, value in self._table.items():
            slot, incarnation, first, count, _ = abi.DELIVERY.struct.unpack(value)
            if count:
                ports = self._group(first, count)
            else:
                known = self._slots.at(slot)
                is_same = known is not None and known.incarnation == incarnation
                ports = (known.port_id,) if known is not None and is_same else ()
            if ports:
                found[int.from_bytes(key, abi.HOST_ORDER)] = ports
        return found

    def _group(self, first: int, count: int) -> tuple[PortId, ...]:
        packed = (self._outputs.get(identifier) for identifier in range(first, first + count))
        outputs = (self._outputs.unpack(data, is_ipv6=False) for data in packed if data)
        return tuple(out.port_id for out in outputs if isinstance(out, LocalOutput))

    def references(self) -> tuple[set[int], set[int]]:
        """Return (port slots, output identifiers) that the kernel's table names."""
        slots: set[int] = set()
        identifiers: set[int] = set()
        for _, value in self._table.items():
            slot, _, first, count, _ = abi.DELIVERY.struct.unpack(value)
            slots.add(slot)
            identifiers.update(range(first, first + count))
        return slots, identifiers
