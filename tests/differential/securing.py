"""Ports with port security in the generated networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midonet.packets.addresses import IpVersion, format_mac
from tests.differential.packets import HOST_MACS, HOSTS, NETWORKS, host_address

if TYPE_CHECKING:
    from tests.differential.networks import Drawing


def secure_ports(drawing: Drawing) -> None:
    """Let some bridge ports send from some MACs with some addresses only."""
    random, world = drawing.random, drawing.world
    ports = world.view().ports
    for name in world.names()[0]:
        if ports[world.port_id(name)].bridge_id is None or random.random() > 0.15:
            continue
        pairs = [format_mac(mac) for mac in HOST_MACS if random.random() < 0.3]
        for mac in HOST_MACS:
            if random.random() < 0.8:
                pairs += [f"{format_mac(mac)} {_prefix(drawing)}" for _ in range(3)]
        world.secure(name, *pairs)


def _prefix(drawing: Drawing) -> str:
    random = drawing.random
    version = random.choice(tuple(IpVersion))
    if random.random() < 0.4:
        return "0.0.0.0/0" if version is IpVersion.V4 else "::/0"
    host = host_address(version, random.randrange(NETWORKS), random.randrange(1, HOSTS))
    bits = version.bits
    return f"{host}/{random.choice((bits, bits - 2, bits // 2 + 8))}"
