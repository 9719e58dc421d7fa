"""The immutable topology view that simulation walks. Pure.

A view is a consistent picture: an object is visible only together with what it refers to.
Objects that are not loaded yet are *stubs*: asking for one yields neither an object nor
absence, and simulation answers `Await(LoadDevices)`. Each change makes a new view with a
higher revision, and a `ViewDelta`.

Addresses are parsed: MACs and IPs are integers (`midonet.packets.addresses`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from midonet.agent.flow_state.pool import NatPool
from midonet.agent.flows.tags import FlowTag, RouteRegion
from midonet.agent.topology.address_set import AddressSet
from midonet.agent.topology.allowed_sources import AllowedSources
from midonet.agent.topology.balancing import LoadBalancerView
from midonet.agent.topology.dhcp_views import BridgeDhcp
from midonet.agent.topology.underlay_addresses import NO_UNDERLAY, UnderlayAddresses
from midonet.model.chains import Condition, FlowAction, L2Transform, RuleAction
from midonet.model.coordination import MAC_AGEING_S
from midonet.model.devices import NextHopKind
from midonet.model.hosts import TunnelKind
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    IpAddressGroupId,
    LoadBalancerId,
    MirrorId,
    ObjectId,
    PortGroupId,
    PortId,
    QosPolicyId,
    RouteId,
    RouterId,
    RuleId,
)
from midonet.packets.addresses import IpAddress, IpPrefix, IpVersion


@dataclass(frozen=True, slots=True)
class AdvertisingView:
    """What a router port advertises: see `midonet.model.devices.RouterAdvertising`.

    dns: IPv6 addresses as numbers. domains: well-formed names.
    """

    is_managed: bool = False
    has_other: bool = False
    is_autonomous: bool = True
    lifetime_s: int = 1800
    interval_s: int = 600
    dns: tuple[int, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortView:
    """One port, of a bridge or of a router (exactly one of `bridge_id`, `router_id` is set).

    host_id: set when bound; peer_port_id: set when linked.
    mac, addresses: router ports; `addresses` keep the host bits.
    allowed_sources: bridge ports with port security; None without.
    port_group_ids: groups that exist and that the port is in. stateful_group_id: the one of them
        that is stateful (the lowest, should there be several).
    mirrors, QoS policy, insertions: see `midonet.model.devices.Port`.
    advertising: of a router port that advertises.
    """

    id: PortId
    bridge_id: BridgeId | None = None
    router_id: RouterId | None = None
    admin_state_up: bool = True
    inbound_filter_id: ChainId | None = None
    outbound_filter_id: ChainId | None = None
    host_id: HostId | None = None
    peer_port_id: PortId | None = None
    vlan_id: int = 0
    mac: int = 0
    addresses: tuple[IpPrefix, ...] = ()
    port_group_ids: tuple[PortGroupId, ...] = ()
    stateful_group_id: PortGroupId | None = None
    allowed_sources: AllowedSources | None = None
    inbound_mirror_ids: tuple[MirrorId, ...] = ()
    post_in_filter_mirror_ids: tuple[MirrorId, ...] = ()
    pre_out_filter_mirror_ids: tuple[MirrorId, ...] = ()
    outbound_mirror_ids: tuple[MirrorId, ...] = ()
    qos_policy_id: QosPolicyId | None = None
    advertising: AdvertisingView | None = None
    insertion_inbound_filter_id: ChainId | None = None
    insertion_outbound_filter_id: ChainId | None = None
    is_service: bool = False


@dataclass(frozen=True, slots=True)
class RouterAttachment:
    """A router port seen from the bridge it is linked to.

    bridge_port_id is on the bridge, in VLAN `vlan_id` (0: none), router_port_id its peer;
    `addresses` are the router port's, which may advertise.
    """

    bridge_port_id: PortId
    router_port_id: PortId
    router_id: RouterId
    mac: int
    addresses: tuple[IpAddress, ...]
    vlan_id: int = 0
    is_advertising: bool = False


@dataclass(frozen=True, slots=True)
class BridgeView:
    """A bridge with what its forwarding needs, complete.

    flood_port_ids: bound (exterior) ports in ascending order of id.
    linked_port_ids: ports linked to another device, in ascending order of id.
        bridge_port_ids: of these, the ones without VLAN whose peer is no router's port.
    vlan_ports: ports with a VLAN, bound or linked, by it; those of one in ascending order.
    attachments: router ports by VLAN and MAC. attachment_by_address: the same by VLAN and
        address.
    mac_ageing_s: see `midonet.model.devices.Bridge`.
    """

    id: BridgeId
    admin_state_up: bool = True
    inbound_filter_id: ChainId | None = None
    outbound_filter_id: ChainId | None = None
    flood_port_ids: tuple[PortId, ...] = ()
    linked_port_ids: tuple[PortId, ...] = ()
    vlan_ports: Mapping[int, tuple[PortId, ...]] = field(default_factory=dict)
    bridge_port_ids: tuple[PortId, ...] = ()
    attachments: Mapping[tuple[int, int], RouterAttachment] = field(default_factory=dict)
    attachment_by_address: Mapping[tuple[int, IpAddress], RouterAttachment] = field(
        default_factory=dict
    )
    mac_ageing_s: int | None = None
    inbound_mirror_ids: tuple[MirrorId, ...] = ()
    outbound_mirror_ids: tuple[MirrorId, ...] = ()
    qos_policy_id: QosPolicyId | None = None


@dataclass(frozen=True, slots=True)
class RouteView:
    """One usable route of a router (its port is up and, when bound, active)."""

    id: RouteId
    kind: NextHopKind
    source: IpPrefix
    destination: IpPrefix
    next_hop_port_id: PortId | None
    gateway: IpAddress | None
    weight: int


@dataclass(frozen=True, slots=True)
class FibMatch:
    """Outcome of a lookup.

    routes: the usable routes of least weight at the longest matching destination for which a
        source matches, in ascending order of id; empty when none matches.
    destination_proof, source_proof: prefix lengths in bits; every packet whose destination and
        source share that many leading bits with the looked-up pair has the same `routes`.
    """

    routes: tuple[RouteView, ...]
    destination_proof: int
    source_proof: int


class Fib(Protocol):
    """Forwarding table of one router."""

    def lookup(self, version: IpVersion, source: int, destination: int) -> FibMatch:
        """Find the routes for a packet. Longest destination first; falls back to shorter
        destinations when no source matches there."""
        ...


@dataclass(frozen=True, slots=True)
class Nat64View:
    """A router's way between IPv6 and IPv4.

    prefix: the IPv6 address whose first 96 bits stand for IPv4. pool: what IPv6 sources become.
    """

    prefix: int
    pool: NatPool


@dataclass(frozen=True, slots=True)
class RouterView:
    """A router with its ports' ids and its forwarding table."""

    id: RouterId
    fib: Fib
    admin_state_up: bool = True
    inbound_filter_id: ChainId | None = None
    outbound_filter_id: ChainId | None = None
    port_ids: tuple[PortId, ...] = ()
    load_balancer_id: LoadBalancerId | None = None
    inbound_mirror_ids: tuple[MirrorId, ...] = ()
    outbound_mirror_ids: tuple[MirrorId, ...] = ()
    nat64: Nat64View | None = None


class Compiled:
    """A place beside a rule for the forms in which simulation uses it. They are made at the first
    packet, belong to the rule, and go with it.

    form: its condition as a test. need: what a packet must have to match at all.
    """

    __slots__ = ("form", "need")

    def __init__(self) -> None:
        self.form: Callable[..., bool | None] | None = None
        self.need: object = None


class Arranged:
    """A place beside a chain for the index of its rules, like `Compiled`."""

    __slots__ = ("form",)

    def __init__(self) -> None:
        self.form: object = None


@dataclass(frozen=True, slots=True)
class RuleView:
    """One rule in evaluation order.

    pool: what a DNAT or SNAT rule translates to. flow_action: of a rule of NAT or L2_TRANSFORM,
        once it has acted. transform, target_port_id: of an L2_TRANSFORM rule.
    """

    id: RuleId
    action: RuleAction
    condition: Condition
    jump_chain_id: ChainId | None = None
    pool: NatPool | None = None
    flow_action: FlowAction | None = None
    compiled: Compiled = field(default_factory=Compiled, compare=False, repr=False)
    transform: L2Transform | None = None
    target_port_id: PortId | None = None


@dataclass(frozen=True, slots=True)
class ChainView:
    """An ordered list of rules."""

    id: ChainId
    rules: tuple[RuleView, ...] = ()
    index: Arranged = field(default_factory=Arranged, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class MirrorView:
    """A mirror: what meets one of `conditions` is copied out of a port."""

    id: MirrorId
    to_port_id: PortId
    conditions: tuple[Condition, ...] = ()
    compiled: Compiled = field(default_factory=Compiled, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class QosPolicyView:
    """A policy. dscp: what packets are marked with, 6 bits; None leaves them alone."""

    id: QosPolicyId
    dscp: int | None = None


@dataclass(frozen=True, slots=True)
class Location:
    """Where a bound port is. `tunnel_key` is how its host delivers to it."""

    host_id: HostId
    tunnel_key: int
    active: bool


@dataclass(frozen=True, slots=True)
class TunnelRoute:
    """How this host reaches another. max_inner_length: largest inner IP packet, in bytes."""

    kind: TunnelKind
    local: IpAddress
    remote: IpAddress
    max_inner_length: int


@dataclass(frozen=True, slots=True)
class TopologyView:
    """Everything simulation may ask. `revision` grows with each change.

    absent: identifiers known not to exist (fail closed), as opposed to not loaded.
    flood_groups: key of a bridge's flood group at a host.
    port_groups: groups that rules or ports name, with whether they are stateful.
    address_groups: members of the groups that rules name.
    underlay_addresses: of all hosts, of other tunnel zones too.
    hash_seed: 64-bit deployment-wide key of the flow hash.
    mac_ageing_s: time (s) until an unused MAC is forgotten, of bridges that say nothing else.
    dhcp: what bridges with a port bound here serve.
    overlay_mtu_bytes: largest IP packet that every tunnel of this host takes, 0 when it is in no
        tunnel zone.
    """

    revision: int
    host_id: HostId
    ports: Mapping[PortId, PortView] = field(default_factory=dict)
    bridges: Mapping[BridgeId, BridgeView] = field(default_factory=dict)
    routers: Mapping[RouterId, RouterView] = field(default_factory=dict)
    chains: Mapping[ChainId, ChainView] = field(default_factory=dict)
    balancers: Mapping[LoadBalancerId, LoadBalancerView] = field(default_factory=dict)
    mirrors: Mapping[MirrorId, MirrorView] = field(default_factory=dict)
    qos_policies: Mapping[QosPolicyId, QosPolicyView] = field(default_factory=dict)
    locations: Mapping[PortId, Location] = field(default_factory=dict)
    tunnels: Mapping[HostId, TunnelRoute] = field(default_factory=dict)
    flood_groups: Mapping[tuple[HostId, BridgeId], int] = field(default_factory=dict)
    port_groups: Mapping[PortGroupId, bool] = field(default_factory=dict)
    address_groups: Mapping[IpAddressGroupId, AddressSet] = field(default_factory=dict)
    absent: frozenset[ObjectId] = frozenset()
    underlay_addresses: UnderlayAddresses = NO_UNDERLAY
    hash_seed: int = 0
    mac_ageing_s: int = MAC_AGEING_S
    dhcp: Mapping[BridgeId, BridgeDhcp] = field(default_factory=dict)
    overlay_mtu_bytes: int = 0

    def knows(self, object_id: ObjectId) -> bool:
        """Tell whether an object that may have to be loaded is here, or known not to exist."""
        kinds: tuple[Container[object], ...] = (
            self.ports,
            self.bridges,
            self.routers,
            self.chains,
            self.balancers,
            self.mirrors,
            self.qos_policies,
            self.absent,
        )
        return any(object_id in kind for kind in kinds)


@dataclass(frozen=True, slots=True)
class ViewDelta:
    """What changed between two views: the tags and route regions of changed facts.

    urgent: tags whose programs must go at once rather than be judged again in place (a removed
        port or binding, an added deny).
    """

    revision: int
    tags: frozenset[FlowTag] = frozenset()
    regions: frozenset[RouteRegion] = frozenset()
    urgent: frozenset[FlowTag] = frozenset()
