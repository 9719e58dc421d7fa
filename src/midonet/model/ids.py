"""Identifier types. Each is a UUID; the NewType keeps one kind from being passed as another."""

from __future__ import annotations

from typing import NewType
from uuid import UUID

ObjectId = UUID
"""Identifier of an object of any kind."""

BridgeId = NewType("BridgeId", UUID)
RouterId = NewType("RouterId", UUID)
PortId = NewType("PortId", UUID)
RouteId = NewType("RouteId", UUID)
ChainId = NewType("ChainId", UUID)
RuleId = NewType("RuleId", UUID)
HostId = NewType("HostId", UUID)
TunnelZoneId = NewType("TunnelZoneId", UUID)
MirrorId = NewType("MirrorId", UUID)
L2InsertionId = NewType("L2InsertionId", UUID)
QosPolicyId = NewType("QosPolicyId", UUID)
PortGroupId = NewType("PortGroupId", UUID)
IpAddressGroupId = NewType("IpAddressGroupId", UUID)
LoadBalancerId = NewType("LoadBalancerId", UUID)
PoolId = NewType("PoolId", UUID)
PoolMemberId = NewType("PoolMemberId", UUID)
VipId = NewType("VipId", UUID)
HealthMonitorId = NewType("HealthMonitorId", UUID)
