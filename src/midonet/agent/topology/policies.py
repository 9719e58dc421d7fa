"""Mirrors and QoS policies in the view. Pure.

What names one does not wait for it: a packet that meets it does, so that a device is not held back
by who watches it. One that is gone is absent, and copies or marks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from midonet.agent.topology.assembly import mirror_view, qos_policy_view
from midonet.agent.topology.draft import ViewDraft
from midonet.agent.topology.facts import dscp_rules_of
from midonet.agent.topology.tracker import Dirty, Tracker
from midonet.model.ids import MirrorId, ObjectId, QosPolicyId
from midonet.model.mirrors import Mirror
from midonet.model.qos import QosDscpRule, QosPolicy


class VisiblePolicies:
    """Puts mirrors and QoS policies into the draft."""

    def __init__(self, tracker: Tracker, draft: ViewDraft) -> None:
        self._tracker = tracker
        self._draft = draft

    def advance(self, dirty: Dirty) -> None:
        """Take over what was told of mirrors, policies and their rules."""
        for object_id in dirty.objects[Mirror] & self._tracker.tracked[Mirror]:
            self._mirror(MirrorId(object_id))
        for object_id in dirty.objects[QosPolicy] & self._tracker.tracked[QosPolicy]:
            self._qos_policy(QosPolicyId(object_id))

    def forget(self, forgotten: Mapping[type[msgspec.Struct], set[ObjectId]]) -> None:
        """Take out what is tracked no more."""
        for object_id in forgotten[Mirror]:
            self._draft.mirrors.put(MirrorId(object_id), None)
        for object_id in forgotten[QosPolicy]:
            self._draft.qos_policies.put(QosPolicyId(object_id), None)

    def _mirror(self, mirror_id: MirrorId) -> None:
        facts = self._tracker.facts
        mirror = facts.get(Mirror, mirror_id)
        self._draft.mirrors.put(mirror_id, None if mirror is None else mirror_view(mirror))
        self._draft.absent.put(mirror_id, facts.is_absent(Mirror, mirror_id) or None)

    def _qos_policy(self, policy_id: QosPolicyId) -> None:
        facts = self._tracker.facts
        policy = facts.get(QosPolicy, policy_id)
        rule_ids = facts.ids(dscp_rules_of(policy_id))
        rules = None if rule_ids is None else facts.members(QosDscpRule, rule_ids)
        if policy is None:
            self._draft.qos_policies.put(policy_id, None)
        elif isinstance(rules, list):
            self._draft.qos_policies.put(policy_id, qos_policy_view(policy, rules))
        self._draft.absent.put(policy_id, facts.is_absent(QosPolicy, policy_id) or None)
