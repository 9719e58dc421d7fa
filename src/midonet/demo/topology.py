"""The demo's virtual networks, built through REST as an operator would.

Two tenants with the same addresses. Each has a router and two bridges, dual stack:

    tenant red                                  tenant blue (same addresses)
    bridge one  10.0.1.0/24  fd00:0:1::/64      bridge one
    bridge two  10.0.2.0/24  fd00:0:2::/64      bridge two
    router      .1 and ::1 on both              router
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from midonet.demo.lab import Lab, LabHost, VirtualMachine
from midonet.errors import ConflictError, UnavailableError, UserError

JsonObject = dict[str, Any]

_PREFIX = "application/vnd.org.midonet."
_MEDIA = {
    "bridges": "Bridge-v4",
    "routers": "Router-v3",
    "ports": "Port-v3",
    "chains": "Chain-v1",
    "rules": "Rule-v2",
    "routes": "Route-v1",
    "tunnel_zones": "TunnelZone-v1",
    "hosts": "TunnelZoneHost-v1",
    "link": "PortLink-v1",
}


class Api:
    """Create, read and delete by URI, with the media types of the stock clients."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(timeout=30)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def create(self, uri: str, body: JsonObject, *, media: str | None = None) -> JsonObject:
        """POST to a collection and return the new object, read back from its Location."""
        kind = _PREFIX + (media or _MEDIA[uri.rpartition("/")[2]]) + "+json"
        answer = self._http.post(uri, json=body, headers={"Content-Type": kind, "Accept": kind})
        _raise_for(answer)
        location = answer.headers.get("Location")
        if not location:
            return {}
        found = self._http.get(location, headers={"Accept": kind})
        _raise_for(found)
        return dict(found.json())

    def get(self, uri: str) -> Any:
        """GET any resource as plain JSON."""
        answer = self._http.get(uri, headers={"Accept": "application/json"})
        _raise_for(answer)
        return answer.json()

    def delete(self, uri: str) -> None:
        """DELETE a resource."""
        _raise_for(self._http.delete(uri))


def _raise_for(answer: httpx.Response) -> None:
    if answer.status_code < 300:
        return
    message = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    if answer.status_code == 409:
        raise ConflictError(message)
    if answer.status_code >= 500:
        raise UnavailableError(message)
    raise UserError(message)


@dataclass(slots=True)
class Segment:
    """One bridge with the router port of its subnet."""

    number: int
    bridge: JsonObject
    uplink: JsonObject
    router_port: JsonObject

    def subnet_address(self, host: int) -> tuple[str, str]:
        """Return the IPv4 and IPv6 address, with lengths, of host number `host`."""
        return f"10.0.{self.number}.{host}/24", f"fd00:0:{self.number}::{host}/64"


@dataclass(slots=True)
class Tenant:
    """One tenant's router and bridges."""

    name: str
    router: JsonObject
    segments: dict[int, Segment]


class VirtualNetworks:
    """Builds and changes the demo's topology."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.api = Api(lab.api_url)
        self._next_mac = 0x02_00_00_00_00_10

    def close(self) -> None:
        """Close the connection to the API."""
        self.api.close()

    def make_tunnel_zone(self, kind: str, *, is_ipv6: bool = False) -> JsonObject:
        """Make a tunnel zone with every host of the lab in it."""
        body = {"name": f"demo-{kind}{'-v6' if is_ipv6 else ''}", "type": kind}
        zone = self.api.create(f"{self.api.url}/tunnel_zones", body)
        for host in self._lab.hosts:
            address = host.address6 if is_ipv6 else host.address
            self.api.create(f"{zone['uri']}/hosts", {"hostId": host.host_id, "ipAddress": address})
        return zone

    def make_tenant(self, name: str) -> Tenant:
        """Make a tenant's router and its two bridges, linked."""
        api = self.api
        router = api.create(f"{api.url}/routers", {"name": f"{name}-router", "tenantId": name})
        tenant = Tenant(name, router, {})
        for number in (1, 2):
            body = {"name": f"{name}-bridge-{number}", "tenantId": name}
            bridge = api.create(f"{api.url}/bridges", body)
            router_port = api.create(
                f"{router['uri']}/ports",
                {
                    "type": "Router",
                    "portSubnet": [f"10.0.{number}.1/24", f"fd00:0:{number}::1/64"],
                },
            )
            for network in (("10.0", "0", 24), ("fd00:0", ":", 64)):
                self._direct_route(router, router_port, number, network)
            uplink = api.create(f"{bridge['uri']}/ports", {"type": "Bridge"})
            segment = Segment(number, bridge, uplink, router_port)
            self.link(segment)
            tenant.segments[number] = segment
        return tenant

    def _direct_route(
        self,
        router: JsonObject,
        router_port: JsonObject,
        number: int,
        network: tuple[str, str, int],
    ) -> None:
        start, end, length = network
        is_ipv6 = length == 64
        destination = f"{start}:{number}::" if is_ipv6 else f"{start}.{number}.{end}"
        self.api.create(
            f"{router['uri']}/routes",
            {
                "type": "Normal",
                "srcNetworkAddr": "::" if is_ipv6 else "0.0.0.0",
                "srcNetworkLength": 0,
                "dstNetworkAddr": destination,
                "dstNetworkLength": length,
                "nextHopPort": router_port["id"],
                "weight": 100,
            },
        )

    def link(self, segment: Segment) -> None:
        """Plug the router into the segment's bridge."""
        self.api.create(
            f"{self.api.url}/ports/{segment.uplink['id']}/link",
            {"peerId": segment.router_port["id"]},
        )

    def unlink(self, segment: Segment) -> None:
        """Unplug the router from the segment's bridge."""
        self.api.delete(f"{self.api.url}/ports/{segment.uplink['id']}/link")

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
        port = self.api.create(f"{segment.bridge['uri']}/ports", {"type": "Bridge"})
        self.api.create(
            f"{self.api.url}/hosts/{host.host_id}/ports",
            {"portId": port["id"], "interfaceName": machine.tap},
            media="HostInterfacePort-v1",
        )
        return machine

    def active_ports(self) -> int:
        """Return how many ports are active."""
        return sum(1 for port in self.api.get(f"{self.api.url}/ports") if port["active"])
