"""Flow tags: the topology facts a flow program depends on.

A tag names one fact at the grain of (owner, element). When the fact changes, the delta of the
topology view (or of a soft-state table) carries the tag, and every program that carries it is
judged again. Absence is a fact too: a MAC that was looked up and not found yields the same tag
as one that was found.

Prefixes need containment rather than equality: a program depends on a *region* of addresses
(`RouteRegion`: the shortest prefix of the destination inside which every address has the same
outcome at that router, or of an address that was looked up in an address group or among VIPs),
and a changed route or member touches all programs whose region overlaps it.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import IntEnum
from typing import NamedTuple

from midonet.agent.flow_state.connection import ConnectionKey
from midonet.model.ids import ObjectId
from midonet.packets.addresses import IpVersion


class TagKind(IntEnum):
    """What kind of fact a tag names."""

    DEVICE = 1  # configuration of a bridge, router or port; existence of a group
    CHAIN = 2  # the rules of a chain
    FLOOD_SET = 3  # the set of ports a bridge floods to
    MAC = 4  # where a (VLAN, MAC) is on a bridge, absence included
    BRIDGE_NEIGHBOUR = 5  # IP to MAC of a bridge's table or attached router ports
    NEIGHBOUR = 6  # IP to MAC of a router's neighbour table
    LOCATION = 7  # host, key and activity of a port
    TUNNEL = 8  # underlay route and MTU towards a host
    GROUP_ELEMENT = 9  # membership of one port in a group; of addresses there are regions
    FLOOD_GROUP = 10  # key of a bridge's flood group at a host
    UNDERLAY = 11  # the set of underlay addresses of all hosts
    POOL = 12  # configuration of a pool of a load balancer
    POOL_CHOICE = 13  # which members of a pool take new connections, and by which weights
    POOL_MEMBER = 14  # a member of a pool, its health and state
    CONNECTION = 15  # the connection that has a key, absence included


class FlowTag(NamedTuple):
    """One fact. `owner` is the object it belongs to, `element` what inside it."""

    kind: TagKind
    owner: ObjectId
    element: Hashable = None


class RouteRegion(NamedTuple):
    """Addresses `value/length` that share one outcome at `owner_id`: destinations that a router
    routes alike, or addresses all of which are members of an address group or VIPs of a load
    balancer, or none."""

    owner_id: ObjectId
    version: IpVersion
    value: int
    length: int


NO_REGIONS: frozenset[RouteRegion] = frozenset()
"""What most programs have; an empty set of its own costs 216 bytes each."""


def device_tag(device_id: ObjectId) -> FlowTag:
    """Return the tag of the configuration of a bridge, router or port."""
    return FlowTag(TagKind.DEVICE, device_id)


def group_member_tag(group_id: ObjectId, port_id: ObjectId) -> FlowTag:
    """Return the tag of a port being in a port group or not."""
    return FlowTag(TagKind.GROUP_ELEMENT, group_id, port_id)


def chain_tag(chain_id: ObjectId) -> FlowTag:
    """Return the tag of the rules of a chain, its absence included."""
    return FlowTag(TagKind.CHAIN, chain_id)


def flood_set_tag(bridge_id: ObjectId) -> FlowTag:
    """Return the tag of the set of ports that `bridge_id` floods to."""
    return FlowTag(TagKind.FLOOD_SET, bridge_id)


def mac_tag(bridge_id: ObjectId, vlan: int, mac: int) -> FlowTag:
    """Return the tag of the place of (`vlan`, `mac`) on a bridge."""
    return FlowTag(TagKind.MAC, bridge_id, (vlan, mac))


def bridge_neighbour_tag(bridge_id: ObjectId, version: IpVersion, address: int) -> FlowTag:
    """Return the tag of a bridge's knowledge of the MAC of an address."""
    return FlowTag(TagKind.BRIDGE_NEIGHBOUR, bridge_id, (int(version), address))


def neighbour_tag(router_id: ObjectId, version: IpVersion, address: int) -> FlowTag:
    """Return the tag of a router's knowledge of the MAC of an address."""
    return FlowTag(TagKind.NEIGHBOUR, router_id, (int(version), address))


def location_tag(port_id: ObjectId) -> FlowTag:
    """Return the tag of the host, key and activity of a port."""
    return FlowTag(TagKind.LOCATION, port_id)


def tunnel_tag(host_id: ObjectId) -> FlowTag:
    """Return the tag of the underlay route and MTU towards a host."""
    return FlowTag(TagKind.TUNNEL, host_id)


def underlay_tag(host_id: ObjectId) -> FlowTag:
    """Return the tag of the underlay addresses of all hosts, as `host_id` knows them."""
    return FlowTag(TagKind.UNDERLAY, host_id)


def flood_group_tag(host_id: ObjectId, bridge_id: ObjectId) -> FlowTag:
    """Return the tag of the flood-group key of a bridge at a host."""
    return FlowTag(TagKind.FLOOD_GROUP, host_id, bridge_id)


def pool_tag(pool_id: ObjectId) -> FlowTag:
    """Return the tag of the configuration of a pool, its absence included."""
    return FlowTag(TagKind.POOL, pool_id)


def pool_choice_tag(pool_id: ObjectId) -> FlowTag:
    """Return the tag of what a pool's choice of a member for a new connection depends on."""
    return FlowTag(TagKind.POOL_CHOICE, pool_id)


def pool_member_tag(pool_id: ObjectId, member_id: ObjectId) -> FlowTag:
    """Return the tag of a member of a pool, its absence included."""
    return FlowTag(TagKind.POOL_MEMBER, pool_id, member_id)


def connection_tag(key: ConnectionKey) -> FlowTag:
    """Return the tag of the connection that has a key, its absence included."""
    return FlowTag(TagKind.CONNECTION, key.zone.scope, (key.zone.vlan, key.tuple))
