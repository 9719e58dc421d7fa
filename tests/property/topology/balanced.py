"""Random edits of load balancers, and what a delta between two views must say of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from midonet.agent.flows.tags import (
    FlowTag,
    RouteRegion,
    device_tag,
    pool_choice_tag,
    pool_member_tag,
    pool_tag,
)
from midonet.agent.topology.balancing import PoolView
from midonet.agent.topology.view import TopologyView
from midonet.model.devices import Router
from midonet.model.ids import LoadBalancerId, PoolId, PoolMemberId, VipId
from midonet.model.load_balancer import (
    BalancedProtocol,
    LoadBalancer,
    MemberHealth,
    Pool,
    PoolMember,
    SessionPersistence,
    Vip,
)
from midonet.nsdb.store import StateTables

if TYPE_CHECKING:
    from tests.property.topology.worlds import Editor

ADDRESSES = ("192.0.2.80", "192.0.2.81", "2001:db8::80", "rubbish")
STICKY = (None, SessionPersistence.SOURCE_IP)


class BalancerEdits:
    """Edits of load balancers, for an editor that picks objects."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self.edits: list[Callable[[], None]] = [
            self.add_balancer, self.add_pool, self.add_member, self.add_member, self.add_vip,
            self.attach, self.change_pool, self.change_member, self.change_vip, self.health,
            self.delete, self.delete,
        ]  # fmt: skip

    def add_balancer(self) -> None:
        editor = self._editor
        editor.world.put(LoadBalancer(id=LoadBalancerId(editor.new_id())))

    def add_pool(self) -> None:
        editor = self._editor
        balancer = editor.pick(LoadBalancer)
        pool = Pool(
            id=PoolId(editor.new_id()),
            load_balancer_id=balancer and balancer.id,
            protocol=editor.random.choice(list(BalancedProtocol)),
            session_persistence=editor.random.choice(STICKY),
        )
        editor.world.put(pool)
        editor.world.health[StateTables.member_health(pool.id)] = {}

    def add_member(self) -> None:
        editor, pool = self._editor, self._editor.pick(Pool)
        if pool is not None:
            member = PoolMember(
                id=PoolMemberId(editor.new_id()),
                pool_id=pool.id,
                address=editor.random.choice(ADDRESSES),
                weight=editor.random.randrange(3),
            )
            editor.world.put(member)

    def add_vip(self) -> None:
        editor, pool = self._editor, self._editor.pick(Pool)
        if pool is not None:
            address, port = editor.random.choice(ADDRESSES), editor.random.choice((80, 443))
            vip = Vip(id=VipId(editor.new_id()), pool_id=pool.id, address=address, port=port)
            editor.world.put(vip)

    def attach(self) -> None:
        """Let a router name a load balancer that no other names, or none."""
        editor, balancer = self._editor, self._editor.pick(LoadBalancer)
        router = editor.pick(Router)
        for other in editor.world.every(Router):
            if balancer is not None and other.load_balancer_id == balancer.id:
                editor.change(other, load_balancer_id=None)
        if router is not None:
            chosen = balancer.id if balancer and editor.random.random() < 0.8 else None
            editor.change(editor.world.objects[Router][router.id], load_balancer_id=chosen)

    def change_pool(self) -> None:
        editor, pool = self._editor, self._editor.pick(Pool)
        balancer = editor.pick(LoadBalancer)
        editor.change(
            pool,
            **editor.random.choice(
                (
                    {"admin_state_up": editor.random.random() < 0.5},
                    {"session_persistence": editor.random.choice(STICKY)},
                    {"load_balancer_id": balancer and balancer.id},
                )
            ),
        )
        if balancer is not None and editor.random.random() < 0.3:
            editor.change(balancer, admin_state_up=not balancer.admin_state_up)

    def change_member(self) -> None:
        editor, pool = self._editor, self._editor.pick(Pool)
        fields: tuple[dict[str, object], ...] = (
            {"weight": editor.random.randrange(3)},
            {"admin_state_up": editor.random.random() < 0.5},
            {"address": editor.random.choice(ADDRESSES)},
            {"pool_id": pool and pool.id} if pool else {},
        )
        editor.change(editor.pick(PoolMember), **editor.random.choice(fields))

    def change_vip(self) -> None:
        editor, pool = self._editor, self._editor.pick(Pool)
        fields: tuple[dict[str, object], ...] = (
            {"admin_state_up": editor.random.random() < 0.5},
            {"address": editor.random.choice(ADDRESSES)},
            {"session_persistence": editor.random.choice(STICKY)},
            {"pool_id": pool and pool.id} if pool else {},
        )
        editor.change(editor.pick(Vip), **editor.random.choice(fields))

    def health(self) -> None:
        editor, member = self._editor, self._editor.pick(PoolMember)
        if member is not None:
            table = editor.world.health[StateTables.member_health(member.pool_id)]
            table[str(member.id)] = editor.random.choice([*MemberHealth, None, "rubbish"])

    def delete(self) -> None:
        editor = self._editor
        kind = editor.random.choice([PoolMember, PoolMember, Vip, Pool, LoadBalancer])
        value = editor.pick(kind)
        if value is not None:
            editor.world.delete(kind, value.id)


def expected(old: TopologyView, new: TopologyView) -> tuple[set[FlowTag], set[RouteRegion]]:
    """Return the tags and regions of what differs in load balancers, fact by fact."""
    tags: set[FlowTag] = set()
    regions: set[RouteRegion] = set()
    for balancer_id in old.balancers.keys() | new.balancers.keys():
        one, two = old.balancers.get(balancer_id), new.balancers.get(balancer_id)
        if [one and (one.admin_state_up, 1)] != [two and (two.admin_state_up, 1)]:
            tags.add(device_tag(balancer_id))
        before, after = ({**each.vips} if each else {} for each in (one, two))
        for address, *rest in {key for key, _ in set(before.items()) ^ set(after.items())}:
            assert len(rest) == 2
            bits = address.version.bits
            regions.add(RouteRegion(balancer_id, address.version, address.value, bits))
        pools = [({**each.pools} if each else {}) for each in (one, two)]
        places = [
            {
                (member.address, member.port)
                for pool in each.values()
                for member in pool.members.values()
            }
            for each in pools
        ]
        for address, _ in places[0] ^ places[1]:
            bits = address.version.bits
            regions.add(RouteRegion(balancer_id, address.version, address.value, bits))
        for pool_id in pools[0].keys() | pools[1].keys():
            tags |= _pool(pool_id, pools[0].get(pool_id), pools[1].get(pool_id))
    return tags, regions


def _pool(pool_id: PoolId, one: PoolView | None, two: PoolView | None) -> set[FlowTag]:
    tags: set[FlowTag] = set()
    if [one and (one.admin_state_up, one.is_sticky)] != [
        two and (two.admin_state_up, two.is_sticky)
    ]:
        tags.add(pool_tag(pool_id))
    before, after = ({**each.members} if each else {} for each in (one, two))
    for member_id in before.keys() | after.keys():
        if before.get(member_id) != after.get(member_id):
            tags.add(pool_member_tag(pool_id, member_id))
    weights = [
        {
            member.id: (member.address.version, member.weight)
            for member in members.values()
            if member.admin_state_up and member.is_healthy and member.weight
        }
        for members in (before, after)
    ]
    return tags | ({pool_choice_tag(pool_id)} if weights[0] != weights[1] else set())
