"""Stations on bridges: who is found where, ARP and ND that pass, what moves. IPv4 and IPv6."""

from __future__ import annotations

from collections.abc import Iterator

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import PortRange
from midonet.model.devices import NextHopKind
from midonet.packets.addresses import parse_ip
from midonet.packets.build import Envelope, ip_frame
from midonet.packets.neighbour import arp_reply, arp_request, unsolicited_advertisement
from tests.scenario.bridging import chained, lan, ring, small_lan
from tests.scenario.filtering import chains
from tests.scenario.frames import (
    EVERYONE,
    FAMILIES,
    R1,
    R2,
    V4,
    V6,
    A,
    B,
    C,
    Family,
    echo,
    fragment,
    mac,
    raw,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge, edge_ports, networks
from tests.scenario.running import Scenario, at, dropped, scenario, sent, taken, through
from tests.scenario.vlans import answered, asked
from tests.worlds import World, rule

D = "02:aa:00:00:00:04"


def _value(text: str) -> int:
    return parse_ip(text).value


def three() -> World:
    """Bridge `b` with ports `p1` and `p2` here and `p3` (key 103) on h2."""
    world = World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h1")
    return world.port("p3", on="b", host="h2")


def _found(family: Family) -> Iterator[Scenario]:
    """Who is found where."""
    one, two = family.host(1, 5), family.host(1, 6)
    there, back = udp((one, two)), udp((two, one), (B, A))
    yield scenario(
        f"a station that moves to another host is followed, and back ({family})",
        lambda: three().mac_at("b", B, "p3"),
        sent("p1", there, through(103, there)),
        sent("p2", udp((two, one), (B, EVERYONE)), at("p1", udp((two, one), (B, EVERYONE))),
             through(103, udp((two, one), (B, EVERYONE)))),
        sent("p1", there, at("p2", there)),
    )  # fmt: skip
    yield scenario(
        f"a station that moves leaves nothing at its old port ({family})",
        lambda: small_lan().port("p3", on="b", host="h1"),
        sent("p1", there, at("p2", there), at("p3", there)),
        sent("p3", udp((one, two)), at("p1", there), at("p2", there)),
        sent("p2", back, at("p3", back)),
        sent("p1", udp((two, one), (C, A)), at("p3", udp((two, one), (C, A)))),
    )
    yield scenario(
        f"two stations behind one port do not hear each other through the bridge ({family})",
        lambda: small_lan().mac_at("b", A, "p1").mac_at("b", B, "p1"),
        dropped("p1", there, DropReason.HAIRPIN),
        dropped("p1", back, DropReason.HAIRPIN),
        sent("p2", udp((one, two), (C, B)), at("p1", udp((one, two), (C, B)))),
    )
    yield scenario(
        f"fragments go where their datagram goes ({family})",
        lambda: three().mac_at("b", B, "p3"),
        *(
            sent("p1", fragment((one, two), first=first),
                 through(103, fragment((one, two), first=first)))
            for first in (True, False)
        ),
    )  # fmt: skip
    yield scenario(
        f"a bridge forwards whatever the TTL is, and changes no byte ({family})",
        lambda: small_lan().mac_at("b", B, "p2"),
        *(
            sent("p1", make((one, two), (A, B), **link), at("p2", make((one, two), (A, B), **link)))
            for make in (udp, tcp, echo)
            for link in ({"ttl": 1}, {"ttl": 255}, {"tos": 0xB8}, {"vlan": 9})
        ),
    )
    yield scenario(
        f"a filter sees a frame where it is, in each bridge of a row ({family})",
        lambda: chained(3).chain("no", rule("drop", in_port_ids=("i1",)))
        .bridge("b2", outbound="no"),
        dropped("p1", there, DropReason.FILTERED),
        sent("p2", back, at("p1", back)),
    )  # fmt: skip
    yield scenario(
        f"a source is learnt on every bridge of a row ({family})",
        lambda: chained(4),
        sent("p1", udp((one, two), (A, EVERYONE)), at("p2", udp((one, two), (A, EVERYONE)))),
        sent("p2", back, at("p1", back)),
        sent("p1", there, at("p2", there)),
    )
    yield scenario(
        f"a station on a ring of bridges that moves is found where it is ({family})",
        lambda: ring(3).port("p3", on="b1", host="h1"),
        sent("p1", udp((one, two), (A, EVERYONE)),
             at("p2", udp((one, two), (A, EVERYONE))), at("p3", udp((one, two), (A, EVERYONE)))),
        sent("p2", back, at("p1", back)),
        sent("p3", udp((one, two), (A, EVERYONE)),
             at("p1", udp((one, two), (A, EVERYONE))), at("p2", udp((one, two), (A, EVERYONE)))),
        sent("p2", back, at("p3", back)),
    )  # fmt: skip


def _asked(family: Family) -> Iterator[Scenario]:
    """Questions about addresses, and answers."""
    one, two, gateway = family.host(1, 5), family.host(1, 9), family.host(1, 1)
    question = asked(family, two, by=A, sender=one)
    answer = answered(family, two, B, to=A, receiver=one, is_router=False)
    yield scenario(
        f"a question is flooded, its answer goes to who asked only ({family})",
        lambda: small_lan().port("p3", on="b", host="h1"),
        sent("p1", question, at("p2", question), at("p3", question)),
        sent("p2", answer, at("p1", answer)),
        sent("p1", udp((one, two)), at("p2", udp((one, two)))),
    )
    yield scenario(
        f"answers teach a bridge's table nothing ({family})",
        lambda: small_lan().port("p3", on="b", host="h1"),
        sent("p1", question, at("p2", question), at("p3", question)),
        sent("p2", answer, at("p1", answer)),
        sent("p3", asked(family, two, by=C, sender=family.host(1, 7)),
             at("p1", asked(family, two, by=C, sender=family.host(1, 7))),
             at("p2", asked(family, two, by=C, sender=family.host(1, 7)))),
    )  # fmt: skip
    yield scenario(
        f"a bridge answers from its table for an owner at another host ({family})",
        lambda: three().mac_at("b", B, "p3").bridge_neighbour("b", two, B),
        sent("p1", question, at("p1", answer), through(103, question)),
    )
    yield scenario(
        f"a bridge answers for each of several addresses of a router ({family})",
        lambda: World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h1")
        .router("r")
        .port("g", on="r", mac=R1, addresses=(family.router(1), family.router(8)))
        .attach("g", "b"),
        *(
            taken("p1", asked(family, own, sender=one),
                  at("p1", answered(family, own, R1, receiver=one)))
            for own in (gateway, family.host(8, 1))
        ),
    )  # fmt: skip
    yield scenario(
        f"a bridge answers for each of several routers ({family})",
        lambda: World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h1")
        .router("r").router("s")
        .port("g", on="r", mac=R1, addresses=(family.router(1),)).attach("g", "b")
        .port("k", on="s", mac=R2, addresses=(f"{two}/24" if family is V4 else f"{two}/64",))
        .attach("k", "b"),
        taken("p1", asked(family, gateway, sender=one),
              at("p1", answered(family, gateway, R1, receiver=one))),
        taken("p1", asked(family, two, sender=one),
              at("p1", answered(family, two, R2, receiver=one))),
    )  # fmt: skip
    yield scenario(
        f"an inbound filter keeps a question from being answered ({family})",
        lambda: World().chain("no", rule("drop", eth_src=A)).bridge("b", inbound="no")
        .port("p1", on="b", host="h1").port("p2", on="b", host="h1").router("r")
        .port("g", on="r", mac=R1, addresses=(family.router(1),)).attach("g", "b"),
        dropped("p1", asked(family, gateway, sender=one), DropReason.FILTERED),
        taken("p1", asked(family, gateway, by=C, sender=one),
              at("p1", answered(family, gateway, R1, to=C, receiver=one))),
    )  # fmt: skip
    yield scenario(
        f"a filter at the asker's port keeps the answer from it ({family})",
        lambda: World().chain("no", rule("drop", eth_src=R1)).bridge("b")
        .port("p1", on="b", host="h1", outbound="no").port("p2", on="b", host="h1").router("r")
        .port("g", on="r", mac=R1, addresses=(family.router(1),)).attach("g", "b"),
        taken("p1", asked(family, gateway, sender=one)),
        taken("p2", asked(family, gateway, sender=one),
              at("p2", answered(family, gateway, R1, receiver=one))),
    )  # fmt: skip
    own = family.host(1, 1)
    to_port = arp_request(mac(A), _value(one), _value(own)) if family is V4 else None
    if to_port is not None:
        unicast = mac(R1).to_bytes(6, "big") + to_port[6:]
        yield scenario(
            "a request to the port's MAC alone is answered as a broadcast is",
            edge,
            taken("a", unicast, at("a", arp_reply(mac(R1), _value(own), mac(A), _value(one)))),
            taken("a", to_port, at("a", arp_reply(mac(R1), _value(own), mac(A), _value(one)))),
        )  # fmt: skip
        yield scenario(
            "replies go to one station as other frames do",
            lambda: small_lan().mac_at("b", A, "p1"),
            sent("p2", arp_reply(mac(B), _value(two), mac(A), _value(one)),
                 at("p1", arp_reply(mac(B), _value(two), mac(A), _value(one)))),
        )  # fmt: skip


def _announced(family: Family) -> Iterator[Scenario]:
    """Gratuitous ARP and advertisements that nobody asked for."""
    who = family.host(1, 7)
    if family is V4:
        announcement = arp_request(mac(C), _value(who), _value(who))
    else:
        announcement = unsolicited_advertisement(mac(C), _value(who))
    yield scenario(
        f"an announcement is flooded and moves its station ({family})",
        lambda: small_lan().port("p3", on="b", host="h1").mac_at("b", C, "p2"),
        sent("p3", announcement, at("p1", announcement), at("p2", announcement)),
        sent("p1", udp((family.host(1, 5), who), (A, C)),
             at("p3", udp((family.host(1, 5), who), (A, C)))),
    )  # fmt: skip
    yield scenario(
        f"an announcement moves the traffic of a router behind the bridge ({family})",
        lambda: networks().bridge_neighbour("n1", who, D).mac_at("n1", D, "vm1"),
        sent("vm2", udp((family.host(2, 5), who), (B, R2)),
             at("vm1", udp((family.host(2, 5), who), (R1, D), ttl=63))),
        sent("vm3", announcement, at("vm1", announcement)),
        sent("vm2", udp((family.host(2, 5), who), (B, R2)),
             at("vm3", udp((family.host(2, 5), who), (R1, C), ttl=63))),
    )  # fmt: skip
    yield scenario(
        f"an announcement goes to other hosts once ({family})",
        lambda: lan().flood_group("h2", "b", 7000),
        sent("p1", announcement, at("p2", announcement), through(7000, announcement),
             through(105, announcement, remote="192.0.2.3")),
    )  # fmt: skip


def _chains(family: Family) -> Iterator[Scenario]:
    """Chains at several hooks of one way."""
    route = (family.host(1, 5), family.host(2, 5))
    frame, out = udp(route, IN), udp(route, OUT, ttl=63)
    once = {
        "top": (rule("jump", jump="sub"), rule("drop", l4_dst=PortRange(1, 1))),
        "sub": (rule("return", ip_proto=17), rule("drop")),
    }

    def at_hooks() -> World:
        world = World()
        for name, rules in once.items():
            world.chain(name, *rules)
        return edge_ports(world.router("r", inbound="top", outbound="top"), outbound="top")

    yield scenario(
        f"a chain that was visited at one hook is visited again at the next ({family})",
        at_hooks,
        sent("a", frame, at("b", out)),
        dropped("a", tcp(route, IN), DropReason.FILTERED),
        dropped("a", udp(route, IN, ports=(9, 1)), DropReason.FILTERED),
    )
    yield scenario(
        f"what one hook accepts the next may drop ({family})",
        lambda: edge_ports(
            World().chain("yes", rule("accept")).chain("no", rule("drop", l4_dst=PortRange(1, 99)))
            .router("r", inbound="yes", outbound="no")
        ),
        sent("a", frame, at("b", out)),
        dropped("a", tcp(route, IN), DropReason.FILTERED),
    )  # fmt: skip
    yield scenario(
        f"a filter of a router sees the packet as it enters, and as it leaves ({family})",
        lambda: edge_ports(
            World().chain("in", rule("drop", eth_src=R2)).chain("out", rule("drop", eth_src=R2))
            .router("r", inbound="in", outbound="out"),
        ),
        sent("a", frame, at("b", out)),
    )  # fmt: skip
    yield scenario(
        f"a jump goes on with the condition of each rule, not of the jump ({family})",
        chains(
            top=(rule("jump", jump="sub", l4_dst=PortRange(5000, 5000)), rule("accept")),
            sub=(rule("drop", l4_dst=PortRange(80, 80)), rule("drop", ip_dst=route[1])),
        ),
        dropped("p1", udp(route), DropReason.FILTERED),
        sent("p1", tcp(route), at("p2", tcp(route))),
    )
    yield scenario(
        f"a called chain that drops is silent in every protocol ({family})",
        chains(top=(rule("jump", jump="no"),), no=(rule("drop"),)),
        *(dropped("p1", make(route, (A, B)), DropReason.FILTERED) for make in (udp, tcp, echo)),
        dropped("p1", raw(0x88CC), DropReason.FILTERED),
    )


def _without_connection(family: Family) -> Iterator[Scenario]:
    """What has no connection is forward, and no answer."""
    route = (family.host(1, 5), family.host(1, 6))
    link = without_ports(route)
    frames = (raw(0x88CC), link, udp(route, (A, EVERYONE)))
    for direction in ("match_forward_flow", "match_return_flow"):
        yield scenario(
            f"a rule with {direction} about what has no connection ({family})",
            chains(top=(rule("drop", **{direction: True}),)),
            *(
                dropped("p1", frame, DropReason.FILTERED)
                if direction == "match_forward_flow"
                else sent("p1", frame, at("p2", frame))
                for frame in frames
            ),
        )


def without_ports(route: tuple[str, str]) -> bytes:
    """Return a packet of protocol 47, which has no ports."""
    source, destination = parse_ip(route[0]), parse_ip(route[1])
    return ip_frame(Envelope(mac(A), mac(B), source, destination), 47, bytes(20))


def _gateways(family: Family) -> Iterator[Scenario]:
    """Next hops, and routes that lead to them."""
    one, away = family.host(1, 5), "172.16.5.5" if family is V4 else "2001:db8:5::5"
    wide = "172.16.0.0/12" if family is V4 else "2001:db8::/32"
    host_route = f"{away}/{family.version.bits}"
    yield scenario(
        f"a host's own route wins over its network's ({family})",
        lambda: (
            edge()
            .route("r", wide, kind=NextHopKind.REJECT)
            .route("r", host_route, via="b", gateway=family.host(2, 5))
        ),
        sent("a", udp((one, away), IN), at("b", udp((one, away), OUT, ttl=63))),
    )
    yield scenario(
        f"a hole for one host in a network that is routed ({family})",
        lambda: edge().route("r", wide, via="b", gateway=family.host(2, 5)).route(
            "r", host_route, kind=NextHopKind.BLACKHOLE
        ),
        dropped("a", udp((one, away), IN), DropReason.BLACKHOLE_ROUTE),
        sent("a", udp((one, away[:-1] + "6"), IN),
             at("b", udp((one, away[:-1] + "6"), OUT, ttl=63))),
    )  # fmt: skip
    yield scenario(
        f"packets of a router's network to itself go back by the port they came from ({family})",
        lambda: edge().neighbour("r", family.host(1, 6), C),
        sent("a", udp((one, family.host(1, 6)), IN),
             at("a", udp((one, family.host(1, 6)), (R1, C), ttl=63))),
    )  # fmt: skip
    yield scenario(
        f"a route without gateway asks for each destination ({family})",
        lambda: edge().route("r", wide, via="b").port(
            "b", on="r", host="h1", mac=R2, routes=False,
            addresses=(V4.router(2), V6.router(2), wide.replace("0.0/12", "0.9/12") if
                       family is V4 else "2001:db8::9/32"),
        ).neighbour("r", away, C),
        sent("a", udp((one, away), IN), at("b", udp((one, away), (R2, C), ttl=63))),
    )  # fmt: skip
    yield scenario(
        f"a routed packet teaches the next bridge nothing of its sender ({family})",
        networks,
        sent("vm1", udp((one, family.host(2, 5)), (A, R1)),
             at("vm2", udp((one, family.host(2, 5)), (R2, B), ttl=63))),
        dropped("vm2", udp((family.host(2, 5), one), (B, A)), DropReason.NO_FLOOD_TARGET),
    )  # fmt: skip


SCENARIOS: list[Scenario] = [
    one
    for family in FAMILIES
    for part in (_found, _asked, _announced, _chains, _without_connection, _gateways)
    for one in part(family)
]
