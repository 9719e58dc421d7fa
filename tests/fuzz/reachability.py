"""Which ports a packet may come out of, whatever it holds: those that devices connect.

Worked out from the topology alone, without policy, addresses or learnt state, and without the
code that forwards. What leaves anywhere else has crossed from one tenant to another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from uuid import UUID

from midonet.agent.flows.program import LocalOutput, Output, TunnelOutput
from midonet.agent.topology.view import BridgeView, PortView, RouterView, TopologyView
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress


def _mirrored_to(view: TopologyView, owner: PortView | BridgeView | RouterView) -> Iterator[PortId]:
    """Return the ports by which copies of what passes leave: who may mirror says so."""
    mirrors = set(owner.inbound_mirror_ids) | set(owner.outbound_mirror_ids)
    if isinstance(owner, PortView):
        mirrors |= {*owner.post_in_filter_mirror_ids, *owner.pre_out_filter_mirror_ids}
    for mirror_id in mirrors & view.mirrors.keys():
        yield view.mirrors[mirror_id].to_port_id


def _redirected_to(
    view: TopologyView, owner: PortView | BridgeView | RouterView
) -> Iterator[PortId]:
    """Return the ports to which rules of a device's filters send packets, jumps followed."""
    waiting = [owner.inbound_filter_id, owner.outbound_filter_id]
    seen = set()
    while waiting:
        chain_id = waiting.pop()
        if chain_id is None or chain_id in seen or chain_id not in view.chains:
            continue
        seen.add(chain_id)
        for rule in view.chains[chain_id].rules:
            waiting.append(rule.jump_chain_id)
            if rule.target_port_id is not None:
                yield rule.target_port_id


class Reachability:
    """What devices connect, and mirrors and redirecting rules: those one way only."""

    def __init__(self, view: TopologyView) -> None:
        self._view = view
        self._next: dict[UUID, set[UUID]] = defaultdict(set)
        for port in view.ports.values():
            for other in (port.bridge_id, port.router_id, port.peer_port_id):
                if other is not None:
                    self._next[port.id].add(other)
                    self._next[other].add(port.id)
        owners: list[PortView | BridgeView | RouterView] = [*view.ports.values()]
        owners += [*view.bridges.values(), *view.routers.values()]
        for owner in owners:
            self._next[owner.id].update(_mirrored_to(view, owner), _redirected_to(view, owner))
        self.is_plain = not view.mirrors and not any(
            rule.target_port_id for chain in view.chains.values() for rule in chain.rules
        )
        """Nothing but floods makes several packets of one: no port gets one twice."""
        self._reached: dict[UUID, frozenset[UUID]] = {}
        self._ends = self._tunnel_ends()

    def _tunnel_ends(self) -> dict[tuple[IpAddress, int], set[UUID]]:
        """Return what is behind each (remote address, tunnel key): ports and bridges."""
        view = self._view
        ends: dict[tuple[IpAddress, int], set[UUID]] = defaultdict(set)
        for port_id, location in view.locations.items():
            route = view.tunnels.get(location.host_id)
            if route is not None:
                ends[route.remote, location.tunnel_key].add(port_id)
        for (host_id, bridge_id), key in view.flood_groups.items():
            route = view.tunnels.get(host_id)
            if route is not None:
                ends[route.remote, key].add(bridge_id)
        return ends

    def _from(self, start: UUID) -> frozenset[UUID]:
        known = self._reached.get(start)
        if known is None:
            reached, waiting = {start}, [start]
            while waiting:
                fresh = self._next[waiting.pop()] - reached
                reached |= fresh
                waiting.extend(fresh)
            known = self._reached[start] = frozenset(reached)
        return known

    def is_connected(self, ingress: PortId, port_id: PortId) -> bool:
        """Tell whether anything leads from one port to the other."""
        return port_id in self._from(ingress)

    def check(self, ingress: PortId, outputs: Iterable[Output]) -> None:
        """Assert that a packet of this ingress may leave by these outputs."""
        self.check_any((ingress,), outputs)

    def check_any(self, ingresses: Iterable[PortId], outputs: Iterable[Output]) -> None:
        """Assert that a packet of one of these may leave by these outputs."""
        reached = frozenset[UUID]().union(*(self._from(ingress) for ingress in ingresses))
        for output in outputs:
            match output:
                case LocalOutput(port_id):
                    assert port_id in reached, f"leaves by {port_id}"
                    assert self._view.ports[port_id].host_id == self._view.host_id
                case TunnelOutput():
                    ends = self._ends[output.remote, output.tunnel_key]
                    assert ends & reached, f"leaves by {output.remote} {output.tunnel_key}"
