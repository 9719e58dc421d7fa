"""Representations of QoS policies and their rules."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct, field

from midonet.model.qos import QosBandwidthRule, QosDscpRule, QosPolicy
from midonet.model.schema import (
    CREATE_ONLY,
    MediaType,
    ResourceSchema,
    link_to,
)
from midonet.model.schema_devices import Name, ProjectName

Rate = Annotated[int, Meta(ge=0, le=0x7FFF_FFFF)]
Dscp = Annotated[int, Meta(ge=0, le=63)]


class QosRuleType(StrEnum):
    """Types of the rules in a policy's list."""

    BANDWIDTH_LIMIT = "bandwidth_limit"
    DSCP_MARKING = "dscp_marking"


class PolicyRuleResource(Struct, frozen=True, kw_only=True):
    """One rule of a policy in the form of Neutron."""

    type: QosRuleType
    id: UUID | None = None
    max_kbps: Rate = 0
    max_burst_kbps: Rate = 0
    dscp_mark: Dscp = 0


class QosPolicyResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """What traffic of ports gets. A port's own policy counts, else that of its bridge.

    project_id: owner, free text.
    shared: for clients; nothing here reads it.
    rules: at most one of each type. In a PUT, null leaves the rules alone, and a list makes them
        these: a rule without id keeps the one that there is.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/qos_policies/{id}")] = None
    project_id: ProjectName | None = field(default=None, name="tenant_id")
    name: Name | None = None
    description: Name | None = None
    shared: bool = False
    rules: tuple[PolicyRuleResource, ...] | None = None
    bandwidth_rules: Annotated[str | None, link_to("/qos_policies/{id}/qos_bw_limit_rules")] = (
        field(default=None, name="bwLimitRules")
    )
    dscp_rules: Annotated[str | None, link_to("/qos_policies/{id}/qos_dscp_rules")] = None


class QosBandwidthRuleResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A limit on what a port may send. It is stored and returned; nothing enforces it yet.

    policy_id: its policy, which has at most one such rule; the path says which.
    max_kbps: kilobits per second.
    max_burst_kb: kilobits.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/qos_bw_limit_rules/{id}")] = None
    policy_id: Annotated[UUID | None, CREATE_ONLY] = None
    max_kbps: Rate = 0
    max_burst_kb: Rate = 0


class QosDscpRuleResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """Packets that enter a bridge port of the policy are marked; ECN stays as it is.

    policy_id: its policy, which has at most one such rule; the path says which.
    dscp_mark: differentiated services code point (RFC 2474).
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/qos_dscp_rules/{id}")] = None
    policy_id: Annotated[UUID | None, CREATE_ONLY] = None
    dscp_mark: Dscp = 0


QOS_POLICY = ResourceSchema(
    title="QosPolicy",
    representation=QosPolicyResource,
    kind=QosPolicy,
    media=MediaType("QOSPolicy", (1,)),
    collection="qos_policies",
    root_keys=("qosPolicies", "qosPolicyTemplate"),
)
QOS_BANDWIDTH_RULE = ResourceSchema(
    title="QosBandwidthRule",
    parent_link="bandwidth_rules",
    representation=QosBandwidthRuleResource,
    kind=QosBandwidthRule,
    media=MediaType("QOSRuleBWLimit", (1,)),
    collection="qos_bw_limit_rules",
    root_keys=(None, "qosBwLimitRuleTemplate"),
)
QOS_DSCP_RULE = ResourceSchema(
    title="QosDscpRule",
    parent_link="dscp_rules",
    representation=QosDscpRuleResource,
    kind=QosDscpRule,
    media=MediaType("QOSRuleDSCP", (1,)),
    collection="qos_dscp_rules",
    root_keys=(None, "qosDscpRuleTemplate"),
)
