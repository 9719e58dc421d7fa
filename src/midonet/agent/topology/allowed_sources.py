"""What may be sent from a port with port security: MACs, each with its IP addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from midonet.agent.topology.address_set import AddressSet
from midonet.packets.addresses import IpPrefix

Pair = tuple[int, IpPrefix | None]
"""A MAC, and a prefix that it may send from; None for the MAC alone."""


class AllowedSources:
    """MACs with the addresses that each may use. Immutable; equal when the pairs are."""

    __slots__ = ("_by_mac", "_pairs")

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._pairs = frozenset(pairs)
        members: dict[int, list[IpPrefix]] = {}
        for mac, prefix in self._pairs:
            found = members.setdefault(mac, [])
            if prefix is not None:
                found.append(prefix)
        self._by_mac = {mac: AddressSet(found) for mac, found in members.items()}

    @property
    def pairs(self) -> frozenset[Pair]:
        """Return what it was made of."""
        return self._pairs

    def addresses_of(self, mac: int) -> AddressSet | None:
        """Return the addresses that a MAC may send from; None for a MAC that may not be used."""
        return self._by_mac.get(mac)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AllowedSources):
            return NotImplemented
        return self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)
