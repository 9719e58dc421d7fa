"""What the choice of a member reads of the flow hash, and what of the tuple."""

from __future__ import annotations

import msgspec
import pytest

from midonet.agent.flow_state.selection import BUCKETS
from midonet.agent.flows.tags import TagKind
from midonet.agent.simulation.member_choice import choose_member
from midonet.agent.simulation.walk import Inputs, Walk
from midonet.agent.topology.balancing import LoadBalancerView, MemberView
from midonet.packets.frame import parse_frame
from tests.scenario.balanced_networks import KINDS, R1, VIP_PORT, A, Kind, balanced
from tests.worlds import NOW

V4_TCP = KINDS[0]
WORD = 0xFFFF_FFFF


def walk_of(kind: Kind, *, flow_hash: int, sticky: bool) -> tuple[Walk, LoadBalancerView]:
    world = balanced(kind, "m1", "m2", "m3", sticky=sticky)
    view = world.view()
    packet = parse_frame(kind.frame((kind.client, kind.vip), (A, R1), (4000, VIP_PORT)))
    packet = msgspec.structs.replace(packet, key=packet.key._replace(flow_hash=flow_hash))
    inputs = Inputs(view, world.soft_state(), packet, world.port_id("c"), NOW)
    walk = Walk(inputs, trace=False)
    return walk, next(iter(view.balancers.values()))


@pytest.mark.parametrize(
    ("choices", "bits"),
    [(0, 0x0000_0FFF), (1, 0x000F_FF00), (2, 0x0FFF_0000), (3, 0xFF00_000F), (4, 0x0000_0FFF)],
)
def test_twelve_bits_of_the_hash_matter(choices: int, bits: int) -> None:
    walk, balancer = walk_of(V4_TCP, flow_hash=0x1234_5678, sticky=False)
    vip = next(iter(balancer.vips.values()))
    walk.branch.choices = choices
    chosen = choose_member(walk, balancer, vip)
    assert isinstance(chosen, MemberView)
    assert walk.header.mask[11] == bits
    assert walk.header.mask[7] == 0
    other, balancer = walk_of(V4_TCP, flow_hash=0x1234_5678 ^ WORD ^ bits, sticky=False)
    other.branch.choices = choices
    assert choose_member(other, balancer, vip) == chosen


def test_only_the_clients_address_matters_where_it_is_bound() -> None:
    found = set()
    for flow_hash in range(0, BUCKETS, 97):
        walk, balancer = walk_of(V4_TCP, flow_hash=flow_hash, sticky=True)
        vip = next(iter(balancer.vips.values()))
        chosen = choose_member(walk, balancer, vip)
        assert isinstance(chosen, MemberView)
        found.add(chosen.id)
        assert walk.header.mask[11] == 0
        assert walk.header.mask[7] == WORD
    assert len(found) == 1


def test_a_choice_depends_on_the_pool_and_on_the_member_chosen() -> None:
    walk, balancer = walk_of(V4_TCP, flow_hash=7, sticky=False)
    vip = next(iter(balancer.vips.values()))
    chosen = choose_member(walk, balancer, vip)
    assert isinstance(chosen, MemberView)
    kinds = [tag.kind for tag in walk.findings.tags]
    assert kinds == [TagKind.POOL, TagKind.POOL_CHOICE, TagKind.POOL_MEMBER]
    assert walk.findings.tags[-1].element == chosen.id
