"""Bridges: learning, forwarding by MAC, flooding, VLANs.

Order: source MAC, administrative state, mirrors, inbound filter, loop, learning, then the
destination (ARP and neighbour solicitation, group address, one MAC), outbound filter, mirrors.
Frames with a VLAN id skip both filters. A flood is copied once, as it leaves the bridge.

A frame that comes to a bridge again as it was there before has gone round a loop: that copy ends,
and teaches nothing. So each port gets one copy of a flood whatever the links between bridges, and
a source is learnt where it was seen first.

A bridge is VLAN-aware when it has a port with a VLAN, which leads to a machine (an access port),
to a router or to another bridge; frames have no tag there. It then keeps a MAC table for each
VLAN, and its bound ports without VLAN are trunks. Other bridges see tags as payload.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LearnedMac, SlowPathReason
from midonet.agent.flows.tags import device_tag, flood_set_tag, mac_tag
from midonet.agent.simulation.bridge_discovery import process_arp, process_solicitation
from midonet.agent.simulation.filtering import apply_filter
from midonet.agent.simulation.header import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_ARP,
    L4_SRC,
    VLAN_TCI,
)
from midonet.agent.simulation.mirroring import mirror
from midonet.agent.simulation.result import Await, LoadDevices
from midonet.agent.simulation.router_advertising import answer_for_attached_routers
from midonet.agent.simulation.trace import Flooded, Hook, LookedUpMac, MirrorPoint
from midonet.agent.simulation.walk import (
    Dropped,
    Ended,
    HookOutcome,
    Outcome,
    ToEgress,
    ToFlood,
    Walk,
)
from midonet.agent.soft_state.lessons import LearnMac
from midonet.agent.topology.view import BridgeView, PortView
from midonet.model.ids import BridgeId, ObjectId, PortId
from midonet.packets.addresses import MAC_BROADCAST, is_multicast_mac, is_reserved_group
from midonet.packets.flowkey import VLAN_PRESENT
from midonet.packets.nd import NdType


def process_bridge(walk: Walk, port: PortView, bridge_id: BridgeId) -> Outcome:
    """Take a frame that entered by `port` through its bridge."""
    bridge = walk.bridge(bridge_id)
    if not isinstance(bridge, BridgeView):
        return bridge
    header = walk.header
    source = header.read(ETH_SRC)
    if is_multicast_mac(source):
        awaited = _mirror_inbound(walk, bridge)
        return awaited or Dropped(DropReason.SOURCE_MAC_MULTICAST)
    if not bridge.admin_state_up:
        return Dropped(DropReason.DEVICE_DOWN, object_id=bridge.id)
    awaited = _mirror_inbound(walk, bridge)
    if awaited is not None:
        return awaited
    is_tagged = header.vlan_id() != 0
    vlan = _table_vlan(walk, bridge, port)
    instead = None if is_tagged else _filter_inbound(walk, bridge)
    if isinstance(instead, Await):
        return instead
    if instead is None and walk.is_repeated(bridge_id, vlan):
        return Dropped(DropReason.LOOP_LIMIT, object_id=bridge.id)
    _learn(walk, bridge, port, vlan, source)
    if instead is not None:
        return instead
    outcome = _forward(walk, bridge, port, vlan)
    if not is_tagged:
        outcome = _filter_outcome(walk, bridge, outcome)
    if bridge.outbound_mirror_ids:
        return _mirror_outbound(walk, bridge, outcome) or outcome
    return outcome


def _mirror_outbound(walk: Walk, bridge: BridgeView, outcome: Outcome) -> Await | None:
    if isinstance(outcome, ToEgress):
        walk.branch.egress_port = outcome.port
    elif not isinstance(outcome, ToFlood):
        return None
    return mirror(walk, MirrorPoint.BRIDGE_OUTBOUND, bridge.id, bridge.outbound_mirror_ids)


def _mirror_inbound(walk: Walk, bridge: BridgeView) -> Await | None:
    if not bridge.inbound_mirror_ids:
        return None
    return mirror(walk, MirrorPoint.BRIDGE_INBOUND, bridge.id, bridge.inbound_mirror_ids)


def _table_vlan(walk: Walk, bridge: BridgeView, port: PortView) -> int:
    """Return the VLAN whose MAC table serves this frame."""
    if not bridge.vlan_ports:
        return 0
    return port.vlan_id or walk.header.vlan_id()


def _learn(walk: Walk, bridge: BridgeView, port: PortView, vlan: int, mac: int) -> None:
    # The MAC of an attached router port never moves.
    if (vlan, mac) in bridge.attachments:
        return
    # When the entry goes, so must the program: its next packet has to come up to be learnt.
    walk.findings.tags.append(mac_tag(bridge.id, vlan, mac))
    place = bridge.id, vlan, mac
    if place not in walk.findings.learned:  # the first sight counts
        entry = walk.findings.learned[place] = LearnedMac(*place, port.id)
        walk.findings.effects.append(LearnMac(entry))


def _filter_outcome(walk: Walk, bridge: BridgeView, outcome: Outcome) -> Outcome:
    """Apply the outbound filter. Only one egress port counts as the egress port."""
    if isinstance(outcome, ToEgress):
        walk.branch.egress_port = outcome.port
    elif not isinstance(outcome, ToFlood):
        return outcome
    instead = apply_filter(walk, Hook.BRIDGE_OUTBOUND, bridge.id, bridge.outbound_filter_id)
    return outcome if instead is None else instead


def _filter_inbound(walk: Walk, bridge: BridgeView) -> HookOutcome:
    return apply_filter(walk, Hook.BRIDGE_INBOUND, bridge.id, bridge.inbound_filter_id)


def _forward(walk: Walk, bridge: BridgeView, port: PortView, vlan: int) -> Outcome:
    header = walk.header
    destination = header.read(ETH_DST)
    if not is_multicast_mac(destination):
        return _unicast(walk, bridge, port, vlan)
    if is_reserved_group(destination):
        return Dropped(DropReason.LINK_LOCAL_FRAME, object_id=bridge.id)
    if destination == MAC_BROADCAST and header.read(ETH_TYPE) == ETH_TYPE_ARP:
        outcome = process_arp(walk, bridge, port, vlan)
    elif header.is_icmpv6_discovery():
        if header.values[L4_SRC] == NdType.ROUTER_SOLICITATION:
            return _solicit_routers(walk, bridge, port, vlan)
        outcome = process_solicitation(walk, bridge, port, vlan)
    else:
        outcome = None
    return outcome or _flood(walk, bridge, port, vlan)


def _solicit_routers(walk: Walk, bridge: BridgeView, port: PortView, vlan: int) -> Outcome:
    """Answer for the routers attached here; others may be behind other ports."""
    # What is asked is no part of the flow key, and each one who asks is answered.
    walk.findings.slow_path = SlowPathReason.NEIGHBOUR_DISCOVERY
    answered = answer_for_attached_routers(walk, bridge, port, vlan)
    if isinstance(answered, Await):
        return answered
    outcome = _flood(walk, bridge, port, vlan)
    is_alone = isinstance(outcome, Dropped) and outcome.reason is DropReason.NO_FLOOD_TARGET
    return Ended.TAKEN if answered and is_alone else outcome


def _unicast(walk: Walk, bridge: BridgeView, port: PortView, vlan: int) -> Outcome:
    header = walk.header
    mac = header.read(ETH_DST)
    walk.findings.tags.append(mac_tag(bridge.id, vlan, mac))
    attachment = bridge.attachments.get((vlan, mac))
    if attachment is not None:
        return _to_port(walk, port, attachment.bridge_port_id)
    if mac == header.read(ETH_SRC):
        return Dropped(DropReason.HAIRPIN)
    target_id = walk.inputs.soft_state.mac_port(bridge.id, vlan, mac)
    if walk.findings.steps is not None:
        walk.step(LookedUpMac(bridge.id, vlan, mac, target_id))
    if target_id is None:
        return _flood(walk, bridge, port, vlan)
    # Absence, and another device's port, are facts about the target like its configuration.
    walk.findings.tags.append(device_tag(target_id))
    if target_id in walk.inputs.view.absent:
        return _flood(walk, bridge, port, vlan)
    target = walk.inputs.view.ports.get(target_id)
    if target is not None and target.bridge_id != bridge.id:
        return _flood(walk, bridge, port, vlan)
    return _to_port(walk, port, target_id)


def _to_port(walk: Walk, ingress: PortView, target_id: PortId) -> Outcome:
    if target_id == ingress.id:
        return Dropped(DropReason.HAIRPIN)
    target = walk.port(target_id)
    if not isinstance(target, PortView):
        return target
    return _push_vlan(walk, ingress.vlan_id) or ToEgress(target)


def _push_vlan(walk: Walk, vlan_id: int) -> Dropped | None:
    """Tag a frame from a port with a VLAN, or say why not: a second tag is not supported."""
    if not vlan_id:
        return None
    if walk.header.read_bits(VLAN_TCI, VLAN_PRESENT):
        return Dropped(DropReason.VLAN_MISMATCH)
    walk.header.push_vlan(vlan_id)
    return None


def _flood(walk: Walk, bridge: BridgeView, ingress: PortView, vlan: int) -> Outcome:
    """Send to every port of the VLAN but the ingress: bound ones, and links that are no router's.

    A link with a VLAN counts as a bridge's, whatever is behind it.
    """
    walk.findings.tags.append(flood_set_tag(bridge.id))
    refusal = _push_vlan(walk, ingress.vlan_id)
    if refusal is not None:
        return refusal
    members = (*bridge.flood_port_ids, *bridge.bridge_port_ids, *bridge.vlan_ports.get(vlan, ()))
    targets: list[PortView] = []
    missing: list[ObjectId] = []
    for port_id in dict.fromkeys(members):
        if port_id == ingress.id:
            continue
        target = walk.port(port_id)
        if isinstance(target, PortView):
            if target.vlan_id in (0, vlan):
                targets.append(target)
        elif isinstance(target, Await):
            missing.append(port_id)
    if missing:
        return Await(LoadDevices(tuple(missing)))
    if not targets:
        return Dropped(DropReason.NO_FLOOD_TARGET)
    if walk.findings.steps is not None:
        walk.step(Flooded(bridge.id, tuple(target.id for target in targets)))
    return ToFlood(bridge, tuple(targets))
