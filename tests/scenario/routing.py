"""Routers: routes, TTL, next hops, ICMP errors, lengths, echo. IPv4 and IPv6 alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.devices import NextHopKind
from midonet.packets.tcp import TcpFlag
from tests.scenario.frames import (
    EVERYONE,
    FAMILIES,
    R1,
    R2,
    R3,
    V4,
    V6,
    A,
    B,
    C,
    Family,
    aged,
    echo,
    error,
    fragment,
    icmp,
    piece,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge, edge_ports, networks, row, subnet
from tests.scenario.running import (
    Leaving,
    Scenario,
    Step,
    at,
    dropped,
    scenario,
    sent,
    taken,
    through,
    waits,
)
from tests.worlds import World, rule


def _hops(family: Family, length: int) -> list[Step]:
    """Return the steps of a traceroute through `row(length)`: each router answers in its turn."""
    route = (family.host(1, 5), family.host(2, 5))
    steps = []
    for hop in range(1, length + 1):
        probe = udp(route, IN, ttl=hop)
        seen = udp(route, IN, ttl=1)
        who = family.host(1, 1) if hop == 1 else family.host(20 + hop - 1, 2)
        told = error("time exceeded", (who, route[0]), (R1, A), seen)
        # The answer itself is routed back, one hop less at each router it passes.
        told = aged(told, hop - 1, family)
        steps.append(dropped("in", probe, DropReason.TTL_EXCEEDED, at("in", told)))
    arrived = udp(route, OUT, ttl=1)
    return [*steps, sent("in", udp(route, IN, ttl=length + 1), at("out", arrived))]


def of_family(family: Family) -> list[Scenario]:
    """Return the scenarios that are alike for both IP versions."""
    one, two, three = (family.host(index, 5) for index in (1, 2, 3))
    route, back = (one, two), (two, one)
    gateway = family.host(1, 1)
    elsewhere = "172.16.5.5" if family is V4 else "2001:db8:5::5"
    wide = "172.16.0.0/12" if family is V4 else "2001:db8::/32"
    narrow = "172.16.5.0/24" if family is V4 else "2001:db8:5::/48"
    away = (one, elsewhere)

    def told(name: str, about: bytes, *, mtu: int = 0) -> Leaving:
        return at("a", error(name, (gateway, one), (R1, A), about, mtu=mtu))

    def refused(
        name: str, world: Callable[[], World], reason: DropReason, error_name: str
    ) -> Scenario:
        frame = udp(away, IN)
        return scenario(name, world, dropped("a", frame, reason, told(error_name, frame)))

    is_v4 = family is V4
    hosts = ("192.0.2.1", "192.0.2.2") if is_v4 else ("2001:db8::1", "2001:db8::3")
    near_host = "192.0.2.9" if is_v4 else "2001:db8::9"

    def with_route(**fields: Any) -> World:
        return edge().route("r", wide, **fields)

    return [
        scenario(
            "a packet is routed with new MACs and one hop less",
            edge,
            sent("a", udp(route, IN), at("b", udp(route, OUT, ttl=63))),
            sent("a", tcp(route, IN, tos=0xB8), at("b", tcp(route, OUT, ttl=63, tos=0xB8))),
            sent("b", udp(back, (B, R2)), at("a", udp(back, (R1, A), ttl=63))),
        ),
        scenario(
            "a routed packet crosses to another host",
            edge,
            sent("a", udp((one, three), IN), through(103, udp((one, three), (R3, C), ttl=63))),
        ),
        scenario(
            "a priority tag is removed by a router, another tag is not for it",
            edge,
            sent("a", udp(route, IN, vlan=0), at("b", udp(route, OUT, ttl=63))),
            dropped("a", udp(route, IN, vlan=7), DropReason.UNSUPPORTED_ETHERTYPE),
        ),
        scenario(
            "a frame to another station is not for the router",
            edge,
            dropped("a", udp(route, (A, C)), DropReason.NOT_FOR_ROUTER),
            dropped("a", udp(route, (A, EVERYONE)), DropReason.NOT_FOR_ROUTER),
        ),
        scenario(
            "groups are not routed",
            edge,
            dropped("a", udp((one, "224.0.0.251" if family is V4 else "ff0e::1"), IN),
                    DropReason.NOT_FOR_ROUTER),
        ),
        scenario(
            "sources that name no host are not routed",
            edge,
            *(
                dropped("a", udp((source, two), IN), DropReason.SOURCE_ADDRESS_INVALID)
                for source in (
                    ("127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255")
                    if family is V4
                    else ("::1", "ff02::1", "fe80::5")
                )
            ),
        ),
        scenario(
            "a gateway is the next hop of a route",
            lambda: with_route(via="b", gateway=two),
            sent("a", udp(away, IN), at("b", udp(away, OUT, ttl=63))),
        ),
        scenario(
            "the longest prefix wins, whatever the weights",
            lambda: with_route(kind=NextHopKind.BLACKHOLE).route(
                "r", narrow, via="b", gateway=two, weight=100
            ),
            sent("a", udp(away, IN), at("b", udp(away, OUT, ttl=63))),
        ),
        scenario(
            "the least weight wins among equals",
            lambda: with_route(via="far", gateway=three, weight=10).route(
                "r", wide, via="b", gateway=two, weight=5
            ),
            sent("a", udp(away, IN), at("b", udp(away, OUT, ttl=63))),
        ),
        scenario(
            "a route for another source falls back to a shorter prefix",
            lambda: with_route(via="b", gateway=two).route(
                "r", narrow, kind=NextHopKind.BLACKHOLE, source=subnet(family, 3)
            ),
            sent("a", udp(away, IN), at("b", udp(away, OUT, ttl=63))),
        ),
        scenario(
            "a route for this source is taken",
            lambda: with_route(via="b", gateway=two).route(
                "r", narrow, kind=NextHopKind.BLACKHOLE, source=subnet(family, 1)
            ),
            dropped("a", udp(away, IN), DropReason.BLACKHOLE_ROUTE),
        ),
        refused("no route is reported", edge, DropReason.NO_ROUTE, "no route"),
        refused(
            "a REJECT route is reported as prohibited",
            lambda: with_route(kind=NextHopKind.REJECT), DropReason.REJECTED, "prohibited",
        ),
        refused(
            "a next hop off the port's networks is unreachable",
            lambda: with_route(via="b", gateway=three),
            DropReason.NEIGHBOUR_UNRESOLVED, "unreachable",
        ),
        refused(
            "a next hop that gave no answer is unreachable",
            lambda: with_route(via="b", gateway=family.host(2, 9)).neighbour(
                "r", family.host(2, 9), None
            ),
            DropReason.NEIGHBOUR_UNRESOLVED, "unreachable",
        ),
        refused(
            "a router that is down is reported as prohibited",
            lambda: edge(up=False), DropReason.DEVICE_DOWN, "prohibited",
        ),
        refused(
            "a router's inbound filter that rejects is answered like a closed port",
            lambda: edge_ports(World().chain("no", rule("reject")).router("r", inbound="no")),
            DropReason.REJECTED, "port unreachable",
        ),
        scenario(
            "a router's filter that drops says nothing",
            lambda: edge_ports(World().chain("no", rule("drop")).router("r", outbound="no")),
            dropped("a", udp(route, IN), DropReason.FILTERED),
        ),
        scenario(
            "the outbound filter of a router knows both ports",
            lambda: edge_ports(
                World().chain("no", rule("drop", in_port_ids=("a",), out_port_ids=("b",)))
                .router("r", outbound="no")
            ),
            dropped("a", udp(route, IN), DropReason.FILTERED),
            sent("b", udp(back, (B, R2)), at("a", udp(back, (R1, A), ttl=63))),
        ),
        scenario(
            "the outbound filter of a router port sees the packet before it leaves",
            lambda: edge_ports(
                World().chain("no", rule("drop", eth_src=R2, ip_dst=two)).router("r"),
                outbound="no",
            ),
            dropped("a", udp(route, IN), DropReason.FILTERED),
        ),
        scenario(
            "a rejected connection is reset in the name of its addressee",
            lambda: edge_ports(World().chain("no", rule("reject")).router("r", outbound="no")),
            dropped(
                "a", tcp(route, IN), DropReason.REJECTED,
                at("a", tcp(back, (R1, A), ports=(80, 4000), flags=TcpFlag.RST | TcpFlag.ACK,
                            sequence=0, acknowledgment=8, window=0)),
            ),
            dropped("a", tcp(route, IN, flags=TcpFlag.RST), DropReason.REJECTED),
            dropped(
                "a", tcp(route, IN, flags=TcpFlag.ACK), DropReason.REJECTED,
                at("a", tcp(back, (R1, A), ports=(80, 4000), flags=TcpFlag.RST,
                            sequence=9, acknowledgment=0, window=0)),
            ),
        ),
        scenario(
            "a later fragment is never answered"
            if family is V4 else "a later fragment is answered with what is not its port",
            edge,
            dropped("a", fragment(away, IN, first=False), DropReason.NO_ROUTE,
                    *([] if family is V4 else
                      [told("no route", fragment(away, IN, first=False))])),
            dropped("a", fragment(away, IN, first=True), DropReason.NO_ROUTE,
                    told("no route", fragment(away, IN, first=True))),
        ),
        scenario(
            "fragments are routed like whole packets",
            edge,
            *(
                sent("a", fragment(route, IN, first=first),
                     at("b", fragment(route, OUT, first=first, ttl=63)))
                for first in (True, False)
            ),
        ),
        scenario(
            "an error about nothing is not answered",
            edge,
            dropped("a", icmp(away, IN, 3 if family is V4 else 1, 1, payload=bytes(40)),
                    DropReason.NO_ROUTE),
        ),
        scenario(
            "a TTL that runs out is reported",
            edge,
            *(
                dropped("a", udp(route, IN, ttl=ttl), DropReason.TTL_EXCEEDED,
                        told("time exceeded", udp(route, IN, ttl=ttl)))
                for ttl in (0, 1)
            ),
            sent("a", udp(route, IN, ttl=2), at("b", udp(route, OUT, ttl=1))),
        ),
        scenario("a traceroute sees each router in its turn", lambda: row(3), *_hops(family, 3)),
        scenario(
            "twelve routers in a row pass",
            lambda: row(12),
            sent("in", udp(route, IN), at("out", udp(route, OUT, ttl=52))),
        ),
        scenario(
            "a thirteenth router in a row is one too many",
            lambda: row(13),
            dropped("in", udp(route, IN), DropReason.LOOP_LIMIT),
        ),
        scenario(
            "a routing loop ends at the limit",
            lambda: row(2).route("r2", wide, via="w2", gateway=family.host(21, 1)).route(
                "r1", wide, via="e1", gateway=family.host(21, 2)
            ),
            dropped("in", udp(away, IN), DropReason.LOOP_LIMIT),
            dropped(
                "in", udp(away, IN, ttl=4), DropReason.TTL_EXCEEDED,
                at("in", aged(error("time exceeded", (family.host(21, 2), one), (R1, A),
                                     udp(away, (A, R1), ttl=1)), 1, family)),
            ),
        ),
        scenario(
            "the router answers an echo to its own address",
            edge,
            taken("a", echo((one, gateway), IN),
                  at("a", echo((gateway, one), (R1, A), reply=True))),
            taken("a", echo((one, family.host(2, 1)), IN),
                  at("a", echo((family.host(2, 1), one), (R1, A), reply=True))),
        ),
        scenario(
            "an echo through the router passes, and so does its answer",
            edge,
            sent("a", echo(route, IN), at("b", echo(route, OUT, ttl=63))),
            sent("b", echo(back, (B, R2), reply=True),
                 at("a", echo(back, (R1, A), reply=True, ttl=63))),
        ),
        scenario(
            "the router serves nothing else",
            edge,
            dropped("a", udp((one, gateway), IN), DropReason.LOCAL_NOT_HANDLED,
                    told("port unreachable", udp((one, gateway), IN))),
            dropped("a", tcp((one, gateway), IN), DropReason.LOCAL_NOT_HANDLED,
                    at("a", tcp((gateway, one), (R1, A), ports=(80, 4000), sequence=0,
                                acknowledgment=8, window=0, flags=TcpFlag.RST | TcpFlag.ACK))),
        ),
        scenario(
            "the outbound filter of the router holds for its own answers",
            lambda: edge_ports(World().chain("no", rule("drop")).router("r", outbound="no")),
            taken("a", echo((one, gateway), IN)),
        ),
        scenario(
            "its own answers count as return flow",
            lambda: edge_ports(
                World().chain("new only", rule("drop", match_forward_flow=True))
                .router("r", outbound="new only")
            ),
            taken("a", echo((one, gateway), IN),
                  at("a", echo((gateway, one), (R1, A), reply=True))),
            dropped("a", udp(route, IN), DropReason.FILTERED),
        ),
        scenario(
            "an egress port without an address of the version",
            lambda: World().router("r").port(
                "a", on="r", host="h1", mac=R1, addresses=(family.router(1),)
            ).port(
                "b", on="r", host="h1", mac=R2,
                addresses=((V6 if family is V4 else V4).router(2),),
            ).route("r", wide, via="b", gateway=two),
            dropped("a", udp(away, IN), DropReason.NO_PORT_ADDRESS),
        ),
        scenario(
            "the address of the egress port without its LOCAL route",
            lambda: World().router("r").port(
                "a", on="r", host="h1", mac=R1, addresses=(family.router(1),)
            ).port(
                "b", on="r", host="h1", mac=R2, addresses=(family.router(2),), routes=False
            ).route("r", subnet(family, 2), via="b"),
            dropped("a", udp((one, family.host(2, 1)), IN), DropReason.LOCAL_NOT_HANDLED),
        ),
        scenario(
            "an unknown next hop is asked for",
            edge,
            waits("a", udp((one, family.host(2, 9)), IN), f"b {family.host(2, 9)}"),
        ),
        scenario(
            "a stale next hop is used",
            lambda: edge().neighbour("r", two, C, stale=True),
            sent("a", udp(route, IN), at("b", udp(route, (R2, C), ttl=63))),
        ),
        scenario(
            "nothing leaves by an uplink for an underlay address of a host",
            lambda: edge().route("r", family.everywhere, via="b", gateway=two)
            .tunnel("h3", remote="2001:db8::3"),
            *(dropped("a", udp((one, host), IN), DropReason.UNDERLAY_SPOOF) for host in hosts),
            *(dropped("a", echo((one, host), IN), DropReason.UNDERLAY_SPOOF) for host in hosts),
            dropped("a", udp((hosts[1], two), IN, ttl=1), DropReason.TTL_EXCEEDED),
            sent("a", udp((one, near_host), IN),
                 at("b", udp((one, near_host), OUT, ttl=63))),
        ),
        # Between bridges.
        scenario(
            "stations of two bridges talk through the router",
            networks,
            sent("vm1", udp(route, IN), at("vm2", udp(route, OUT, ttl=63))),
            sent("vm2", udp(back, (B, R2)), at("vm1", udp(back, (R1, A), ttl=63))),
        ),
        scenario(
            "a routed packet floods the bridge where its station is unknown",
            lambda: networks().bridge_neighbour("n1", family.host(1, 7), C),
            sent("vm2", udp((two, family.host(1, 7)), (B, R2)),
                 at("vm1", udp((two, family.host(1, 7)), (R1, C), ttl=63)),
                 at("vm3", udp((two, family.host(1, 7)), (R1, C), ttl=63))),
        ),
        scenario(
            "a port of the router that is down is reported as prohibited",
            lambda: edge_ports(World().router("r"), up=False),
            dropped("a", udp(route, IN), DropReason.PORT_DOWN,
                    told("prohibited", udp(route, IN))),
            only_simulated="the loader takes out routes by a port that is down",
        ),
        scenario(
            "a route by a port that is neither bound nor linked",
            lambda: edge().port("u", on="r", addresses=(family.router(4),)),
            dropped("a", udp((one, family.host(4, 5)), IN), DropReason.PORT_UNPLUGGED),
            only_simulated="the loader takes out routes by an unplugged port",
        ),
        # Lengths.
        scenario(
            "what fits the tunnel passes, what does not is reported"
            if family is V6 else "what fits the tunnel passes, what may not be cut is reported",
            lambda: edge().tunnel("h2", remote="192.0.2.2", max_inner_length=1300),
            sent("a", _sized((one, three), IN, 1300, df=True),
                 through(103, _sized((one, three), (R3, C), 1300, df=True, ttl=63))),
            dropped("a", _sized((one, three), IN, 1301, df=True), DropReason.MTU_EXCEEDED,
                    told("too big", _sized((one, three), IN, 1301, df=True), mtu=1300)),
        ),
        scenario(
            "length does not matter where no tunnel is",
            lambda: edge().tunnel("h2", remote="192.0.2.2", max_inner_length=1300),
            sent("a", _sized(route, IN, 1500, df=True),
                 at("b", _sized(route, OUT, 1500, df=True, ttl=63))),
        ),
    ]  # fmt: skip


def _sized(
    route: tuple[str, str], macs: tuple[str, str], length: int, *, df: bool = False, ttl: int = 64
) -> bytes:
    """Return a datagram in an IP packet of `length` bytes. IPv6 has no DF."""
    is_v6 = ":" in route[0]
    size = length - (48 if is_v6 else 28)
    return udp(route, macs, size=size, ttl=ttl, df=df and not is_v6)


def _fragmentation() -> Scenario:
    route = (V4.host(1, 5), V4.host(3, 5))
    whole = _sized(route, IN, 1500)
    return scenario(
        "an IPv4 packet that may be cut is cut by the router",
        lambda: edge().tunnel("h2", remote="192.0.2.2", max_inner_length=1300),
        taken(
            "a",
            whole,
            through(103, piece(whole, 0, 1280, ttl=63, macs=(R3, C))),
            through(103, piece(whole, 1280, None, ttl=63, macs=(R3, C))),
        ),
    )


def _bridged_length() -> Scenario:
    long = _sized((V4.host(1, 5), V4.host(1, 6)), (A, B), 1451)
    return scenario(
        "a bridge has no address to report a length from",
        lambda: World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h2")
        .mac_at("b", B, "p2"),
        dropped("p1", long, DropReason.MTU_EXCEEDED),
    )  # fmt: skip


SCENARIOS: list[Scenario] = [
    *(
        Scenario(f"{one.name} ({family})", one.make, one.steps, one.only_simulated)
        for family in FAMILIES
        for one in of_family(family)
    ),
    _fragmentation(),
    _bridged_length(),
]
