"""Which rules of a long chain can match a packet, so that only those are tried.

What a rule needs of a packet (`Need`) is read from its condition: the type of the frame, a
protocol, source and destination prefixes, one destination port. The rules of a chain are arranged
by these, in the order in which a condition tests them:

    class (type, protocol) -> source prefix -> destination prefix -> destination port -> rules

A packet leads to a few short lists of rules, in order of evaluation; all others are *passed over*.
The outcome is that of trying each rule in turn. What proves that the rules passed over before the
last one that was tried do not match is recorded when the search is over, as narrowly as
the tests would have done it: the shortest prefixes that keep out of those rules' prefixes, the
upper half of a port where no rule has a port like it, and nothing for rules behind the last one.

A rule whose condition is inverted, or whose test may find that something is missing before it
comes to these fields, is never passed over.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import NamedTuple

from midonet.agent.simulation.following import of_follower, translates_ports
from midonet.agent.simulation.header import (
    ETH_TYPE,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_SRC,
    L4_DST,
    PORT_PROTOCOLS,
)
from midonet.agent.simulation.walk import Walk
from midonet.agent.topology.view import ChainView, RuleView
from midonet.model.chains import NAT, Condition, PortRange, RuleAction, port_groups_of
from midonet.packets.addresses import IpVersion, parse_prefix
from midonet.packets.flowkey import FragmentKind

INDEXED_FROM = 24
"""Rules from which on a chain is indexed: trying fewer costs less than looking them up."""

PROOF_LIMIT = 64
"""Most neighbouring prefixes examined, in each direction, to find one of a rule that was passed
over. Past it the proof covers the nearest one not examined: sound, possibly not the shortest."""

_LEAF = 4
"""Rules that are not worth arranging further."""

_IP_TYPES = frozenset((ETH_TYPE_IPV4, ETH_TYPE_IPV6))
_TYPES_OF = {
    IpVersion.V4: frozenset((ETH_TYPE_IPV4, ETH_TYPE_ARP)),
    IpVersion.V6: frozenset((ETH_TYPE_IPV6,)),
}
_BITS = {ETH_TYPE_IPV4: 32, ETH_TYPE_ARP: 32, ETH_TYPE_IPV6: 128}
_OTHER = -1
_OTHER_WITH_PORTS = -2
_LATER = int(FragmentKind.LATER)
_MAY_CHANGE_HEADER = NAT | {RuleAction.JUMP}
_LOOKED_AT = (ETH_TYPE, IP_PROTO, IP_FRAG, IP_SRC, IP_DST, L4_DST)


class Need(NamedTuple):
    """What a packet must have for a rule to match; None of a part means anything.

    types: EtherTypes. source, destination: (address, length) of a prefix.
    port: the one destination port. has_ports: a transport header with ports.
    """

    types: frozenset[int] | None = None
    protocol: int | None = None
    has_ports: bool = False
    source: tuple[int, int] | None = None
    destination: tuple[int, int] | None = None
    port: int | None = None


ANYTHING = Need()


def need_of(condition: Condition) -> Need:
    """Return what a packet must have for the condition to be true."""
    if condition.inverted or port_groups_of(condition):
        return ANYTHING
    types: frozenset[int] | None = None
    if condition.eth_type is not None and not condition.eth_type_inverted:
        types = frozenset((condition.eth_type,))
    protocol = None if condition.ip_proto_inverted else condition.ip_proto
    has_ports = bool(
        (condition.l4_src is not None and not condition.l4_src_inverted)
        or (condition.l4_dst is not None and not condition.l4_dst_inverted)
    )
    is_tos = condition.ip_tos is not None and not condition.ip_tos_inverted
    if protocol is not None or has_ports or is_tos:
        types = _both(types, _IP_TYPES)
    prefixes: list[tuple[int, int] | None] = []
    for text, inverted in (
        (condition.ip_src, condition.ip_src_inverted),
        (condition.ip_dst, condition.ip_dst_inverted),
    ):
        prefixes.append(None)
        if text is not None and not inverted:
            prefix = parse_prefix(text if "/" in text else f"{text}/{128 if ':' in text else 32}")
            types = _both(types, _TYPES_OF[prefix.version])
            if prefix.length:
                prefixes[-1] = prefix.network, prefix.length
    port = None if condition.l4_dst_inverted else _single(condition.l4_dst)
    return Need(types, protocol, has_ports, prefixes[0], prefixes[1], port)


def _both(one: frozenset[int] | None, two: frozenset[int]) -> frozenset[int]:
    return two if one is None else one & two


def _single(ports: PortRange | None) -> int | None:
    return ports.start if ports is not None and ports.start == ports.end else None


@dataclass(slots=True)
class _Prefixes:
    """Rules by a prefix of one address, as positions in their chain.

    tables: (shift, table of addresses shifted right by it to what lies there).
    rest: what needs no such prefix. lowest: the least position of a rule that needs one.
    firsts, lasts: (address, least position) of each prefix's ends, ascending by address.
    """

    field: int
    bits: int
    tables: tuple[tuple[int, dict[int, _Node]], ...]
    rest: _Node
    lowest: int
    firsts: list[int]
    first_positions: list[int]
    lasts: list[int]
    last_positions: list[int]

    def proof(self, address: int, end: int) -> int:
        """Return how many leading bits keep an address out of the prefixes that it is not in of
        rules before `end`."""
        after = bisect_right(self.firsts, address)
        before = bisect_left(self.lasts, address)
        length = 0
        for edges, positions, order in (
            (self.firsts, self.first_positions, range(after, len(self.firsts))),
            (self.lasts, self.last_positions, range(before - 1, -1, -1)),
        ):
            for examined, place in enumerate(order):
                needed = self.bits + 1 - (address ^ edges[place]).bit_length()
                if needed <= length:
                    break  # This one and all further ones are kept out already.
                if positions[place] < end or examined >= PROOF_LIMIT:
                    length = needed
                    break
        return length


@dataclass(slots=True)
class _Ports:
    """Rules by their one destination port.

    blocks: least position of a rule for a port with that upper half. rest, lowest: as above.
    """

    ports: dict[int, _Node]
    rest: _Node
    lowest: int
    blocks: dict[int, int]


@dataclass(slots=True)
class _Tried:
    """Rules that are tried in any case, beside others."""

    positions: tuple[int, ...]
    rest: _Node


_Node = _Prefixes | _Ports | _Tried | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Class:
    """What packets of one type and protocol may match.

    other_type, other_protocol: least position of a rule that is out for its type, or for its
        protocol.
    """

    node: _Node
    other_type: int
    other_protocol: int


class RuleIndex:
    """The rules of a chain, arranged for each class of packets when the first of it comes."""

    def __init__(self, rules: Sequence[RuleView]) -> None:
        self._needs = [_cached_need(rule) for rule in rules]
        self._types = set(_BITS).union(
            *{need.types for need in self._needs if need.types is not None}
        )
        self._protocols = {need.protocol for need in self._needs}
        self._classes: dict[tuple[int, int], _Class] = {}

    def class_of(self, eth_type: int, protocol: int) -> _Class:
        """Return what a packet of this type and protocol may match."""
        kind = eth_type if eth_type in self._types else _OTHER
        if kind not in _IP_TYPES:
            protocol = _OTHER
        elif protocol not in self._protocols:
            protocol = _OTHER_WITH_PORTS if protocol in PORT_PROTOCOLS[kind] else _OTHER
        found = self._classes.get((kind, protocol))
        if found is None:
            found = self._classes[kind, protocol] = self._arrange(kind, protocol)
        return found

    def _arrange(self, kind: int, protocol: int) -> _Class:
        needs = self._needs
        end = len(needs)
        other_type = other_protocol = end
        has_ports = protocol == _OTHER_WITH_PORTS or protocol in PORT_PROTOCOLS.get(kind, ())
        possible = []
        for position, need in enumerate(needs):
            if need.types is not None and kind not in need.types:
                other_type = min(other_type, position)
            elif (need.protocol is not None and need.protocol != protocol) or (
                need.has_ports and not has_ports
            ):
                other_protocol = min(other_protocol, position)
            else:
                possible.append(position)
        return _Class(self._node(possible, _BITS.get(kind, 0), 0), other_type, other_protocol)

    def _node(self, members: list[int], bits: int, level: int) -> _Node:
        """Return these rules by what is tested at a level, then at the next ones."""
        if len(members) <= _LEAF or level > 2:
            return tuple(members)
        needs = self._needs
        part = level + 3
        groups: dict[object, list[int]] = {}
        rest: list[int] = []
        for position in members:
            value = needs[position][part]
            (rest if value is None else groups.setdefault(value, [])).append(position)
        if len(members) - len(rest) <= _LEAF:
            # Too few to look up. They are tried, not arranged by what would be tested later.
            few = tuple(sorted(set(members).difference(rest)))
            node = self._node(rest, bits, level + 1)
            return tuple(merge(few, node)) if isinstance(node, tuple) else _Tried(few, node)
        children = {value: self._node(group, bits, level + 1) for value, group in groups.items()}
        lowest = {value: group[0] for value, group in groups.items()}
        others = self._node(rest, bits, level + 1)
        if level == 2:
            return _ports(children, others, lowest)  # type: ignore[arg-type]
        return _prefixes((IP_SRC, IP_DST)[level], bits, children, others, lowest)  # type: ignore[arg-type]


def _prefixes(
    field: int,
    bits: int,
    children: dict[tuple[int, int], _Node],
    rest: _Node,
    lowest: dict[tuple[int, int], int],
) -> _Prefixes:
    tables: dict[int, dict[int, _Node]] = {}
    firsts = []
    lasts = []
    for prefix, child in children.items():
        network, length = prefix
        shift = bits - length
        tables.setdefault(shift, {})[network >> shift] = child
        firsts.append((network, lowest[prefix]))
        lasts.append((network | (1 << shift) - 1, lowest[prefix]))
    firsts.sort()
    lasts.sort()
    return _Prefixes(
        field,
        bits,
        tuple(tables.items()),
        rest,
        min(lowest.values()),
        [address for address, _ in firsts],
        [position for _, position in firsts],
        [address for address, _ in lasts],
        [position for _, position in lasts],
    )


def _ports(children: dict[int, _Node], rest: _Node, lowest: dict[int, int]) -> _Ports:
    blocks: dict[int, int] = {}
    for port, position in lowest.items():
        blocks[port >> 8] = min(position, blocks.get(port >> 8, position))
    return _Ports(children, rest, min(lowest.values()), blocks)


def _cached_need(rule: RuleView) -> Need:
    need = rule.compiled.need
    if need is None:
        condition = of_follower(rule.condition) if translates_ports(rule) else rule.condition
        need = rule.compiled.need = need_of(condition)
    assert isinstance(need, Need)
    return need


def index_of(chain: ChainView) -> RuleIndex:
    """Return the index of a chain; it is made once for each version of it."""
    index = chain.index.form
    if index is None:
        index = chain.index.form = RuleIndex(chain.rules)
    assert isinstance(index, RuleIndex)
    return index


class Search:
    """The rules of a chain that may match the packet of a walk, in order, while it is evaluated.

    A rule that translated the packet, or a chain that it jumped to, may lead to other rules than
    the packet before: the search then goes on with the packet as it is.
    """

    __slots__ = ("_chain", "_end", "_found", "_index", "_live", "_values", "_visited", "_walk")

    def __init__(self, walk: Walk, chain: ChainView) -> None:
        self._walk = walk
        self._chain = chain
        self._index = index_of(chain)
        self._look_up()

    def __iter__(self) -> Iterator[tuple[int, RuleView]]:
        """Yield rules with their positions from 1. `record` what was passed over at the end."""
        rules = self._chain.rules
        start = 0
        while True:
            for position in self._candidates(start):
                rule = rules[position]
                self._end = position
                yield position + 1, rule
                if rule.action in _MAY_CHANGE_HEADER and self._is_changed():
                    self.record()
                    self._look_up()
                    start = position + 1
                    break
            else:
                self._end = len(rules)
                return

    def _look_up(self) -> None:
        header = self._walk.header
        values = self._values = tuple(header.values)
        self._live = tuple(header.live)
        self._end = 0
        self._found = self._index.class_of(values[ETH_TYPE], values[IP_PROTO])
        self._visited: list[_Prefixes | _Ports] = []

    def _is_changed(self) -> bool:
        values, now = self._values, self._walk.header.values
        return any(values[field] != now[field] for field in _LOOKED_AT)

    def _candidates(self, start: int) -> Iterator[int]:
        lists: list[tuple[int, ...]] = []
        self._gather(self._found.node, lists)
        if start:
            lists = [one[bisect_left(one, start) :] for one in lists]
        if not lists:
            return iter(())
        return iter(lists[0]) if len(lists) == 1 else merge(*lists)

    def _gather(self, node: _Node, lists: list[tuple[int, ...]]) -> None:
        values = self._values
        while not isinstance(node, tuple):
            if isinstance(node, _Tried):
                if node.positions:
                    lists.append(node.positions)
                node = node.rest
                continue
            self._visited.append(node)
            if isinstance(node, _Prefixes):
                address = values[node.field]
                for shift, table in node.tables:
                    child = table.get(address >> shift)
                    if child is not None:
                        self._gather(child, lists)
            elif values[IP_FRAG] != _LATER:
                child = node.ports.get(values[L4_DST])
                if child is not None:
                    self._gather(child, lists)
            node = node.rest
        if node:
            lists.append(node)

    def record(self) -> None:
        """Enter what proves that the rules passed over so far do not match."""
        mask, live, values, end = self._walk.header.mask, self._live, self._values, self._end
        found = self._found
        if found.other_type < end or found.other_protocol < end:
            mask[ETH_TYPE] |= live[ETH_TYPE]
        if found.other_protocol < end:
            mask[IP_PROTO] |= live[IP_PROTO]
        for node in self._visited:
            if node.lowest >= end:
                continue
            mask[ETH_TYPE] |= live[ETH_TYPE]
            if isinstance(node, _Prefixes):
                proof = node.proof(values[node.field], end)
                mask[node.field] |= live[node.field] & (((1 << proof) - 1) << (node.bits - proof))
                continue
            mask[IP_PROTO] |= live[IP_PROTO]
            mask[IP_FRAG] |= live[IP_FRAG]
            if values[IP_FRAG] != _LATER:
                is_near = node.blocks.get(values[L4_DST] >> 8, end) < end
                mask[L4_DST] |= live[L4_DST] & (0xFFFF if is_near else 0xFF00)
