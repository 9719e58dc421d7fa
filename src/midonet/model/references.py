"""Which field refers to which type, and what deleting the target does to the referrer.

The store keeps an index entry for each reference and refuses to delete a target that still has
referrers; `midonet.nsdb.deletion` plans the transaction that carries out these rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from midonet.model.chains import Chain, Rule
from midonet.model.coordination import ClusterSettings, Leadership, Lease, TunnelKeyUse
from midonet.model.devices import Bridge, Port, Route, Router
from midonet.model.dhcp import DhcpHost, DhcpSubnet, DhcpV6Host, DhcpV6Subnet
from midonet.model.groups import IpAddressGroup, PortGroup
from midonet.model.hosts import FloodGroup, Host, PortLocation, TunnelZone, TunnelZoneHost
from midonet.model.insertions import L2Insertion
from midonet.model.load_balancer import HealthMonitor, LoadBalancer, Pool, PoolMember, Vip
from midonet.model.mirrors import Mirror
from midonet.model.qos import QosBandwidthRule, QosDscpRule, QosPolicy


class OnTargetDelete(Enum):
    """What happens to a referrer when the object it refers to is deleted."""

    CASCADE = "cascade"  # the referrer is deleted too
    CLEAR = "clear"  # the reference is set to None (or taken out of the tuple)
    REFUSE = "refuse"  # the deletion is a conflict


@dataclass(frozen=True, slots=True)
class Reference:
    """`source.field` holds the id of a `target` (or None; or, for a tuple field, ids).

    field: a path of attributes where the reference is in a part of the object; such a reference
        cannot be cleared.
    is_exclusive: at most one referrer may hold a given target through this field.
    cleared_with: fields reset to their defaults together with `field` under CLEAR.
    """

    source: type[msgspec.Struct]
    field: str
    target: type[msgspec.Struct]
    on_target_delete: OnTargetDelete
    is_exclusive: bool = False
    cleared_with: tuple[str, ...] = ()

    @property
    def attribute(self) -> str:
        """Return the last name of the path."""
        return self.field.rpartition(".")[2]

    def held_by(self, source: msgspec.Struct) -> object:
        """Return what an object of the source type holds in the field."""
        held: object = source
        for name in self.field.split("."):
            held = getattr(held, name)
        return held


_CASCADE = OnTargetDelete.CASCADE
_CLEAR = OnTargetDelete.CLEAR
_REFUSE = OnTargetDelete.REFUSE

REFERENCES: tuple[Reference, ...] = (
    Reference(Bridge, "inbound_filter_id", Chain, _CLEAR),
    Reference(Bridge, "outbound_filter_id", Chain, _CLEAR),
    Reference(Router, "inbound_filter_id", Chain, _CLEAR),
    Reference(Router, "outbound_filter_id", Chain, _CLEAR),
    Reference(Router, "load_balancer_id", LoadBalancer, _CLEAR, is_exclusive=True),
    Reference(Port, "bridge_id", Bridge, _CASCADE),
    Reference(Port, "router_id", Router, _CASCADE),
    Reference(Port, "inbound_filter_id", Chain, _CLEAR),
    Reference(Port, "outbound_filter_id", Chain, _CLEAR),
    Reference(Port, "peer_port_id", Port, _CLEAR, is_exclusive=True),
    Reference(Port, "host_id", Host, _REFUSE, cleared_with=("interface_name",)),
    Reference(Port, "port_group_ids", PortGroup, _CLEAR),
    Reference(Route, "router_id", Router, _CASCADE),
    Reference(Route, "next_hop_port_id", Port, _CASCADE),
    Reference(Rule, "chain_id", Chain, _CASCADE),
    Reference(Rule, "jump_chain_id", Chain, _CASCADE),
    Reference(Rule, "target_port_id", Port, _CLEAR),
    Reference(Port, "insertion_inbound_filter_id", Chain, _REFUSE),
    Reference(Port, "insertion_outbound_filter_id", Chain, _REFUSE),
    Reference(L2Insertion, "port_id", Port, _CASCADE),
    Reference(L2Insertion, "service_port_id", Port, _CASCADE),
    Reference(Pool, "load_balancer_id", LoadBalancer, _CASCADE),
    Reference(Pool, "health_monitor_id", HealthMonitor, _CLEAR),
    Reference(PoolMember, "pool_id", Pool, _CASCADE),
    Reference(Vip, "pool_id", Pool, _CASCADE),
    Reference(Rule, "condition.port_group_id", PortGroup, _REFUSE),
    Reference(Rule, "condition.in_port_group_id", PortGroup, _REFUSE),
    Reference(Rule, "condition.out_port_group_id", PortGroup, _REFUSE),
    Reference(Rule, "condition.ip_address_group_src_id", IpAddressGroup, _REFUSE),
    Reference(Rule, "condition.ip_address_group_dst_id", IpAddressGroup, _REFUSE),
    Reference(Mirror, "to_port_id", Port, _CASCADE),
    Reference(Port, "inbound_mirror_ids", Mirror, _CLEAR),
    Reference(Port, "post_in_filter_mirror_ids", Mirror, _CLEAR),
    Reference(Port, "pre_out_filter_mirror_ids", Mirror, _CLEAR),
    Reference(Port, "outbound_mirror_ids", Mirror, _CLEAR),
    Reference(Bridge, "inbound_mirror_ids", Mirror, _CLEAR),
    Reference(Bridge, "outbound_mirror_ids", Mirror, _CLEAR),
    Reference(Router, "inbound_mirror_ids", Mirror, _CLEAR),
    Reference(Router, "outbound_mirror_ids", Mirror, _CLEAR),
    Reference(QosDscpRule, "policy_id", QosPolicy, _CASCADE, is_exclusive=True),
    Reference(QosBandwidthRule, "policy_id", QosPolicy, _CASCADE, is_exclusive=True),
    Reference(Port, "qos_policy_id", QosPolicy, _CLEAR),
    Reference(Bridge, "qos_policy_id", QosPolicy, _CLEAR),
    Reference(TunnelZoneHost, "tunnel_zone_id", TunnelZone, _CASCADE),
    Reference(TunnelZoneHost, "host_id", Host, _CASCADE),
    Reference(PortLocation, "id", Port, _CASCADE),
    Reference(PortLocation, "host_id", Host, _CASCADE),
    Reference(FloodGroup, "bridge_id", Bridge, _CASCADE),
    Reference(FloodGroup, "host_id", Host, _CASCADE),
    Reference(TunnelKeyUse, "host_id", Host, _CASCADE),
    Reference(DhcpSubnet, "bridge_id", Bridge, _CASCADE),
    Reference(DhcpHost, "subnet_id", DhcpSubnet, _CASCADE),
    Reference(DhcpV6Subnet, "bridge_id", Bridge, _CASCADE),
    Reference(DhcpV6Host, "subnet_id", DhcpV6Subnet, _CASCADE),
)
"""Every reference of the model. A cyclic pair (linked ports) is created by two updates in one
transaction; the store checks references against the state after the whole transaction."""

KINDS: tuple[type[msgspec.Struct], ...] = (
    Bridge,
    Router,
    Port,
    Route,
    Chain,
    Rule,
    LoadBalancer,
    HealthMonitor,
    Pool,
    PoolMember,
    Vip,
    Mirror,
    L2Insertion,
    QosPolicy,
    QosDscpRule,
    QosBandwidthRule,
    Host,
    TunnelZone,
    TunnelZoneHost,
    PortLocation,
    FloodGroup,
    PortGroup,
    IpAddressGroup,
    TunnelKeyUse,
    Lease,
    Leadership,
    ClusterSettings,
    DhcpSubnet,
    DhcpHost,
    DhcpV6Subnet,
    DhcpV6Host,
)
"""Every stored kind. The stored name of a kind is its class name."""


def references_from(kind: type[msgspec.Struct]) -> tuple[Reference, ...]:
    """Return the references that objects of `kind` hold."""
    return tuple(reference for reference in REFERENCES if reference.source is kind)


def references_to(kind: type[msgspec.Struct]) -> tuple[Reference, ...]:
    """Return the references that may point at objects of `kind`."""
    return tuple(reference for reference in REFERENCES if reference.target is kind)
