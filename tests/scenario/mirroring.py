"""Mirrors of ports, bridges and routers: what is copied where, and that the packet goes its way."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import PortRange
from midonet.packets.neighbour import arp_reply, arp_request
from tests.scenario.bridging import BACK, FRAME, R4, R6, chained, ring
from tests.scenario.frames import (
    FAMILIES,
    R1,
    R2,
    TCP,
    UDP,
    V4,
    A,
    B,
    Family,
    address,
    echo,
    error,
    fragment,
    mac,
    retagged,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge, row
from tests.scenario.running import Scenario, Step, at, dropped, scenario, sent, taken, through
from tests.worlds import World, nat, rule

DATAGRAM6, SEGMENT = udp(R6), tcp(R4)
GROUP_SOURCE = udp(R4, ("03:aa:00:00:00:01", B))
ARP = arp_request(mac(A), address("10.0.0.1").value, address("10.0.0.2").value)
FIRST, LATER = (fragment(R4, first=first) for first in (True, False))

COPIED = sent("p1", FRAME, at("p2", FRAME), at("w", FRAME))
NOT_COPIED = sent("p1", FRAME, at("p2", FRAME))
ONLY_COPIED = sent("p1", FRAME, at("w", FRAME))
FILTERED = dropped("p1", FRAME, DropReason.FILTERED)
HOOKS = {
    "before the inbound filter": {"inbound": "p1"},
    "after the inbound filter": {"post_in_filter": "p1"},
    "before the outbound filter": {"pre_out_filter": "p2"},
    "after the outbound filter": {"outbound": "p2"},
}
"""The four points of ports that a packet from `p1` to `p2` passes."""


def watched(
    *, p1: dict[str, object] | None = None, p2: dict[str, object] | None = None, **w: object
) -> World:
    """Bridge `b` with ports `p1` and `p2`; who watches is at port `w` of bridge `taps`.

    Chain `drop` drops everything, `reject` rejects it. Keywords of ports go to them.
    """
    world = World().chain("drop", rule("drop")).chain("reject", rule("reject"))
    world.bridge("b").bridge("taps")
    world.port("p1", on="b", **{"host": "h1", **(p1 or {})})  # type: ignore[arg-type]
    world.port("p2", on="b", **{"host": "h1", **(p2 or {})})  # type: ignore[arg-type]
    return world.port("w", on="taps", **{"host": "h1", **w})  # type: ignore[arg-type]


def at_point(name: str, where: dict[str, str], filters: dict[str, str]) -> World:
    """Return `watched` with a mirror at one point, and filters of the port that it is at."""
    port = next(iter(where.values()))
    return watched(**{port: dict(filters)}).mirror("m", "w", {}, **where)


def _points() -> list[Scenario]:
    found = []
    for name, where in HOOKS.items():
        side = "inbound" if "inbound" in name else "outbound"
        is_before = name.startswith("before")
        sees = "sees" if is_before else "does not see"
        found += [
            scenario(
                f"a mirror {name} of a port copies what passes",
                lambda name=name, where=where: at_point(name, where, {}),
                COPIED,
                sent("p1", DATAGRAM6, at("p2", DATAGRAM6), at("w", DATAGRAM6)),
            ),
            scenario(
                f"a mirror {name} of a port {sees} what it drops",
                lambda name=name, where=where, side=side: at_point(name, where, {side: "drop"}),
                ONLY_COPIED if is_before else FILTERED,
            ),
            scenario(
                f"a mirror {name} of a port {sees} what it rejects",
                lambda name=name, where=where, side=side: at_point(name, where, {side: "reject"}),
                _rejected(is_before),
            ),
        ]
    return found


def _rejected(is_copied: bool) -> Step:
    told = at("p1", error("port unreachable", (R4[1], R4[0]), (B, A), FRAME))
    if is_copied:
        return sent("p1", FRAME, at("w", FRAME), told)
    return dropped("p1", FRAME, DropReason.REJECTED, told)


def mirrored(**where: str) -> World:
    """Return `watched` with a mirror of everything at some hooks."""
    return watched().mirror("m", "w", {}, **where)


def selected(*conditions: dict[str, object]) -> World:
    """Return `watched` with a mirror of what enters by `p1` and meets a condition."""
    return watched().mirror("m", "w", *conditions, inbound="p1")


def to_port(**w: object) -> World:
    """Return `watched` with a mirror of what enters by `p1`. Keywords go to the mirror's port."""
    return watched(**w).mirror("m", "w", {}, inbound="p1")


CONDITIONS = [
    scenario("a mirror without conditions copies nothing", selected, NOT_COPIED),
    scenario(
        "a mirror copies what meets one of its conditions",
        lambda: selected({"ip_proto": TCP}, {"ip_proto": UDP, "l4_dst": PortRange(53, 53)}),
        sent("p1", SEGMENT, at("p2", SEGMENT), at("w", SEGMENT)),
        sent(
            "p1",
            udp(R4, ports=(4000, 53)),
            at("p2", udp(R4, ports=(4000, 53))),
            at("w", udp(R4, ports=(4000, 53))),
        ),
        NOT_COPIED,
    ),
    scenario(
        "a mirror copies what does not meet an inverted condition",
        lambda: selected({"ip_proto": TCP, "inverted": True}),
        COPIED,
        sent("p1", SEGMENT, at("p2", SEGMENT)),
    ),
    scenario(
        "a mirror's condition asks by which port a frame entered",
        lambda: watched().mirror("m", "w", {"in_port_ids": ("p1",)}, inbound="b"),
        COPIED,
        sent("p2", BACK, at("p1", BACK)),
    ),
    scenario(
        "a mirror's condition asks by which port a frame leaves",
        lambda: (
            watched().mac_at("b", B, "p2").mirror("m", "w", {"out_port_ids": ("p2",)}, outbound="b")
        ),
        COPIED,
        sent("p2", BACK, at("p1", BACK)),
    ),
    scenario(
        "a mirror's condition on ports takes no later fragments",
        lambda: selected({"ip_proto": UDP, "l4_dst": PortRange(5000, 5000)}),
        sent("p1", FIRST, at("p2", FIRST), at("w", FIRST)),
        sent("p1", LATER, at("p2", LATER)),
    ),
    scenario(
        "a mirror without tests takes fragments and frames of any kind",
        lambda: selected({}),
        sent("p1", LATER, at("p2", LATER), at("w", LATER)),
        sent("p1", retagged(FRAME, 7), at("p2", retagged(FRAME, 7)), at("w", retagged(FRAME, 7))),
    ),
    scenario(
        "several mirrors of one point each make their copy",
        lambda: (
            watched()
            .port("v", on="taps", host="h1")
            .mirror("m", "w", {}, inbound="p1")
            .mirror("n", "v", {"ip_proto": UDP}, inbound="p1")
            .mirror("o", "v", {"ip_proto": TCP}, inbound="p1")
        ),
        sent("p1", FRAME, at("p2", FRAME), at("w", FRAME), at("v", FRAME)),
    ),
    scenario(
        "one mirror at several points copies at each",
        lambda: mirrored(inbound="p1", post_in_filter="p1", pre_out_filter="p2", outbound="p2"),
        sent("p1", FRAME, at("p2", FRAME), *[at("w", FRAME)] * 4),
    ),
]

BRIDGES = [
    scenario(
        "a mirror before a bridge's filter sees what the filter drops",
        lambda: watched().bridge("b", inbound="drop").mirror("m", "w", {}, inbound="b"),
        ONLY_COPIED,
    ),
    scenario(
        "a mirror after a bridge's filter does not see what the filter drops",
        lambda: watched().bridge("b", outbound="drop").mirror("m", "w", {}, outbound="b"),
        FILTERED,
    ),
    scenario(
        "a mirror of a bridge copies a flood once",
        lambda: watched().port("p3", on="b", host="h1").mirror("m", "w", {}, outbound="b"),
        sent("p1", FRAME, at("p2", FRAME), at("p3", FRAME), at("w", FRAME)),
    ),
    scenario(
        "mirrors of flooded ports copy at each of them",
        lambda: (
            watched()
            .port("p3", on="b", host="h1")
            .mirror("m", "w", {}, pre_out_filter="p2", outbound="p3")
        ),
        sent("p1", FRAME, at("p2", FRAME), at("p3", FRAME), at("w", FRAME), at("w", FRAME)),
    ),
    scenario(
        "a mirror of a bridge sees tagged frames, which skip the filters",
        lambda: watched().mirror("m", "w", {"vlan": 7}, inbound="b", outbound="b"),
        sent(
            "p1",
            retagged(FRAME, 7),
            at("p2", retagged(FRAME, 7)),
            *[at("w", retagged(FRAME, 7))] * 2,
        ),
    ),
    scenario(
        "a frame from a group address is copied and goes no further",
        lambda: mirrored(inbound="b"),
        sent("p1", GROUP_SOURCE, at("w", GROUP_SOURCE)),
    ),
    scenario(
        "a bridge that is down copies nothing",
        lambda: mirrored(inbound="b").set_up("b", False),
        dropped("p1", FRAME, DropReason.DEVICE_DOWN),
    ),
    scenario(
        "a port that is down copies nothing",
        lambda: mirrored(inbound="p1").set_up("p1", False),
        dropped("p1", FRAME, DropReason.PORT_DOWN),
    ),
    scenario(
        "a frame that a bridge answers is copied where it enters",
        lambda: mirrored(inbound="b", outbound="b").bridge_neighbour("b", "10.0.0.2", B),
        sent(
            "p1",
            ARP,
            at(
                "p1",
                arp_reply(mac(B), address("10.0.0.2").value, mac(A), address("10.0.0.1").value),
            ),
            at("w", ARP),
        ),
    ),
    scenario(
        "an answer of a bridge is copied where it leaves",
        lambda: mirrored(outbound="p1").bridge_neighbour("b", "10.0.0.2", B),
        taken(
            "p1",
            ARP,
            *(
                at(
                    where,
                    arp_reply(mac(B), address("10.0.0.2").value, mac(A), address("10.0.0.1").value),
                )
                for where in ("p1", "w")
            ),
        ),
    ),
    scenario(
        "a mirror between two bridges copies at both ends of the link",
        lambda: (
            chained(2)
            .bridge("taps")
            .port("w", on="taps", host="h1")
            .mirror("m", "w", {}, outbound="o0", inbound="i0")
        ),
        sent("p1", FRAME, at("p2", FRAME), at("w", FRAME), at("w", FRAME)),
    ),
]

WAYS = [
    scenario(
        "a copy passes the outbound filter of the mirror's port",
        lambda: to_port(outbound="udp").chain("udp", rule("drop", ip_proto=UDP)),
        NOT_COPIED,
        sent("p1", SEGMENT, at("p2", SEGMENT), at("w", SEGMENT)),
    ),
    scenario(
        "a copy that is rejected is answered by nobody",
        lambda: to_port(outbound="reject"),
        NOT_COPIED,
        sent("p1", SEGMENT, at("p2", SEGMENT)),
    ),
    scenario(
        "a copy is not translated on its way to who watches",
        lambda: to_port(outbound="nat").chain(
            "nat",
            nat("snat", "192.0.2.7", ip_proto=UDP),
            nat("snat", "192.0.2.1-192.0.2.2 1000-2000", ip_proto=TCP),
        ),
        COPIED,
        sent("p1", SEGMENT, at("p2", SEGMENT), at("w", SEGMENT)),
    ),
    scenario("a copy to a port that is down ends there", lambda: to_port(up=False), NOT_COPIED),
    scenario(
        "a copy to a port that is neither bound nor linked ends there",
        lambda: to_port(host=None),
        NOT_COPIED,
    ),
    scenario(
        "a copy to a port that nobody has reported ends there",
        lambda: to_port(located=False),
        NOT_COPIED,
    ),
    scenario(
        "a copy to a port that does not exist ends there",
        lambda: watched().absent("gone").mirror("m", "gone", {}, inbound="p1"),
        NOT_COPIED,
        only_simulated="a mirror goes with its port",
    ),
    scenario(
        "a mirror that does not exist copies nothing",
        lambda: to_port().unmirror("m").absent("m"),
        NOT_COPIED,
        only_simulated="a device lets go of a mirror that goes",
    ),
    scenario(
        "a copy goes to another host through the tunnel",
        lambda: to_port(host="h2", key=77),
        sent("p1", FRAME, at("p2", FRAME), through(77, FRAME)),
    ),
    scenario(
        "a packet and its copy go to another host in two pieces of the tunnel",
        lambda: watched(p2={"host": "h2", "key": 66}, host="h2", key=77).mirror(
            "m", "w", {}, inbound="p1"
        ),
        sent("p1", FRAME, through(66, FRAME), through(77, FRAME)),
    ),
    scenario(
        "a copy that is too long for the tunnel is left out",
        lambda: to_port(host="h2", key=77),
        sent("p1", udp(R4, size=1460), at("p2", udp(R4, size=1460))),
        sent(
            "p1", udp(R4, size=1400), at("p2", udp(R4, size=1400)), through(77, udp(R4, size=1400))
        ),
    ),
    scenario(
        "a flood to a host is one packet, and the copy another",
        lambda: (
            watched(p2={"host": "h2"}, host="h2", key=77)
            .port("p3", on="b", host="h2")
            .flood_group("h2", "b", 5000)
            .mirror("m", "w", {}, inbound="p1")
        ),
        sent("p1", FRAME, through(5000, FRAME), through(77, FRAME)),
    ),
    scenario(
        "a copy to a port that a flood to its host reaches too arrives twice",
        lambda: (
            watched(p2={"host": "h2", "key": 66})
            .flood_group("h2", "b", 5000)
            .mirror("m", "p2", {}, inbound="p1")
        ),
        sent("p1", FRAME, through(5000, FRAME), through(66, FRAME)),
    ),
    scenario(
        "a copy to the port that the packet leaves by arrives twice",
        lambda: watched().mirror("m", "p2", {}, inbound="p1"),
        sent("p1", FRAME, at("p2", FRAME), at("p2", FRAME)),
    ),
    scenario(
        "a copy to the port that the packet came by ends there",
        lambda: watched().mirror("m", "p1", {}, inbound="p1"),
        NOT_COPIED,
    ),
    scenario(
        "a copy loses the tag of the mirror's port, and has no other",
        lambda: watched(vlan=7).mirror("m", "w", {}, inbound="p1"),
        sent("p1", retagged(FRAME, 7), at("p2", retagged(FRAME, 7)), at("w", FRAME)),
        sent("p1", retagged(FRAME, 8), at("p2", retagged(FRAME, 8))),
        NOT_COPIED,
    ),
    scenario(
        "a copy into another bridge is flooded there, and teaches it nothing",
        lambda: (
            watched(host=None)
            .bridge("far")
            .port("v", on="far")
            .link("w", "v")
            .port("x", on="far", host="h1")
            .port("y", on="far", host="h1")
            .mirror("m", "w", {}, inbound="b")
        ),
        sent("p1", FRAME, at("p2", FRAME), at("x", FRAME), at("y", FRAME)),
        # Known on `b` by now; on `far` nobody has sent anything.
        sent("p2", BACK, at("p1", BACK), at("x", BACK), at("y", BACK)),
        sent("x", BACK, at("y", BACK)),
    ),
    scenario(
        "two copies of a frame into one bridge both arrive",
        lambda: (
            watched(host=None)
            .bridge("far")
            .port("v", on="far")
            .link("w", "v")
            .port("x", on="far", host="h1")
            .mirror("m", "w", {}, inbound="p1", outbound="p2")
        ),
        sent("p1", FRAME, at("p2", FRAME), at("x", FRAME), at("x", FRAME)),
    ),
    scenario(
        "a request that is copied to another network is answered in its own only",
        lambda: (
            watched(host=None)
            .bridge("far")
            .port("v", on="far")
            .link("w", "v")
            .port("x", on="far", host="h1")
            .bridge_neighbour("far", "10.0.0.2", B)
            .mirror("m", "w", {}, inbound="p1")
        ),
        sent("p1", ARP, at("p2", ARP)),
    ),
    scenario(
        "copies are copied in their turn",
        lambda: to_port().port("v", on="taps", host="h1").mirror("n", "v", {}, outbound="w"),
        sent("p1", FRAME, at("p2", FRAME), at("w", FRAME), at("v", FRAME)),
    ),
]

BOUNDS = [
    scenario(
        "a port that is mirrored to itself gets as many copies as there may be devices",
        lambda: to_port().mirror("n", "w", {}, outbound="w"),
        sent("p1", FRAME, at("p2", FRAME), *[at("w", FRAME)] * 11),
    ),
    scenario(
        "ports that are mirrored to each other end at the same bound",
        lambda: (
            to_port()
            .port("v", on="taps", host="h1")
            .mirror("n", "v", {}, outbound="w")
            .mirror("o", "w", {}, outbound="v")
        ),
        sent("p1", FRAME, at("p2", FRAME), *[at("w", FRAME)] * 6, *[at("v", FRAME)] * 5),
    ),
    scenario(
        "more copies than one packet may have are all left out, the packet is not",
        lambda: (
            to_port()
            .mirror("n", "w", {}, outbound="w")
            .mirror("o", "w", {}, outbound="w")
        ),
        NOT_COPIED,
    ),
    scenario(
        "mirrors do not shorten the way of a packet",
        lambda: _mirrored_row(12),
        sent("in", udp((V4.host(1, 5), V4.host(2, 5)), IN, ttl=64),
             at("out", udp((V4.host(1, 5), V4.host(2, 5)), OUT, ttl=52)),
             at("w", udp((V4.host(1, 5), V4.host(2, 5)), IN, ttl=64))),
    ),
    scenario(
        "a mirror's copy counts one device more than the packet has passed",
        lambda: _mirrored_row(12, "r12"),
        sent("in", udp((V4.host(1, 5), V4.host(2, 5)), IN, ttl=64),
             at("out", udp((V4.host(1, 5), V4.host(2, 5)), OUT, ttl=52))),
    ),
    scenario(
        "copies round a ring of bridges come to an end",
        lambda: (
            ring(3)
            .bridge("taps")
            .port("w", on="taps", host="h1")
            .mirror("m", "w", {}, inbound="b1")
        ),
        # The frame comes to each bridge by both links; the second time it has been there before.
        sent("p1", FRAME, at("p2", FRAME), at("w", FRAME), at("w", FRAME)),
    ),
]  # fmt: skip


def _mirrored_row(length: int, device: str = "r1") -> World:
    world = row(length).bridge("taps").port("w", on="taps", host="h1")
    return world.mirror("m", "w", {}, inbound=device)


def of_family(family: Family) -> list[Scenario]:
    """Return the scenarios of routers, alike for both IP versions."""
    one, two = family.host(1, 5), family.host(2, 5)
    route = (one, two)
    frame, routed = udp(route, IN), udp(route, OUT, ttl=63)

    def tapped(**where: str) -> World:
        world = edge().bridge("taps").port("w", on="taps", host="h1")
        return world.mirror("m", "w", {}, **where)

    away = udp((one, "172.16.5.5" if family is V4 else "2001:db8:5::5"), IN)
    no_route = error("no route", (family.host(1, 1), one), (R1, A), away)
    old = udp(route, IN, ttl=1)
    expired = error("time exceeded", (family.host(1, 1), one), (R1, A), old)
    request = echo((one, family.host(1, 1)), (A, R1))
    reply = echo((family.host(1, 1), one), (R1, A), reply=True)
    return [
        scenario(
            f"a mirror before a router's filter copies the packet as it came ({family})",
            lambda: tapped(inbound="r"),
            sent("a", frame, at("b", routed), at("w", frame)),
        ),
        scenario(
            f"a mirror after a router's filter copies the packet as it leaves ({family})",
            lambda: tapped(outbound="r"),
            sent("a", frame, at("b", routed), at("w", routed)),
        ),
        scenario(
            f"mirrors of router ports copy on either side of the router ({family})",
            lambda: tapped(post_in_filter="a", pre_out_filter="b"),
            sent("a", frame, at("b", routed), at("w", frame), at("w", routed)),
        ),
        scenario(
            f"a packet without a route is answered, and copied where it entered ({family})",
            lambda: tapped(inbound="r", outbound="r"),
            sent("a", away, at("a", no_route), at("w", away)),
        ),
        scenario(
            f"a packet that is too old is answered, and copied where it entered ({family})",
            lambda: tapped(inbound="a"),
            sent("a", old, at("a", expired), at("w", old)),
        ),
        scenario(
            f"a router's answer is copied where it leaves ({family})",
            lambda: tapped(outbound="a"),
            taken("a", request, at("a", reply), at("w", reply)),
        ),
        scenario(
            f"a packet and its copy leave with different headers ({family})",
            lambda: tapped(inbound="r", outbound="b"),
            sent("a", frame, at("b", routed), at("w", frame), at("w", routed)),
        ),
        scenario(
            f"a copy into a router is not routed for others ({family})",
            lambda: (
                edge()
                .bridge("n")
                .port("p", on="n", host="h1")
                .port("q", on="n", host="h1")
                .port("c", on="r", mac=R2, addresses=(family.router(9),))
                .attach("c", "n")
                .mirror("m", "c-peer", {}, inbound="p")
            ),
            sent("p", udp(route, (A, B)), at("q", udp(route, (A, B)))),
        ),
    ]


SCENARIOS = [
    *_points(),
    *CONDITIONS,
    *BRIDGES,
    *WAYS,
    *BOUNDS,
    *(one for family in FAMILIES for one in of_family(family)),
]
