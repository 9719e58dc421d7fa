"""The network of the balancing scenarios, and the frames of clients and members on it.

    outside 10.0.1.0/24 --(c)-- router r, load balancer lb --(m)-- 10.0.2.0/24 with m1, m2, m3
                                        |
                                       (o)-- 10.0.3.0/24

The VIP is `10.0.9.80:80`; members listen on 8080. In IPv6 the same with `fd00:N::`.
"""

from __future__ import annotations

from dataclasses import dataclass

from midonet.packets.tcp import TcpFlag
from tests.scenario.frames import R1, R2, R3, V4, V6, A, B, C, Family, tcp, udp
from tests.worlds import World

VIP_PORT, MEMBER_PORT = 80, 8080
MEMBERS = {"m1": 11, "m2": 12, "m3": 13}
MACS = {name: f"02:aa:00:00:02:{host:02x}" for name, host in MEMBERS.items()}
SYN, SYN_ACK, ACK = TcpFlag.SYN, TcpFlag.SYN | TcpFlag.ACK, TcpFlag.ACK


@dataclass(frozen=True)
class Kind:
    """An IP version and a transport protocol."""

    family: Family
    protocol: str

    def __str__(self) -> str:
        return f"{self.family}, {self.protocol}"

    @property
    def is_tcp(self) -> bool:
        """Tell whether connections have a beginning and an end."""
        return self.protocol == "TCP"

    @property
    def client(self) -> str:
        """The client outside."""
        return self.family.host(1, 5)

    @property
    def inner_client(self) -> str:
        """A client on the members' own subnet."""
        return self.family.host(2, 5)

    @property
    def vip(self) -> str:
        """The VIP, on no subnet of the router."""
        return self.family.host(9, 0x80 if self.family is V6 else 80)

    def member(self, name: str) -> str:
        """Return the address of a member."""
        return self.family.host(2, MEMBERS[name])

    def frame(
        self,
        route: tuple[str, str],
        macs: tuple[str, str],
        ports: tuple[int, int],
        *,
        flags: TcpFlag = SYN,
        ttl: int = 64,
    ) -> bytes:
        """Return a segment or datagram."""
        if self.is_tcp:
            return tcp(route, macs, ports=ports, flags=flags, ttl=ttl)
        return udp(route, macs, ports=ports, ttl=ttl)


KINDS = tuple(Kind(family, protocol) for family in (V4, V6) for protocol in ("TCP", "UDP"))


def balanced(
    kind: Kind,
    *members: str,
    sticky: bool = False,
    vip: str | None = None,
    inbound: str | None = None,
    outbound: str | None = None,
    answers: str | None = None,
) -> World:
    """Return the network. members: of the pool, by default m1. vip: another address of it.

    inbound, outbound: filters of the router; answers: inbound filter of the members' port.
    """
    world = World().router("r", inbound=inbound, outbound=outbound)
    family = kind.family
    for name, network, mac in (("c", 1, R1), ("m", 2, R2), ("o", 3, R3)):
        addresses = (V4.router(network), V6.router(network))
        chain = answers if name == "m" else None
        world.port(name, on="r", host="h1", mac=mac, addresses=addresses, inbound=chain)
    for address, mac in (
        (kind.client, A),
        (family.host(1, 6), C),
        (kind.inner_client, B),
        *((kind.member(name), MACS[name]) for name in MEMBERS),
    ):
        world.neighbour("r", address, mac)
    world.balancers.balancer("lb")
    world.balancers.routers["r"] = "lb"
    world.balancers.pool("web", on="lb", protocol=kind.protocol)
    world.balancers.vip("vip", pool="web", at=(vip or kind.vip, VIP_PORT), sticky=sticky)
    for name in members or ("m1",):
        add_member(world, kind, name)
    return world


def add_member(
    world: World,
    kind: Kind,
    name: str,
    *,
    weight: int = 1,
    up: bool = True,
    healthy: bool = True,
    port: int = MEMBER_PORT,
) -> None:
    """Add a member to the pool, or change it."""
    at = (kind.member(name), port)
    world.balancers.member(name, pool="web", at=at, weight=weight, up=up, healthy=healthy)
