"""From a changed fact to the programs that depend on it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Protocol

from midonet.agent.flows.tags import FlowTag, RouteRegion
from midonet.model.ids import ObjectId
from midonet.packets.addresses import IpVersion, prefix_mask


class Dependent(Protocol):
    """What depends on facts; a flow program is one."""

    @property
    def tags(self) -> frozenset[FlowTag]: ...

    @property
    def regions(self) -> frozenset[RouteRegion]: ...


def regions_overlap(first: RouteRegion, second: RouteRegion) -> bool:
    """Tell whether two regions of one owner and version share an address.

    Two prefixes do exactly when one contains the other.
    """
    if first.owner_id != second.owner_id or first.version != second.version:
        return False
    shared = prefix_mask(first.version, min(first.length, second.length))
    return (first.value ^ second.value) & shared == 0


class _RegionSet:
    """The regions of one owner and IP version, as (network, length) with their programs."""

    def __init__(self, version: IpVersion) -> None:
        self._version = version
        self._members: dict[tuple[int, int], set[int]] = {}
        self._ordered: list[tuple[int, int]] = []
        self._by_length: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._members)

    def add(self, value: int, length: int, program_id: int) -> None:
        prefix = (value & prefix_mask(self._version, length), length)
        members = self._members.get(prefix)
        if members is None:
            members = self._members[prefix] = set()
            insort(self._ordered, prefix)
            self._by_length[length] = self._by_length.get(length, 0) + 1
        members.add(program_id)

    def discard(self, value: int, length: int, program_id: int) -> None:
        prefix = (value & prefix_mask(self._version, length), length)
        members = self._members.get(prefix)
        if members is None:
            return
        members.discard(program_id)
        if members:
            return
        del self._members[prefix]
        del self._ordered[bisect_left(self._ordered, prefix)]
        self._by_length[length] -= 1
        if not self._by_length[length]:
            del self._by_length[length]

    def overlapping(self, value: int, length: int) -> Iterator[set[int]]:
        """Yield the members of every prefix that contains `value/length` or lies in it."""
        for shorter in self._by_length:
            if shorter < length:
                members = self._members.get((value & prefix_mask(self._version, shorter), shorter))
                if members is not None:
                    yield members
        first = value & prefix_mask(self._version, length)
        behind = first + (1 << (self._version.bits - length))
        # Shorter prefixes with the same network sort before (first, length): they are above.
        start = bisect_left(self._ordered, (first, length))
        end = bisect_left(self._ordered, (behind, 0))
        for prefix in self._ordered[start:end]:
            yield self._members[prefix]


class TagIndex:
    """Programs by tag, and by overlap with a region. Programs are known by their id."""

    def __init__(self) -> None:
        # Most tags are of one program, and a set for each would be most of the index.
        self._by_tag: dict[FlowTag, int | set[int]] = {}
        self._by_owner: dict[tuple[ObjectId, IpVersion], _RegionSet] = {}

    def add(self, program_id: int, facts: Dependent) -> None:
        """Remember what `program_id` depends on."""
        for tag in facts.tags:
            members = self._by_tag.get(tag)
            if members is None:
                self._by_tag[tag] = program_id
            elif isinstance(members, set):
                members.add(program_id)
            elif members != program_id:
                self._by_tag[tag] = {members, program_id}
        for owner_id, version, value, length in facts.regions:
            regions = self._by_owner.get((owner_id, version))
            if regions is None:
                regions = self._by_owner[owner_id, version] = _RegionSet(version)
            regions.add(value, length, program_id)

    def discard(self, program_id: int, facts: Dependent) -> None:
        """Forget `program_id`, which was added with the same `facts`."""
        for tag in facts.tags:
            members = self._by_tag.get(tag)
            if isinstance(members, set):
                members.discard(program_id)
            if members in (program_id, set()):
                del self._by_tag[tag]
        for owner_id, version, value, length in facts.regions:
            regions = self._by_owner.get((owner_id, version))
            if regions is None:
                continue
            regions.discard(value, length, program_id)
            if not regions:
                del self._by_owner[owner_id, version]

    def dependents(self, tags: Iterable[FlowTag], regions: Iterable[RouteRegion]) -> set[int]:
        """Return the programs that depend on any of `tags` or overlap any of `regions`."""
        found: set[int] = set()
        for tag in tags:
            members = self._by_tag.get(tag)
            if isinstance(members, set):
                found |= members
            elif members is not None:
                found.add(members)
        for owner_id, version, value, length in regions:
            known = self._by_owner.get((owner_id, version))
            if known is not None:
                found.update(*known.overlapping(value, length))
        return found

    def __len__(self) -> int:
        """Return the number of distinct facts that some program depends on."""
        return len(self._by_tag) + len(self._by_owner)
