"""Outputs in the kernel's words: port slots, tunnels, and entries that carry identifiers.

Identifiers and tunnel indices are not used again while anything in the kernel could still
refer to them: what is released goes after a grace period in which packets on their way finish.
"""

from __future__ import annotations

import errno
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.abi import OutputKind
from midonet.agent.datapath.ebpf.rtnetlink import Route
from midonet.agent.datapath.ebpf.slots import PortSlots, slot_key
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.agent.flows.program import LocalOutput, Output, TunnelOutput
from midonet.errors import DatapathError
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpAddress

GRACE_NS = 1_000_000_000
"""How long a released entry stays readable, in nanoseconds."""

_EMIT_CACHE_LENGTH = 256
_KINDS = {TunnelKind.VXLAN: OutputKind.VXLAN, TunnelKind.GRE: OutputKind.GRE}
_TUNNEL_KINDS = {number: kind for kind, number in _KINDS.items()}

Ends = tuple[IpAddress, IpAddress]
RouteFinder = Callable[[IpAddress], Route]


class OutputTable:
    """The outputs and tunnels maps.

    route: returns the way to an underlay address.
    boot_ns: the boot-time clock.
    """

    def __init__(
        self,
        outputs: BpfMap,
        tunnels: BpfMap,
        slots: PortSlots,
        route: RouteFinder,
        boot_ns: Callable[[], int],
    ) -> None:
        self._outputs = outputs
        self._tunnels = tunnels
        self._slots = slots
        self._route = route
        self._boot_ns = boot_ns
        self._used = {int.from_bytes(key, abi.HOST_ORDER) for key, _ in outputs.items()}
        self._next = max(self._used, default=0) + 1
        self._released: deque[tuple[int, range]] = deque()
        self._emitted: OrderedDict[bytes, int] = OrderedDict()
        self._tunnel_index: dict[Ends, int] = {}
        self._ends: dict[int, Ends] = {}
        self._routes: dict[int, Route] = {}
        for key, value in tunnels.items():
            local, remote, family, ifindex, _, _, next_family, next_hop, _ = (
                abi.TUNNEL.struct.unpack(value)
            )
            if family:
                index = int.from_bytes(key, abi.HOST_ORDER)
                ends = codec.unpack_ip(local, family), codec.unpack_ip(remote, family)
                self._tunnel_index[ends], self._ends[index] = index, ends
                self._routes[index] = Route(
                    ifindex, codec.unpack_ip(next_hop, next_family) if next_family else None
                )

    # Encoding.

    def pack(self, output: Output, *, is_ipv6: bool) -> bytes:
        """Return an output as the kernel holds it. is_ipv6: version of the packets it is for."""
        rewrite = codec.pack_rewrite(output.rewrite, is_ipv6=is_ipv6)
        if isinstance(output, LocalOutput):
            slot = self._slots.name(output.port_id)
            return abi.OUTPUT.struct.pack(
                OutputKind.LOCAL, 0, 0, slot.slot, slot.incarnation, 0, rewrite
            )
        tunnel = self._tunnel((output.local, output.remote))
        kind = _KINDS[output.kind]
        return abi.OUTPUT.struct.pack(kind, 0, 0, output.tunnel_key, 0, tunnel, rewrite)

    def unpack(self, data: bytes, *, is_ipv6: bool) -> Output | None:
        """Return an output read back; None when its port or tunnel is not known any more."""
        kind, _, _, target, incarnation, tunnel, rewrite_data = abi.OUTPUT.struct.unpack(data)
        rewrite = codec.unpack_rewrite(rewrite_data, is_ipv6=is_ipv6)
        if kind == OutputKind.LOCAL:
            slot = self._slots.at(target)
            if slot is None or slot.incarnation != incarnation:
                return None
            return LocalOutput(slot.port_id, rewrite)
        ends = self._ends.get(tunnel)
        if ends is None or kind not in _TUNNEL_KINDS:
            return None
        return TunnelOutput(_TUNNEL_KINDS[kind], *ends, target, rewrite)

    def get(self, identifier: int) -> bytes | None:
        """Return the entry with an identifier."""
        return self._outputs.get(slot_key(identifier))

    # Identifiers.

    def store(self, entries: Sequence[bytes]) -> int:
        """Write entries under consecutive identifiers; return the first.

        Raises DatapathError (ENOSPC) when the table is full; nothing is left behind then.
        """
        self._expire()
        first = self._reserve(len(entries))
        written = range(first, first)
        try:
            for identifier, entry in enumerate(entries, start=first):
                self._outputs.update(slot_key(identifier), entry)
                written = range(first, identifier + 1)
        except OSError as error:
            self._delete(written)
            raise DatapathError("the output table is full", errno=errno.ENOSPC) from error
        self._used.update(written)
        return first

    def _reserve(self, count: int) -> int:
        while True:
            first = self._next
            if first + count > abi.MARK_OUTPUT_MASK:
                first = 1
            taken = next((i for i in range(first, first + count) if i in self._used), None)
            if taken is None:
                self._next = first + count
                return first
            self._next = taken + 1

    def release(self, first: int, count: int) -> None:
        """Remove entries, after the grace period."""
        if count:
            self._released.append((self._boot_ns() + GRACE_NS, range(first, first + count)))
        self._expire()

    def _expire(self) -> None:
        now = self._boot_ns()
        while self._released and self._released[0][0] <= now:
            self._delete(self._released.popleft()[1])

    def _delete(self, identifiers: range) -> None:
        for identifier in identifiers:
            self._outputs.delete(slot_key(identifier))
            self._used.discard(identifier)

    def sweep(self, referenced: set[int]) -> None:
        """Remove entries that nothing refers to: leftovers of a process that ended in between."""
        for identifier in sorted(self._used - referenced):
            self._delete(range(identifier, identifier + 1))

    def emit_identifier(self, entry: bytes) -> int:
        """Return an identifier of an output that the agent sends by, the same for the same."""
        known = self._emitted.get(entry)
        if known is not None:
            self._emitted.move_to_end(entry)
            return known
        if len(self._emitted) >= _EMIT_CACHE_LENGTH:
            _, oldest = self._emitted.popitem(last=False)
            self.release(oldest, 1)
        identifier = self.store([entry])
        self._emitted[entry] = identifier
        return identifier

    def forget_emitted(self) -> None:
        """Remove the outputs kept for emitting."""
        for identifier in self._emitted.values():
            self._delete(range(identifier, identifier + 1))
        self._emitted.clear()

    def slots_in(self, identifiers: set[int]) -> set[int]:
        """Return the port slots that the entries with these identifiers name."""
        return {
            abi.OUTPUT.integer(value, "target")
            for value in map(self.get, identifiers)
            if value is not None and value[0] == OutputKind.LOCAL
        }

    # Tunnels.

    def _tunnel(self, ends: Ends) -> int:
        known = self._tunnel_index.get(ends)
        if known is not None:
            return known
        index = max(self._ends, default=0) + 1
        if index >= self._tunnels.entries:
            raise DatapathError("the tunnel table is full", errno=errno.ENOSPC)
        self._tunnel_index[ends], self._ends[index] = index, ends
        self._write_tunnel(index, self._route(ends[1]))
        return index

    def _write_tunnel(self, index: int, route: Route) -> None:
        local, remote = self._ends[index]
        self._tunnels.update(
            slot_key(index),
            abi.TUNNEL.pack(
                local=codec.pack_ip(local),
                remote=codec.pack_ip(remote),
                family=local.version,
                ifindex=route.ifindex,
                next_hop_family=0 if route.next_hop is None else route.next_hop.version,
                next_hop=b"" if route.next_hop is None else codec.pack_ip(route.next_hop),
            ),
        )
        self._routes[index] = route

    def refresh_routes(self) -> None:
        """Find the way to each remote address again; write what changed."""
        for index, (_, remote) in self._ends.items():
            route = self._route(remote)
            if route != self._routes.get(index):
                self._write_tunnel(index, route)
