"""What a tenant gets beyond switching and routing: an outside, addresses, leases, trunks.

    VMs 10.0.n.x, fd00:0:n::x --- tenant's router --- 203.0.113.0/24, 2001:db8:0:9::/64 --- outside
                                   198.51.100.0/24 and 2001:db8:0:a::/64 are routed to it from there

The outside host knows nothing of the tenant's own addresses.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from midonet.demo.lab import Lab, LabHost, VirtualMachine
from midonet.demo.topology import Segment, Tenant, VirtualNetworks
from midonet.errors import UnavailableError
from midonet.model.schema_chains import ChainResource
from midonet.model.schema_devices import BridgeResource, RouteResource, RouterResource
from midonet.model.schema_dhcp import DhcpHostResource, DhcpSubnetResource
from midonet.model.schema_hosts import BindingResource, HostResource
from midonet.model.schema_load_balancers import (
    LoadBalancerResource,
    PoolMemberResource,
    PoolResource,
    VipResource,
)
from midonet.model.schema_ports import PortResource
from midonet.model.schema_rules import RuleResource

OUTSIDE, OUTSIDE6 = "203.0.113.9", "2001:db8:0:9::9"
SNAT, SNAT6 = "198.51.100.10", "2001:db8:0:a::10"
_GATEWAYS = ("203.0.113.1", "2001:db8:0:9::1")
_NETWORKS = (("203.0.113.0", 24), ("2001:db8:0:9::", 64))
_ROUTED = ("198.51.100.0/24", "2001:db8:0:a::/64")
_IPV4, _IPV6 = 0x0800, 0x86DD


BEGINS: Final = {"type": "accept", "matchForwardFlow": True}
"""A rule about what a machine sends: what begins a connection is remembered."""
REPLIES_ONLY: Final[tuple[Mapping[str, Any], ...]] = (
    {"type": "accept", "dlType": 0x0806},
    {"type": "accept", "dlType": _IPV6, "nwProto": 58, "tpSrc": {"start": 135, "end": 136}},
    {"type": "accept", "matchReturnFlow": True},
    {"type": "drop"},
)
"""What a machine gets: neighbours' questions and answers, and answers to what it began itself."""


@dataclass(frozen=True, slots=True)
class Outside:
    """A machine beyond the network, and the port of the tenant's router that leads to it."""

    machine: VirtualMachine
    port: PortResource


class Services:
    """Adds services to a tenant, through REST."""

    def __init__(self, lab: Lab, networks: VirtualNetworks, tenant: Tenant) -> None:
        self._lab = lab
        self._api = networks.api
        self.tenant = tenant

    def plug_outside(self, name: str, host: LabHost, mac: str) -> Outside:
        """Make the outside machine on a host, and the way to it."""
        machine = self._lab.plug(
            name, host, mac=mac, addresses=[f"{OUTSIDE}/24", f"{OUTSIDE6}/64"], gateways=[]
        )
        machine.namespace.ip(
            *(
                f"route add {routed} via {gateway}"
                for routed, gateway in zip(_ROUTED, _GATEWAYS, strict=True)
            )
        )
        addresses = (f"{_GATEWAYS[0]}/24", f"{_GATEWAYS[1]}/64")
        port = self._api.create(
            PortResource(kind="Router", addresses=addresses), parent=self.tenant.router
        )
        for network, length in _NETWORKS:
            route = RouteResource(
                kind="Normal",
                source_address="::" if ":" in network else "0.0.0.0",
                destination_address=network,
                destination_length=length,
                next_hop_port_id=port.id,
                weight=100,
            )
            self._api.create(route, parent=self.tenant.router)
        self._api.create(
            BindingResource(port_id=port.id, interface_name=machine.tap),
            parent=self._api.get(HostResource, host.host_id),
        )
        return Outside(machine, port)

    def chain(self, name: str, *rules: Mapping[str, Any]) -> ChainResource:
        """Make a chain of rules, each as its JSON body, in this order."""
        made = self._api.create(ChainResource(name=name, project_id=self.tenant.name))
        for position, rule in enumerate(rules, 1):
            self.rule(made, position=position, **rule)
        return made

    def rule(self, chain: ChainResource, **body: Any) -> RuleResource:
        """Add a rule to a chain."""
        return self._api.create(msgspec.convert(body, RuleResource), parent=chain)

    def translate(self, outside: Outside, floating: Mapping[str, str]) -> None:
        """Give some addresses of the tenant one of the outside each (1:1, both ways, between
        themselves too), and let the others go out by one shared address a version.

        floating: outside addresses by the tenant's own.
        """
        out = {"outPorts": [str(outside.port.id)]}
        before: list[Mapping[str, Any]] = []
        after: list[Mapping[str, Any]] = []
        for own, public in floating.items():
            before.append(_translation("dnat", _is("Dst", public), own))
            after.append(_translation("snat", {**_is("Src", own), **out}, public))
            # From one floating address to another: the answer must come back by the router.
            hairpin = {**_is("Src", own), "matchNwDstRewritten": True}
            after.append(_translation("snat", hairpin, public))
        for shared in (SNAT, SNAT6):
            before.append({"type": "rev_snat", "flowAction": "accept", **_is("Dst", shared)})
            kind = {"dlType": _IPV6 if ":" in shared else _IPV4}
            after.append(_translation("snat", {**kind, **out}, shared, ports=(1024, 65535)))
        router = self._api.get(RouterResource, str(self.tenant.router.id))
        self._api.update(
            msgspec.structs.replace(
                router,
                inbound_filter_id=self.chain("before-routing", *before).id,
                outbound_filter_id=self.chain("after-routing", *after).id,
            )
        )

    @contextmanager
    def filters(
        self,
        port: PortResource,
        *,
        sent: Sequence[Mapping[str, Any]] = (),
        received: Sequence[Mapping[str, Any]] = (),
    ) -> Iterator[tuple[ChainResource, ChainResource]]:
        """Have chains filter what a machine sends and what it gets, while the block lasts."""
        chains = self.chain("sent", *sent), self.chain("received", *received)
        held = self._api.update(
            msgspec.structs.replace(
                self._api.get(PortResource, str(port.id)),
                inbound_filter_id=chains[0].id if sent else None,
                outbound_filter_id=chains[1].id if received else None,
            )
        )
        try:
            yield chains
        finally:
            self._api.update(
                msgspec.structs.replace(held, inbound_filter_id=None, outbound_filter_id=None)
            )
            for chain in chains:
                self._api.delete(chain)

    def advertise(self, segment: Segment) -> None:
        """Have a segment's router advertise itself, so that machines make IPv6 addresses."""
        port = self._api.get(PortResource, str(segment.router_port.id))
        self._api.update(msgspec.structs.replace(port, ra_enabled=True))

    def lease(self, segment: Segment, mac: str, address: str) -> None:
        """Have a segment's bridge lease an address to a machine, and its router as the gateway."""
        existing = self._api.list_all(DhcpSubnetResource, parent=segment.bridge)
        subnet = existing[0] if existing else self._make_subnet(segment)
        self._api.create(DhcpHostResource(mac=mac, address=address), parent=subnet)

    def _make_subnet(self, segment: Segment) -> DhcpSubnetResource:
        network = f"10.0.{segment.number}"
        return self._api.create(
            DhcpSubnetResource(
                network=f"{network}.0",
                length=24,
                gateway=f"{network}.1",
                dns_addresses=(f"{network}.1",),
            ),
            parent=segment.bridge,
        )

    def balance(self, vips: Mapping[str, Sequence[str]], port: int) -> None:
        """Balance TCP connections to addresses among members, by the tenant's router.

        vips: members' addresses by the address of each VIP. port: of VIPs and members.
        """
        balancer = self._api.create(LoadBalancerResource())
        for vip, members in vips.items():
            pool = self._api.create(PoolResource(), parent=balancer)
            for member in members:
                self._api.create(PoolMemberResource(address=member, port=port), parent=pool)
            self._api.create(VipResource(address=vip, port=port), parent=pool)
        router = self._api.get(RouterResource, str(self.tenant.router.id))
        self._api.update(msgspec.structs.replace(router, load_balancer_id=balancer.id))

    def trunk(self, host: LabHost, interface: str) -> PortResource:
        """Bind an interface to a trunk: segment number n of the tenant is VLAN 10 * n there."""
        bridge = self._api.create(BridgeResource(name="trunk", project_id=self.tenant.name))
        for number, segment in self.tenant.segments.items():
            inner = self._api.create(
                PortResource(kind="Bridge", vlan_id=10 * number), parent=bridge
            )
            outer = self._api.create(PortResource(kind="Bridge"), parent=segment.bridge)
            self._api.link(inner, outer)
        port = self._api.create(PortResource(kind="Bridge"), parent=bridge)
        self._api.create(
            BindingResource(port_id=port.id, interface_name=interface),
            parent=self._api.get(HostResource, host.host_id),
        )
        return port


@contextmanager
def vlan_interfaces(
    machine: VirtualMachine, segments: Sequence[Segment], host: int
) -> Iterator[None]:
    """Give a machine an interface in the VLAN of each segment, as host number `host`, meanwhile."""
    vlans = [str(10 * segment.number) for segment in segments]
    shown = machine.namespace.run("ip", "-j", "link", "show", "eth0")
    mac = json.loads(shown)[0]["address"]
    process = subprocess.Popen(
        machine.namespace.enter([sys.executable, "-m", "midonet.demo.vlans", *vlans]),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise UnavailableError(f"no VLAN interfaces in {machine.name}")
        for segment, vlan in zip(segments, vlans, strict=True):
            machine.namespace.ip(
                f"link set vlan{vlan} address {mac} mtu 1400",
                f"link set vlan{vlan} up",
                *(f"address add {each} dev vlan{vlan}" for each in segment.subnet_address(host)),
            )
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _is(side: str, address: str) -> dict[str, Any]:
    """Return the condition that an address is the source ("Src") or destination ("Dst")."""
    is_ipv6 = ":" in address
    return {
        "dlType": _IPV6 if is_ipv6 else _IPV4,
        f"nw{side}Address": address,
        f"nw{side}Length": 128 if is_ipv6 else 32,
    }


def _translation(
    kind: str, condition: Mapping[str, Any], address: str, ports: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    target = {
        "addressFrom": address,
        "addressTo": address,
        "portFrom": ports[0],
        "portTo": ports[1],
    }
    return {"type": kind, "flowAction": "accept", "natTargets": [target], **condition}
