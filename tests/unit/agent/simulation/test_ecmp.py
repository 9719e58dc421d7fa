"""Rendezvous choice among routes of equal cost."""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid5

from midonet.agent.simulation.ecmp import BUCKETS, route_of_bucket
from midonet.agent.topology.view import RouteView
from midonet.model.devices import NextHopKind
from midonet.model.ids import RouteId
from midonet.packets.addresses import parse_prefix


def routes(count: int) -> tuple[RouteView, ...]:
    everywhere = parse_prefix("0.0.0.0/0")
    return tuple(
        RouteView(
            RouteId(uuid5(UUID(int=0), str(index))),
            NextHopKind.NORMAL,
            everywhere,
            everywhere,
            None,
            None,
            0,
        )
        for index in range(count)
    )


def owners(candidates: tuple[RouteView, ...]) -> list[RouteId]:
    return [route_of_bucket(candidates, bucket).id for bucket in range(BUCKETS)]


def test_buckets_are_spread_evenly() -> None:
    for count in (2, 3, 4, 8):
        shares = Counter(owners(routes(count)))
        assert len(shares) == count
        assert all(0.5 < share * count / BUCKETS < 1.5 for share in shares.values())


def test_choice_does_not_depend_on_the_order_of_routes() -> None:
    assert owners(routes(5)) == owners(routes(5)[::-1])


def test_only_the_buckets_of_a_lost_route_move() -> None:
    before, lost = owners(routes(4)), routes(4)[2]
    after = owners(tuple(route for route in routes(4) if route is not lost))
    assert all(old == new for old, new in zip(before, after, strict=True) if old != lost.id)


def test_choice_is_pinned() -> None:
    """Agents of different versions must agree; a change here splits connections."""
    table = owners(routes(3))
    numbers = {route.id: str(index) for index, route in enumerate(routes(3))}
    assert "".join(numbers[owner] for owner in table[:32]) == "12101221201112000111122120112210"
