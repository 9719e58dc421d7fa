"""What a packet that leaves means for its connection: it begins, goes on, or is over.

A walk that asked which connection the packet belongs to (`Walk.sight`) says so at its end, when
all outputs are known. A packet that does not leave confirms nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from midonet.agent.flow_state.connection import Connection, ConnectionKey, Direction
from midonet.agent.flow_state.effects import (
    AdvanceConnection,
    ConfirmConnection,
    ConnectionEffect,
    KillConnection,
    Sample,
)
from midonet.agent.flow_state.fragments import RefuseDatagram
from midonet.agent.flow_state.sight import Standing
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import Rewrite
from midonet.agent.flows.tags import FlowTag, RouteRegion, TagKind
from midonet.agent.simulation.sighting import ICMP_PROTOCOLS, Observation, zone_of
from midonet.agent.simulation.walk import Walk
from midonet.agent.topology.view import PortView, TopologyView
from midonet.model.ids import ObjectId
from midonet.packets.address_kinds import AddressKind, address_kind
from midonet.packets.addresses import is_multicast_mac
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import VLAN_PRESENT
from midonet.packets.nat64 import other_protocol

_POLICY = frozenset((DropReason.FILTERED, DropReason.REJECTED))
_CONFIGURATION = frozenset(
    (
        TagKind.DEVICE,
        TagKind.CHAIN,
        TagKind.GROUP_ELEMENT,
        TagKind.POOL,
        TagKind.POOL_MEMBER,
    )
)


def return_key(
    original: FiveTuple, vlan_tci: int, port: PortView, rewrite: Rewrite
) -> ConnectionKey:
    """Return the key with which the answer enters to a packet that left by `port`.

    original, vlan_tci: of the packet as it entered; rewrite: how it changed on its way.
    """
    if rewrite.pop_vlan:
        vlan_tci = 0
    if rewrite.push_vlan is not None:
        vlan_tci = VLAN_PRESENT | rewrite.push_vlan
    if original.protocol in ICMP_PROTOCOLS:
        source_port = None if rewrite.deep is None else rewrite.deep.icmp_id
        destination_port = source_port
    else:
        source_port, destination_port = rewrite.l4_src, rewrite.l4_dst
    change = rewrite.deep.family if rewrite.deep is not None else None
    if change is not None:
        protocol = other_protocol(original.protocol)
        original = original._replace(version=change.version, protocol=protocol)
    delivered = original._replace(
        source=original.source if rewrite.ip_src is None else rewrite.ip_src,
        destination=original.destination if rewrite.ip_dst is None else rewrite.ip_dst,
        source_port=original.source_port if source_port is None else source_port,
        destination_port=(
            original.destination_port if destination_port is None else destination_port
        ),
    )
    return ConnectionKey(zone_of(port, vlan_tci), delivered.inverse())


def leads_elsewhere(walk: Walk) -> Connection | None:
    """Return the connection of a return packet that leaves, but nowhere where that began.

    Its address has a new owner, who must get nothing of it.
    """
    observed = walk.findings.observation
    if observed is None or observed.sight.standing is not Standing.KNOWN:
        return None
    if observed.sight.direction is Direction.FORWARD:
        return None
    known, keys = observed.sight.connection, _return_keys(walk, observed)
    if known is None or not keys or any(key.zone == known.forward.zone for key in keys):
        return None
    return known


def connection_effects(walk: Walk) -> Iterable[ConnectionEffect]:
    """Return what becomes of the connection of a packet whose walk is at its end."""
    observed = walk.findings.observation
    if observed is None or walk.inputs.is_generated:
        return ()
    if observed.stray is not None and observed.stray[0] is DropReason.FRAGMENT_INVALID:
        return (RefuseDatagram(observed.stray[1]),)
    if observed.key is None:
        return ()
    keys = _return_keys(walk, observed)
    effects = _effects(walk, observed, observed.key, keys)
    return (*effects, observed.fragment) if keys and observed.fragment else effects


def _effects(
    walk: Walk, observed: Observation, key: ConnectionKey, keys: list[ConnectionKey]
) -> Iterable[ConnectionEffect]:
    if observed.sight.standing is Standing.KNOWN:
        return _of_known(walk, observed, key, keys)
    if not keys or not observed.may_begin or _is_for_group(key.tuple, walk):
        return ()
    begun = Connection(
        key,
        tuple(one for one in dict.fromkeys(keys) if one != key),
        walk.inputs.ingress,
        tuple(walk.findings.bindings),
    )
    allocations = tuple(walk.findings.allocations)
    return (
        ConfirmConnection(begun, _sample(walk), observed.sight.connection, allocations),
        AdvanceConnection(key, Direction.FORWARD, walk.inputs.packet.tcp_flags),
    )


def _of_known(
    walk: Walk, observed: Observation, key: ConnectionKey, keys: list[ConnectionKey]
) -> Iterable[ConnectionEffect]:
    sight, known = observed.sight, observed.sight.connection
    if known is None:
        return ()
    seen = AdvanceConnection(key, sight.direction, walk.inputs.packet.tcp_flags)
    if sight.is_return:
        return (seen,)
    drops = walk.findings.drops
    if not keys and not walk.findings.taken and drops and _POLICY.issuperset(drops):
        return (KillConnection(known),)
    if keys and not set(known.bindings).issuperset(walk.findings.bindings):
        return _begun_again(walk, key, keys, known)
    further = [one for one in keys if not known.has(one)]
    if not further:
        return (seen,)
    begun = Connection(
        known.forward,
        (*known.returns, *further),
        known.initiator,
        known.bindings,
        known.tcp,
        known.is_answered,
        known.serial,
    )
    return ConfirmConnection(begun, _sample(walk), known), seen


def _begun_again(
    walk: Walk, key: ConnectionKey, keys: list[ConnectionKey], known: Connection
) -> Iterable[ConnectionEffect]:
    """Return what replaces a connection whose packets are translated otherwise by now."""
    again = Connection(
        key,
        tuple(one for one in dict.fromkeys(keys) if one != key),
        walk.inputs.ingress,
        tuple(walk.findings.bindings),
    )
    confirm = ConfirmConnection(again, _sample(walk), known, tuple(walk.findings.allocations))
    return confirm, AdvanceConnection(key, Direction.FORWARD, walk.inputs.packet.tcp_flags)


def _return_keys(walk: Walk, observed: Observation) -> list[ConnectionKey]:
    """Return a key for each output of the packet, and for each place of its fragments.

    Who gets a copy of it answers nothing.
    """
    if observed.key is None:
        return []
    places = [
        (entry.port, entry.output.rewrite) for entry in walk.findings.outputs if not entry.copy
    ]
    places += walk.findings.fragmented
    vlan_tci = walk.inputs.packet.key.vlan_tci
    return [return_key(observed.key.tuple, vlan_tci, port, rewrite) for port, rewrite in places]


def _is_for_group(key: FiveTuple, walk: Walk) -> bool:
    """Tell whether a packet goes to a group: nobody in particular answers."""
    if is_multicast_mac(walk.inputs.packet.key.eth_dst):
        return True
    return address_kind(key.version, key.destination) is AddressKind.MULTICAST


def _sample(walk: Walk) -> Sample:
    packet, findings = walk.inputs.packet, walk.findings
    facts = configuration_facts(walk.inputs.view, findings.tags, findings.regions)
    return Sample(facts, packet.key, packet.icmp_id)


def configuration_facts(
    view: TopologyView, tags: Iterable[FlowTag], regions: Iterable[RouteRegion]
) -> frozenset[FlowTag | RouteRegion]:
    """Return those of the facts of a walk that an operator sets: devices, chains and groups.

    Of a group of addresses both the region that was asked about and the tag of the whole group
    (`group_tag`), by which it is found.
    """
    of_groups = [region for region in regions if region.owner_id in view.address_groups]
    return frozenset(
        (
            *(tag for tag in tags if tag.kind in _CONFIGURATION),
            *of_groups,
            *(group_tag(region.owner_id) for region in of_groups),
        )
    )


def group_tag(group_id: ObjectId) -> FlowTag:
    """Return the tag of all members of a group of addresses."""
    return FlowTag(TagKind.GROUP_ELEMENT, group_id)
