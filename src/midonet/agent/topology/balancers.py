"""Which load balancers are visible: those of visible routers, with all that lies below them. Pure.

A load balancer becomes visible as a whole, when its pools, their members and VIPs, and what is
known of the members' health have been read; until then the version before it stays. It is in the
view before a router that names it. One whose deletion is seen before its router's change stays as
it was until the router lets go of it, or the caller's grace is over.

A VIP or member that is not understood, or of another IP version than the rest of the pool, is
passed over: it matches nothing and is never chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from midonet.agent.topology.balancing import LoadBalancerView, MemberView, PoolView, VipView
from midonet.agent.topology.draft import ViewDraft
from midonet.agent.topology.facts import (
    Facts,
    MissingMember,
    health_of,
    members_of_pool,
    pools_of,
    vips_of,
)
from midonet.errors import DecodeError
from midonet.model.ids import LoadBalancerId, ObjectId, PoolId, RouterId
from midonet.model.load_balancer import (
    BalancedProtocol,
    LoadBalancer,
    MemberHealth,
    Pool,
    PoolMember,
    Vip,
)
from midonet.packets.addresses import parse_ip
from midonet.packets.protocols import IpProtocol

_PROTOCOLS = {
    BalancedProtocol.TCP: int(IpProtocol.TCP),
    BalancedProtocol.UDP: int(IpProtocol.UDP),
}


class VisibleBalancers:
    """Puts load balancers into the draft.

    waiting: ids whose newest version is held back. undecodable: objects that cannot be
    understood, with the reason; VIPs and members are added to it.
    """

    def __init__(
        self,
        facts: Facts,
        draft: ViewDraft,
        waiting: set[ObjectId],
        undecodable: dict[ObjectId, str],
    ) -> None:
        self._facts = facts
        self._draft = draft
        self._waiting = waiting
        self._undecodable = undecodable
        self._parts: dict[LoadBalancerId, set[ObjectId]] = {}
        self._users: dict[RouterId, LoadBalancerId] = {}

    def advance(self, changed: Iterable[ObjectId], *, settle: bool) -> None:
        """Take over load balancers in which something changed."""
        for object_id in changed:
            self._balancer(LoadBalancerId(object_id), settle)

    def is_known(self, balancer_id: LoadBalancerId | None) -> bool:
        """Tell whether a load balancer, or its absence, is visible."""
        draft = self._draft
        return balancer_id is None or balancer_id in draft.balancers or balancer_id in draft.absent

    def use(self, router_id: RouterId, balancer_id: LoadBalancerId | None) -> None:
        """Note which load balancer a visible router names."""
        if balancer_id is None:
            self._users.pop(router_id, None)
        else:
            self._users[router_id] = balancer_id

    def retire(self, *, settle: bool) -> None:
        """Let go of deleted load balancers that no visible router names any more."""
        for object_id in list(self._waiting):
            balancer_id = LoadBalancerId(object_id)
            if self._facts.is_absent(LoadBalancer, balancer_id) and (
                settle or balancer_id not in self._users.values()
            ):
                self.forget(balancer_id)
                self._draft.absent.put(balancer_id, True)

    def forget(self, balancer_id: LoadBalancerId) -> None:
        """Take a load balancer out."""
        self._waiting.discard(balancer_id)
        self._draft.balancers.put(balancer_id, None)
        for part_id in self._parts.pop(balancer_id, ()):
            self._undecodable.pop(part_id, None)

    def _balancer(self, balancer_id: LoadBalancerId, settle: bool) -> None:
        balancer = self._facts.get(LoadBalancer, balancer_id)
        parts = None if balancer is None else _Parts(self._facts, balancer_id, settle)
        if balancer is None or parts is None or not parts.is_complete:
            # What is absent goes when it is retired.
            self._waiting.add(balancer_id)
            return
        self._waiting.discard(balancer_id)
        for part_id in self._parts.get(balancer_id, ()):
            self._undecodable.pop(part_id, None)
        self._parts[balancer_id] = set(parts.undecodable)
        self._undecodable.update(parts.undecodable)
        before = self._draft.balancers.get(balancer_id)
        known = {} if before is None else before.pools
        # A pool that is as it was stays the same object: its buckets are worked out already.
        pools = [_same(known.get(pool.id), pool) for pool in parts.pools]
        view = LoadBalancerView.of(balancer_id, pools, parts.vips, is_up=balancer.admin_state_up)
        if view != before:
            self._draft.balancers.put(balancer_id, view)
        self._draft.absent.put(balancer_id, None)


def _same(before: PoolView | None, pool: PoolView) -> PoolView:
    return before if before is not None and before == pool else pool


class _Parts:
    """Pools and VIPs of one load balancer, as far as they are known."""

    def __init__(self, facts: Facts, balancer_id: LoadBalancerId, settle: bool) -> None:
        self.pools: list[PoolView] = []
        self.vips: list[VipView] = []
        self.undecodable: dict[ObjectId, str] = {}
        self.is_complete = True
        self._facts = facts
        self._settle = settle
        pools = self._objects(Pool, facts.ids(pools_of(balancer_id)))
        for pool in pools:
            self._pool(pool)

    def _objects(self, kind: type, ids: frozenset[ObjectId] | None) -> list:  # type: ignore[type-arg]
        """Return listed objects; without those that are settled not to exist."""
        if ids is not None and self._settle:
            ids = frozenset(one for one in ids if not self._facts.is_absent(kind, one))
        found: list[msgspec.Struct] | MissingMember
        found = MissingMember.UNKNOWN if ids is None else self._facts.members(kind, ids)
        if isinstance(found, MissingMember):
            self.is_complete = False
            return []
        return found

    def _pool(self, pool: Pool) -> None:
        facts = self._facts
        health = facts.entries(health_of(pool.id))
        members = self._objects(PoolMember, facts.ids(members_of_pool(pool.id)))
        vips = self._objects(Vip, facts.ids(vips_of(pool.id)))
        if health is None:
            self.is_complete = False
            return
        self.pools.append(
            PoolView.of(
                pool.id,
                [view for one in members if (view := self._member(one, health)) is not None],
                is_up=pool.admin_state_up,
                is_sticky=pool.session_persistence is not None,
            )
        )
        shown = [self._vip(one, pool) for one in vips if one.admin_state_up]
        self.vips += [view for view in shown if view is not None]

    def _member(self, member: PoolMember, health: Mapping[str, str]) -> MemberView | None:
        try:
            address = parse_ip(member.address)
        except DecodeError as error:
            self.undecodable[member.id] = str(error)
            return None
        return MemberView(
            member.id,
            address,
            member.port,
            member.weight,
            member.admin_state_up,
            health.get(str(member.id)) != MemberHealth.INACTIVE,
        )

    def _vip(self, vip: Vip, pool: Pool) -> VipView | None:
        try:
            address = parse_ip(vip.address)
        except DecodeError as error:
            self.undecodable[vip.id] = str(error)
            return None
        return VipView(
            vip.id,
            address,
            _PROTOCOLS[pool.protocol],
            vip.port,
            PoolId(pool.id),
            vip.session_persistence is not None,
        )
