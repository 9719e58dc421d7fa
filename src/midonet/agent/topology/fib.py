"""The forwarding table of one router: longest destination, then source, then weight. Pure.

A table is immutable; `updated` makes the next one and shares what did not change. Destinations
are kept in one dictionary per prefix length, and their first and last addresses in two sorted
arrays: the more specific destination that comes closest to an address without containing it is
a neighbour there, and it alone decides how many leading bits prove the outcome.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from midonet.agent.topology.view import FibMatch, RouteView
from midonet.model.ids import RouteId
from midonet.packets.addresses import IpPrefix, IpVersion

NEIGHBOUR_LIMIT = 64
"""Most neighbouring destinations examined, in each direction, whose sources do not matter.

Past it the proof covers the nearest one not examined: still sound, possibly not the shortest.
"""

_REBUILD_FRACTION = 8
"""A change of more than one in this many routes rebuilds the table instead of editing it."""


class _Destination:
    """The routes of one destination prefix, in ascending order of (weight, id)."""

    __slots__ = ("best", "first", "last", "routes")

    def __init__(self, routes: Iterable[RouteView]) -> None:
        self.routes = tuple(sorted(routes, key=lambda route: (route.weight, route.id.int)))
        prefix = self.routes[0].destination
        self.first = prefix.network
        self.last = self.first | ((1 << (prefix.version.bits - prefix.length)) - 1)
        # None unless the source does not matter here.
        self.best: tuple[RouteView, ...] | None = None
        if not any(route.source.length for route in self.routes):
            weight = self.routes[0].weight
            self.best = tuple(route for route in self.routes if route.weight == weight)

    def matching(self, source: int, bits: int) -> tuple[RouteView, ...]:
        """Return the routes of least weight whose source contains `source`."""
        if self.best is not None:
            return self.best
        found: list[RouteView] = []
        for route in self.routes:
            if found and route.weight > found[0].weight:
                break
            if _shares(source, route.source.value, route.source.length, bits):
                found.append(route)
        return tuple(found)

    def source_proof(self, source: int, bits: int, matched: tuple[RouteView, ...]) -> int:
        """Return how many leading bits of `source` prove that `matched` is the outcome here."""
        if self.best is not None:
            return 0
        proof = 0
        for route in self.routes:
            if matched and route.weight > matched[0].weight:
                break
            length = route.source.length
            shared = _common_bits(source, route.source.value, bits)
            proof = max(proof, length if shared >= length else shared + 1)
        return proof

    def may_match(self, source: int, proof: int, bits: int) -> bool:
        """Tell whether a source that shares `proof` leading bits may match a route here."""
        return self.best is not None or any(
            _shares(source, route.source.value, min(proof, route.source.length), bits)
            for route in self.routes
        )


class _Family:
    """Destinations of one IP version.

    tables: (shift, table of networks shifted right by it), longest prefixes first.
    firsts, lasts: `address << 8 | shift` of all destinations, ascending.
    """

    __slots__ = ("bits", "firsts", "lasts", "tables")

    def __init__(self, bits: int, routes: Iterable[RouteView]) -> None:
        self.bits = bits
        grouped: dict[int, dict[int, list[RouteView]]] = defaultdict(lambda: defaultdict(list))
        for route in routes:
            shift = bits - route.destination.length
            grouped[shift][route.destination.value >> shift].append(route)
        self.tables = {
            shift: {network: _Destination(group) for network, group in grouped[shift].items()}
            for shift in sorted(grouped)
        }
        self.firsts = sorted(
            node.first << 8 | shift
            for shift, table in self.tables.items()
            for node in table.values()
        )
        self.lasts = sorted(
            node.last << 8 | shift
            for shift, table in self.tables.items()
            for node in table.values()
        )

    def updated(self, removed: Iterable[RouteView], added: Iterable[RouteView]) -> _Family:
        """Return a family without `removed` and with `added`."""
        gone = self._grouped(removed)
        new = self._grouped(added)
        family = _Family(self.bits, ())
        tables = dict(self.tables)
        family.firsts = list(self.firsts)
        family.lasts = list(self.lasts)
        copied: set[int] = set()
        for shift, network in gone.keys() | new.keys():
            if shift not in copied:
                tables[shift] = dict(tables.get(shift, ()))
                copied.add(shift)
            dropped = {route.id for route in gone.get((shift, network), ())}
            present = tables[shift].get(network)
            routes = [
                route for route in (present.routes if present else ()) if route.id not in dropped
            ]
            family._replace(tables[shift], shift, network, routes + new.get((shift, network), []))
        family.tables = {shift: tables[shift] for shift in sorted(tables) if tables[shift]}
        return family

    def _grouped(self, routes: Iterable[RouteView]) -> dict[tuple[int, int], list[RouteView]]:
        grouped: dict[tuple[int, int], list[RouteView]] = defaultdict(list)
        for route in routes:
            shift = self.bits - route.destination.length
            grouped[shift, route.destination.value >> shift].append(route)
        return grouped

    def _replace(
        self, table: dict[int, _Destination], shift: int, network: int, routes: list[RouteView]
    ) -> None:
        was_present = table.pop(network, None) is not None
        first = network << shift + 8 | shift
        last = (network << shift | ((1 << shift) - 1)) << 8 | shift
        if was_present and not routes:
            del self.firsts[bisect_left(self.firsts, first)]
            del self.lasts[bisect_left(self.lasts, last)]
        elif routes and not was_present:
            insort(self.firsts, first)
            insort(self.lasts, last)
        if routes:
            table[network] = _Destination(routes)

    def lookup(self, source: int, destination: int) -> FibMatch:
        """Find the routes, and the leading bits that prove them."""
        bits = self.bits
        source_proof = 0
        matched: tuple[RouteView, ...] = ()
        length = 0
        for shift, table in self.tables.items():
            node = table.get(destination >> shift)
            if node is None:
                continue
            if node.best is not None:
                matched = node.best
                length = bits - shift
                break
            matched = node.matching(source, bits)
            source_proof = max(source_proof, node.source_proof(source, bits, matched))
            if matched:
                length = bits - shift
                break
        proof = self._destination_proof(source, source_proof, destination, length)
        return FibMatch(matched, proof, source_proof)

    def _destination_proof(
        self, source: int, source_proof: int, destination: int, length: int
    ) -> int:
        """Return the shortest proof of at least `length` bits that keeps out of every other
        destination that could match."""
        bits = self.bits
        firsts = self.firsts
        lasts = self.lasts
        after = bisect_right(firsts, destination << 8 | 0xFF)
        before = bisect_left(lasts, destination << 8)
        for edges, order in (
            (firsts, range(after, len(firsts))),
            (lasts, range(before - 1, -1, -1)),
        ):
            for examined, index in enumerate(order):
                edge = edges[index]
                proof = bits - (destination ^ edge >> 8).bit_length() + 1
                if proof <= length:
                    break  # This one and all further ones are kept out already.
                shift = edge & 0xFF
                node = self.tables[shift][edge >> 8 + shift]
                if (
                    node.best is not None
                    or examined >= NEIGHBOUR_LIMIT
                    or node.may_match(source, source_proof, bits)
                ):
                    length = proof
                    break
        return length


class RoutingTable:
    """Usable routes of one router, for both IP versions. Immutable; implements `Fib`."""

    __slots__ = ("_changed", "_families", "_mark", "_origin", "_routes")

    def __init__(self, routes: Iterable[RouteView] = ()) -> None:
        self._mark = object()
        self._origin: object = None
        self._changed: frozenset[IpPrefix] = frozenset()
        self._routes: Mapping[RouteId, RouteView] = {route.id: route for route in routes}
        self._families = {
            version: _Family(version.bits, _of_version(version, self._routes.values()))
            for version in IpVersion
        }

    def lookup(self, version: IpVersion, source: int, destination: int) -> FibMatch:
        """Find the routes for a packet; see `Fib.lookup` and `FibMatch`.

        source_proof is the shortest of all sound ones; destination_proof the shortest that is
        sound together with it (see `NEIGHBOUR_LIMIT` for the one exception).
        """
        return self._families[version].lookup(source, destination)

    def updated(
        self, *, removed: Iterable[RouteId] = (), added: Iterable[RouteView] = ()
    ) -> RoutingTable:
        """Return a table without the routes `removed` and with `added`, which replace routes of
        the same id. Unknown ids are ignored."""
        routes = dict(self._routes)
        dropped = [route for route_id in removed if (route := routes.pop(route_id, None))]
        new = list(added)
        for route in new:
            if (replaced := routes.get(route.id)) is not None:
                dropped.append(replaced)
            routes[route.id] = route
        if (len(dropped) + len(new)) * _REBUILD_FRACTION > len(routes):
            return RoutingTable(routes.values())
        table = RoutingTable()
        table._routes = routes
        table._families = {
            version: family.updated(_of_version(version, dropped), _of_version(version, new))
            for version, family in self._families.items()
        }
        # The mark, not the table: a table does not keep those before it alive.
        table._origin = self._mark
        table._changed = frozenset(
            route.destination
            for route in (*dropped, *new)
            if self._routes.get(route.id) != routes.get(route.id)
        )
        return table

    def changed_destinations(self, other: RoutingTable) -> set[IpPrefix]:
        """Return the destinations of routes that are in one table and not in the other."""
        if other._origin is self._mark:
            return set(other._changed)
        changed: set[IpPrefix] = set()
        for one, two in ((self._routes, other._routes), (other._routes, self._routes)):
            for route_id, route in one.items():
                counterpart = two.get(route_id)
                if counterpart is not route and counterpart != route:
                    changed.add(route.destination)
        return changed

    def __iter__(self) -> Iterator[RouteView]:
        return iter(self._routes.values())

    def __len__(self) -> int:
        return len(self._routes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RoutingTable):
            return NotImplemented
        return self._routes == other._routes

    def __hash__(self) -> int:
        return hash(frozenset(self._routes))


def _of_version(version: IpVersion, routes: Iterable[RouteView]) -> list[RouteView]:
    return [route for route in routes if route.destination.version is version]


def _common_bits(left: int, right: int, bits: int) -> int:
    """Return how many leading bits two addresses share."""
    return bits - (left ^ right).bit_length()


def _shares(left: int, right: int, length: int, bits: int) -> bool:
    """Tell whether two addresses share `length` leading bits."""
    return not (left ^ right) >> (bits - length)
