"""Quality of service: policies of ports and bridges, and the rules that they consist of."""

from __future__ import annotations

from uuid import UUID

import msgspec

from midonet.model.ids import QosPolicyId


class QosPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What traffic of ports gets. A port's own policy counts, else that of its bridge.

    shared: whether other projects may use it; stored for clients, nothing here reads it.
    """

    id: QosPolicyId
    project_id: str | None = None
    name: str | None = None
    description: str | None = None
    shared: bool = False


class QosDscpRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Packets that enter a bridge port get this DSCP (RFC 2474), 6 bits. One for each policy."""

    id: UUID
    policy_id: QosPolicyId
    dscp_mark: int = 0


class QosBandwidthRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit on what a port may send: kbit/s, and a burst in kbit. One for each policy.

    It is stored and returned; nothing enforces it yet.
    """

    id: UUID
    policy_id: QosPolicyId
    max_kbps: int = 0
    max_burst_kb: int = 0
