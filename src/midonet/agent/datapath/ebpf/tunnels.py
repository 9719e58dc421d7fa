"""The tunnels map: pairs of underlay addresses and the way to the remote one.

A tunnel is known by an identifier that is not used for another pair: the record lies at its
remainder by the number of records and says which identifier it is.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.records import RecordArray
from midonet.agent.datapath.ebpf.rtnetlink import Route
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.errors import DatapathError
from midonet.packets.addresses import IpAddress

Ends = tuple[IpAddress, IpAddress]
"""Local and remote underlay address."""

RouteFinder = Callable[[IpAddress], Route]

_IDENTIFIERS = 1 << 32


class TunnelTable:
    """The tunnels map. route: returns the way to an underlay address."""

    def __init__(self, table: BpfMap, route: RouteFinder) -> None:
        self._records = RecordArray(table)
        self._route = route
        self._in_use: Callable[[], set[Ends]] = set
        self._identifiers: dict[Ends, int] = {}
        self._ends: dict[int, Ends] = {}
        self._routes: dict[int, Route] = {}
        self._last_identifiers: dict[int, int] = {}
        self._recent: deque[Ends] = deque(maxlen=abi.OUTPUTS_MAX)
        for index, value in self._records.items():
            _, identifier, local, remote, family, ifindex, next_family, next_hop, _ = (
                abi.TUNNEL.struct.unpack(value)
            )
            ends = codec.unpack_ip(local, family), codec.unpack_ip(remote, family)
            self._identifiers[ends], self._ends[identifier] = identifier, ends
            self._last_identifiers[index] = identifier
            self._routes[identifier] = Route(
                ifindex, codec.unpack_ip(next_hop, next_family) if next_family else None
            )

    def close(self) -> None:
        """Unmap."""
        self._records.close()

    def set_in_use(self, in_use: Callable[[], set[Ends]]) -> None:
        """Say how to find the pairs that something refers to; the others go when all is full."""
        self._in_use = in_use

    def ends(self, identifier: int) -> Ends | None:
        """Return the addresses of a tunnel."""
        return self._ends.get(identifier)

    def identifier(self, ends: Ends) -> int:
        """Return the tunnel between two addresses, made the first time.

        Raises DatapathError (ENOSPC) when the table is full of tunnels in use.
        """
        self._recent.append(ends)  # perhaps for a program that is not installed yet
        known = self._identifiers.get(ends)
        if known is not None:
            return known
        index = self._free_index()
        made = (self._last_identifiers.get(index, index - abi.TUNNELS_MAX) + abi.TUNNELS_MAX) % (
            _IDENTIFIERS
        )
        self._last_identifiers[index] = made
        self._identifiers[ends], self._ends[made] = made, ends
        self._write(made, self._route(ends[1]))
        return made

    def _free_index(self) -> int:
        if len(self._ends) >= self._records.capacity - 1:
            for ends in self._identifiers.keys() - self._in_use() - set(self._recent):
                identifier = self._identifiers.pop(ends)
                del self._ends[identifier], self._routes[identifier]
                self._records.clear(identifier % abi.TUNNELS_MAX)
        taken = {identifier % abi.TUNNELS_MAX for identifier in self._ends}
        for index in range(1, self._records.capacity):
            if index not in taken:
                return index
        raise DatapathError("the tunnel table is full", errno=errno.ENOSPC)

    def _write(self, identifier: int, route: Route) -> None:
        local, remote = self._ends[identifier]
        self._records.write(
            identifier % abi.TUNNELS_MAX,
            abi.TUNNEL.pack(
                identifier=identifier,
                local=codec.pack_ip(local),
                remote=codec.pack_ip(remote),
                family=local.version,
                ifindex=route.ifindex,
                next_hop_family=0 if route.next_hop is None else route.next_hop.version,
                next_hop=b"" if route.next_hop is None else codec.pack_ip(route.next_hop),
            ),
        )
        self._routes[identifier] = route

    def refresh_routes(self) -> None:
        """Find the way to each remote address again; write what changed."""
        for identifier, (_, remote) in self._ends.items():
            route = self._route(remote)
            if route != self._routes.get(identifier):
                self._write(identifier, route)
