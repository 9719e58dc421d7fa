"""L4 load balancers: virtual addresses in front of pools of members.

A router that names a load balancer answers for its VIPs. Addresses are text in canonical form.
What the members' health is, is state and not configuration: it lies in the state table of the
pool (`midonet.nsdb.store.StateTables.member_health`), and a member without an entry is well.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from midonet.model.ids import (
    HealthMonitorId,
    LoadBalancerId,
    PoolId,
    PoolMemberId,
    VipId,
)


class BalancedProtocol(StrEnum):
    """Transport protocol that a pool balances. The words are those of REST."""

    TCP = "TCP"
    UDP = "UDP"


class BalancingMethod(StrEnum):
    """How members are chosen: by weight. The word is REST's."""

    ROUND_ROBIN = "ROUND_ROBIN"


class SessionPersistence(StrEnum):
    """What binds a client to one member. The word is REST's."""

    SOURCE_IP = "SOURCE_IP"


class MonitorKind(StrEnum):
    """How a health monitor asks. The word is REST's."""

    TCP = "TCP"


class MemberHealth(StrEnum):
    """What a health monitor found. The words are those of REST and of the state table."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class LoadBalancer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set of pools behind one router (`Router.load_balancer_id`)."""

    id: LoadBalancerId
    admin_state_up: bool = True


class HealthMonitor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the members of the pools that name it are checked.

    delay_s: time (s) between checks. timeout_s: for one answer (s). max_retries: failures in a
    row that make a member inactive.
    """

    id: HealthMonitorId
    admin_state_up: bool = True
    kind: MonitorKind = MonitorKind.TCP
    delay_s: int = 0
    timeout_s: int = 0
    max_retries: int = 0


class Pool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Members among which connections are shared out.

    session_persistence: holds for every VIP of the pool, beside the VIP's own.
    """

    id: PoolId
    load_balancer_id: LoadBalancerId | None = None
    health_monitor_id: HealthMonitorId | None = None
    admin_state_up: bool = True
    protocol: BalancedProtocol = BalancedProtocol.TCP
    session_persistence: SessionPersistence | None = None


class PoolMember(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A server. port: 0 keeps the port of the VIP. weight: its share; 0 takes nothing new."""

    id: PoolMemberId
    pool_id: PoolId
    address: str
    port: int = 0
    weight: int = 1
    admin_state_up: bool = True


class Vip(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address and port that stand for a pool."""

    id: VipId
    pool_id: PoolId
    address: str
    port: int = 0
    session_persistence: SessionPersistence | None = None
    admin_state_up: bool = True
