"""What the datapath must accept from other hosts, from the tunnels of the topology view."""

from __future__ import annotations

from midonet.agent.datapath.protocol import OverlayConfig
from midonet.agent.topology.view import TopologyView
from midonet.model.hosts import TunnelKind


def overlay_config(
    view: TopologyView, *, vxlan_port: int, interface_names: frozenset[str] = frozenset()
) -> OverlayConfig:
    """Return the end points and peers of the tunnels that a view knows.

    interface_names: underlay interfaces; empty for a datapath without interfaces.
    """
    tunnels = [route for route in view.tunnels.values() if route.kind is not TunnelKind.VTEP]
    return OverlayConfig(
        local_addresses=frozenset(route.local for route in tunnels),
        peers=frozenset(route.remote for route in tunnels),
        interface_names=interface_names,
        vxlan_port=vxlan_port,
    )
