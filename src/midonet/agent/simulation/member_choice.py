"""Choice of a pool member for a connection that begins.

A hash tells: that of the tuple, or of the client's address alone where a client is to stay with
one member. Of the flow hash twelve bits are read, from the place on that a choice of routes would
take, and the two bytes that they lie in are left out of later choices on the way.
"""

from __future__ import annotations

from midonet.agent.flow_state.selection import BUCKETS
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.tags import pool_choice_tag, pool_member_tag, pool_tag
from midonet.agent.simulation.header import FLOW_HASH, IP_SRC
from midonet.agent.simulation.trace import ChoseMember
from midonet.agent.simulation.walk import Dropped, Walk
from midonet.agent.topology.balancing import LoadBalancerView, MemberView, PoolView, VipView
from midonet.packets.addresses import IpVersion
from midonet.packets.flow_hash import address_hash

_BYTES_OF_A_CHOICE = 2
_HASH_BITS = 32
_WORD = 0xFFFF_FFFF


def pool_of(walk: Walk, balancer: LoadBalancerView, vip: VipView) -> PoolView:
    """Return the pool of a VIP and note that its configuration matters."""
    walk.findings.tags.append(pool_tag(vip.pool_id))
    return balancer.pools[vip.pool_id]


def skip_choice(walk: Walk) -> None:
    """Leave the bits of a choice that was made before out of later ones, as then."""
    walk.branch.choices += _BYTES_OF_A_CHOICE


def choose_member(walk: Walk, balancer: LoadBalancerView, vip: VipView) -> MemberView | Dropped:
    """Return the member that a new connection to a VIP goes to."""
    pool = pool_of(walk, balancer, vip)
    walk.findings.tags.append(pool_choice_tag(pool.id))
    ring = pool.rings.get(vip.address.version)
    if not pool.admin_state_up or ring is None:
        return Dropped(DropReason.NO_POOL_MEMBER, object_id=pool.id)
    by_client = vip.is_sticky or pool.is_sticky
    bucket = _client_bucket(walk, vip.address.version) if by_client else _flow_bucket(walk)
    skip_choice(walk)
    member_id = ring.owner(bucket)
    assert member_id is not None
    walk.findings.tags.append(pool_member_tag(pool.id, member_id))
    if walk.findings.steps is not None:
        weight, total = ring.weights[member_id], sum(ring.weights.values())
        candidates = len(ring.weights)
        walk.step(
            ChoseMember(
                balancer.id,
                vip.id,
                pool.id,
                member_id,
                bucket,
                by_client,
                weight,
                total,
                candidates,
            )
        )
    return pool.members[member_id]


def _client_bucket(walk: Walk, version: IpVersion) -> int:
    """Return the bucket of the client's address."""
    address = walk.header.read(IP_SRC)
    is_ipv6 = version is IpVersion.V6
    return address_hash(walk.inputs.view.hash_seed, is_ipv6=is_ipv6, address=address) % BUCKETS


def _flow_bucket(walk: Walk) -> int:
    """Return the bucket of the flow hash, whose bits are a ring."""
    shift = walk.branch.choices * 8 % _HASH_BITS
    wanted = (BUCKETS - 1) << shift
    value = walk.header.read_bits(FLOW_HASH, wanted & _WORD | wanted >> _HASH_BITS)
    return (value >> shift | value << (_HASH_BITS - shift)) & (BUCKETS - 1)
