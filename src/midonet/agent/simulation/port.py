"""What happens at a port, on the way into its device and on the way out.

Into the device: hop limit, DSCP marking, administrative state, port security, mirrors, inbound
filter, mirrors, then the device. Out of it: hairpin of a router port, VLAN of a bridge port,
administrative state, mirrors, outbound filter, mirrors, then an output, the peer port, or nothing.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation import answers
from midonet.agent.simulation.bridge import process_bridge
from midonet.agent.simulation.emission import emit
from midonet.agent.simulation.filtering import apply_filter
from midonet.agent.simulation.header import ETH_DST, ETH_SRC, VLAN_TCI
from midonet.agent.simulation.marking import mark_dscp
from midonet.agent.simulation.mirroring import mirror
from midonet.agent.simulation.port_security import check_source
from midonet.agent.simulation.redirecting import is_serving
from midonet.agent.simulation.router import process_router
from midonet.agent.simulation.trace import EnteredPort, Hook, LeftPort, MirrorPoint
from midonet.agent.simulation.walk import (
    MAX_DEVICES,
    MAX_DEVICES_ENTERED,
    Dropped,
    HookOutcome,
    Outcome,
    RouterVisit,
    ToIngress,
    Walk,
)
from midonet.agent.topology.view import PortView


def enter_port(walk: Walk, port: PortView, *, is_bounced: bool = False) -> Outcome:
    """Take the packet from `port` into its device. is_bounced: see `ToIngress`."""
    branch = walk.branch
    if branch.devices >= MAX_DEVICES:
        return Dropped(DropReason.LOOP_LIMIT, object_id=port.id)
    branch.devices += 1
    walk.findings.devices += 1
    if walk.findings.devices > MAX_DEVICES_ENTERED:
        return Dropped(DropReason.LOOP_LIMIT, is_final=True, object_id=port.id)
    branch.ingress_port = port
    branch.egress_port = None
    branch.traversed = (*branch.traversed, port.id)
    branch.flooded_by = None
    branch.dst_rewritten = False
    if port.host_id is not None:
        branch.exterior_port = port
    if walk.findings.steps is not None:
        walk.step(EnteredPort(port.id, port.bridge_id or port.router_id))
        walk.note_entry()
    if port.router_id is not None:
        # Errors about this packet come from here, and quote it as it is now.
        branch.router = RouterVisit(port, walk.header.copy())
    instead: HookOutcome = None
    if port.bridge_id is not None:
        instead = mark_dscp(walk, port, port.bridge_id)
    if instead is None and not is_bounced:
        instead = _closed(walk, port)
    if instead is None:
        instead = _admit_inbound(walk, port)
    if instead is not None:
        return instead
    if port.bridge_id is not None:
        branch.traversed = (*branch.traversed, port.bridge_id)
        return process_bridge(walk, port, port.bridge_id)
    if port.router_id is not None:
        branch.traversed = (*branch.traversed, port.router_id)
        return process_router(walk, port, port.router_id)
    return Dropped(DropReason.MISSING_DEVICE)


def leave_port(walk: Walk, port: PortView) -> Outcome:
    """Take the packet out of its device by `port`."""
    branch = walk.branch
    branch.egress_port = port
    branch.traversed = (*branch.traversed, port.id)
    if port.vlan_id and port.bridge_id is not None and not _pop_vlan(walk, port):
        return Dropped(DropReason.VLAN_MISMATCH, object_id=port.id)
    if walk.findings.steps is not None:
        walk.note_rewrites(port.bridge_id or port.router_id or port.id)
        walk.step(LeftPort(port.id))
    if port.router_id is not None and _is_to_itself(walk):
        return ToIngress(port)
    if branch.copy and port is branch.ingress_port and port.bridge_id is not None:
        return Dropped(DropReason.HAIRPIN, object_id=port.id)
    return _admit_outbound(walk, port) or _send_out(walk, port)


def leave_redirected(walk: Walk, port: PortView, *, fail_open: bool) -> Outcome:
    """Take a packet that a rule redirects out by `port`, past the port's outbound filter."""
    branch = walk.branch
    if branch.devices >= MAX_DEVICES:
        return Dropped(DropReason.LOOP_LIMIT, object_id=port.id)
    if not is_serving(walk, port):
        if fail_open and port.bridge_id is not None:
            return ToIngress(port, is_bounced=True)
        return _closed(walk, port) or Dropped(DropReason.SERVICE_DOWN, object_id=port.id)
    branch.egress_port = port
    branch.traversed = (*branch.traversed, port.id)
    if port is branch.ingress_port and port.bridge_id is not None:
        return Dropped(DropReason.HAIRPIN, object_id=port.id)
    if port.vlan_id and port.bridge_id is not None and not _pop_vlan(walk, port):
        return Dropped(DropReason.VLAN_MISMATCH, object_id=port.id)
    if walk.findings.steps is not None:
        walk.note_rewrites(port.bridge_id or port.router_id or port.id)
        walk.step(LeftPort(port.id))
    return _send_out(walk, port)


def _send_out(walk: Walk, port: PortView) -> Outcome:
    """Take a packet that the port lets out to its place: an output, the peer, or nowhere."""
    if port.outbound_mirror_ids:
        awaited = mirror(walk, MirrorPoint.PORT_OUTBOUND, port.id, port.outbound_mirror_ids)
        if awaited is not None:
            return awaited
    if port.host_id is not None:
        return emit(walk, port)
    if port.peer_port_id is None:
        return Dropped(DropReason.PORT_UNPLUGGED, object_id=port.id)
    peer = walk.port(port.peer_port_id)
    return ToIngress(peer) if isinstance(peer, PortView) else peer


def _is_to_itself(walk: Walk) -> bool:
    """Tell whether a router sends to the MAC by which it sends.

    So it does when the next hop's address is one for which its own port stands: a floating address
    of the router, say, that another of its networks sends to.
    """
    return walk.header.read(ETH_SRC) == walk.header.read(ETH_DST)


def emit_unfiltered(walk: Walk, port: PortView) -> Outcome:
    """Take what a device made for the machine at a bound port there, as it is."""
    walk.branch.egress_port = port
    walk.branch.traversed = (*walk.branch.traversed, port.id)
    if walk.findings.steps is not None:
        walk.step(LeftPort(port.id))
    return (
        Dropped(DropReason.PORT_UNPLUGGED, object_id=port.id)
        if port.host_id is None
        else emit(walk, port)
    )


def _pop_vlan(walk: Walk, port: PortView) -> bool:
    """Remove the tag of the port's VLAN. Other tags, and frames without one, do not pass."""
    header = walk.header
    if header.vlan_id() == port.vlan_id:
        header.pop_vlan()
        return True
    # What the bridge itself made for this port never had a tag.
    return walk.branch.ingress_port is None and not header.values[VLAN_TCI]


def _admit_inbound(walk: Walk, port: PortView) -> HookOutcome:
    """Return what the port makes of a packet that enters its device."""
    instead: HookOutcome = check_source(walk, port)
    if instead is None and port.inbound_mirror_ids:
        instead = mirror(walk, MirrorPoint.PORT_INBOUND, port.id, port.inbound_mirror_ids)
    for chain_id in (port.insertion_inbound_filter_id, port.inbound_filter_id):
        if instead is None and chain_id is not None:
            instead = apply_filter(walk, Hook.PORT_INBOUND, port.id, chain_id)
    if instead is None and port.post_in_filter_mirror_ids:
        mirror_ids = port.post_in_filter_mirror_ids
        instead = mirror(walk, MirrorPoint.PORT_POST_INBOUND, port.id, mirror_ids)
    return instead


def _admit_outbound(walk: Walk, port: PortView) -> HookOutcome:
    """Return what the port makes of a packet that leaves its device."""
    instead: HookOutcome = _closed(walk, port)
    if instead is None and port.is_service:
        instead = Dropped(DropReason.NOT_REDIRECTED, object_id=port.id)
    if instead is None and port.pre_out_filter_mirror_ids:
        mirror_ids = port.pre_out_filter_mirror_ids
        instead = mirror(walk, MirrorPoint.PORT_PRE_OUTBOUND, port.id, mirror_ids)
    for chain_id in (port.outbound_filter_id, port.insertion_outbound_filter_id):
        if instead is None and chain_id is not None:
            instead = apply_filter(walk, Hook.PORT_OUTBOUND, port.id, chain_id)
    return instead


def _closed(walk: Walk, port: PortView) -> Dropped | None:
    """Return the end of a packet at a port that is administratively down, None at others."""
    if port.admin_state_up:
        return None
    if port.router_id is not None:
        answers.answer_prohibited(walk)
    return Dropped(DropReason.PORT_DOWN, object_id=port.id)
