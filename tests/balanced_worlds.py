"""The load balancers of a `tests.worlds.World`: as stored objects, and as the view has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from midonet.agent.topology.balancing import LoadBalancerView, MemberView, PoolView, VipView
from midonet.model.ids import LoadBalancerId, PoolId, PoolMemberId, VipId
from midonet.model.load_balancer import (
    BalancedProtocol,
    LoadBalancer,
    Pool,
    PoolMember,
    SessionPersistence,
    Vip,
)
from midonet.packets.addresses import parse_ip

_PROTOCOLS = {BalancedProtocol.TCP: 6, BalancedProtocol.UDP: 17}
_STICKY = {True: SessionPersistence.SOURCE_IP, False: None}


@dataclass(slots=True)
class Balancers:
    """Load balancers by name. identify: from a name to an identifier.

    ill: members that a health monitor found inactive. routers: which load balancer each names.
    """

    identify: Callable[[str], UUID]
    balancers: dict[str, LoadBalancer] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    vips: dict[str, Vip] = field(default_factory=dict)
    members: dict[str, PoolMember] = field(default_factory=dict)
    ill: set[PoolMemberId] = field(default_factory=set)
    routers: dict[str, str] = field(default_factory=dict)

    def objects(self) -> list[msgspec.Struct]:
        """Return everything as it is stored."""
        parts = (self.balancers, self.pools, self.vips, self.members)
        return [one for part in parts for one in part.values()]

    def of(self, router: str) -> LoadBalancerId | None:
        """Return the load balancer that a router names."""
        name = self.routers.get(router)
        return None if name is None else LoadBalancerId(self.identify(name))

    def balancer(self, name: str, *, up: bool = True) -> None:
        """Add a load balancer, or change it."""
        balancer_id = LoadBalancerId(self.identify(name))
        self.balancers[name] = LoadBalancer(id=balancer_id, admin_state_up=up)

    def pool(
        self, name: str, *, on: str, protocol: str = "TCP", sticky: bool = False, up: bool = True
    ) -> None:
        """Add a pool to a load balancer, or change it."""
        self.pools[name] = Pool(
            id=PoolId(self.identify(name)),
            load_balancer_id=LoadBalancerId(self.identify(on)),
            admin_state_up=up,
            protocol=BalancedProtocol(protocol),
            session_persistence=_STICKY[sticky],
        )

    def vip(
        self, name: str, *, pool: str, at: tuple[str, int], sticky: bool = False, up: bool = True
    ) -> None:
        """Add a VIP of a pool, or change it."""
        self.vips[name] = Vip(
            id=VipId(self.identify(name)),
            pool_id=PoolId(self.identify(pool)),
            address=at[0],
            port=at[1],
            session_persistence=_STICKY[sticky],
            admin_state_up=up,
        )

    def member(
        self,
        name: str,
        *,
        pool: str,
        at: tuple[str, int],
        weight: int = 1,
        up: bool = True,
        healthy: bool = True,
    ) -> None:
        """Add a member to a pool, or change it."""
        member_id = PoolMemberId(self.identify(name))
        self.members[name] = PoolMember(
            id=member_id,
            pool_id=PoolId(self.identify(pool)),
            address=at[0],
            port=at[1],
            weight=weight,
            admin_state_up=up,
        )
        self.ill.discard(member_id)
        if not healthy:
            self.ill.add(member_id)

    def remove(self, name: str) -> None:
        """Delete a member or VIP."""
        self.members.pop(name, None)
        self.vips.pop(name, None)

    def views(self) -> dict[LoadBalancerId, LoadBalancerView]:
        """Return the load balancers as the view has them."""
        return {one.id: self._view(one) for one in self.balancers.values()}

    def _view(self, balancer: LoadBalancer) -> LoadBalancerView:
        pools = [one for one in self.pools.values() if one.load_balancer_id == balancer.id]
        return LoadBalancerView.of(
            balancer.id,
            [self._pool(pool) for pool in pools],
            [
                VipView(
                    vip.id,
                    parse_ip(vip.address),
                    _PROTOCOLS[pool.protocol],
                    vip.port,
                    pool.id,
                    vip.session_persistence is not None,
                )
                for pool in pools
                for vip in self.vips.values()
                if vip.pool_id == pool.id and vip.admin_state_up
            ],
            is_up=balancer.admin_state_up,
        )

    def _pool(self, pool: Pool) -> PoolView:
        members = [
            MemberView(
                one.id,
                parse_ip(one.address),
                one.port,
                one.weight,
                one.admin_state_up,
                one.id not in self.ill,
            )
            for one in self.members.values()
            if one.pool_id == pool.id
        ]
        return PoolView.of(
            pool.id,
            members,
            is_up=pool.admin_state_up,
            is_sticky=pool.session_persistence is not None,
        )
