"""What routers refuse, whom they tell, and about what they are silent. IPv4 and IPv6 alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import PortRange
from midonet.model.devices import NextHopKind
from midonet.packets.tcp import TcpFlag
from tests.scenario.frames import (
    EVERYONE,
    FAMILIES,
    R1,
    R2,
    V4,
    V6,
    A,
    C,
    Family,
    aged,
    echo,
    error,
    fragment,
    icmp,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge, edge_ports, networks, row, subnet
from tests.scenario.running import Leaving, Scenario, Step, at, dropped, scenario, sent, taken
from tests.worlds import World, nat, rule

GROUP = "01:00:5e:00:00:fb"


def floating(family: Family, **port: str | None) -> World:
    """Router `r`: `a` on network 1; `g` on network 9 of bridge `x`, which takes host 6 for `g`.

    So it is with a floating address of the router: who asks the bridge for it is told the MAC of
    the router's own port.
    """
    world = World().bridge("x").port("x1", on="x", host="h1").router("r")
    world.chain("in by g", rule("drop", in_port_ids=("g",), ip_dst=family.host(9, 6)))
    world.chain("refuse by g", rule("reject", in_port_ids=("g",), ip_dst=family.host(9, 6)))
    world.port("a", on="r", host="h1", mac=R1, addresses=(family.router(1),))
    world.port("g", on="r", mac=R2, addresses=(family.router(9),), **port).attach("g", "x")  # type: ignore[arg-type]
    world.bridge_neighbour("x", family.host(9, 6), R2)
    return world.neighbour("r", family.host(1, 5), A)


def floating_hosts(family: Family) -> World:
    """The router of `floating`: its hosts 5 and 6 have the addresses 5 and 6 of network 9.

    Only what enters by `g` is for a floating address, only what leaves by it is from one.
    """
    bits = family.version.bits
    own = [(family.host(1, host), family.host(9, host)) for host in (5, 6)]
    world = World().bridge("x").port("x1", on="x", host="h1")
    world.chain("pre", *(
        nat("dnat", inside, ip_dst=f"{public}/{bits}", in_port_ids=("g",))
        for inside, public in own
    ))  # fmt: skip
    world.chain("post", *(
        nat("snat", public, ip_src=f"{inside}/{bits}", out_port_ids=("g",))
        for inside, public in own
    ))  # fmt: skip
    world.router("r", inbound="pre", outbound="post")
    world.port("a", on="r", host="h1", mac=R1, addresses=(family.router(1),))
    world.port("g", on="r", mac=R2, addresses=(family.router(9),)).attach("g", "x")
    for mac, (inside, public) in zip((A, C), own, strict=True):
        world.bridge_neighbour("x", public, R2).neighbour("r", inside, mac)
    return world


def _refuses(hook: str, **condition: Any) -> Callable[[], World]:
    """Return a maker of `edge` whose router, or port `b`, refuses at a hook."""

    def make() -> World:
        world = World().chain("no", rule("reject", **condition))
        if hook.startswith("router"):
            return edge_ports(world.router("r", **{hook.removeprefix("router "): "no"}))
        if hook == "port outbound":
            return edge_ports(world.router("r"), outbound="no")
        return edge_ports(world.router("r")).port(
            "a", on="r", host="h1", mac=R1, inbound="no", routes=False,
            addresses=(V4.router(1), V6.router(1)),
        )  # fmt: skip

    return make


HOOKS = ("router inbound", "router outbound", "port inbound", "port outbound")


def _told(family: Family, name: str, about: bytes, **more: int) -> Leaving:
    route = (family.host(1, 1), family.host(1, 5))
    return at("a", error(name, route, (R1, A), about, **more))


def _reset(route: tuple[str, str]) -> bytes:
    return tcp((route[1], route[0]), (R1, A), ports=(80, 4000), sequence=0, acknowledgment=8,
               window=0, flags=TcpFlag.RST | TcpFlag.ACK)  # fmt: skip


def _rejected(family: Family) -> Iterator[Scenario]:
    """REJECT at each hook, for each protocol."""
    route = (family.host(1, 5), family.host(2, 5))
    closed, reset, other = udp(route, IN), tcp(route, IN), echo(route, IN)
    first, later = (fragment(route, IN, first=one) for one in (True, False))
    hidden = fragment(route, IN, first=False)
    for hook in HOOKS:
        yield scenario(
            f"a {hook} filter that rejects says so to every protocol ({family})",
            _refuses(hook),
            dropped("a", closed, DropReason.REJECTED, _told(family, "port unreachable", closed)),
            dropped("a", reset, DropReason.REJECTED, at("a", _reset(route))),
            dropped("a", other, DropReason.REJECTED, _told(family, "prohibited", other)),
            dropped("a", first, DropReason.REJECTED, _told(family, "port unreachable", first)),
            dropped("a", later, DropReason.REJECTED,
                    *(() if family is V4 else (_told(family, "prohibited", hidden),))),
        )  # fmt: skip
        yield scenario(
            f"a {hook} filter that rejects is silent about what may not be answered ({family})",
            _refuses(hook),
            dropped("a", tcp(route, IN, flags=TcpFlag.RST), DropReason.REJECTED),
            dropped("a", icmp(route, IN, 3 if family is V4 else 1, 1, payload=closed[14:]),
                    DropReason.REJECTED),
            dropped("a", icmp(route, IN, 11 if family is V4 else 3, 0, payload=closed[14:]),
                    DropReason.REJECTED),
        )  # fmt: skip


def _dropped(family: Family) -> Iterator[Scenario]:
    """DROP says nothing, whatever it drops and wherever."""
    route = (family.host(1, 5), family.host(2, 5))
    frames = (
        udp(route, IN), tcp(route, IN), echo(route, IN), fragment(route, IN, first=True),
        fragment(route, IN, first=False), udp(route, IN, size=1400),
    )  # fmt: skip
    for hook in HOOKS:

        def make(hook: str = hook) -> World:
            world = World().chain("no", rule("drop"))
            if hook.startswith("router"):
                return edge_ports(world.router("r", **{hook.removeprefix("router "): "no"}))
            if hook == "port outbound":
                return edge_ports(world.router("r"), outbound="no")
            return edge_ports(world.router("r")).port(
                "a", on="r", host="h1", mac=R1, inbound="no", routes=False,
                addresses=(V4.router(1), V6.router(1)),
            )  # fmt: skip

        yield scenario(
            f"a {hook} filter that drops is silent, about first fragments too ({family})",
            make,
            *(dropped("a", frame, DropReason.FILTERED) for frame in frames),
        )


def _silent(family: Family) -> Iterator[Scenario]:
    """Packets about which no error is ever sent (RFC 1812 section 4.3.2.7, RFC 4443 2.4 e)."""
    one, away = family.host(1, 5), "172.16.5.5" if family is V4 else "2001:db8:5::5"
    yield scenario(
        f"no error about a packet in a frame to a group ({family})",
        edge,
        dropped("a", udp((one, away), (A, EVERYONE)), DropReason.NOT_FOR_ROUTER),
        dropped("a", udp((one, away), (A, GROUP)), DropReason.NOT_FOR_ROUTER),
        dropped("a", udp((one, away), (A, EVERYONE), ttl=1), DropReason.NOT_FOR_ROUTER),
    )
    yield scenario(
        f"no error from a port without address of the version ({family})",
        lambda: World().router("r").port(
            "a", on="r", host="h1", mac=R1, addresses=((V6 if family is V4 else V4).router(1),)
        ),
        dropped("a", udp((one, away), IN), DropReason.NO_ROUTE),
        dropped("a", udp((one, away), IN, ttl=1), DropReason.NO_ROUTE),
    )  # fmt: skip
    errors = (3, 4, 5, 11, 12) if family is V4 else (1, 2, 3, 4, 100, 127)
    yield scenario(
        f"no error about an error of any type ({family})",
        edge,
        *(
            dropped("a", icmp((one, away), IN, kind, payload=udp((away, one), IN)[14:]),
                    DropReason.NO_ROUTE)
            for kind in errors
        ),
        *(
            dropped("a", icmp((one, away), IN, kind, payload=udp((away, one), IN)[14:], ttl=1),
                    DropReason.NO_ROUTE)
            for kind in errors
        ),
    )  # fmt: skip
    others = (0, 8, 13, 17, 42) if family is V4 else (128, 129, 139, 200)
    yield scenario(
        f"but about any other message ({family})",
        edge,
        *(
            dropped("a", icmp((one, away), IN, kind, payload=bytes(8)), DropReason.NO_ROUTE,
                    _told(family, "no route", icmp((one, away), IN, kind, payload=bytes(8))))
            for kind in others
        ),
    )  # fmt: skip
    if family is V4:
        yield scenario(
            "no error about a packet to the broadcast address of the port's network",
            lambda: edge().route("r", "10.0.1.255/32", kind=NextHopKind.REJECT),
            dropped("a", udp((one, "10.0.1.255"), IN), DropReason.REJECTED),
            dropped("a", udp((one, "255.255.255.255"), IN),
                    DropReason.DESTINATION_ADDRESS_INVALID),
        )  # fmt: skip


def _quoted(family: Family) -> Iterator[Scenario]:
    """How much of a packet an error quotes."""
    away = (family.host(1, 5), "172.16.5.5" if family is V4 else "2001:db8:5::5")
    full = 576 - 28 - 28 if family is V4 else 1280 - 48 - 48
    for name, size in (
        ("nothing beyond its headers", 0), ("one byte", 1), ("just what fits", full),
        ("a byte more than fits", full + 1), ("much more than fits", 1400),
    ):  # fmt: skip
        frame = udp(away, IN, size=size)
        yield scenario(
            f"an error about a packet with {name} quotes what fits ({family})",
            edge,
            dropped("a", frame, DropReason.NO_ROUTE, _told(family, "no route", frame)),
        )
    yield scenario(
        f"an error quotes the packet as its router received it ({family})",
        lambda: row(2).route("r2", subnet(family, 7), kind=NextHopKind.REJECT).route(
            "r1", subnet(family, 7), via="e1", gateway=family.host(21, 2)
        ),
        *(
            dropped("in", make((away[0], family.host(7, 7)), IN, tos=0x20), DropReason.REJECTED,
                    at("in", aged(error(
                        "prohibited", (family.host(21, 2), away[0]), (R1, A),
                        make((away[0], family.host(7, 7)), IN, tos=0x20, ttl=63),
                    ), 1, family)))
            for make in (udp, tcp, echo)
        ),
    )  # fmt: skip
    yield scenario(
        f"the source of an error is on the sender's network if the port has one ({family})",
        lambda: World().router("r").port(
            "a", on="r", host="h1", mac=R1, addresses=(family.router(8), family.router(1))
        ).neighbour("r", family.host(1, 5), A),
        dropped("a", udp(away, IN), DropReason.NO_ROUTE, _told(family, "no route", udp(away, IN))),
    )  # fmt: skip


def _own(family: Family) -> Iterator[Scenario]:
    """What is addressed to a router."""
    one = family.host(1, 5)
    for name, address in (
        ("the port by which it enters", family.host(1, 1)),
        ("another port", family.host(2, 1)),
        ("a port at another host", family.host(3, 1)),
    ):
        route, closed = (one, address), udp((one, address), IN, ports=(4000, 53))
        yield scenario(
            f"TCP and UDP to the address of {name} are refused ({family})",
            edge,
            dropped("a", closed, DropReason.LOCAL_NOT_HANDLED,
                    _told(family, "port unreachable", closed)),
            *(
                dropped("a", tcp(route, IN, ports=(4000, port)), DropReason.LOCAL_NOT_HANDLED,
                        at("a", tcp((address, one), (R1, A), ports=(port, 4000), sequence=0,
                                    acknowledgment=8, window=0,
                                    flags=TcpFlag.RST | TcpFlag.ACK)))
                for port in (22, 80, 179)
            ),
            dropped("a", tcp(route, IN, flags=TcpFlag.RST), DropReason.LOCAL_NOT_HANDLED),
        )  # fmt: skip
        yield scenario(
            f"an echo to the address of {name} is answered, whatever it carries ({family})",
            edge,
            *(
                taken("a", icmp(route, IN, kinds[0], rest=rest, payload=bytes(size)),
                      at("a", icmp((address, one), (R1, A), kinds[1], rest=rest,
                                   payload=bytes(size))))
                for kinds in (((8, 0),) if family is V4 else ((128, 129),))
                for rest in (0, 1, 0xFFFF_FFFF)
                for size in (0, 1, 1000)
            ),
        )  # fmt: skip
    own = family.host(1, 1)
    yield scenario(
        f"an echo to a router with a TTL of one is answered ({family})",
        edge,
        taken("a", echo((one, own), IN, ttl=1), at("a", echo((own, one), (R1, A), reply=True))),
        taken("a", echo((one, family.host(2, 1)), IN, ttl=1),
              at("a", echo((family.host(2, 1), one), (R1, A), reply=True))),
    )  # fmt: skip
    kind = 8 if family is V4 else 128
    yield scenario(
        f"an echo to a router that is no whole request is not answered ({family})",
        edge,
        dropped("a", icmp((one, own), IN, kind, 1, payload=bytes(8)),
                DropReason.LOCAL_NOT_HANDLED),
        dropped("a", echo((one, own), IN, reply=True), DropReason.LOCAL_NOT_HANDLED),
    )  # fmt: skip
    yield scenario(
        f"an inbound filter stands before what a router would answer ({family})",
        lambda: edge_ports(
            World().chain("no", rule("drop", ip_dst=own)).router("r", inbound="no")
        ),
        dropped("a", echo((one, own), IN), DropReason.FILTERED),
        dropped("a", udp((one, own), IN), DropReason.FILTERED),
        sent("a", udp((one, family.host(2, 5)), IN),
             at("b", udp((one, family.host(2, 5)), OUT, ttl=63))),
    )  # fmt: skip
    yield scenario(
        f"an inbound filter comes before the route and the TTL ({family})",
        lambda: edge_ports(
            World().chain("no", rule("drop", l4_dst=PortRange(5000, 5000)))
            .router("r", inbound="no")
        ),
        dropped("a", udp((one, family.host(7, 7)), IN), DropReason.FILTERED),
        dropped("a", udp((one, family.host(2, 5)), IN, ttl=1), DropReason.FILTERED),
        dropped("a", udp((one, family.host(7, 7)), IN, ports=(4000, 1)), DropReason.NO_ROUTE,
                _told(family, "no route", udp((one, family.host(7, 7)), IN, ports=(4000, 1)))),
    )  # fmt: skip
    yield scenario(
        f"an outbound filter comes after the TTL and before the next hop ({family})",
        lambda: edge_ports(World().chain("no", rule("drop")).router("r", outbound="no")),
        dropped("a", udp((one, family.host(2, 9)), IN), DropReason.FILTERED),
        dropped("a", udp((one, family.host(2, 5)), IN, ttl=1), DropReason.TTL_EXCEEDED,
                _told(family, "time exceeded", udp((one, family.host(2, 5)), IN, ttl=1))),
    )  # fmt: skip


def _hairpins(family: Family) -> Iterator[Scenario]:
    """What a router sends to the MAC of the port by which it leaves comes in by it again."""
    route = (family.host(1, 5), family.host(9, 6))
    yield scenario(
        f"a packet to an address for which a port of the router stands enters there ({family})",
        lambda: floating(family, inbound="in by g"),
        dropped("a", udp(route, IN), DropReason.FILTERED),
    )
    yield scenario(
        f"its outbound filter is not asked on the way ({family})",
        lambda: floating(family, outbound="refuse by g", inbound="in by g"),
        dropped("a", udp(route, IN), DropReason.FILTERED),
    )
    yield scenario(
        f"floating addresses that lead in by one port reach each other through it ({family})",
        lambda: floating_hosts(family),
        *(
            sent("a", make(route, IN), at("a", make(
                (family.host(9, 5), family.host(1, 6)), (R1, C), ttl=62
            )))
            for make in (udp, tcp, echo)
        ),
    )  # fmt: skip
    yield scenario(
        f"what a router says of itself is translated on its way out ({family})",
        lambda: edge_ports(
            World().chain("post", nat("snat", family.host(2, 77))).router("r", outbound="post")
        ),
        taken("a", echo((route[0], family.host(1, 1)), IN),
              at("a", echo((family.host(2, 77), route[0]), (R1, A), reply=True))),
    )  # fmt: skip
    refused = udp(route, (R2, R2), ttl=63)
    yield scenario(
        f"an error about such a packet finds its sender ({family})",
        lambda: floating(family, inbound="refuse by g"),
        dropped("a", udp(route, IN), DropReason.REJECTED,
                at("a", aged(error("port unreachable", (family.host(9, 1), route[0]), (R1, A),
                                   refused), 1, family))),
    )  # fmt: skip
    yield scenario(
        f"a router that would send a packet to itself for ever gives up ({family})",
        lambda: floating(family),
        dropped("a", udp(route, IN), DropReason.LOOP_LIMIT),
        dropped("a", udp(route, IN, ttl=3), DropReason.TTL_EXCEEDED,
                at("a", aged(error("time exceeded", (family.host(9, 1), route[0]), (R1, A),
                                   udp(route, (R2, R2), ttl=1)), 1, family))),
    )  # fmt: skip


def _between(family: Family) -> list[Step]:
    """Errors of a router between bridges reach the station that is concerned."""
    one, away = family.host(1, 5), "172.16.5.5" if family is V4 else "2001:db8:5::5"
    steps = []
    for make in (udp, tcp, echo):
        frame = make((one, away), (A, R1))
        told = error("no route", (family.host(1, 1), one), (R1, A), frame)
        steps.append(dropped("vm1", frame, DropReason.NO_ROUTE, at("vm1", told)))
    return steps


SCENARIOS: list[Scenario] = [
    *(
        one
        for family in FAMILIES
        for part in (_rejected, _dropped, _silent, _quoted, _own, _hairpins)
        for one in part(family)
    ),
    *(
        scenario(f"errors reach stations behind bridges ({family})", networks, *_between(family))
        for family in FAMILIES
    ),
]
