"""What simulation knows of the DHCP and DHCPv6 of a bridge. Pure, immutable."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from midonet.model.dhcp_options import EncodedOption
from midonet.model.ids import ObjectId
from midonet.packets.addresses import IpPrefix


class _Subnet(Protocol):
    @property
    def prefix(self) -> IpPrefix: ...

    @property
    def is_enabled(self) -> bool: ...


class _Lease(Protocol):
    @property
    def subnet_id(self) -> ObjectId: ...


K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=_Subnet)
L = TypeVar("L", bound=_Lease)


@dataclass(frozen=True, slots=True)
class DhcpSubnetView:
    """An IPv4 subnet. Addresses are 32-bit numbers.

    server: 0 when it has none. routes: destinations with their next hops.
    mtu_bytes: 0 for the usual one.
    """

    prefix: IpPrefix
    server: int = 0
    gateway: int | None = None
    dns: tuple[int, ...] = ()
    mtu_bytes: int = 0
    routes: tuple[tuple[IpPrefix, int], ...] = ()
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class DhcpLease:
    """What one client is given in a subnet."""

    subnet_id: ObjectId
    address: int
    options: tuple[EncodedOption, ...] = ()


@dataclass(frozen=True, slots=True)
class DhcpV6SubnetView:
    """An IPv6 subnet. Addresses are 128-bit numbers, domains well-formed names."""

    prefix: IpPrefix
    dns: tuple[int, ...] = ()
    domains: tuple[str, ...] = ()
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class DhcpV6Lease:
    """What one client is given in a subnet."""

    subnet_id: ObjectId
    address: int


@dataclass(frozen=True, slots=True)
class Served(Generic[K, S, L]):
    """Subnets of a bridge in one IP version, and what their clients are given.

    leases: by client; a client may have one in each of several subnets.
    """

    subnets: Mapping[ObjectId, S] = field(default_factory=dict)
    leases: Mapping[K, tuple[L, ...]] = field(default_factory=dict)

    def lease_of(self, client: K) -> tuple[S, L] | None:
        """Return the subnet and lease of a client: of several the one with the lowest prefix.

        Subnets that are not enabled count as if they were not there.
        """
        found = [
            (subnet, lease)
            for lease in self.leases.get(client, ())
            if (subnet := self.subnets.get(lease.subnet_id)) is not None and subnet.is_enabled
        ]
        return min(found, key=lambda pair: pair[0].prefix, default=None)


@dataclass(frozen=True, slots=True)
class BridgeDhcp:
    """What a bridge serves.

    v4: clients by MAC, a 48-bit number. v6: by DUID, or by the six bytes of their MAC.
    """

    v4: Served[int, DhcpSubnetView, DhcpLease] = field(default_factory=Served)
    v6: Served[bytes, DhcpV6SubnetView, DhcpV6Lease] = field(default_factory=Served)


def changed_clients(before: BridgeDhcp, after: BridgeDhcp) -> set[int]:
    """Return the MACs of DHCP clients that are given something else."""
    old, new = before.v4.leases, after.v4.leases
    if old is new:
        return set()
    return {mac for mac in old.keys() | new.keys() if old.get(mac) != new.get(mac)}


def are_subnets_changed(before: BridgeDhcp, after: BridgeDhcp) -> bool:
    """Tell whether the subnets differ: then any client may be served, or not any more."""
    return before.v4.subnets != after.v4.subnets or before.v6.subnets != after.v6.subnets
