"""Load balancers in generated networks: VIPs at addresses that packets go to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midonet.packets.addresses import IpVersion
from tests.differential.packets import HOSTS, NETWORKS, PORTS, host_address

if TYPE_CHECKING:
    from tests.differential.networks import Drawing


def extend(drawing: Drawing) -> None:
    """Give a router a load balancer, in three of five networks that have one."""
    random, balancers = drawing.random, drawing.world.balancers
    if not drawing.routers or random.random() > 0.6:
        return
    balancers.routers[random.choice(drawing.routers)] = "lb"
    balancers.balancer("lb", up=random.random() < 0.9)
    for number in range(random.randint(1, 4)):
        version = random.choice(tuple(IpVersion))
        pool, protocol = f"pool{number}", random.choice(("TCP", "UDP"))
        is_up, is_sticky = random.random() < 0.9, random.random() < 0.3
        balancers.pool(pool, on="lb", protocol=protocol, sticky=is_sticky, up=is_up)
        for vip in range(60):
            at = (_address(drawing, version), random.choice(PORTS))
            balancers.vip(f"vip{number} {vip}", pool=pool, at=at)
        for member in range(random.randint(0, 3)):
            balancers.member(
                f"member{number}{member}",
                pool=pool,
                at=(_address(drawing, version), random.choice((0, *PORTS))),
                weight=random.randint(0, 3),
                up=random.random() < 0.8,
                healthy=random.random() < 0.8,
            )


def _address(drawing: Drawing, version: IpVersion) -> str:
    random = drawing.random
    return str(host_address(version, random.randrange(NETWORKS), random.randrange(1, HOSTS)))
