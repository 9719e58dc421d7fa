"""Groups of ports and of addresses in the generated networks, and conditions that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from midonet.packets.addresses import IpVersion, parse_prefix
from tests.differential.packets import HOSTS, NETWORKS, host_address

if TYPE_CHECKING:
    from tests.differential.networks import Drawing

_ADDRESS_GROUPS = ("ag0", "ag1")
_PORT_GROUPS = ("pg0", "pg1")


def draw_groups(drawing: Drawing) -> None:
    """Add the groups, some of them empty."""
    random = drawing.random
    for name in _ADDRESS_GROUPS:
        drawing.world.address_group(
            name, *(_draw_member(drawing) for _ in range(random.randrange(6)))
        )
    ports, _ = drawing.world.names()
    for name in _PORT_GROUPS:
        drawing.world.port_group(name, *random.sample(ports, random.randrange(5)))


def _draw_member(drawing: Drawing) -> str:
    random = drawing.random
    version = random.choice(tuple(IpVersion))
    host = host_address(version, random.randrange(NETWORKS), random.randrange(1, HOSTS))
    lengths = (32, 32, 30, 24, 9) if version is IpVersion.V4 else (128, 128, 126, 64, 17)
    prefix = parse_prefix(f"{host}/{random.choice(lengths)}")
    return str(prefix._replace(value=prefix.network))


def draw_membership(drawing: Drawing) -> dict[str, Any]:
    """Draw a test of membership."""
    random = drawing.random
    inverted = random.random() < 0.2
    side = random.choice(("src", "dst"))
    where = random.choice(("port_group", "in_port_group", "out_port_group"))
    return random.choice(
        (
            {
                f"ip_address_group_{side}_id": random.choice(_ADDRESS_GROUPS),
                f"ip_address_group_{side}_inverted": inverted,
            },
            {f"{where}_id": random.choice(_PORT_GROUPS), f"{where}_inverted": inverted},
        )
    )
