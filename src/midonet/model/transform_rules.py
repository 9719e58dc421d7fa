"""What rules that change tags and redirect must say, and what contradicts itself in them."""

from __future__ import annotations

from collections.abc import Iterator

from midonet.errors import Violation
from midonet.model.chains import NAT, FlowAction, L2Transform, RuleAction
from midonet.model.schema_rules import RuleResource
from midonet.model.validation import broken
from midonet.packets.flowkey import VLAN_PRESENT

_ONLY_TRANSFORM = (
    ("popVlan", "pop_vlan"),
    ("pushVlan", "push_vlan"),
    ("targetPortId", "target_port_id"),
    ("ingress", "ingress"),
    ("failOpen", "fail_open"),
)


def transform_violations(action: RuleAction, resource: RuleResource) -> Iterator[Violation]:
    """Yield what is wrong with a rule's tags and redirection."""
    if action is not RuleAction.L2_TRANSFORM:
        for name, attribute in _ONLY_TRANSFORM:
            value = getattr(resource, attribute)
            if value:
                yield broken(name, f"is for type {RuleAction.L2_TRANSFORM} only", value)
        if action in NAT and resource.flow_action is FlowAction.REDIRECT:
            yield broken("flowAction", f"must not be redirect for type {action}", "redirect")
        return
    if resource.flow_action not in (FlowAction.ACCEPT, FlowAction.REDIRECT):
        yield broken("flowAction", "must be accept or redirect", resource.flow_action)
    if resource.push_vlan & VLAN_PRESENT:
        yield broken("pushVlan", "must not have bit 12 (drop eligible)", resource.push_vlan)
    is_redirect = resource.flow_action is FlowAction.REDIRECT
    if is_redirect and resource.target_port_id is None:
        yield Violation("targetPortId", "is required to redirect")
    if not is_redirect:
        for name, attribute in _ONLY_TRANSFORM[2:]:
            value = getattr(resource, attribute)
            if value:
                yield broken(name, "needs flowAction redirect", value)
    if resource.ingress and resource.fail_open:
        yield broken("failOpen", "is for what leaves by a port: ingress must be false", True)


def transform_of(action: RuleAction, resource: RuleResource) -> L2Transform | None:
    """Return what a rule does to tags, and how it redirects; None for rules of other types."""
    if action is not RuleAction.L2_TRANSFORM:
        return None
    return L2Transform(
        pop_vlan=resource.pop_vlan,
        push_vlan=resource.push_vlan,
        ingress=resource.ingress,
        fail_open=resource.fail_open,
    )
