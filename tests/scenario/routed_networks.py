"""Networks with routers that several scenarios share."""

from __future__ import annotations

from tests.scenario.frames import FAMILIES, R1, R2, V4, V6, A, B, C, Family
from tests.worlds import World

IN, OUT = (A, R1), (R2, B)
"""MACs of a packet that enters the router by `a`, and of one that leaves it by `b`."""


def edge(**router: str | bool | None) -> World:
    """Router `r` with bound ports: `a` on network 1, `b` on 2, `far` (on h2, key 103) on 3."""
    world = World().router("r", **router)  # type: ignore[arg-type]
    return edge_ports(world)


def edge_ports(world: World, **port: str | bool | None) -> World:
    """Add the ports of `edge`; keywords go to `b`."""
    for name, index, host in (("a", 1, "h1"), ("b", 2, "h1"), ("far", 3, "h2")):
        networks = (V4.router(index), V6.router(index))
        more = port if name == "b" else {}
        mac = f"02:bb:00:00:00:0{index}"
        world.port(name, on="r", host=host, mac=mac, addresses=networks, **more)  # type: ignore[arg-type]
    for family in FAMILIES:
        world.neighbour("r", family.host(1, 5), A)
        world.neighbour("r", family.host(2, 5), B)
        world.neighbour("r", family.host(3, 5), C)
    return world


def networks() -> World:
    """Bridges `n1` (ports `vm1`, `vm3`) and `n2` (port `vm2`) joined by router `r`."""
    world = World().bridge("n1").bridge("n2").router("r")
    world.port("vm1", on="n1", host="h1").port("vm3", on="n1", host="h1")
    world.port("vm2", on="n2", host="h1")
    for index, router_mac in ((1, R1), (2, R2)):
        addresses = (V4.router(index), V6.router(index))
        world.port(f"g{index}", on="r", mac=router_mac, addresses=addresses)
        world.attach(f"g{index}", f"n{index}")
    for family in FAMILIES:
        world.bridge_neighbour("n1", family.host(1, 5), A)
        world.bridge_neighbour("n2", family.host(2, 5), B)
    return world.mac_at("n1", A, "vm1").mac_at("n2", B, "vm2")


def row(length: int) -> World:
    """Routers `r1` to `r<length>` in a row; `in` leads to network 1, `out` to network 2."""
    world = World()
    for index in range(1, length + 1):
        world.router(f"r{index}")
    world.port("in", on="r1", host="h1", mac=R1, addresses=(V4.router(1), V6.router(1)))
    for index in range(1, length):
        east, west = (tuple(_end(family, index, side) for family in FAMILIES) for side in (1, 2))
        world.port(f"e{index}", on=f"r{index}", addresses=east)
        world.port(f"w{index + 1}", on=f"r{index + 1}", addresses=west)
        world.link(f"e{index}", f"w{index + 1}")
        for family in FAMILIES:
            world.route(
                f"r{index}", subnet(family, 2), via=f"e{index}", gateway=family.host(20 + index, 2)
            )
            world.route(
                f"r{index + 1}",
                subnet(family, 1),
                via=f"w{index + 1}",
                gateway=family.host(20 + index, 1),
            )
    world.port("out", on=f"r{length}", host="h1", mac=R2, addresses=(V4.router(2), V6.router(2)))
    for family in FAMILIES:
        world.neighbour(f"r{length}", family.host(2, 5), B)
        world.neighbour("r1", family.host(1, 5), A)
    return world


def subnet(family: Family, network: int) -> str:
    return f"{family.host(network, 0)}/{24 if family is V4 else 64}"


def _end(family: Family, link: int, side: int) -> str:
    return f"{family.host(20 + link, side)}/{family.version.bits - 2}"
