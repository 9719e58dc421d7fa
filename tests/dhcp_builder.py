"""What bridges of the small networks serve by DHCP and DHCPv6, in few words.

world.dhcp_subnet("b", "10.0.1.0/24", gateway="10.0.1.1")
world.dhcp_client("b", "10.0.1.0/24", "02:00:00:00:00:01", "10.0.1.5")
"""

from __future__ import annotations

from typing import Any, Self
from uuid import UUID

from midonet.agent.topology.dhcp_assembly import lease, lease_v6, subnet_v6_view, subnet_view
from midonet.agent.topology.dhcp_views import BridgeDhcp, Served
from midonet.model.dhcp import (
    DhcpExtraOption,
    DhcpHost,
    DhcpRoute,
    DhcpSubnet,
    DhcpV6Host,
    DhcpV6Subnet,
    dhcp_host_id,
    dhcp_v6_host_id,
)
from midonet.model.ids import BridgeId


class DhcpBuilder:
    """The part of a world that is about DHCP. dhcp: the stored objects, by id."""

    def __init__(self) -> None:
        self.dhcp: dict[UUID, DhcpSubnet | DhcpHost | DhcpV6Subnet | DhcpV6Host] = {}

    def id(self, name: str) -> UUID:
        """Return the identifier of the object with a name."""
        raise NotImplementedError

    def dhcp_subnet(
        self,
        bridge: str,
        prefix: str,
        *,
        gateway: str | None = None,
        server: str | None = None,
        dns: tuple[str, ...] = (),
        mtu: int = 0,
        routes: tuple[tuple[str, str], ...] = (),
        enabled: bool = True,
    ) -> Self:
        """Let a bridge serve an IPv4 subnet. routes: destinations with their next hops."""
        subnet_id = self.id(f"{bridge} {prefix}")
        self.dhcp[subnet_id] = DhcpSubnet(
            id=subnet_id,
            bridge_id=BridgeId(self.id(bridge)),
            prefix=prefix,
            server_address=server,
            gateway=gateway,
            dns_addresses=dns,
            mtu_bytes=mtu,
            routes=tuple(DhcpRoute(destination=one, gateway=hop) for one, hop in routes),
            is_enabled=enabled,
        )
        return self

    def dhcp_client(
        self, bridge: str, prefix: str, mac: str, address: str | None, **options: str
    ) -> Self:
        """Enter a client of a subnet. options: extra ones, `_` for `-` in their names."""
        subnet_id = self.id(f"{bridge} {prefix}")
        host_id = dhcp_host_id(subnet_id, mac)
        self.dhcp[host_id] = DhcpHost(
            id=host_id,
            subnet_id=subnet_id,
            mac=mac,
            address=address,
            options=tuple(
                DhcpExtraOption(name=name.strip("_").replace("_", "-"), value=value)
                for name, value in options.items()
            ),
        )
        return self

    def dhcp_v6_subnet(
        self,
        bridge: str,
        prefix: str,
        *,
        dns: tuple[str, ...] = (),
        domains: tuple[str, ...] = (),
        enabled: bool = True,
    ) -> Self:
        """Let a bridge serve an IPv6 subnet."""
        subnet_id = self.id(f"{bridge} {prefix}")
        self.dhcp[subnet_id] = DhcpV6Subnet(
            id=subnet_id,
            bridge_id=BridgeId(self.id(bridge)),
            prefix=prefix,
            dns_addresses=dns,
            domains=domains,
            is_enabled=enabled,
        )
        return self

    def dhcp_v6_client(self, bridge: str, prefix: str, client: str, address: str | None) -> Self:
        """Enter a client of a subnet by its DUID or MAC."""
        subnet_id = self.id(f"{bridge} {prefix}")
        host_id = dhcp_v6_host_id(subnet_id, client)
        self.dhcp[host_id] = DhcpV6Host(
            id=host_id, subnet_id=subnet_id, client_id=client, address=address
        )
        return self

    def served_dhcp(self) -> dict[BridgeId, BridgeDhcp]:
        """Return what bridges serve, read as the agent reads it."""
        families: dict[BridgeId, tuple[Any, Any, Any, Any]] = {}
        bridges: dict[UUID, BridgeId] = {}
        for one in self.dhcp.values():
            if isinstance(one, DhcpSubnet | DhcpV6Subnet):
                bridges[one.id] = one.bridge_id
                parts = families.setdefault(one.bridge_id, ({}, {}, {}, {}))
                if isinstance(one, DhcpSubnet):
                    parts[0][one.id] = subnet_view(one)
                else:
                    parts[2][one.id] = subnet_v6_view(one)
        for host in self.dhcp.values():
            if isinstance(host, DhcpHost | DhcpV6Host):
                is_v4 = isinstance(host, DhcpHost)
                entry = lease(host) if isinstance(host, DhcpHost) else lease_v6(host)
                leases = families[bridges[host.subnet_id]][1 if is_v4 else 3]
                if entry is not None:
                    leases[entry[0]] = (*leases.get(entry[0], ()), entry[1])
        return {
            bridge_id: BridgeDhcp(Served(parts[0], parts[1]), Served(parts[2], parts[3]))
            for bridge_id, parts in families.items()
        }
