"""What a walk tells people: typed steps in the order in which they happened. Pure.

Steps are built only when they are asked for: callers test `walk.findings.steps` first. A step
carries ids and values; names and text are for whoever shows it
(`midonet.agent.operator.trace_text`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from midonet.agent.flow_state.connection import ConnectionKey, Endpoint
from midonet.agent.flow_state.sight import Sight
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import Output
from midonet.model.chains import RuleAction
from midonet.model.devices import NextHopKind
from midonet.model.ids import (
    BridgeId,
    ChainId,
    LoadBalancerId,
    MirrorId,
    ObjectId,
    PoolId,
    PoolMemberId,
    PortId,
    QosPolicyId,
    RouteId,
    RouterId,
    RuleId,
    VipId,
)
from midonet.packets.addresses import IpAddress, IpPrefix
from midonet.packets.flowkey import FlowKey


class Hook(Enum):
    """Where a filter is applied."""

    PORT_INBOUND = "inbound filter of port"
    PORT_OUTBOUND = "outbound filter of port"
    BRIDGE_INBOUND = "inbound filter of bridge"
    BRIDGE_OUTBOUND = "outbound filter of bridge"
    ROUTER_INBOUND = "inbound filter of router"
    ROUTER_OUTBOUND = "outbound filter of router"


class MirrorPoint(Enum):
    """Where a packet is copied."""

    PORT_INBOUND = "before the inbound filter of port"
    PORT_POST_INBOUND = "after the inbound filter of port"
    PORT_PRE_OUTBOUND = "before the outbound filter of port"
    PORT_OUTBOUND = "after the outbound filter of port"
    BRIDGE_INBOUND = "before the inbound filter of bridge"
    BRIDGE_OUTBOUND = "after the outbound filter of bridge"
    ROUTER_INBOUND = "before the inbound filter of router"
    ROUTER_OUTBOUND = "after the outbound filter of router"


@dataclass(frozen=True, slots=True)
class EnteredPort:
    """The packet enters `device_id` by a port."""

    port_id: PortId
    device_id: ObjectId | None


@dataclass(frozen=True, slots=True)
class LeftPort:
    """The packet leaves its device by a port."""

    port_id: PortId


@dataclass(frozen=True, slots=True)
class BeganFilter:
    """A chain is asked at a hook of a port, bridge or router."""

    hook: Hook
    owner_id: ObjectId
    chain_id: ChainId


@dataclass(frozen=True, slots=True)
class MetRule:
    """A rule was tested. position: in its chain, from 1."""

    chain_id: ChainId
    rule_id: RuleId
    position: int
    action: RuleAction
    is_matching: bool


@dataclass(frozen=True, slots=True)
class Translated:
    """A rule of NAT acted. before, after: the address, or end point, that it replaced.

    device_id: owns the translation. reason: why this one, for people; empty when there is no
    other.
    """

    rule_id: RuleId
    device_id: ObjectId | None
    action: RuleAction
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FoundConnection:
    """It was looked for the connection of the packet, by the key with which it entered."""

    key: ConnectionKey
    sight: Sight


@dataclass(frozen=True, slots=True)
class BeganConnection:
    """The packet begins a connection; `returns` are the keys of its answers."""

    forward: ConnectionKey
    returns: tuple[ConnectionKey, ...]


@dataclass(frozen=True, slots=True)
class EndedConnection:
    """The packet's connection is over: policy forbids it, or its answers would lead elsewhere."""

    forward: ConnectionKey
    is_dead: bool


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A mirror of `owner_id` copies the packet as it is now; the copy leaves by a port."""

    point: MirrorPoint
    owner_id: ObjectId
    mirror_id: MirrorId
    to_port_id: PortId


@dataclass(frozen=True, slots=True)
class Redirected:
    """A rule lets the packet enter (or else leave) by another port."""

    rule_id: RuleId
    port_id: PortId
    is_ingress: bool


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """Port security looked at what the packet says of its sender. why: it does not pass, in
    words; empty when it does."""

    port_id: PortId
    why: str


@dataclass(frozen=True, slots=True)
class MarkedDscp:
    """The packet gets the DSCP of a policy as it enters by a port."""

    port_id: PortId
    policy_id: QosPolicyId
    dscp: int


@dataclass(frozen=True, slots=True)
class FollowsCopy:
    """The packet's own way is told; what follows is that of a copy which a mirror made."""

    mirror_id: MirrorId
    to_port_id: PortId


@dataclass(frozen=True, slots=True)
class ChoseMember:
    """A load balancer chose a member of a pool for a new connection to a VIP.

    bucket: that the packet's hash fell into; by_client: the hash of the client's address, not of
    the tuple. weight of total_weight, shared by candidates: members that take connections.
    """

    balancer_id: LoadBalancerId
    vip_id: VipId
    pool_id: PoolId
    member_id: PoolMemberId
    bucket: int
    by_client: bool
    weight: int
    total_weight: int
    candidates: int


@dataclass(frozen=True, slots=True)
class KeptMember:
    """A connection to a VIP has a member already. is_kept: it may go on there.

    member_id: None when it is gone. is_draining: it takes no new connections.
    """

    balancer_id: LoadBalancerId
    vip_id: VipId
    pool_id: PoolId
    member_id: PoolMemberId | None
    is_kept: bool
    is_draining: bool


@dataclass(frozen=True, slots=True)
class RestoredVip:
    """An answer of a member got the VIP's address."""

    balancer_id: LoadBalancerId
    vip_id: VipId
    member: Endpoint
    vip: Endpoint


@dataclass(frozen=True, slots=True)
class HidClient:
    """A member would answer this client without passing the router: the router's own end point
    stands for it. is_undone: in an answer, it gives place to the client's."""

    balancer_id: LoadBalancerId
    client: Endpoint
    stand_in: Endpoint
    is_undone: bool


@dataclass(frozen=True, slots=True)
class Crossed:
    """A router made a packet of the other IP version of it. Ends before and after."""

    source: str
    destination: str
    new_source: str
    new_destination: str


@dataclass(frozen=True, slots=True)
class LookedUpMac:
    """A bridge looked for a MAC in its table. port_id: None when it does not know it."""

    bridge_id: BridgeId
    vlan: int
    mac: int
    port_id: PortId | None


@dataclass(frozen=True, slots=True)
class LookedUpNeighbour:
    """The MAC of an address was looked for in the table of a bridge or router; None: not there."""

    device_id: ObjectId
    address: IpAddress
    mac: int | None


@dataclass(frozen=True, slots=True)
class LookedUpClient:
    """A bridge looked for a DHCP client, by MAC or DUID. address: None when it has no entry."""

    bridge_id: BridgeId
    client: str
    address: IpAddress | None


@dataclass(frozen=True, slots=True)
class ChoseRoute:
    """A router chose a route. candidates: how many equal ones there were."""

    router_id: RouterId
    route_id: RouteId
    destination: IpPrefix
    kind: NextHopKind
    gateway: IpAddress | None
    next_hop_port_id: PortId | None
    candidates: int


@dataclass(frozen=True, slots=True)
class Flooded:
    """A bridge sends copies by these ports; the steps of each copy follow in this order."""

    bridge_id: BridgeId
    port_ids: tuple[PortId, ...]


@dataclass(frozen=True, slots=True)
class Rewrote:
    """A device changed a field of the flow key, or `ttl` (then: by how much, before and after)."""

    device_id: ObjectId
    field: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A device made an answer, which leaves by a port."""

    port_id: PortId
    answer: str


@dataclass(frozen=True, slots=True)
class WasTooLong:
    """The packet is longer than what a tunnel takes. Sizes in bytes of the IP packet."""

    length: int
    limit: int


@dataclass(frozen=True, slots=True)
class EnteredOutput:
    """The packet leaves the virtual network by a bound port."""

    port_id: PortId
    output: Output


@dataclass(frozen=True, slots=True)
class WasDropped:
    """The packet ends. place_id: the port where it was last. object_id: what made it end."""

    reason: DropReason
    place_id: PortId
    object_id: ObjectId | None


@dataclass(frozen=True, slots=True)
class Waits:
    """Something is not known yet: objects to load, the MAC of an address, what other hosts know of
    a connection, the first fragment; or ports of an address (`is_port`) have to be leased."""

    object_ids: tuple[ObjectId, ...] = ()
    address: IpAddress | None = None
    connection: ConnectionKey | None = None
    is_port: bool = False
    is_fragment: bool = False


TraceEvent = (
    EnteredPort
    | LeftPort
    | BeganFilter
    | MetRule
    | Translated
    | Crossed
    | FoundConnection
    | BeganConnection
    | EndedConnection
    | Mirrored
    | FollowsCopy
    | CheckedSource
    | MarkedDscp
    | Redirected
    | ChoseMember
    | KeptMember
    | RestoredVip
    | HidClient
    | LookedUpMac
    | LookedUpNeighbour
    | LookedUpClient
    | ChoseRoute
    | Flooded
    | Rewrote
    | Answered
    | WasTooLong
    | EnteredOutput
    | WasDropped
    | Waits
)


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One step. depth: devices that this copy of the packet has entered so far."""

    depth: int
    event: TraceEvent


def rewrites(device_id: ObjectId, before: Sequence[int], after: Sequence[int]) -> Iterator[Rewrote]:
    """Yield the fields that differ. before, after: a flow key's values, then the TTL decrement."""
    for name, old, new in zip((*FlowKey._fields, "ttl"), before, after, strict=True):
        if old != new:
            yield Rewrote(device_id, name, old, new)
