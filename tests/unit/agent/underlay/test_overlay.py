from __future__ import annotations

from uuid import UUID

from midonet.agent.topology.view import TopologyView, TunnelRoute
from midonet.agent.underlay.overlay import overlay_config, overlay_mtu, underlay_mtu
from midonet.model.hosts import Interface, TunnelKind
from midonet.model.ids import HostId
from midonet.packets.addresses import parse_ip

ME = HostId(UUID(int=1))
LOCAL, PEER, SWITCH = parse_ip("192.0.2.1"), parse_ip("192.0.2.2"), parse_ip("192.0.2.9")
VIEW = TopologyView(
    1,
    ME,
    tunnels={
        HostId(UUID(int=2)): TunnelRoute(TunnelKind.VXLAN, LOCAL, PEER, 1450),
        HostId(UUID(int=3)): TunnelRoute(TunnelKind.VTEP, LOCAL, SWITCH, 1450),
    },
)
INTERFACES = {
    "eth0": Interface(name="eth0", mtu_bytes=9000, addresses=("192.0.2.1",)),
    "eth1": Interface(name="eth1", mtu_bytes=1500, addresses=("198.51.100.1", "nonsense")),
}


def test_peers_and_underlay_interfaces_follow_from_the_tunnels() -> None:
    config = overlay_config(VIEW, INTERFACES, vxlan_port=6677)
    assert config.local_addresses == {LOCAL}
    assert config.peers == {PEER}
    assert config.interface_names == {"eth0"}
    assert underlay_mtu(config, INTERFACES) == 9000
    assert overlay_mtu(config, 9000) == 8950


def test_without_interfaces_the_mtu_is_unknown() -> None:
    config = overlay_config(VIEW, {}, vxlan_port=6677)
    assert config.interface_names == frozenset()
    assert underlay_mtu(config, {}) is None
