"""The underlay addresses of all hosts: where no tenant's packet may go."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from midonet.packets.addresses import IpAddress, IpVersion

_WIDTHS = {IpVersion.V4: 32, IpVersion.V6: 128}


@dataclass(frozen=True, slots=True)
class UnderlayAddresses:
    """Addresses as plain numbers, ascending, by version."""

    v4: tuple[int, ...] = ()
    v6: tuple[int, ...] = ()

    @classmethod
    def of(cls, addresses: Iterable[IpAddress]) -> UnderlayAddresses:
        """Return the set of some addresses."""
        values: dict[IpVersion, set[int]] = {IpVersion.V4: set(), IpVersion.V6: set()}
        for address in addresses:
            values[address.version].add(address.value)
        return cls(tuple(sorted(values[IpVersion.V4])), tuple(sorted(values[IpVersion.V6])))

    def all(self) -> frozenset[IpAddress]:
        """Return them all."""
        return frozenset(
            [IpAddress(IpVersion.V4, value) for value in self.v4]
            + [IpAddress(IpVersion.V6, value) for value in self.v6]
        )

    def proof_length(self, version: IpVersion, value: int) -> int:
        """Return how many leading bits of an address show that it is none of these.

        All of its bits, and they show the contrary, when it is one: see `in`.
        """
        among, width = (self.v4 if version is IpVersion.V4 else self.v6), _WIDTHS[version]
        at = bisect_left(among, value)
        # Of sorted numbers the neighbours share the longest prefix.
        shared = [width - (value ^ near).bit_length() for near in among[max(0, at - 1) : at + 1]]
        return min(max(shared, default=-1) + 1, width)

    def __contains__(self, address: IpAddress) -> bool:
        among = self.v4 if address.version is IpVersion.V4 else self.v6
        at = bisect_left(among, address.value)
        return at < len(among) and among[at] == address.value


NO_UNDERLAY = UnderlayAddresses()
