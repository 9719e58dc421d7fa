"""Outputs in the kernel's words: port slots, tunnels, and records that carry identifiers.

An identifier names a record for good: the record lies at the identifier's remainder by the number
of records, and says which identifier it is. What used the place before is not found under the old
one, so a packet on its way drops instead of leaving by another's output. Identifiers come round
again after 2^29. What is released goes after a grace period in which packets on their way finish.
Lists of outputs that are alike are kept once: the classes of a port that flood share theirs.
"""

from __future__ import annotations

import errno
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.abi import OutputFlag, OutputKind
from midonet.agent.datapath.ebpf.records import RecordArray
from midonet.agent.datapath.ebpf.slots import PortSlots
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.agent.datapath.ebpf.tunnels import Ends, RouteFinder, TunnelTable
from midonet.agent.flows.program import LocalOutput, Output, TunnelOutput
from midonet.errors import DatapathError
from midonet.model.hosts import TunnelKind

__all__ = ["GRACE_NS", "Ends", "OutputTable"]

GRACE_NS = 1_000_000_000
"""How long a released entry stays readable, in nanoseconds."""

_EMIT_CACHE_LENGTH = 256
_SHARE_OF_A_PORT = 8
"""A port may have this fraction of the output records. A class that needs more stays slow."""

_KINDS = {TunnelKind.VXLAN: OutputKind.VXLAN, TunnelKind.GRE: OutputKind.GRE}
_TUNNEL_KINDS = {number: kind for kind, number in _KINDS.items()}


@dataclass(slots=True)
class _List:
    """Outputs that are referred to together."""

    count: int
    digest: bytes
    references: int
    owner: int = 0


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
        self._outputs = RecordArray(outputs)
        self._tunnels = TunnelTable(tunnels, route)
        self._slots = slots
        self._boot_ns = boot_ns
        self._lists: dict[int, _List] = {}
        self._first_by_digest: dict[bytes, int] = {}
        self._paid: Counter[int] = Counter()
        self._share = max(abi.OUTPUTS_MAX, self._outputs.capacity // _SHARE_OF_A_PORT)
        self._taken: set[int] = set()
        self._next = 1
        self._released: deque[tuple[int, range]] = deque()
        self._emitted: OrderedDict[bytes, int] = OrderedDict()

    def close(self) -> None:
        """Unmap."""
        self._outputs.close()
        self._tunnels.close()

    @property
    def tunnels(self) -> TunnelTable:
        """The tunnels map."""
        return self._tunnels

    # Encoding.

    def pack(self, output: Output, *, is_ipv6: bool) -> bytes:
        """Return an output as the kernel holds it. is_ipv6: version of the packets it is for."""
        rewrite = codec.pack_rewrite(output.rewrite, is_ipv6=is_ipv6)
        flags = OutputFlag.UPLINK if output.is_uplink else OutputFlag(0)
        if isinstance(output, LocalOutput):
            slot = self._slots.name(output.port_id)
            return abi.OUTPUT.struct.pack(
                OutputKind.LOCAL, 0, flags, slot.slot, slot.incarnation, 0, rewrite
            )
        tunnel = self._tunnels.identifier((output.local, output.remote))
        kind = _KINDS[output.kind]
        return abi.OUTPUT.struct.pack(kind, 0, flags, output.tunnel_key, 0, tunnel, rewrite)

    def unpack(self, data: bytes, *, is_ipv6: bool) -> Output | None:
        """Return an output read back; None when its port or tunnel is not known any more."""
        kind, _, flags, target, incarnation, tunnel, rewrite_data = abi.OUTPUT.struct.unpack(data)
        rewrite = codec.unpack_rewrite(rewrite_data, is_ipv6=is_ipv6)
        is_uplink = bool(flags & OutputFlag.UPLINK)
        if kind == OutputKind.LOCAL:
            slot = self._slots.at(target)
            if slot is None or slot.incarnation != incarnation:
                return None
            return LocalOutput(slot.port_id, rewrite, is_uplink)
        ends = self._tunnels.ends(tunnel)
        if ends is None or kind not in _TUNNEL_KINDS:
            return None
        return TunnelOutput(_TUNNEL_KINDS[kind], *ends, target, rewrite, is_uplink)

    def get(self, identifier: int) -> bytes | None:
        """Return the output with an identifier."""
        record = self._outputs.read(identifier % self._outputs.capacity)
        if record is None or abi.OUTPUT_RECORD.integer(record, "identifier") != identifier:
            return None
        return abi.OUTPUT_RECORD.part(record, "output")

    # Identifiers.

    def store(self, entries: Sequence[bytes], owner: int) -> int:
        """Write a list of outputs under consecutive identifiers; return the first.

        owner: port slot that pays for it, or 0. A list that is there already is used again.
        Raises DatapathError (ENOSPC) when the table is full or the owner's share is used up;
        nothing is left behind then.
        """
        self._expire()
        digest = blake2b(b"".join(entries), digest_size=16).digest()
        known = self._first_by_digest.get(digest)
        if known is not None:
            self._lists[known].references += 1
            return known
        if owner and self._paid[owner] + len(entries) > self._share:
            raise DatapathError("the port has used up its outputs", errno=errno.ENOSPC)
        first = self._reserve(len(entries))
        for identifier, entry in enumerate(entries, start=first):
            self._outputs.write(
                identifier % self._outputs.capacity,
                abi.OUTPUT_RECORD.struct.pack(0, identifier, entry),
            )
        self._keep(first, len(entries), digest, owner)
        return first

    def _keep(self, first: int, count: int, digest: bytes, owner: int) -> None:
        self._lists[first] = _List(count, digest, 1, owner)
        self._paid[owner] += count
        self._first_by_digest.setdefault(digest, first)
        self._taken.update(i % self._outputs.capacity for i in range(first, first + count))

    def _reserve(self, count: int) -> int:
        """Return the first of consecutive identifiers whose places are free."""
        capacity = self._outputs.capacity
        if len(self._taken) + count > capacity:
            raise DatapathError("the output table is full", errno=errno.ENOSPC)
        end = self._next + 2 * capacity
        while self._next < end:
            first = self._next
            if first + count > abi.MARK_OUTPUT_MASK:
                first, end = 1, 2 * capacity
            run = range(first, first + count)
            taken = next((i for i in reversed(run) if i % capacity in self._taken), None)
            if taken is None:
                self._next = first + count
                return first
            self._next = taken + 1
        raise DatapathError("the output table is full", errno=errno.ENOSPC)

    def hold(self, first: int, count: int, owner: int) -> None:
        """Take over a list that is referred to from before this process. owner: as in `store`."""
        if not count:
            return
        known = self._lists.get(first)
        if known is not None:
            known.references += 1
            return
        entries = b"".join(self.get(i) or b"" for i in range(first, first + count))
        self._keep(first, count, blake2b(entries, digest_size=16).digest(), owner)
        self._next = max(self._next, first + count)

    def release(self, first: int, count: int) -> None:
        """Give a list up; its outputs are removed after the grace period."""
        known = self._lists.get(first) if count else None
        if known is not None:
            known.references -= 1
            if not known.references:
                del self._lists[first]
                self._paid[known.owner] -= known.count
                if not self._paid[known.owner]:
                    del self._paid[known.owner]
                if self._first_by_digest.get(known.digest) == first:
                    del self._first_by_digest[known.digest]
                self._released.append((self._boot_ns() + GRACE_NS, range(first, first + count)))
        self._expire()

    def _expire(self) -> None:
        now = self._boot_ns()
        while self._released and self._released[0][0] <= now:
            for identifier in self._released.popleft()[1]:
                place = identifier % self._outputs.capacity
                self._outputs.clear(place)
                self._taken.discard(place)

    def emit_identifier(self, entry: bytes) -> int:
        """Return an identifier of an output that the agent sends by, the same for the same."""
        known = self._emitted.get(entry)
        if known is not None:
            self._emitted.move_to_end(entry)
            return known
        if len(self._emitted) >= _EMIT_CACHE_LENGTH:
            _, oldest = self._emitted.popitem(last=False)
            self.release(oldest, 1)
        identifier = self.store([entry], 0)
        self._emitted[entry] = identifier
        return identifier

    def forget_emitted(self) -> None:
        """Give up the outputs kept for emitting."""
        for identifier in self._emitted.values():
            self.release(identifier, 1)
        self._emitted.clear()

    def slots_in(self, first: int, count: int) -> set[int]:
        """Return the port slots that a list of outputs names."""
        return {
            abi.OUTPUT.integer(value, "target")
            for value in map(self.get, range(first, first + count))
            if value is not None and value[0] == OutputKind.LOCAL
        }
