"""Choice among routes of equal cost.

The flow hash picks one of 256 buckets, and rendezvous hashing gives each bucket to a route: the
one with the highest score for it. When a route goes, only its own buckets move. The choice is a
pure function of (hash, routes), so every agent and any datapath with the same table agree:

    bucket = (flow_hash >> 8 * n) & 0xFF       n: 0 for the first choice on the way, to 3
    score(route) = mix(fold(route id) ^ mix(bucket + 1))
    fold = exclusive or of the four 32-bit words of the id, each mixed after the one before

with `mix` of `midonet.packets.flow_hash`, the finaliser of MurmurHash3. Equal scores go to the
greater id. Each choice on the way takes other bits of the hash; the fifth uses the first again.
Only the eight bits of the bucket enter the mask.
"""

from __future__ import annotations

from functools import lru_cache
from uuid import UUID

from midonet.agent.simulation.header import FLOW_HASH
from midonet.agent.simulation.walk import Walk
from midonet.agent.topology.view import RouteView
from midonet.packets.flow_hash import mix

BUCKETS = 256
_WORD = 0xFFFF_FFFF


def choose_route(walk: Walk, routes: tuple[RouteView, ...]) -> RouteView:
    """Return the route for this packet among at least one."""
    branch = walk.branch
    shift = branch.choices % 4 * 8
    branch.choices += 1
    bucket = walk.header.read_bits(FLOW_HASH, 0xFF << shift) >> shift
    return route_of_bucket(routes, bucket)


def route_of_bucket(routes: tuple[RouteView, ...], bucket: int) -> RouteView:
    """Return the route that owns a bucket of 0..255."""
    salt = mix(bucket + 1)
    return max(routes, key=lambda route: (mix(_fold(route.id) ^ salt), route.id.int))


@lru_cache(maxsize=65536)
def _fold(route_id: UUID) -> int:
    value = 0
    for shift in (96, 64, 32, 0):
        value = mix(value ^ (route_id.int >> shift & _WORD))
    return value
