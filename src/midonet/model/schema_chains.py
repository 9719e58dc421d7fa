"""Chains and rules: from their representations to what is stored, and back."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Struct, field

from midonet.errors import ValidationError, Violation
from midonet.model.chains import (
    FORWARD_NAT,
    Chain,
    Condition,
    FragmentPolicy,
    NatTarget,
    PortRange,
    Rule,
    RuleAction,
    is_static,
)
from midonet.model.condition_rules import contradictions
from midonet.model.ids import ChainId, PortId, RuleId
from midonet.model.nat_rules import nat_violations
from midonet.model.schema import (
    CREATE_ONLY,
    MediaType,
    ResourceSchema,
    link_to,
)
from midonet.model.schema_devices import Name, ProjectName
from midonet.model.schema_rules import (
    ConditionResource,
    NatTargetResource,
    PortRangeResource,
    RuleResource,
)
from midonet.model.transform_rules import transform_of, transform_violations
from midonet.model.validation import (
    broken,
    canonical_ip,
    format_mac_mask,
    invalid,
    parse_mac_mask,
)
from midonet.packets.addresses import IpPrefix, parse_ip, parse_prefix

MAC_MASK_ALL = 0xFFFF_FFFF_FFFF


class ChainResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """An ordered list of rules. A chain cannot be updated, only its rules come and go."""

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/chains/{id}")] = None
    project_id: ProjectName | None = field(default=None, name="tenantId")
    name: Name | None = None
    rules: Annotated[str | None, link_to("/chains/{id}/rules")] = None


_ALIKE = tuple(
    name
    for name in Condition.__struct_fields__
    if name in ConditionResource.__struct_fields__
    and name not in ("eth_src_mask", "eth_dst_mask", "l4_src", "l4_dst", "fragment_policy")
)
"""Fields that the condition and the representation hold in the same form."""


def rule_to_model(resource: RuleResource, current: Rule | None) -> Rule:
    """Return the stored form; the position is the caller's business. Raises ValidationError."""
    try:
        action = RuleAction(resource.kind)
    except ValueError:
        supported = ", ".join(RuleAction)
        raise invalid(
            "type", f"{resource.kind!r} is not supported; supported types are {supported}"
        ) from None
    _check_jump(action, resource)
    targets = _nat_targets(action, resource)
    assert resource.id is not None
    assert resource.chain_id is not None
    return Rule(
        id=RuleId(resource.id),
        chain_id=ChainId(resource.chain_id),
        action=action,
        condition=condition_to_model(resource, targets),
        jump_chain_id=None if resource.jump_chain_id is None else ChainId(resource.jump_chain_id),
        nat_targets=targets,
        flow_action=resource.flow_action,
        transform=transform_of(action, resource),
        target_port_id=None if resource.target_port_id is None else PortId(resource.target_port_id),
    )


def _nat_targets(action: RuleAction, resource: RuleResource) -> tuple[NatTarget, ...]:
    """Return the targets in canonical form. Raises ValidationError."""
    violations = [
        *nat_violations(action, resource),
        *transform_violations(action, resource),
    ]
    if violations:
        raise ValidationError(violations)
    return tuple(
        NatTarget(
            canonical_ip(one.address_from),
            canonical_ip(one.address_to),
            one.port_from,
            one.port_to,
        )
        for one in resource.nat_targets or ()
    )


def _check_jump(action: RuleAction, resource: RuleResource) -> None:
    target = resource.jump_chain_id
    if action is RuleAction.JUMP and target is None:
        raise invalid("jumpChainId", "is required for a jump rule")
    if action is not RuleAction.JUMP and target is not None:
        raise ValidationError([broken("jumpChainId", f"must be null for type {action}", target)])
    if target is not None and target == resource.chain_id:
        raise ValidationError([broken("jumpChainId", "must not be the rule's own chain", target)])


def condition_to_model(
    resource: ConditionResource, targets: tuple[NatTarget, ...] = ()
) -> Condition:
    """Return the condition of a mirror, or of a rule with these NAT targets.

    Raises ValidationError.
    """
    violations = list(contradictions(resource))
    condition = Condition(
        **{name: getattr(resource, name) for name in _ALIKE},
        eth_src_mask=_mac_mask(resource.eth_src_mask),
        eth_dst_mask=_mac_mask(resource.eth_dst_mask),
        ip_src=_prefix(resource.ip_src_address, resource.ip_src_length, "nwSrc", violations),
        ip_dst=_prefix(resource.ip_dst_address, resource.ip_dst_length, "nwDst", violations),
        icmp_data_src=_prefix(
            resource.icmp_data_src_address,
            resource.icmp_data_src_length,
            "icmpDataSrcIp",
            violations,
        ),
        icmp_data_dst=_prefix(
            resource.icmp_data_dst_address,
            resource.icmp_data_dst_length,
            "icmpDataDstIp",
            violations,
        ),
        l4_src=_range(resource.l4_src, "tpSrc", violations),
        l4_dst=_range(resource.l4_dst, "tpDst", violations),
        fragment_policy=_fragment_policy(resource, targets, violations),
    )
    if condition.ip_src is not None and condition.ip_dst is not None:
        source, destination = parse_prefix(condition.ip_src), parse_prefix(condition.ip_dst)
        if source.version is not destination.version:
            violations.append(
                Violation("nwDstAddress", "must be of the same IP version as nwSrcAddress")
            )
    if violations:
        raise ValidationError(violations)
    return condition


def _mac_mask(text_form: str | None) -> int:
    return MAC_MASK_ALL if text_form is None else parse_mac_mask(text_form)


def _prefix(
    address: str | None, length: int | None, name: str, violations: list[Violation]
) -> str | None:
    if address is None:
        return None
    bits = parse_ip(address).version.bits
    if length is not None and length > bits:
        violations.append(broken(f"{name}Length", f"must be at most {bits}", length))
    return f"{address}/{bits if length is None else min(length, bits)}"


def _range(
    given: PortRangeResource | None, name: str, violations: list[Violation]
) -> PortRange | None:
    if given is None:
        return None
    if given.start > given.end:
        violations.append(broken(name, "start must not be above end", given))
    return PortRange(given.start, given.end)


def _fragment_policy(
    resource: ConditionResource, targets: tuple[NatTarget, ...], violations: list[Violation]
) -> FragmentPolicy:
    """Later fragments carry no ports, so a match on ports excludes policies that take them, and so
    does a translation of ports: they follow their first."""
    matches_l4 = resource.l4_src is not None or resource.l4_dst is not None
    needs_l4 = matches_l4 or bool(targets and not is_static(targets))
    if resource.fragment_policy is None:
        return FragmentPolicy.HEADER if needs_l4 else FragmentPolicy.ANY
    allowed = (FragmentPolicy.HEADER, FragmentPolicy.UNFRAGMENTED)
    if needs_l4 and resource.fragment_policy not in allowed:
        reason = "tpSrc or tpDst is given" if matches_l4 else "natTargets are not a single address"
        violations.append(
            Violation("fragmentPolicy", f"must be header or unfragmented when {reason}")
        )
    return resource.fragment_policy


def rule_from_model(rule: Rule) -> RuleResource:
    """Return the representation of a stored rule, at position 1."""
    return RuleResource(
        id=rule.id,
        chain_id=rule.chain_id,
        kind=rule.action,
        jump_chain_id=rule.jump_chain_id,
        flow_action=rule.flow_action,
        nat_targets=_target_resources(rule),
        target_port_id=rule.target_port_id,
        **({} if rule.transform is None else msgspec.structs.asdict(rule.transform)),
        **condition_fields(rule.condition),
    )


def condition_fields(condition: Condition) -> dict[str, Any]:
    """Return the fields of the representation of a stored condition."""
    source, destination = _parsed(condition.ip_src), _parsed(condition.ip_dst)
    quoted_source, quoted_destination = (
        _parsed(condition.icmp_data_src),
        _parsed(condition.icmp_data_dst),
    )
    return dict(
        **{name: getattr(condition, name) for name in _ALIKE},
        eth_src_mask=None if condition.eth_src is None else format_mac_mask(condition.eth_src_mask),
        eth_dst_mask=None if condition.eth_dst is None else format_mac_mask(condition.eth_dst_mask),
        ip_src_address=None if source is None else str(source.address),
        ip_src_length=None if source is None else source.length,
        ip_dst_address=None if destination is None else str(destination.address),
        ip_dst_length=None if destination is None else destination.length,
        icmp_data_src_address=None if quoted_source is None else str(quoted_source.address),
        icmp_data_src_length=None if quoted_source is None else quoted_source.length,
        icmp_data_dst_address=(
            None if quoted_destination is None else str(quoted_destination.address)
        ),
        icmp_data_dst_length=None if quoted_destination is None else quoted_destination.length,
        l4_src=_range_resource(condition.l4_src),
        l4_dst=_range_resource(condition.l4_dst),
        fragment_policy=condition.fragment_policy,
    )


def _parsed(text_form: str | None) -> IpPrefix | None:
    return None if text_form is None else parse_prefix(text_form)


def _target_resources(rule: Rule) -> tuple[NatTargetResource, ...] | None:
    if rule.action not in FORWARD_NAT:
        return None
    return tuple(
        NatTargetResource(
            address_from=one.address_from,
            address_to=one.address_to,
            port_from=one.port_from,
            port_to=one.port_to,
        )
        for one in rule.nat_targets
    )


def _range_resource(stored: PortRange | None) -> PortRangeResource | None:
    return None if stored is None else PortRangeResource(start=stored.start, end=stored.end)


def chain_to_model(resource: ChainResource, current: Chain | None) -> Chain:
    """Return the stored form of a chain that is being created."""
    assert resource.id is not None
    return Chain(id=ChainId(resource.id), project_id=resource.project_id, name=resource.name)


CHAIN = ResourceSchema(
    title="Chain",
    representation=ChainResource,
    kind=Chain,
    media=MediaType("Chain", (1,)),
    collection="chains",
    root_keys=("chains", "chainTemplate"),
    to_model=chain_to_model,
)
RULE = ResourceSchema(
    title="Rule",
    parent_link="rules",
    representation=RuleResource,
    kind=Rule,
    media=MediaType("Rule", (2,)),
    collection="rules",
    root_keys=(None, "ruleTemplate"),
    to_model=rule_to_model,
    from_model=rule_from_model,
)
