"""The forwarding table, case by case."""

from __future__ import annotations

from uuid import UUID

from midonet.agent.topology.fib import RoutingTable
from midonet.agent.topology.view import FibMatch, RouteView
from midonet.model.devices import NextHopKind
from midonet.model.ids import RouteId
from midonet.packets.addresses import IpVersion, parse_ip, parse_prefix


def route(number: int, destination: str, source: str | None = None, weight: int = 0) -> RouteView:
    parsed = parse_prefix(destination)
    any_source = "0.0.0.0/0" if parsed.version is IpVersion.V4 else "::/0"
    return RouteView(
        id=RouteId(UUID(int=number)),
        kind=NextHopKind.BLACKHOLE,
        source=parse_prefix(source or any_source),
        destination=parsed,
        next_hop_port_id=None,
        gateway=None,
        weight=weight,
    )


def look_up(table: RoutingTable, destination: str, source: str | None = None) -> FibMatch:
    parsed = parse_ip(destination)
    any_source = "203.0.113.1" if parsed.version is IpVersion.V4 else "2001:db8::1"
    return table.lookup(parsed.version, parse_ip(source or any_source).value, parsed.value)


def numbers(match: FibMatch) -> list[int]:
    return [found.id.int for found in match.routes]


def test_empty_table_matches_nothing_and_proves_it_with_no_bits() -> None:
    assert look_up(RoutingTable(), "10.0.0.1") == FibMatch((), 0, 0)


def test_longest_destination_wins() -> None:
    table = RoutingTable([route(1, "10.0.0.0/8"), route(2, "10.1.0.0/16"), route(3, "0.0.0.0/0")])
    assert numbers(look_up(table, "10.1.2.3")) == [2]
    assert numbers(look_up(table, "10.2.2.3")) == [1]
    assert numbers(look_up(table, "192.0.2.1")) == [3]


def test_least_weight_wins_and_equal_costs_come_in_order_of_id() -> None:
    table = RoutingTable(
        [
            route(7, "10.0.0.0/8", weight=5),
            route(3, "10.0.0.0/8", weight=5),
            route(1, "10.0.0.0/8", weight=9),
        ]
    )
    assert numbers(look_up(table, "10.1.2.3")) == [3, 7]


def test_falls_back_to_a_shorter_destination_when_no_source_matches() -> None:
    table = RoutingTable([route(1, "10.1.0.0/16", "192.168.0.0/16"), route(2, "10.0.0.0/8")])
    assert numbers(look_up(table, "10.1.2.3", "192.168.1.1")) == [1]
    match = look_up(table, "10.1.2.3", "172.16.0.1")
    assert numbers(match) == [2]
    assert match.source_proof == 2  # 172 and 192 differ in their second bit.


def test_destination_proof_keeps_out_of_more_specific_routes() -> None:
    table = RoutingTable([route(1, "0.0.0.0/0"), route(2, "10.1.2.0/24")])
    match = look_up(table, "10.1.3.1")
    assert numbers(match) == [1]
    assert match.destination_proof == 24
    assert look_up(table, "192.0.2.1").destination_proof == 1


def test_destination_proof_ignores_routes_of_other_sources() -> None:
    table = RoutingTable([route(1, "0.0.0.0/0"), route(2, "10.1.2.0/24", "192.0.2.0/24")])
    match = look_up(table, "10.1.2.9", "10.0.0.1")
    assert numbers(match) == [1]
    assert match.destination_proof == 0
    assert match.source_proof == 1


def test_versions_are_apart() -> None:
    table = RoutingTable([route(1, "0.0.0.0/0"), route(2, "2001:db8::/32")])
    assert numbers(look_up(table, "2001:db8::5")) == [2]
    assert numbers(look_up(table, "2001:db9::5")) == []
    assert look_up(table, "2001:db9::5").destination_proof == 32
    assert numbers(look_up(table, "10.0.0.1")) == [1]


def test_updated_replaces_a_route_of_the_same_id_and_leaves_the_old_table_alone() -> None:
    before = RoutingTable([route(number, f"10.{number}.0.0/16") for number in range(1, 60)])
    after = before.updated(removed=[RouteId(UUID(int=2))], added=[route(1, "10.200.0.0/16")])
    assert numbers(look_up(before, "10.1.0.1")) == [1]
    assert numbers(look_up(before, "10.2.0.1")) == [2]
    assert numbers(look_up(after, "10.1.0.1")) == []
    assert numbers(look_up(after, "10.2.0.1")) == []
    assert numbers(look_up(after, "10.200.0.1")) == [1]
    assert len(after) == len(before) - 1
