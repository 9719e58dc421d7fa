"""Bridges, routers, their ports and routes.

Stored form. Addresses are text in canonical form (`midonet.packets.addresses` parses them);
validation at the edge (`midonet.model.validation`) guarantees that they parse.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    LoadBalancerId,
    MirrorId,
    PortGroupId,
    PortId,
    QosPolicyId,
    RouteId,
    RouterId,
)


class Bridge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A virtual L2 segment (learning switch).

    mac_ageing_s: time (s) until an unused MAC is forgotten; None is the cluster's.
    inbound_mirror_ids, outbound_mirror_ids: before the inbound and after the outbound filter.
    qos_policy_id: of ports that have none of their own.
    """

    id: BridgeId
    project_id: str | None = None
    name: str | None = None
    admin_state_up: bool = True
    inbound_filter_id: ChainId | None = None
    outbound_filter_id: ChainId | None = None
    mac_ageing_s: int | None = None
    inbound_mirror_ids: tuple[MirrorId, ...] = ()
    outbound_mirror_ids: tuple[MirrorId, ...] = ()
    qos_policy_id: QosPolicyId | None = None


NAT64_FIRST_PORT = 1024
"""First port of a router's IPv4 addresses from which IPv6 machines speak."""


class Router(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A virtual L3 device.

    load_balancer_id: answers for its VIPs; a load balancer is at one router at most.
    inbound_mirror_ids, outbound_mirror_ids: before the inbound and after the outbound filter.
    nat64_prefix: IPv6 prefix of 96 bits behind which it shows IPv4 (RFC 6146); None: it does not.
        nat64_address_from, nat64_address_to: IPv4 addresses from which IPv6 machines speak then.
    """

    id: RouterId
    project_id: str | None = None
    name: str | None = None
    admin_state_up: bool = True
    inbound_filter_id: ChainId | None = None
    outbound_filter_id: ChainId | None = None
    as_number: int = 0
    load_balancer_id: LoadBalancerId | None = None
    inbound_mirror_ids: tuple[MirrorId, ...] = ()
    outbound_mirror_ids: tuple[MirrorId, ...] = ()
    nat64_prefix: str | None = None
    nat64_address_from: str | None = None
    nat64_address_to: str | None = None


class RouterAdvertising(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a router port tells the machines on its link (RFC 4861 section 6.2.1, RFC 8106).

    is_managed: addresses are given by DHCPv6. has_other: other configuration is.
    is_autonomous: machines make addresses of the port's IPv6 subnet. lifetime_s: how long the
    router is a default router, 0 for not at all. interval_s: longest time between two messages.
    """

    is_enabled: bool = False
    is_managed: bool = False
    has_other: bool = False
    is_autonomous: bool = True
    lifetime_s: int = 1800
    interval_s: int = 600
    dns_addresses: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


class AddressPair(msgspec.Struct, frozen=True, omit_defaults=True):
    """A MAC, and a prefix that it may send from (`network/length`); None for the MAC alone."""

    mac: str
    address: str | None = None


class Port(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attachment on a bridge or a router: exactly one of `bridge_id`, `router_id` is set.

    A port is *bound* when `host_id` and `interface_name` are set, *linked* when `peer_port_id`
    is, and unplugged otherwise; never bound and linked at once.

    vlan_id: of bridge ports, where frames have no tag then; 0: none.
    addresses: router ports; `address/length` strings, IPv4 and IPv6, at most one network each.
    mac: router ports; always set once stored.
    port_security_enabled: bridge ports; packets of other senders than `allowed_address_pairs` do
        not enter.
    port_group_ids: groups that the port is in; at most one of them is stateful.
    tunnel_key: 24-bit key assigned by the server; what a receiving host delivers by is the
        key of the port's location (`midonet.model.hosts.PortLocation`).
    inbound_mirror_ids, post_in_filter_mirror_ids: before and after the inbound filter.
    pre_out_filter_mirror_ids, outbound_mirror_ids: before and after the outbound filter.
    qos_policy_id: of what enters by the port; None is that of the bridge.
    advertising: router ports; None is that of a port that advertises nothing.
    insertion_inbound_filter_id, insertion_outbound_filter_id, is_service: what the L2 insertions
        of the port come to (`midonet.model.insertions`); the first filter is met before the
        port's own, the second after it. A service port sends out what is redirected to it only.
    """

    id: PortId
    bridge_id: BridgeId | None = None
    router_id: RouterId | None = None
    admin_state_up: bool = True
    inbound_filter_id: ChainId | None = None
    outbound_filter_id: ChainId | None = None
    tunnel_key: int = 0
    vif_id: str | None = None
    host_id: HostId | None = None
    interface_name: str | None = None
    previous_host_id: HostId | None = None
    peer_port_id: PortId | None = None
    vlan_id: int = 0
    addresses: tuple[str, ...] = ()
    mac: str | None = None
    vni: int = 0
    off_ramp_vxlan: bool = False
    port_group_ids: tuple[PortGroupId, ...] = ()
    port_security_enabled: bool = False
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    inbound_mirror_ids: tuple[MirrorId, ...] = ()
    post_in_filter_mirror_ids: tuple[MirrorId, ...] = ()
    pre_out_filter_mirror_ids: tuple[MirrorId, ...] = ()
    outbound_mirror_ids: tuple[MirrorId, ...] = ()
    qos_policy_id: QosPolicyId | None = None
    advertising: RouterAdvertising | None = None
    insertion_inbound_filter_id: ChainId | None = None
    insertion_outbound_filter_id: ChainId | None = None
    is_service: bool = False


class NextHopKind(StrEnum):
    """What a route does with a packet. The words are those of the REST `type` field."""

    NORMAL = "Normal"
    BLACKHOLE = "BlackHole"
    REJECT = "Reject"
    LOCAL = "Local"


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One route of a router. `source` and `destination` are prefixes of the same version.

    next_hop_port_id: set for NORMAL and LOCAL; the port is on `router_id`.
    gateway: next-hop address, or None when the destination is directly connected.
    weight: lower wins among routes of equal destination length.
    """

    id: RouteId
    router_id: RouterId
    kind: NextHopKind = NextHopKind.NORMAL
    source: str = "0.0.0.0/0"
    destination: str = "0.0.0.0/0"
    next_hop_port_id: PortId | None = None
    gateway: str | None = None
    weight: int = 0
    attributes: str | None = None
