"""Tunnel keys that are delivered at this host."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.outputs import OutputTable
from midonet.agent.datapath.ebpf.records import RecordArray
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
    """The tunnel_keys and deliveries maps. Several ports behind one key are a list of outputs."""

    def __init__(
        self,
        tunnel_keys: BpfMap,
        deliveries: BpfMap,
        generation: DeliveryGeneration,
        slots: PortSlots,
        outputs: OutputTable,
    ) -> None:
        self._tunnel_keys = tunnel_keys
        self._records = RecordArray(deliveries)
        self._generation = generation
        self._slots = slots
        self._outputs = outputs
        self._indices: dict[int, int] = {}
        self._read_back()
        used = set(self._indices.values())
        self._free = deque(i for i in range(1, self._records.capacity) if i not in used)

    def close(self) -> None:
        """Unmap."""
        self._records.close()

    def _read_back(self) -> None:
        used: set[int] = set()
        for key, value in self._tunnel_keys.items():
            tunnel_key, index = (int.from_bytes(x, abi.HOST_ORDER) for x in (key, value))
            record = self._records.read(index) if index < self._records.capacity else None
            if (
                record is None
                or index in used
                or abi.DELIVERY.integer(record, "tunnel_key") != tunnel_key
            ):
                self._tunnel_keys.delete(key)
                continue
            used.add(index)
            self._indices[tunnel_key] = index
            _, _, _, _, first, count = abi.DELIVERY.struct.unpack(record)
            self._outputs.hold(first, count, 0)

    def deliver(self, tunnel_key: int, port_ids: tuple[PortId, ...]) -> None:
        """Deliver a key to these ports; () forgets it. Raises DatapathError."""
        key = slot_key(tunnel_key)
        before = self._indices.get(tunnel_key)
        if not port_ids:
            if before is not None:
                self._tunnel_keys.delete(key)
                del self._indices[tunnel_key]
        else:
            self._indices[tunnel_key] = self._write(tunnel_key, port_ids)
        self._generation.advance()
        if before is not None:
            record = self._records.read(before)
            self._records.clear(before)
            self._free.append(before)
            if record is not None:
                _, _, _, _, first, count = abi.DELIVERY.struct.unpack(record)
                self._outputs.release(first, count)

    def _write(self, tunnel_key: int, port_ids: tuple[PortId, ...]) -> int:
        """Write a record of its own and point the key there, in one step for packets."""
        if not self._free:
            raise DatapathError("the delivery table is full", errno=errno.ENOSPC)
        fields = self._fields(port_ids)
        index = self._free.popleft()
        self._records.write(index, abi.DELIVERY.pack(tunnel_key=tunnel_key, **fields))
        try:
            self._tunnel_keys.update(slot_key(tunnel_key), slot_key(index))
        except OSError as error:
            self._records.clear(index)
            self._free.append(index)
            self._outputs.release(fields.get("first_output", 0), fields.get("output_count", 0))
            raise DatapathError(
                f"cannot deliver tunnel key {tunnel_key}: {error}", errno=error.errno or 0
            ) from error
        return index

    def _fields(self, port_ids: tuple[PortId, ...]) -> dict[str, int]:
        if len(port_ids) == 1:
            slot = self._slots.name(port_ids[0])
            return {"port": slot.slot, "incarnation": slot.incarnation}
        if len(port_ids) > abi.OUTPUTS_MAX:
            raise DatapathError(
                f"a key is delivered to at most {abi.OUTPUTS_MAX} ports", errno=errno.E2BIG
            )
        entries = [self._outputs.pack(LocalOutput(port), is_ipv6=False) for port in port_ids]
        first = self._outputs.store(entries, 0)
        return {"first_output": first, "output_count": len(entries)}

    def read(self) -> dict[int, tuple[PortId, ...]]:
        """Return what the kernel holds. Keys of ports that are not known any more are left out."""
        found = {}
        for tunnel_key, slot, incarnation, first, count in self._all():
            if count:
                ports = self._group(first, count)
            else:
                known = self._slots.at(slot)
                is_same = known is not None and known.incarnation == incarnation
                ports = (known.port_id,) if known is not None and is_same else ()
            if ports:
                found[tunnel_key] = ports
        return found

    def _all(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield (tunnel key, slot, incarnation, first output, output count)."""
        for index in self._indices.values():
            record = self._records.read(index)
            if record is not None:
                _, *fields = abi.DELIVERY.struct.unpack(record)
                tunnel_key, slot, incarnation, first, count = fields
                yield tunnel_key, slot, incarnation, first, count

    def _group(self, first: int, count: int) -> tuple[PortId, ...]:
        packed = (self._outputs.get(identifier) for identifier in range(first, first + count))
        outputs = (self._outputs.unpack(data, is_ipv6=False) for data in packed if data)
        return tuple(out.port_id for out in outputs if isinstance(out, LocalOutput))

    def named_slots(self) -> set[int]:
        """Return the port slots that deliveries name."""
        named: set[int] = set()
        for _, slot, _, first, count in self._all():
            named |= self._outputs.slots_in(first, count) if count else {slot}
        return named
