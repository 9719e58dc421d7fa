"""Rules that change the tags of a frame, and let it enter or leave by another port.

A rewrite has room for one pushed tag, and a tag that was popped must not have hidden another one
that nobody has looked at: what would need more is dropped.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.tags import location_tag
from midonet.agent.simulation.header import ETH_TYPE, VLAN_TCI
from midonet.agent.simulation.trace import Redirected
from midonet.agent.simulation.walk import Dropped, Outcome, ToIngress, ToRedirected, Walk
from midonet.agent.topology.view import PortView, RuleView
from midonet.model.chains import FlowAction
from midonet.packets.flowkey import VLAN_PRESENT
from midonet.packets.protocols import EtherType

_TAG_TYPES = frozenset((int(EtherType.VLAN), int(EtherType.SERVICE_VLAN)))


def apply_transform(walk: Walk, rule: RuleView) -> Outcome | None:
    """Return what becomes of a packet that meets an `l2_transform` rule; None accepts it."""
    transform = rule.transform
    if transform is None:
        return Dropped(DropReason.MISSING_DEVICE, object_id=rule.id)
    if transform.pop_vlan and not _pop(walk):
        return Dropped(DropReason.VLAN_MISMATCH, object_id=rule.id)
    if transform.push_vlan and not _push(walk, transform.push_vlan):
        return Dropped(DropReason.VLAN_MISMATCH, object_id=rule.id)
    if rule.flow_action is not FlowAction.REDIRECT:
        return None
    if rule.target_port_id is None:
        return Dropped(DropReason.MISSING_DEVICE, object_id=rule.id)
    target = walk.port(rule.target_port_id)
    if not isinstance(target, PortView):
        return target
    if walk.findings.steps is not None:
        walk.step(Redirected(rule.id, target.id, transform.ingress))
    walk.branch.flooded_by = None
    return ToIngress(target) if transform.ingress else ToRedirected(target, transform.fail_open)


def is_serving(walk: Walk, port: PortView) -> bool:
    """Tell whether what is redirected out of a port reaches somebody: it is up and active."""
    if not port.admin_state_up:
        return False
    if port.host_id is None:
        return port.peer_port_id is not None
    walk.findings.tags.append(location_tag(port.id))
    location = walk.inputs.view.locations.get(port.id)
    return location is not None and location.active


def _pop(walk: Walk) -> bool:
    """Remove the outermost tag if there is one; False when what is behind it is not known."""
    header = walk.header
    if not header.read_bits(VLAN_TCI, VLAN_PRESENT):
        return True
    if header.tag_count() == 1 and header.read(ETH_TYPE) in _TAG_TYPES:
        return False
    header.vlan_id()
    header.pop_vlan()
    return True


def _push(walk: Walk, tci: int) -> bool:
    """Push a tag; False when one was pushed before."""
    if walk.header.has_pushed_tag():
        return False
    walk.header.push_vlan(tci)
    return True
