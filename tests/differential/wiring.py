"""Between a network of a test and the wires of a datapath harness."""

from __future__ import annotations

from dataclasses import replace

from midonet.agent.datapath.protocol import OverlayConfig
from midonet.agent.topology.view import TopologyView
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpVersion
from midonet.packets.overlay import decapsulate
from tests.contract.datapath_harness import DatapathHarness
from tests.differential.judging import Tunnelled

VXLAN_PORT = 6677
_MTU = 1500
_IPV6_OVERHEAD = 70
_GRE = 47


def configure_overlay(harness: DatapathHarness) -> None:
    """Accept and send overlay packets between the harness's two ends."""
    ends = [harness.endpoints(version) for version in IpVersion]
    harness.datapath.configure_overlay(
        OverlayConfig(
            local_addresses=frozenset(end.local for end in ends),
            peers=frozenset(end.peer for end in ends),
            interface_names=harness.underlay_interfaces,
            vxlan_port=VXLAN_PORT,
        )
    )


def at_harness(view: TopologyView, harness: DatapathHarness, version: IpVersion) -> TopologyView:
    """Let every remote host be the peer of the harness; keys still tell ports apart."""
    ends = harness.endpoints(version)
    limit = _MTU - _IPV6_OVERHEAD if version is IpVersion.V6 else _MTU
    tunnels = {
        host_id: replace(
            tunnel,
            local=ends.local,
            remote=ends.peer,
            max_inner_length=min(limit, tunnel.max_inner_length),
        )
        for host_id, tunnel in view.tunnels.items()
    }
    return replace(view, tunnels=tunnels, hash_seed=harness.hash_seed)


def opened(outer: bytes) -> Tunnelled:
    """Take an outer packet apart."""
    inside = decapsulate(outer, VXLAN_PORT)
    is_v6 = outer[0] >> 4 == 6
    is_gre = outer[6 if is_v6 else 9] == _GRE
    offset = 40 if is_v6 else 20
    source_port = 0 if is_gre else int.from_bytes(outer[offset : offset + 2], "big")
    return Tunnelled(
        TunnelKind.GRE if is_gre else TunnelKind.VXLAN,
        inside.source,
        inside.destination,
        inside.tunnel_key,
        source_port,
        inside.inner,
    )
