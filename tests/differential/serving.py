"""DHCP of some bridges, so that what is their clients' and what is not must be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midonet.packets.addresses import IpVersion, format_mac
from tests.differential.packets import HOST_MACS, NETWORKS, host_address

if TYPE_CHECKING:
    from tests.differential.networks import Drawing


def extend(drawing: Drawing) -> None:
    """Let some bridges serve some machines."""
    random, world = drawing.random, drawing.world
    for bridge in drawing.bridges:
        if random.random() < 0.7:
            continue
        network = random.randrange(NETWORKS)
        server = str(host_address(IpVersion.V4, network, random.randint(1, 3)))
        prefix, prefix6 = f"10.0.{network}.0/24", f"fd00:{network}::/64"
        world.dhcp_subnet(bridge, prefix, server=server, enabled=random.random() < 0.9)
        world.dhcp_v6_subnet(bridge, prefix6)
        for host in range(2, 6):
            mac = format_mac(HOST_MACS[host % len(HOST_MACS)])
            world.dhcp_client(bridge, prefix, mac, str(host_address(IpVersion.V4, network, host)))
