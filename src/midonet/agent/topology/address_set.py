"""The members of one IP address group: whether an address is among them, and why. Pure.

Members are addresses and prefixes, which may lie within each other. What decides is their union,
kept as the sorted ranges of addresses that it covers: an address lies in a range or in the gap
between two, and the shortest prefix of it that stays inside proves the answer. A set is
immutable; `updated` makes the next one, at the cost of copying three lists.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from midonet.packets.addresses import IpPrefix, IpVersion

_LENGTH_BITS = 8
_REBUILD_FRACTION = 8
"""A change of more than one in this many members rebuilds the ranges instead of editing them."""


class Membership(NamedTuple):
    """Outcome of a look-up.

    proof: prefix length in bits; every address that shares that many leading bits with the one
        that was looked up has the same answer. No shorter prefix has this property.
    """

    is_member: bool
    proof: int


class _Family:
    """Members of one IP version.

    codes: `network << 8 | length` of each member, ascending.
    firsts, lasts: ends of the ranges that they cover, ascending; no two ranges touch.
    """

    __slots__ = ("bits", "codes", "firsts", "lasts")

    def __init__(self, bits: int, codes: Iterable[int] = ()) -> None:
        self.bits = bits
        self.codes = sorted(codes)
        self.firsts, self.lasts = self._ranges(self.codes)

    def _ranges(self, codes: Iterable[int]) -> tuple[list[int], list[int]]:
        """Return the ranges that members in ascending order cover."""
        firsts: list[int] = []
        lasts: list[int] = []
        for code in codes:
            first, last = self._span(code)
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(last, lasts[-1])
            else:
                firsts.append(first)
                lasts.append(last)
        return firsts, lasts

    def _span(self, code: int) -> tuple[int, int]:
        first = code >> _LENGTH_BITS
        return first, first | (1 << self.bits - (code & 0xFF)) - 1

    def updated(self, removed: set[int], added: set[int]) -> _Family:
        """Return a family without `removed`, which are members, and with `added`, which are not."""
        if (len(removed) + len(added)) * _REBUILD_FRACTION > len(self.codes):
            return _Family(self.bits, (set(self.codes) - removed) | added)
        family = _Family(self.bits)
        family.codes = self.codes[:]
        family.firsts, family.lasts = self.firsts[:], self.lasts[:]
        for code in removed:
            family._remove(code)
        for code in added:
            family._add(code)
        return family

    def _remove(self, code: int) -> None:
        del self.codes[bisect_left(self.codes, code)]
        first, _ = self._span(code)
        place = bisect_left(self.lasts, first)
        low = bisect_left(self.codes, self.firsts[place] << _LENGTH_BITS)
        high = bisect_right(self.codes, self.lasts[place] << _LENGTH_BITS | 0xFF)
        firsts, lasts = self._ranges(self.codes[low:high])
        self.firsts[place : place + 1] = firsts
        self.lasts[place : place + 1] = lasts

    def _add(self, code: int) -> None:
        insort(self.codes, code)
        first, last = self._span(code)
        low = bisect_left(self.lasts, first - 1)
        high = bisect_right(self.firsts, last + 1)
        if low < high:
            first = min(first, self.firsts[low])
            last = max(last, self.lasts[high - 1])
        self.firsts[low:high] = [first]
        self.lasts[low:high] = [last]

    def holds(self, code: int) -> bool:
        """Tell whether this very prefix is a member."""
        place = bisect_left(self.codes, code)
        return place < len(self.codes) and self.codes[place] == code

    def lookup(self, address: int) -> Membership:
        """Find an address, and the shortest prefix of it that has one answer."""
        place = bisect_right(self.firsts, address) - 1
        is_member = place >= 0 and address <= self.lasts[place]
        # The nearest address on each side whose answer is the other one, if there is any.
        below, above = -1, 1 << self.bits
        if is_member:
            below, above = self.firsts[place] - 1, self.lasts[place] + 1
        else:
            if place >= 0:
                below = self.lasts[place]
            if place + 1 < len(self.firsts):
                above = self.firsts[place + 1]
        proof = 0
        if below >= 0:
            proof = self.bits + 1 - (address ^ below).bit_length()
        if not above >> self.bits:
            proof = max(proof, self.bits + 1 - (address ^ above).bit_length())
        return Membership(is_member, proof)


def _code(prefix: IpPrefix) -> int:
    return prefix.network << _LENGTH_BITS | prefix.length


class AddressSet:
    """Addresses and prefixes of both IP versions. Immutable."""

    __slots__ = ("_changed", "_families", "_mark", "_origin")

    def __init__(self, members: Iterable[IpPrefix] = ()) -> None:
        self._mark = object()
        self._origin: object = None
        self._changed: tuple[IpPrefix, ...] = ()
        codes: dict[IpVersion, set[int]] = {version: set() for version in IpVersion}
        for prefix in members:
            codes[prefix.version].add(_code(prefix))
        self._families = {version: _Family(version.bits, found) for version, found in codes.items()}

    def lookup(self, version: IpVersion, address: int) -> Membership:
        """Tell whether an address is a member or in one, with the proof."""
        return self._families[version].lookup(address)

    def updated(
        self, *, removed: Iterable[IpPrefix] = (), added: Iterable[IpPrefix] = ()
    ) -> AddressSet:
        """Return a set without `removed` and with `added`; what is (not) there already is left."""
        gone: dict[IpVersion, set[int]] = {version: set() for version in IpVersion}
        new: dict[IpVersion, set[int]] = {version: set() for version in IpVersion}
        changed: dict[tuple[IpVersion, int], IpPrefix] = {}
        for into, prefixes, was_member in ((gone, removed, True), (new, added, False)):
            for prefix in prefixes:
                code = _code(prefix)
                if self._families[prefix.version].holds(code) is was_member:
                    into[prefix.version].add(code)
                    changed[prefix.version, code] = prefix
        following = AddressSet()
        following._families = {
            version: family.updated(gone[version], new[version])
            for version, family in self._families.items()
        }
        # The mark, not the set: a set does not keep those before it alive.
        following._origin = self._mark
        following._changed = tuple(changed.values())
        return following

    def changed_members(self, other: AddressSet) -> set[IpPrefix]:
        """Return the prefixes that are members of one set and not of the other."""
        if other._origin is self._mark:
            return set(other._changed)
        return set(self) ^ set(other)

    def __iter__(self) -> Iterator[IpPrefix]:
        for version, family in self._families.items():
            for code in family.codes:
                yield IpPrefix(version, code >> _LENGTH_BITS, code & 0xFF)

    def __len__(self) -> int:
        return sum(len(family.codes) for family in self._families.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AddressSet):
            return NotImplemented
        return all(
            family.codes == other._families[version].codes
            for version, family in self._families.items()
        )

    def __hash__(self) -> int:
        return hash(len(self))
