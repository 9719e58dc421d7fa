"""Which ports a packet may come out of, whatever it holds: those that devices connect.

Worked out from the topology alone, without policy, addresses or learnt state, and without the
code that forwards. What leaves anywhere else has crossed from one tenant to another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from midonet.agent.flows.program import LocalOutput, Output, TunnelOutput
from midonet.agent.topology.view import TopologyView
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress


class Reachability:
    """The parts of a topology that nothing connects."""

    def __init__(self, view: TopologyView) -> None:
        self._view = view
        self._part: dict[UUID, int] = {}
        neighbours: dict[UUID, set[UUID]] = defaultdict(set)
        for port in view.ports.values():
            for other in (port.bridge_id, port.router_id, port.peer_port_id):
                if other is not None:
                    neighbours[port.id].add(other)
                    neighbours[other].add(port.id)
        for number, start in enumerate(neighbours):
            waiting = [start]
            while waiting:
                node = waiting.pop()
                if node not in self._part:
                    self._part[node] = number
                    waiting.extend(neighbours[node])
        self._tunnels = self._tunnel_ends()

    def _tunnel_ends(self) -> set[tuple[int, IpAddress, int]]:
        """Return (part, remote address, tunnel key) of everything that is on another host."""
        view, ends = self._view, set()
        for port_id, location in view.locations.items():
            route = view.tunnels.get(location.host_id)
            if route is not None and port_id in self._part:
                ends.add((self._part[port_id], route.remote, location.tunnel_key))
        for (host_id, bridge_id), key in view.flood_groups.items():
            route = view.tunnels.get(host_id)
            if route is not None and bridge_id in self._part:
                ends.add((self._part[bridge_id], route.remote, key))
        return ends

    def is_connected(self, ingress: PortId, port_id: PortId) -> bool:
        """Tell whether anything leads from one port to the other."""
        return self._part[ingress] == self._part[port_id]

    def check(self, ingress: PortId, outputs: Iterable[Output]) -> None:
        """Assert that a packet of this ingress may leave by these outputs."""
        self.check_any((ingress,), outputs)

    def check_any(self, ingresses: Iterable[PortId], outputs: Iterable[Output]) -> None:
        """Assert that a packet of one of these may leave by these outputs."""
        parts = {self._part[ingress] for ingress in ingresses}
        for output in outputs:
            match output:
                case LocalOutput(port_id):
                    assert self._part[port_id] in parts, f"leaves by {port_id}"
                    assert self._view.ports[port_id].host_id == self._view.host_id
                case TunnelOutput():
                    ends = {(part, output.remote, output.tunnel_key) for part in parts}
                    assert ends & self._tunnels, f"leaves by {output.remote} {output.tunnel_key}"
