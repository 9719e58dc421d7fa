"""The forwarding table against a naive reference, and the soundness of its proofs."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from midonet.agent.topology.fib import RoutingTable
from midonet.agent.topology.view import RouteView
from midonet.model.devices import NextHopKind
from midonet.model.ids import RouteId
from midonet.packets.addresses import IpPrefix, IpVersion, prefix_mask

V4, V6 = IpVersion.V4, IpVersion.V6


def addresses(version: IpVersion) -> st.SearchStrategy[int]:
    """Few distinct leading and trailing bits, so that prefixes nest and collide."""
    edge = 4
    top = version.bits - edge
    return st.builds(
        lambda high, low: high << top | low, st.integers(0, 15), st.integers(0, 15)
    ) | st.integers(0, (1 << version.bits) - 1)


def prefixes(version: IpVersion) -> st.SearchStrategy[IpPrefix]:
    lengths = st.integers(0, 6) | st.integers(version.bits - 6, version.bits)
    return st.builds(
        lambda value, length: IpPrefix(version, value & prefix_mask(version, length), length),
        addresses(version),
        lengths,
    )


def sources(version: IpVersion) -> st.SearchStrategy[IpPrefix]:
    return st.just(IpPrefix(version, 0, 0)) | prefixes(version)


@st.composite
def routes(draw: st.DrawFn, version: IpVersion, first_id: int = 1) -> list[RouteView]:
    specs = draw(
        st.lists(st.tuples(sources(version), prefixes(version), st.integers(0, 2)), max_size=10)
    )
    return [
        RouteView(
            id=RouteId(UUID(int=first_id + index)),
            kind=NextHopKind.BLACKHOLE,
            source=source,
            destination=destination,
            next_hop_port_id=None,
            gateway=None,
            weight=weight,
        )
        for index, (source, destination, weight) in enumerate(specs)
    ]


def contains(prefix: IpPrefix, value: int) -> bool:
    return (prefix.value ^ value) & prefix_mask(prefix.version, prefix.length) == 0


def naive(table: list[RouteView], source: int, destination: int) -> tuple[RouteView, ...]:
    matching = [
        route
        for route in table
        if contains(route.destination, destination) and contains(route.source, source)
    ]
    longest = max((route.destination.length for route in matching), default=0)
    matching = [route for route in matching if route.destination.length == longest]
    least = min((route.weight for route in matching), default=0)
    return tuple(sorted((r for r in matching if r.weight == least), key=lambda route: route.id.int))


def sharing(version: IpVersion, value: int, bits: int, other: int) -> int:
    """Return `other` with its leading `bits` bits replaced by those of `value`."""
    mask = prefix_mask(version, bits)
    return value & mask | other & ~mask


def interesting(table: list[RouteView], version: IpVersion) -> tuple[list[int], list[int]]:
    """Return first and last addresses of every prefix: where outcomes change."""
    source_edges = [0]
    destination_edges = [0]
    for route in table:
        for edges, prefix in (
            (source_edges, route.source),
            (destination_edges, route.destination),
        ):
            edges.append(prefix.value)
            edges.append(prefix.value | ~prefix_mask(version, prefix.length) & _all(version))
    return source_edges, destination_edges


def _all(version: IpVersion) -> int:
    return (1 << version.bits) - 1


@st.composite
def cases(draw: st.DrawFn) -> tuple[IpVersion, list[RouteView], int, int]:
    version = draw(st.sampled_from(list(IpVersion)))
    return (
        version,
        draw(routes(version)),
        draw(addresses(version)),
        draw(addresses(version)),
    )


@given(cases())
@settings(max_examples=150)
def test_lookup_equals_naive_reference(case: tuple[IpVersion, list[RouteView], int, int]) -> None:
    version, table, source, destination = case
    match = RoutingTable(table).lookup(version, source, destination)
    assert match.routes == naive(table, source, destination)


@given(cases())
@settings(max_examples=150)
def test_packets_inside_the_proof_get_the_same_routes(
    case: tuple[IpVersion, list[RouteView], int, int],
) -> None:
    version, table, source, destination = case
    match = RoutingTable(table).lookup(version, source, destination)
    source_edges, destination_edges = interesting(table, version)
    for other_source in source_edges:
        near_source = sharing(version, source, match.source_proof, other_source)
        for other_destination in destination_edges:
            near = sharing(version, destination, match.destination_proof, other_destination)
            assert naive(table, near_source, near) == match.routes


@given(cases())
@settings(max_examples=150)
def test_neither_proof_can_be_shorter(
    case: tuple[IpVersion, list[RouteView], int, int],
) -> None:
    version, table, source, destination = case
    match = RoutingTable(table).lookup(version, source, destination)
    source_edges, destination_edges = interesting(table, version)

    def has_other_outcome(source_bits: int, destination_bits: int) -> bool:
        return any(
            naive(
                table,
                sharing(version, source, source_bits, other_source),
                sharing(version, destination, destination_bits, other_destination),
            )
            != match.routes
            for other_source in [*source_edges, source, ~source & _all(version)]
            for other_destination in [
                *destination_edges,
                destination,
                ~destination & _all(version),
            ]
        )

    if match.source_proof:
        assert has_other_outcome(match.source_proof - 1, match.destination_proof)
    if match.destination_proof:
        assert has_other_outcome(match.source_proof, match.destination_proof - 1)


@given(
    st.sampled_from(list(IpVersion)).flatmap(
        lambda version: st.tuples(
            st.just(version),
            routes(version),
            routes(version, 100),
            addresses(version),
            addresses(version),
            st.integers(0, 2**14 - 1),
        )
    )
)
@settings(max_examples=100)
def test_updated_table_equals_one_built_anew(
    case: tuple[IpVersion, list[RouteView], list[RouteView], int, int, int],
) -> None:
    version, before, added, source, destination, removed_bits = case
    removed = [route for index, route in enumerate(before) if removed_bits >> index & 1]
    # Ballast keeps the change small against the table, so that it is edited in place.
    ballast = [
        RouteView(
            id=RouteId(UUID(int=1000 + index)),
            kind=NextHopKind.BLACKHOLE,
            source=IpPrefix(version, 0, 0),
            destination=IpPrefix(version, (0xF << 200 | index << 8) & _all(version), version.bits),
            next_hop_port_id=None,
            gateway=None,
            weight=0,
        )
        for index in range(250)
    ]
    table = RoutingTable(before + ballast)
    edited = table.updated(removed=[route.id for route in removed], added=added)
    rebuilt = RoutingTable([r for r in before if r not in removed] + added + ballast)
    assert edited == rebuilt
    assert table.changed_destinations(edited) == table.changed_destinations(rebuilt)
    assert edited.lookup(version, source, destination) == rebuilt.lookup(
        version, source, destination
    )
