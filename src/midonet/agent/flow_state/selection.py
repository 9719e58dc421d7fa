"""Choice of a pool member for a new connection. Pure.

Weighted rendezvous hashing gives each bucket of the hash to a member: the one with the lowest

    cost(member, bucket) = -log2(hash of (member, bucket)) / weight

so that a member has buckets in proportion to its weight, whatever the others are, and nobody
needs to be asked: the choice is a function of the bucket and of the members' ids and weights,
in whatever order they come. When a member goes, only its own buckets move, in proportion to the
weights of the others; when one comes, it takes buckets and no two others exchange any.

There are 4096 buckets. Of 256 a member with three tenths of the weight would have 30 % with a
standard deviation of 2.9 points, for good; of 4096 it is 0.7.

Which members may be chosen at all, their health and state, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from math import log2
from uuid import UUID

from midonet.model.ids import PoolMemberId
from midonet.packets.flow_hash import mix

BUCKET_BITS = 12
BUCKETS = 1 << BUCKET_BITS
_WORD = 0xFFFF_FFFF
_SCALE = 1 << 40


class Ring:
    """The buckets of one set of members, worked out as they are asked for.

    weights: of the members, by id; those of weight 0 have no bucket.
    """

    __slots__ = ("_groups", "_owners", "weights")

    def __init__(self, weights: Iterable[tuple[PoolMemberId, int]]) -> None:
        self.weights = {
            member_id: weight
            for member_id, weight in sorted(weights, key=lambda each: each[0].int)
            if weight > 0
        }
        # Among members of one weight the highest score wins: one logarithm for each weight.
        self._groups: dict[int, list[tuple[int, PoolMemberId]]] = {}
        for member_id, weight in self.weights.items():
            self._groups.setdefault(weight, []).append((_fold(member_id), member_id))
        self._owners: dict[int, PoolMemberId] = {}

    def owner(self, bucket: int) -> PoolMemberId | None:
        """Return who has a bucket of 0..BUCKETS - 1; None when the ring has no members."""
        found = self._owners.get(bucket)
        if found is None and self._groups:
            found = self._owners[bucket] = self._lowest(bucket)
        return found

    def _lowest(self, bucket: int) -> PoolMemberId:
        salt = mix(bucket + 1)
        leaders = []
        for weight, members in self._groups.items():
            score, _, member_id = max(
                (mix(fold ^ salt), -member_id.int, member_id) for fold, member_id in members
            )
            leaders.append((Fraction(_cost(score), weight), member_id.int, member_id))
        return min(leaders)[2]


def _cost(score: int) -> int:
    """Return -log2 of a score of 32 bits as a part of 2^32, in units of 2^-40.

    The unit is far above what the logarithms of two C libraries may differ by.
    """
    return round((32.0 - log2(score + 1)) * _SCALE)


@lru_cache(maxsize=65536)
def _fold(member_id: UUID) -> int:
    value = 0
    for shift in (96, 64, 32, 0):
        value = mix(value ^ (member_id.int >> shift & _WORD))
    return value
