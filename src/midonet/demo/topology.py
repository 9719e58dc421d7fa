"""The demo's virtual networks, built through REST as an operator would.

Two tenants with the same addresses. Each has a router and two bridges, dual stack:

    tenant red                                  tenant blue (same addresses)
    bridge one  10.0.1.0/24  fd00:0:1::/64      bridge one
    bridge two  10.0.2.0/24  fd00:0:2::/64      bridge two
    router      .1 and ::1 on both              router
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from midonet.client import MidoNetClient
from midonet.demo.lab import Lab, LabHost, VirtualMachine
from midonet.model.hosts import TunnelKind
from midonet.model.schema_devices import BridgeResource, RouteResource, RouterResource
from midonet.model.schema_hosts import (
    BindingResource,
    HostResource,
    TunnelZoneHostResource,
    TunnelZoneResource,
)
from midonet.model.schema_ports import PortResource


@dataclass(slots=True)
class Segment:
    """One bridge with the router port of its subnet."""

    number: int
    bridge: BridgeResource
    uplink: PortResource
    router_port: PortResource

    def subnet_address(self, host: int) -> tuple[str, str]:
        """Return the IPv4 and IPv6 address, with lengths, of host number `host`."""
        return f"10.0.{self.number}.{host}/24", f"fd00:0:{self.number}::{host}/64"


@dataclass(slots=True)
class Tenant:
    """One tenant's router and bridges."""

    name: str
    router: RouterResource
    segments: dict[int, Segment]


class VirtualNetworks:
    """Builds and changes the demo's topology."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.api = MidoNetClient(lab.api_url)
        self._next_mac = 0x02_00_00_00_00_10

    def close(self) -> None:
        """Close the connection to the API."""
        self.api.close()

    def make_tunnel_zone(self, kind: TunnelKind, *, is_ipv6: bool = False) -> TunnelZoneResource:
        """Make a tunnel zone with every host of the lab in it."""
        name = f"demo-{kind}{'-v6' if is_ipv6 else ''}"
        zone = self.api.create(TunnelZoneResource(name=name, kind=kind))
        for host in self._lab.hosts:
            address = host.address6 if is_ipv6 else host.address
            member = TunnelZoneHostResource(host_id=UUID(host.host_id), address=address)
            self.api.create(member, parent=zone)
        return zone

    def tunnel_zones(self) -> list[TunnelZoneResource]:
        """Return the tunnel zones that exist."""
        return self.api.list_all(TunnelZoneResource)

    def make_tenant(self, name: str) -> Tenant:
        """Make a tenant's router and its two bridges, linked."""
        router = self.api.create(RouterResource(name=f"{name}-router", project_id=name))
        tenant = Tenant(name, router, {})
        for number in (1, 2):
            tenant.segments[number] = self._make_segment(tenant, number)
        return tenant

    def _make_segment(self, tenant: Tenant, number: int) -> Segment:
        api = self.api
        name = f"{tenant.name}-bridge-{number}"
        bridge = api.create(BridgeResource(name=name, project_id=tenant.name))
        gateways = (f"10.0.{number}.1/24", f"fd00:0:{number}::1/64")
        router_port = api.create(
            PortResource(kind="Router", addresses=gateways), parent=tenant.router
        )
        for any_source, network, length in (
            ("0.0.0.0", f"10.0.{number}.0", 24),
            ("::", f"fd00:0:{number}::", 64),
        ):
            route = RouteResource(
                kind="Normal",
                source_address=any_source,
                destination_address=network,
                destination_length=length,
                next_hop_port_id=router_port.id,
                weight=100,
            )
            api.create(route, parent=tenant.router)
        uplink = api.create(PortResource(kind="Bridge"), parent=bridge)
        segment = Segment(number, bridge, uplink, router_port)
        self.link(segment)
        return segment

    def link(self, segment: Segment) -> None:
        """Plug the router into the segment's bridge."""
        self.api.link(segment.uplink, segment.router_port)

    def unlink(self, segment: Segment) -> None:
        """Unplug the router from the segment's bridge."""
        self.api.unlink(segment.uplink)

    def plug(self, name: str, host: LabHost, segment: Segment, number: int) -> VirtualMachine:
        """Make a VM on a host and bind its interface to a new port of the segment's bridge."""
        self._next_mac += 1
        mac = self._next_mac.to_bytes(6, "big").hex(":")
        gateways = [address.partition("/")[0] for address in segment.subnet_address(1)]
        machine = self._lab.plug(
            name,
            host,
            mac=mac,
            addresses=list(segment.subnet_address(number)),
            gateways=gateways,
        )
        self.bind(host, segment, machine.tap)
        return machine

    def bind(self, host: LabHost, segment: Segment, interface: str) -> PortResource:
        """Bind an interface of a host to a new port of the segment's bridge."""
        port = self.api.create(PortResource(kind="Bridge"), parent=segment.bridge)
        self.api.create(
            BindingResource(port_id=port.id, interface_name=interface),
            parent=self.api.get(HostResource, host.host_id),
        )
        return port

    def port_of(self, machine: VirtualMachine) -> PortResource:
        """Return the port that a machine's interface is bound to."""
        ports = self.api.list_all(PortResource)
        return next(port for port in ports if port.interface_name == machine.tap)

    def active_ports(self) -> int:
        """Return how many ports are active."""
        return sum(port.active for port in self.api.list_all(PortResource))
