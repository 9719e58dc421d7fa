"""Outputs: from an egress port to a local interface or a tunnel, and floods to flood groups.

The length of a packet matters where it goes into a tunnel. What is too long is fragmented by
the last router on the way (IPv4 without DF) or reported by it (RFC 1191, RFC 8201); without a
router on the way it is dropped, as a bridge has no address to report from.

A bound port of a router is an uplink: it leads out of the virtual network, perhaps to the network
that carries the overlay. Nothing leaves by it for an underlay address of a host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LocalOutput, Output, Rewrite, SlowPathReason, TunnelOutput
from midonet.agent.flows.tags import FlowTag, TagKind, flood_group_tag, underlay_tag
from midonet.agent.simulation import answers
from midonet.agent.simulation.fragmentation import fragment_at_router
from midonet.agent.simulation.header import (
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
)
from midonet.agent.simulation.trace import EnteredOutput, WasTooLong
from midonet.agent.simulation.walk import Dropped, Ended, Outcome, PortOutput, Walk
from midonet.agent.topology.view import BridgeView, PortView, TunnelRoute
from midonet.model.ids import BridgeId, HostId, PortId
from midonet.packets.addresses import IpAddress, IpVersion

_TAG_SIZE = 4

_Place = tuple[PortId, int, BridgeId | None]
"""What tells the outputs of a packet apart: the port, the copy, the flood that led there."""


def emit(walk: Walk, port: PortView) -> Outcome:
    """Enter the output for a bound port."""
    location = walk.inputs.view.locations.get(port.id)
    walk.findings.tags.append(FlowTag(TagKind.LOCATION, port.id))
    if location is None:
        return Dropped(DropReason.NO_LOCATION, object_id=port.id)
    is_uplink = port.router_id is not None
    if is_uplink and _is_underlay_address(walk):
        return Dropped(DropReason.UNDERLAY_SPOOF, object_id=port.id)
    output: Output
    if location.host_id == walk.inputs.view.host_id:
        output = LocalOutput(port.id, walk.header.rewrite(), is_uplink)
    else:
        walk.findings.tags.append(FlowTag(TagKind.TUNNEL, location.host_id))
        tunnel = walk.inputs.view.tunnels.get(location.host_id)
        if tunnel is None:
            return Dropped(DropReason.NO_TUNNEL, object_id=location.host_id)
        too_long = _check_length(walk, tunnel, port)
        if too_long is not None:
            return too_long
        output = TunnelOutput(
            tunnel.kind,
            tunnel.local,
            tunnel.remote,
            location.tunnel_key,
            walk.header.rewrite(),
            is_uplink,
        )
    walk.findings.ttl_above = max(walk.findings.ttl_above, walk.header.ttl_decrement)
    walk.note_leaving()
    branch = walk.branch
    walk.findings.outputs.append(PortOutput(port, output, branch.flooded_by, branch.copy))
    if walk.findings.steps is not None:
        walk.step(EnteredOutput(port.id, output))
    return Ended.DELIVERED


def _is_underlay_address(walk: Walk) -> bool:
    """Tell whether the packet goes to an address of some host; what shows it is recorded."""
    eth_type = walk.header.read(ETH_TYPE)
    if eth_type not in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        return False
    version, width = (IpVersion.V4, 32) if eth_type == ETH_TYPE_IPV4 else (IpVersion.V6, 128)
    addresses = walk.inputs.view.underlay_addresses
    walk.findings.tags.append(underlay_tag(walk.inputs.view.host_id))
    value = walk.header.values[IP_DST]
    walk.header.record_prefix(IP_DST, addresses.proof_length(version, value), width)
    return IpAddress(version, value) in addresses


def _check_length(walk: Walk, tunnel: TunnelRoute, port: PortView) -> Outcome | None:
    """Return what becomes of a packet that the tunnel does not take, or None if it does."""
    limit = tunnel.max_inner_length - walk.header.tag_count() * _TAG_SIZE
    findings = walk.findings
    # Limits are of the packet as it entered, which may have been of the other IP version.
    limit -= walk.header.length_change
    if walk.inputs.packet.ip_length <= limit:
        known = findings.max_length
        findings.max_length = limit if known is None else min(known, limit)
        return None
    findings.slow_path = findings.slow_path or SlowPathReason.GUARD
    if findings.steps is not None:
        walk.step(WasTooLong(walk.inputs.packet.ip_length, limit))
    # A copy is not cut up: who watches wants to see the packet.
    is_whole = walk.branch.copy or walk.header.length_change
    fragments = () if is_whole else fragment_at_router(walk, limit)
    if fragments:
        findings.slow_path = SlowPathReason.FRAGMENT_NEEDED
        # They are parts of the packet, and what it begins they have begun.
        sight = walk.sight()
        walk.note_leaving()
        findings.fragmented.append((port, walk.header.rewrite()))
        findings.generated.extend(replace(fragment, sight=sight) for fragment in fragments)
        return Ended.TAKEN
    visit = walk.branch.router
    answers.answer_too_big(walk, limit + (visit.header.length_change if visit else 0))
    return Dropped(DropReason.MTU_EXCEEDED)


def grouped_outputs(walk: Walk) -> tuple[Output, ...]:
    """Return the outputs in order, with copies for one host merged into its flood group.

    A host's ports of a flooding bridge merge when all of them are reached with one rewrite,
    none has an outbound filter or a VLAN, and the host has reported the key of its group.
    """
    flooded: dict[tuple[BridgeId, int], dict[HostId, list[PortOutput]]] = {}
    for entry in walk.findings.outputs:
        if entry.flooded_by is not None and isinstance(entry.output, TunnelOutput):
            host_id = walk.inputs.view.locations[entry.port.id].host_id
            flood = entry.flooded_by, entry.copy
            flooded.setdefault(flood, {}).setdefault(host_id, []).append(entry)
    merged: dict[_Place, Output | None] = {}
    for (bridge_id, _), by_host in flooded.items():
        merged.update(_merge_hosts(walk, bridge_id, by_host))
    outputs = (merged.get(_place(entry), entry.output) for entry in walk.findings.outputs)
    return tuple(output for output in outputs if output is not None)


def _merge_hosts(
    walk: Walk, bridge_id: BridgeId, by_host: Mapping[HostId, list[PortOutput]]
) -> dict[_Place, Output | None]:
    """Return what becomes of the outputs of a flood: one for all of a host, None for others."""
    merged: dict[_Place, Output | None] = {}
    partial: frozenset[HostId] | None = None
    for host_id, entries in by_host.items():
        walk.findings.tags.append(flood_group_tag(host_id, bridge_id))
        tunnel_key = walk.inputs.view.flood_groups.get((host_id, bridge_id))
        first = entries[0].output
        if tunnel_key is None or not isinstance(first, TunnelOutput) or not _is_uniform(entries):
            continue
        if partial is None:
            partial = _hosts_left_out(walk, walk.inputs.view.bridges[bridge_id], by_host)
        if host_id not in partial:
            merged.update(dict.fromkeys(map(_place, entries)))
            merged[_place(entries[0])] = TunnelOutput(
                first.kind, first.local, first.remote, tunnel_key, first.rewrite
            )
    return merged


def _place(entry: PortOutput) -> _Place:
    return entry.port.id, entry.copy, entry.flooded_by


def _is_uniform(entries: Iterable[PortOutput]) -> bool:
    """Tell whether the host may do the same for all of these ports."""
    rewrites: set[Rewrite] = set()
    for entry in entries:
        port = entry.port
        if port.outbound_filter_id is not None or port.insertion_outbound_filter_id is not None:
            return False
        if port.vlan_id:
            return False
        rewrites.add(entry.output.rewrite)
    return len(rewrites) == 1


def _hosts_left_out(
    walk: Walk, bridge: BridgeView, by_host: Mapping[HostId, list[PortOutput]]
) -> frozenset[HostId]:
    """Return the hosts with a port of the bridge that the flood did not reach."""
    reached = {entry.port.id for entries in by_host.values() for entry in entries}
    hosts = set()
    for port_id in bridge.flood_port_ids:
        if port_id not in reached:
            walk.findings.tags.append(FlowTag(TagKind.LOCATION, port_id))
            location = walk.inputs.view.locations.get(port_id)
            if location is not None:
                hosts.add(location.host_id)
    return frozenset(hosts)
