"""Topologies for soaks, each more than one tenant's, with addresses that occur twice.

Addresses and MACs are those of `tests.differential.packets`, so that frames from there meet them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from midonet.packets.addresses import IpVersion, format_mac
from tests.differential.networks import NetworkSource
from tests.differential.packets import HOST_MACS, ROUTER_MACS, host_address
from tests.worlds import World, rule

WorldMaker = Callable[[Random], World]
TENANTS = ("red", "blue")


def _subnets(network: int) -> tuple[str, str]:
    four, six = (host_address(version, network, 1) for version in IpVersion)
    return f"{four}/24", f"{six}/64"


def _know(world: World, router: str, network: int) -> None:
    for version in IpVersion:
        for host in range(2, 5):
            address = str(host_address(version, network, host))
            world.neighbour(router, address, format_mac(HOST_MACS[host % len(HOST_MACS)]))


def random_network(random: Random) -> World:
    """Return bridges, routers, filters and links as they come."""
    return NetworkSource(random).draw()


def two_tenants(_random: Random) -> World:
    """Return two copies of one network: the same addresses and MACs, and nothing between."""
    world = World("h1")
    for tenant in TENANTS:
        world.router(f"{tenant}-r")
        for network in (0, 1):
            bridge = f"{tenant}-b{network}"
            world.bridge(bridge)
            world.port(f"{bridge}-near", on=bridge, host="h1")
            world.port(f"{bridge}-near2", on=bridge, host="h1")
            world.port(f"{bridge}-far", on=bridge, host="h2")
            world.flood_group("h2", bridge, 7000 + 10 * TENANTS.index(tenant) + network)
            gateway = f"{tenant}-r{network}"
            mac = format_mac(ROUTER_MACS[network])
            world.port(gateway, on=f"{tenant}-r", mac=mac, addresses=_subnets(network))
            world.attach(gateway, bridge)
            _know(world, f"{tenant}-r", network)
    return world


def filtered_tenants(random: Random) -> World:
    """Return tenants behind chains that reject, return and jump, to each other and themselves."""
    world = World("h1")
    for tenant in TENANTS:
        world.chain(
            f"{tenant}-tail",
            rule("reject", ip_proto=6),
            rule("jump", jump=f"{tenant}-tail"),
            rule("reject", ip_proto=random.choice((17, 58))),
        )
        world.chain(
            f"{tenant}-all",
            rule("accept", ip_proto=1),
            rule("jump", jump=f"{tenant}-tail"),
            rule("return", eth_type=random.choice((0x0806, 0x86DD))),
            rule("jump", jump="nowhere") if random.random() < 0.2 else rule("accept", ip_tos=0),
            rule("reject"),
        )
        hooks = {"inbound": f"{tenant}-all", "outbound": f"{tenant}-all"}
        world.bridge(f"{tenant}-b", **random.choice((hooks, {})))
        world.router(f"{tenant}-r", **random.choice((hooks, {})))
        world.port(f"{tenant}-1", on=f"{tenant}-b", host="h1", **random.choice((hooks, {})))
        world.port(f"{tenant}-2", on=f"{tenant}-b", host="h1", **random.choice((hooks, {})))
        mac = format_mac(ROUTER_MACS[0])
        world.port(f"{tenant}-rp", on=f"{tenant}-r", mac=mac, addresses=_subnets(0))
        world.attach(f"{tenant}-rp", f"{tenant}-b")
        world.port(f"{tenant}-up", on=f"{tenant}-r", host="h1", mac=format_mac(ROUTER_MACS[1]),
                   addresses=_subnets(1))  # fmt: skip
        _know(world, f"{tenant}-r", 1)
    return world


def looped_bridges(random: Random) -> World:
    """Return rings of bridges, with two links between each two, beside a bridge that is alone."""
    world = World("h1")
    for tenant in TENANTS:
        bridges = [f"{tenant}-b{index}" for index in range(3)]
        for bridge in bridges:
            world.bridge(bridge)
            world.port(f"{bridge}-p", on=bridge, host=random.choice(("h1", "h1", "h2")))
        world.port(f"{tenant}-near", on=bridges[0], host="h1")
        for index, bridge in enumerate(bridges):
            for number in range(random.choice((1, 2))):
                ends = f"{bridge}-out{number}", f"{bridge}-in{number}"
                world.port(ends[0], on=bridge)
                world.port(ends[1], on=bridges[(index + 1) % 3]).link(*ends)
    return world


def looped_routers(_random: Random) -> World:
    """Return routers whose default routes go round in a ring, and a bridge at each."""
    world = World("h1")
    for tenant in TENANTS:
        routers = [f"{tenant}-r{index}" for index in range(3)]
        for index, router in enumerate(routers):
            world.router(router)
            world.port(f"{router}-p", on=router, host="h1",
                       mac=format_mac(ROUTER_MACS[index]), addresses=_subnets(index))  # fmt: skip
            _know(world, router, index)
        for index, router in enumerate(routers):
            following = routers[(index + 1) % 3]
            ends = f"{router}-out", f"{router}-in"
            for end, on, last in ((ends[0], router, 1), (ends[1], following, 2)):
                world.port(
                    end,
                    on=on,
                    mac=format_mac(0x02DD_0000_0000 + 16 * index + last),
                    addresses=(f"172.31.{index}.{last}/30", f"fd77:{index}::{last}/126"),
                )
            world.link(*ends)
            world.route(router, "0.0.0.0/0", via=ends[0], gateway=f"172.31.{index}.2")
            world.route(router, "::/0", via=ends[0], gateway=f"fd77:{index}::2")
    return world


def served_tenants(random: Random) -> World:
    """Return tenants whose bridges serve DHCP and DHCPv6 to some of their machines."""
    world = two_tenants(random)
    for tenant in TENANTS:
        for network in (0, 1):
            bridge, (four, six) = f"{tenant}-b{network}", _subnets(network)
            server = four.partition("/")[0]
            prefixes = four.replace(".1/", ".0/"), six.replace("::1/", "::/")
            world.dhcp_subnet(bridge, prefixes[0], gateway=server, dns=(server,) * 3,
                              enabled=random.random() < 0.8)  # fmt: skip
            world.dhcp_v6_subnet(bridge, prefixes[1], domains=("example.org",))
            for host in range(2, 5):
                mac = format_mac(HOST_MACS[host % len(HOST_MACS)])
                address, address6 = (host_address(one, network, host) for one in IpVersion)
                world.dhcp_client(bridge, prefixes[0], mac, str(address), _224="x" * 250)
                world.dhcp_v6_client(bridge, prefixes[1], mac, str(address6))
    return world


WORLDS: dict[str, WorldMaker] = {
    "random": random_network,
    "tenants": two_tenants,
    "dhcp": served_tenants,
    "filters": filtered_tenants,
    "bridges": looped_bridges,
    "routers": looped_routers,
}
"""Topologies by name. Ports bound at `h1` are where frames enter."""
