"""A world with one object of each kind, and a body for each resource that takes one.

A resource that is registered and has no body here fails `test_every_endpoint`: adding the line
is all it takes to have each of its endpoints visited.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from midonet.api.call import Endpoint
from tests.api.conftest import Api

Body = dict[str, Any]


@dataclass(frozen=True)
class World:
    """Ids by role: what the endpoints' parents and the bodies' references point at."""

    ids: dict[str, str]

    def path(self, endpoint: Endpoint) -> str:
        """Return the endpoint's path with its parent filled in; other parameters stay."""
        parent = endpoint.path.split("/")[1]
        path = endpoint.path.replace("{id}", self.ids.get(parent, "{id}"), 1)
        version = "6" if "/dhcpV6" in path else "4"
        for name in ("subnet", "host"):
            path = path.replace(f"{{{name}}}", self.ids[f"dhcp_{name}{version}"])
        return path.replace("{pool_id}", self.ids["pools"])


SUBNET: Body = {"subnetPrefix": "10.9.0.0", "subnetLength": 24}
CLIENT: Body = {"macAddr": "02:00:00:00:00:09", "ipAddr": "10.9.0.9"}
SUBNET_V6: Body = {"prefix": "2001:db8:9::", "prefixLength": 64}
CLIENT_V6: Body = {"clientId": "00:03:00:01:02:00:00:00:00:09", "fixedAddress": "2001:db8:9::9"}
"""What the world has already. Its name is in a path, so that a PUT there leaves it as it is."""

_NAMED_BY_PATH: dict[str, Body] = {
    "DhcpSubnet": SUBNET,
    "DhcpHost": CLIENT,
    "DhcpV6Subnet": SUBNET_V6,
    "DhcpV6Host": CLIENT_V6,
}


async def build_world(api: Api) -> World:
    """Create the world."""
    bridge = await api.create("/bridges", name="b")
    router = await api.create("/routers", name="r")
    chain = await api.create("/chains", name="c")
    target = await api.create("/chains", name="target")
    bridge_port = await api.create(bridge["ports"], type="Bridge")
    free_port = await api.create(bridge["ports"], type="Bridge")
    port_group = await api.create("/port_groups", name="g")
    await api.create(port_group["ports"], portId=bridge_port["id"])
    addresses = await api.create("/ip_addr_groups", name="a")
    await api.create(addresses["addrs"], addr="10.1.0.0/16")
    balancer = await api.create("/load_balancers")
    monitor = await api.create("/health_monitors", type="TCP")
    pool = await api.create(
        balancer["pools"], lbMethod="ROUND_ROBIN", healthMonitorId=monitor["id"]
    )
    member = await api.create(pool["poolMembers"], address="2001:db8::11")
    vip = await api.create(pool["vips"], address="2001:db8::80")
    router_port = await api.create(router["ports"], type="Router", portSubnet=["10.0.0.1/24"])
    guarded, service = [await api.create(bridge["ports"], type="Bridge") for _ in range(2)]
    insertion = await api.create(
        "/l2insertions",
        portId=guarded["id"],
        srvPortId=service["id"],
        mac="02:00:00:00:00:09",
        vlan=9,
    )
    mirror = await api.create("/mirrors", toPortId=free_port["id"], conditions=[{"nwProto": 6}])
    policy = await api.create("/qos_policies", name="silver")
    ruled = await api.create("/qos_policies", name="bronze")
    limit = await api.create(ruled["bwLimitRules"], maxKbps=1)
    mark = await api.create(ruled["dscpRules"], dscpMark=10)
    subnet = await api.create(bridge["dhcpSubnets"], **SUBNET)
    await api.create(subnet["hosts"], **CLIENT)
    subnet6 = await api.create(bridge["dhcpSubnet6s"], **SUBNET_V6)
    await api.create(subnet6["hosts"], **CLIENT_V6)
    return World(
        {
            "bridges": bridge["id"],
            "routers": router["id"],
            "chains": chain["id"],
            "target_chain": target["id"],
            "port_groups": port_group["id"],
            "ip_addr_groups": addresses["id"],
            "load_balancers": balancer["id"],
            "health_monitors": monitor["id"],
            "pools": pool["id"],
            "pool_members": member["id"],
            "vips": vip["id"],
            "mirrors": mirror["id"],
            "l2insertions": insertion["id"],
            "service_port": service["id"],
            "qos_policies": policy["id"],
            "qos_bw_limit_rules": limit["id"],
            "qos_dscp_rules": mark["id"],
            "ports": bridge_port["id"],
            "free_port": free_port["id"],
            "router_port": router_port["id"],
            "hosts": str(await api.host()),
            "new_host": str(await api.host("new", in_zone=False)),
            "tunnel_zones": (await api.create("/tunnel_zones", name="zone", type="gre"))["id"],
            "vlan": "0",
            "dhcp_subnet4": "10.9.0.0_24",
            "dhcp_host4": CLIENT["macAddr"],
            "dhcp_subnet6": "2001:db8:9::_64",
            "dhcp_host6": CLIENT_V6["clientId"].replace(":", "-"),
        }
    )


BODIES: dict[str, Callable[[World], Body]] = {
    "Bridge": lambda world: {"name": "blue", "tenantId": "t1", "adminStateUp": False},
    "Router": lambda world: {"name": "edge", "tenantId": "t1", "asNumber": 64512},
    "Chain": lambda world: {"name": "input", "tenantId": "t1"},
    "Port": lambda world: {"type": "Bridge", "adminStateUp": False, "vlanId": 7},
    "Route": lambda world: {
        "type": "Normal",
        "dstNetworkAddr": "2001:db8::",
        "dstNetworkLength": 32,
        "srcNetworkAddr": "::",
        "srcNetworkLength": 0,
        "nextHopPort": world.ids["router_port"],
        "nextHopGateway": "fe80::1",
        "weight": 100,
    },
    "Rule": lambda world: {
        "type": "jump",
        "jumpChainId": world.ids["target_chain"],
        "condInvert": True,
        "inPorts": [world.ids["ports"]],
        "dlType": 0x86DD,
        "dlSrc": "02:00:00:00:00:01",
        "dlSrcMask": "ffff.ffff.0000",
        "nwProto": 6,
        "nwSrcAddress": "2001:db8::",
        "nwSrcLength": 64,
        "tpDst": {"start": 80, "end": 81},
        "invTpDst": True,
    },
    "PortGroup": lambda world: {"name": "web", "tenantId": "t1", "stateful": True},
    "PortGroupPort": lambda world: {"portId": world.ids["free_port"]},
    "IpAddrGroup": lambda world: {"name": "trusted"},
    "IpAddrGroupAddr": lambda world: {"version": 6, "addr": "2001:db8::5"},
    "LoadBalancer": lambda world: {"adminStateUp": False},
    "Pool": lambda world: {
        "loadBalancerId": world.ids["load_balancers"],
        "healthMonitorId": world.ids["health_monitors"],
        "lbMethod": "ROUND_ROBIN",
        "protocol": "UDP",
        "sessionPersistence": "SOURCE_IP",
        "adminStateUp": False,
    },
    "PoolMember": lambda world: {
        "poolId": world.ids["pools"],
        "address": "2001:db8::12",
        "protocolPort": 8080,
        "weight": 30,
    },
    "VIP": lambda world: {
        "poolId": world.ids["pools"],
        "address": "2001:db8::81",
        "protocolPort": 80,
        "sessionPersistence": "SOURCE_IP",
        "adminStateUp": False,
    },
    "HealthMonitor": lambda world: {"type": "TCP", "delay": 5, "timeout": 3, "maxRetries": 2},
    "L2Insertion": lambda world: {
        "portId": world.ids["ports"],
        "srvPortId": world.ids["service_port"],
        "mac": "02:00:00:00:00:05",
        "vlan": 5,
        "position": 3,
        "failOpen": True,
    },
    "Mirror": lambda world: {"toPortId": world.ids["ports"]},
    "QosPolicy": lambda world: {
        "name": "gold",
        "tenant_id": "t1",
        "description": "expedited",
        "shared": True,
    },
    "QosBandwidthRule": lambda world: {"maxKbps": 1000, "maxBurstKb": 100},
    "QosDscpRule": lambda world: {"dscpMark": 46},
    "PortLink": lambda world: {"peerId": world.ids["router_port"]},
    "Host": lambda world: {
        "floodingProxyWeight": 2,
        "containerWeight": 3,
        "containerLimit": 4,
        "enforceContainerLimit": True,
    },
    "HostInterfacePort": lambda world: {
        "portId": world.ids["free_port"],
        "interfaceName": "veth0",
    },
    "TunnelZone": lambda world: {"name": "green", "type": "vxlan"},
    "TunnelZoneHost": lambda world: {
        "hostId": world.ids["new_host"],
        "ipAddress": "2001:db8::5",
    },
    "MacPort": lambda world: {"macAddr": "02:00:00:00:00:05", "portId": world.ids["ports"]},
    "IP4Mac": lambda world: {"ip": "2001:db8::7", "mac": "02:00:00:00:00:05"},
    "DhcpSubnet": lambda world: {
        "subnetPrefix": "10.8.0.0",
        "subnetLength": 24,
        "defaultGateway": "10.8.0.1",
        "serverAddr": "10.8.0.2",
        "dnsServerAddrs": ["192.0.2.53", "192.0.2.54"],
        "interfaceMTU": 1400,
        "opt121Routes": [
            {"destinationPrefix": "10.0.0.0", "destinationLength": 8, "gatewayAddr": "10.8.0.3"}
        ],
        "enabled": False,
    },
    "DhcpHost": lambda world: {
        "macAddr": "02:00:00:00:00:08",
        "ipAddr": "10.9.0.8",
        "name": "vm8",
        "extraDhcpOpts": [{"optName": "domain-search", "optValue": "example.org, example.com"}],
    },
    "DhcpV6Subnet": lambda world: {
        "prefix": "2001:db8:8::",
        "prefixLength": 64,
        "dnsServerAddrs": ["2001:db8::53"],
        "domainSearch": ["example.org"],
        "enabled": False,
    },
    "DhcpV6Host": lambda world: {
        "clientId": "00:01:00:01:2a:00:00:00:02:00:00:00:00:08",
        "fixedAddress": "2001:db8:9::8",
        "name": "vm8",
    },
}


def body_for(endpoint: Endpoint, world: World) -> Body:
    """Return a good body for an endpoint."""
    body = BODIES[endpoint.schema.title](world)
    if endpoint.method == "PUT":
        body |= _NAMED_BY_PATH.get(endpoint.schema.title, {})
    if endpoint.schema.title == "Port" and endpoint.path.startswith("/routers"):
        addresses = ["10.1.0.1/24", "2001:db8::1/64"]
        advertised = {"raEnabled": True, "raManaged": True, "raDnsServerAddrs": ["2001:db8::53"]}
        return body | {"type": "Router", "portSubnet": addresses, "vlanId": 0} | advertised
    return body


def with_unknown_ids(path: str) -> str:
    """Fill the remaining parameters of a path with ids of nothing."""
    path = path.replace("{vlan}", "0").replace("{version}", "4")
    return re.sub(r"\{\w+\}", "6a1f3d5e-0000-4000-8000-000000000001", path)
