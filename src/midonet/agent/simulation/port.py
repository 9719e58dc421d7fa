"""What happens at a port, on the way into its device and on the way out.

Into the device: hop limit, administrative state, inbound filter, then the device. Out of it:
hairpin of a router port, VLAN of a bridge port, administrative state, outbound filter, then an
output, the peer port, or nothing.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation import answers
from midonet.agent.simulation.bridge import process_bridge
from midonet.agent.simulation.emission import emit
from midonet.agent.simulation.filtering import apply_filter
from midonet.agent.simulation.header import ETH_DST, ETH_SRC, VLAN_TCI
from midonet.agent.simulation.router import process_router
from midonet.agent.simulation.trace import EnteredPort, Hook, LeftPort
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
from midonet.model.ids import ChainId


def enter_port(walk: Walk, port: PortView) -> Outcome:
    """Take the packet from `port` into its device."""
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
    instead = _admit(walk, Hook.PORT_INBOUND, port, port.inbound_filter_id)
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
    walk.branch.egress_port = port
    walk.branch.traversed = (*walk.branch.traversed, port.id)
    if port.vlan_id and port.bridge_id is not None and not _pop_vlan(walk, port):
        return Dropped(DropReason.VLAN_MISMATCH, object_id=port.id)
    if walk.findings.steps is not None:
        walk.note_rewrites(port.bridge_id or port.router_id or port.id)
        walk.step(LeftPort(port.id))
    if port.router_id is not None and _is_to_itself(walk):
        return ToIngress(port)
    instead = _admit(walk, Hook.PORT_OUTBOUND, port, port.outbound_filter_id)
    if instead is not None:
        return instead
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


def _pop_vlan(walk: Walk, port: PortView) -> bool:
    """Remove the tag of the port's VLAN. Other tags, and frames without one, do not pass."""
    header = walk.header
    if header.vlan_id() == port.vlan_id:
        header.pop_vlan()
        return True
    # What the bridge itself made for this port never had a tag.
    return walk.branch.ingress_port is None and not header.values[VLAN_TCI]


def _admit(walk: Walk, hook: Hook, port: PortView, chain_id: ChainId | None) -> HookOutcome:
    """Return what the port makes of the packet."""
    if not port.admin_state_up:
        if port.router_id is not None:
            answers.answer_prohibited(walk)
        return Dropped(DropReason.PORT_DOWN, object_id=port.id)
    return apply_filter(walk, hook, port.id, chain_id)
