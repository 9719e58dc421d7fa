"""QoS policies and their rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from midonet.api.call import Call, Endpoint
from midonet.api.crud import StoredResource, endpoints_of, nested_endpoints
from midonet.errors import ValidationError
from midonet.model.ids import ObjectId, QosPolicyId
from midonet.model.qos import QosBandwidthRule, QosDscpRule, QosPolicy
from midonet.model.schema import checked
from midonet.model.schema_qos import (
    QOS_BANDWIDTH_RULE,
    QOS_DSCP_RULE,
    QOS_POLICY,
    PolicyRuleResource,
    QosPolicyResource,
    QosRuleType,
)
from midonet.model.validation import broken
from midonet.nsdb.store import Create, Delete, Operation, Store, Update, Versioned

_KINDS: Mapping[QosRuleType, type[QosBandwidthRule | QosDscpRule]] = {
    QosRuleType.BANDWIDTH_LIMIT: QosBandwidthRule,
    QosRuleType.DSCP_MARKING: QosDscpRule,
}


async def _plan_create(
    call: Call, resource: QosPolicyResource, policy: QosPolicy
) -> list[Operation]:
    wanted = _by_type(resource.rules or ())
    return [Create(policy), *(Create(_rule(policy.id, one)) for one in wanted.values())]


async def _plan_update(
    call: Call, current: Versioned[QosPolicy], policy: QosPolicy
) -> list[Operation]:
    operations: list[Operation] = [Update(policy, current.version)]
    rules = checked(QosPolicyResource, call.body, policy.id).rules
    if rules is None:
        return operations
    wanted = _by_type(rules)
    for kind_word, kind in _KINDS.items():
        stored = (await _rules(call.store, kind, [policy.id])).get(policy.id)
        operations += _reconciled(policy.id, stored, wanted.get(kind_word))
    return operations


def _by_type(rules: Sequence[PolicyRuleResource]) -> dict[QosRuleType, PolicyRuleResource]:
    found = {rule.type: rule for rule in rules}
    if len(found) != len(rules):
        raise ValidationError([broken("rules", "at most one rule of each type", rules)])
    return found


def _rule(
    policy_id: QosPolicyId, given: PolicyRuleResource, rule_id: ObjectId | None = None
) -> QosBandwidthRule | QosDscpRule:
    rule_id = given.id or rule_id or uuid4()
    if given.type is QosRuleType.DSCP_MARKING:
        return QosDscpRule(id=rule_id, policy_id=policy_id, dscp_mark=given.dscp_mark)
    return QosBandwidthRule(
        id=rule_id,
        policy_id=policy_id,
        max_kbps=given.max_kbps,
        max_burst_kb=given.max_burst_kbps,
    )


def _reconciled(
    policy_id: QosPolicyId,
    stored: Versioned[Any] | None,
    wanted: PolicyRuleResource | None,
) -> list[Operation]:
    """Return what turns the one rule of a type into another, or into none."""
    if stored is None:
        return [] if wanted is None else [Create(_rule(policy_id, wanted))]
    old = stored.value
    if wanted is not None and wanted.id in (None, old.id):
        return [Update(_rule(policy_id, wanted, old.id), stored.version)]
    gone: list[Operation] = [Delete(type(old), old.id, stored.version)]
    return gone if wanted is None else [*gone, Create(_rule(policy_id, wanted))]


async def _rules(
    store: Store, kind: type[msgspec.Struct], policy_ids: Sequence[ObjectId]
) -> dict[ObjectId, Versioned[Any]]:
    """Return the rules of a type by policy."""
    found = await store.referrers_many(kind, "policy_id", policy_ids)
    rule_ids = [rule_id for rule_ids in found.values() for rule_id in rule_ids]
    rules = await store.get_many(kind, rule_ids) if rule_ids else {}
    return {rule.value.policy_id: rule for rule in rules.values()}  # type: ignore[attr-defined]


async def _present(call: Call, policies: Sequence[QosPolicy]) -> list[QosPolicyResource]:
    policy_ids = [policy.id for policy in policies]
    limits = await _rules(call.store, QosBandwidthRule, policy_ids)
    marks = await _rules(call.store, QosDscpRule, policy_ids)
    return [
        msgspec.structs.replace(
            QOS_POLICY.represented(policy), rules=_listed(policy.id, limits, marks)
        )
        for policy in policies
    ]


def _listed(
    policy_id: QosPolicyId,
    limits: Mapping[ObjectId, Versioned[QosBandwidthRule]],
    marks: Mapping[ObjectId, Versioned[QosDscpRule]],
) -> tuple[PolicyRuleResource, ...]:
    listed = []
    if policy_id in limits:
        limit = limits[policy_id].value
        listed.append(
            PolicyRuleResource(
                type=QosRuleType.BANDWIDTH_LIMIT,
                id=limit.id,
                max_kbps=limit.max_kbps,
                max_burst_kbps=limit.max_burst_kb,
            )
        )
    if policy_id in marks:
        mark = marks[policy_id].value
        listed.append(
            PolicyRuleResource(type=QosRuleType.DSCP_MARKING, id=mark.id, dscp_mark=mark.dscp_mark)
        )
    return tuple(listed)


QOS_POLICIES = StoredResource(
    schema=QOS_POLICY,
    verbs=frozenset(("LIST", "GET", "POST", "PUT", "DELETE")),
    filters={"tenant_id": "project_id"},
    plan_create=_plan_create,
    plan_update=_plan_update,
    present=_present,
)
_RULE_VERBS = frozenset(("GET", "PUT", "DELETE"))
BANDWIDTH_RULES = StoredResource(schema=QOS_BANDWIDTH_RULE, verbs=_RULE_VERBS)
DSCP_RULES = StoredResource(schema=QOS_DSCP_RULE, verbs=_RULE_VERBS)


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        *endpoints_of(QOS_POLICIES),
        *endpoints_of(BANDWIDTH_RULES),
        *endpoints_of(DSCP_RULES),
        *nested_endpoints(
            QOS_POLICY, "qos_bw_limit_rules", BANDWIDTH_RULES, "policy_id", "policy_id"
        ),
        *nested_endpoints(QOS_POLICY, "qos_dscp_rules", DSCP_RULES, "policy_id", "policy_id"),
    ]
