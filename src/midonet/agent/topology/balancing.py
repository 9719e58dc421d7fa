"""Load balancers as simulation sees them: VIPs by what packets carry, pools, members. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from midonet.agent.flow_state.selection import Ring
from midonet.agent.flows.tags import (
    FlowTag,
    RouteRegion,
    device_tag,
    pool_choice_tag,
    pool_member_tag,
    pool_tag,
)
from midonet.agent.topology.address_set import AddressSet
from midonet.model.ids import LoadBalancerId, PoolId, PoolMemberId, VipId
from midonet.packets.addresses import IpAddress, IpPrefix, IpVersion


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member of a pool. port: 0 keeps that of the VIP. is_healthy: no monitor says otherwise."""

    id: PoolMemberId
    address: IpAddress
    port: int = 0
    weight: int = 1
    admin_state_up: bool = True
    is_healthy: bool = True

    @property
    def is_up(self) -> bool:
        """Tell whether the member takes new connections."""
        return self.admin_state_up and self.is_healthy and self.weight > 0

    @property
    def is_draining(self) -> bool:
        """Tell whether it takes none but keeps those that it has: it was set down, or its weight
        to 0. One that a monitor found ill keeps none, unless it is set down."""
        return not self.admin_state_up or (self.is_healthy and self.weight == 0)


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool. is_sticky: a client goes to one member, at each VIP.

    rings: of the members that are up, by their IP version. by_address: members by address.
    """

    id: PoolId
    admin_state_up: bool = True
    is_sticky: bool = False
    members: Mapping[PoolMemberId, MemberView] = field(default_factory=dict)
    rings: Mapping[IpVersion, Ring] = field(default_factory=dict, compare=False, repr=False)
    by_address: Mapping[IpAddress, tuple[MemberView, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def of(
        cls, pool_id: PoolId, members: Iterable[MemberView], *, is_up: bool, is_sticky: bool
    ) -> PoolView:
        """Return a pool of these members."""
        known = {member.id: member for member in members}
        shares: dict[IpVersion, list[tuple[PoolMemberId, int]]] = {}
        by_address: dict[IpAddress, tuple[MemberView, ...]] = {}
        for member in sorted(known.values(), key=lambda each: each.id.int):
            by_address[member.address] = (*by_address.get(member.address, ()), member)
            if member.is_up:
                shares.setdefault(member.address.version, []).append((member.id, member.weight))
        rings = {version: Ring(found) for version, found in shares.items()}
        return cls(pool_id, is_up, is_sticky, known, rings, by_address)


@dataclass(frozen=True, slots=True)
class VipView:
    """A VIP that is up. protocol: 6 or 17. is_sticky: its own wish, beside the pool's."""

    id: VipId
    address: IpAddress
    protocol: int
    port: int
    pool_id: PoolId
    is_sticky: bool = False


VipKey = tuple[IpAddress, int, int]
"""Address, protocol, port."""


@dataclass(frozen=True, slots=True)
class LoadBalancerView:
    """A load balancer. addresses: of the VIPs in `vips`. served: of the members of its pools."""

    id: LoadBalancerId
    admin_state_up: bool = True
    vips: Mapping[VipKey, VipView] = field(default_factory=dict)
    pools: Mapping[PoolId, PoolView] = field(default_factory=dict)
    addresses: AddressSet = field(default_factory=AddressSet, compare=False, repr=False)
    served: AddressSet = field(default_factory=AddressSet, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        balancer_id: LoadBalancerId,
        pools: Iterable[PoolView],
        vips: Iterable[VipView],
        *,
        is_up: bool,
    ) -> LoadBalancerView:
        """Return a load balancer. Of two VIPs for the same packets the lower id has them."""
        by_key: dict[VipKey, VipView] = {}
        for vip in sorted(vips, key=lambda each: each.id.int):
            by_key.setdefault((vip.address, vip.protocol, vip.port), vip)
        by_id = {pool.id: pool for pool in pools}
        return cls(
            balancer_id,
            is_up,
            by_key,
            by_id,
            _address_set(address for address, _, _ in by_key),
            _address_set(address for pool in by_id.values() for address in pool.by_address),
        )

    def serves(self, address: IpAddress, port: int) -> bool:
        """Tell whether answers to the clients of a VIP may come from an end point."""
        return any(
            member.port in (0, port)
            for pool in self.pools.values()
            for member in pool.by_address.get(address, ())
        )


def _address_set(addresses: Iterable[IpAddress]) -> AddressSet:
    return AddressSet(IpPrefix(one.version, one.value, one.version.bits) for one in addresses)


def _shares(pool: PoolView) -> dict[IpVersion, dict[PoolMemberId, int]]:
    return {version: ring.weights for version, ring in pool.rings.items()}


class ChangedFacts(NamedTuple):
    """What differs between two versions of a load balancer."""

    tags: set[FlowTag]
    regions: set[RouteRegion]


def changed_facts(
    balancer_id: LoadBalancerId, old: LoadBalancerView | None, new: LoadBalancerView | None
) -> ChangedFacts:
    """Return the facts that differ; None stands for a load balancer that is not there."""
    changed = ChangedFacts(set(), set())
    if old is new:
        return changed
    was_up, is_up = (None if one is None else one.admin_state_up for one in (old, new))
    if was_up is not is_up:
        changed.tags.add(device_tag(balancer_id))
    old = old or LoadBalancerView(balancer_id)
    new = new or LoadBalancerView(balancer_id)
    moved = {key[0] for key in old.vips.keys() | new.vips.keys() if _differ(old, new, key)}
    moved |= {address for address, _ in _end_points(old) ^ _end_points(new)}
    for address in moved:
        bits = address.version.bits
        changed.regions.add(RouteRegion(balancer_id, address.version, address.value, bits))
    for pool_id in old.pools.keys() | new.pools.keys():
        _changed_pool(pool_id, old.pools.get(pool_id), new.pools.get(pool_id), changed.tags)
    return changed


def _differ(old: LoadBalancerView, new: LoadBalancerView, key: VipKey) -> bool:
    return old.vips.get(key) != new.vips.get(key)


def _end_points(balancer: LoadBalancerView) -> set[tuple[IpAddress, int]]:
    """Return where answers to clients may come from."""
    pools = balancer.pools.values()
    return {(one.address, one.port) for pool in pools for one in pool.members.values()}


def _changed_pool(
    pool_id: PoolId, old: PoolView | None, new: PoolView | None, tags: set[FlowTag]
) -> None:
    if old is new:
        return
    settings = [None if one is None else (one.admin_state_up, one.is_sticky) for one in (old, new)]
    if settings[0] != settings[1]:
        tags.add(pool_tag(pool_id))
    old, new = old or PoolView(pool_id), new or PoolView(pool_id)
    if _shares(old) != _shares(new):
        tags.add(pool_choice_tag(pool_id))
    for member_id in old.members.keys() | new.members.keys():
        if old.members.get(member_id) != new.members.get(member_id):
            tags.add(pool_member_tag(pool_id, member_id))
