"""Which member a connection goes to, against a reference that is too plain to be wrong."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import log2
from random import Random
from uuid import UUID

import pytest

from midonet.agent.flow_state.selection import BUCKETS
from midonet.agent.simulation.result import Drop, Forward
from midonet.agent.simulation.simulate import simulate
from midonet.model.ids import PoolMemberId
from midonet.packets.frame import key_flow_hash, parse_frame
from tests.scenario.balanced_networks import KINDS, R1, VIP_PORT, A, Kind, balanced
from tests.worlds import NOW, World

CONNECTIONS = 1500
WORD = 0xFFFF_FFFF


def scrambled(value: int) -> int:
    """The finaliser of MurmurHash3, from its published form."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        value ^= value >> shift
        value = value * factor & WORD
    return value


def naive_choice(weights: dict[PoolMemberId, int], bucket: int) -> PoolMemberId | None:
    """Try every member: the lowest -log2(hash) for its weight has the bucket."""
    costs = []
    for member_id, weight in weights.items():
        if weight == 0:
            continue
        folded = 0
        for byte in range(0, 16, 4):
            folded = scrambled(folded ^ int.from_bytes(member_id.bytes[byte : byte + 4], "big"))
        score = scrambled(folded ^ scrambled(bucket + 1))
        cost = Fraction(round((32 - log2(score + 1)) * 2**40), weight)
        costs.append((cost, member_id.int, member_id))
    return min(costs)[2] if costs else None


def drawn(random: Random, kind: Kind) -> tuple[World, dict[PoolMemberId, int]]:
    """Return a network with a random pool, and the weights of the members that take any."""
    world = balanced(kind)
    world.balancers.remove("m1")
    weights: dict[PoolMemberId, int] = {}
    for number in range(random.randrange(1, 7)):
        weight, up, healthy = random.randrange(60), random.random() < 0.8, random.random() < 0.8
        name = f"drawn{random.getrandbits(32)}"
        address = kind.family.host(2, 50 + number)
        world.balancers.member(
            name, pool="web", at=(address, 80), weight=weight, up=up, healthy=healthy
        )
        world.neighbour("r", address, f"02:aa:00:00:03:{number:02x}")
        if up and healthy:
            weights[PoolMemberId(world.id(name))] = weight
    return world, weights


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_connection_goes_where_the_reference_says(kind: Kind) -> None:
    random = Random(f"spread {kind}")
    compared = 0
    for _ in range(30):
        world, weights = drawn(random, kind)
        view, places = (
            world.view(),
            {one.id: one.address for one in world.balancers.members.values()},
        )
        for _ in range(CONNECTIONS // 30):
            client = kind.family.host(1, random.randrange(2, 200))
            frame = kind.frame((client, kind.vip), (A, R1), (random.randrange(1, 65536), VIP_PORT))
            packet = parse_frame(frame)
            bucket = key_flow_hash(packet.key, view.hash_seed) % BUCKETS
            expected = naive_choice(weights, bucket)
            result = simulate(view, world.soft_state(), packet, world.port_id("c"), NOW)
            if expected is None:
                assert isinstance(result, Drop)
                continue
            assert isinstance(result, Forward)
            [output] = result.program.outputs
            wanted = kind.frame((places[expected], client), (A, R1), (1, 1))
            assert output.rewrite.ip_dst == parse_frame(wanted).key.ip_src
            compared += 1
    assert compared > CONNECTIONS // 2


@pytest.mark.parametrize("seed", range(5))
def test_members_get_their_share(seed: int) -> None:
    """Over many buckets and many pools the share of each is its weight."""
    random = Random(seed)
    weights = {
        PoolMemberId(UUID(int=random.getrandbits(128))): random.randrange(1, 60) for _ in range(4)
    }
    found = Counter(naive_choice(weights, bucket) for bucket in range(BUCKETS))
    for member_id, weight in weights.items():
        expected = weight / sum(weights.values())
        margin = 5 * (expected * (1 - expected) / BUCKETS) ** 0.5
        assert abs(found[member_id] / BUCKETS - expected) <= margin
