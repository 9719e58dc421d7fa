"""Bridges: learning, forwarding, flooding, VLANs, filters."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import PortRange
from midonet.model.hosts import TunnelKind
from midonet.packets.neighbour import arp_request
from tests.scenario.frames import (
    EVERYONE,
    FAMILIES,
    V4,
    V6,
    A,
    B,
    C,
    address,
    error,
    fragment,
    icmp,
    mac,
    raw,
    retagged,
    tcp,
    udp,
)
from tests.scenario.running import Scenario, at, dropped, scenario, sent, through, waits
from tests.worlds import World, rule

R4 = (V4.host(1, 5), V4.host(1, 6))
R6 = (V6.host(1, 5), V6.host(1, 6))
FRAME = udp(R4)
BACK = udp((R4[1], R4[0]), (B, A))
GRE = TunnelKind.GRE
ARP = arp_request(mac(A), address("10.0.0.1").value, address("10.0.0.2").value)


def lan(**bridge: str | bool | None) -> World:
    """Bridge `b` with two ports here, two on `h2` (keys 103, 104) and one on `h3` (105)."""
    world = World().bridge("b", **bridge)  # type: ignore[arg-type]
    for name, host in (("p1", "h1"), ("p2", "h1"), ("p3", "h2"), ("p4", "h2"), ("p5", "h3")):
        world.port(name, on="b", host=host)
    return world


def small_lan(**bridge: str | bool | None) -> World:
    """Bridge `b` with two ports here."""
    world = World().bridge("b", **bridge)  # type: ignore[arg-type]
    return world.port("p1", on="b", host="h1").port("p2", on="b", host="h1")


def trunk() -> World:
    """Bridge `t` with trunks `t1`, `t2`; VLANs 10 and 20 lead to bridges with a port each."""
    world = World().bridge("t").bridge("b10").bridge("b20")
    world.port("t1", on="t", host="h1").port("t2", on="t", host="h1")
    for vlan in (10, 20):
        world.port(f"v{vlan}", on="t", vlan=vlan).port(f"u{vlan}", on=f"b{vlan}")
        world.port(f"a{vlan}", on=f"b{vlan}", host="h1").link(f"v{vlan}", f"u{vlan}")
    return world


def chained(length: int) -> World:
    """A row of `length` bridges, the first with port `p1`, the last with port `p2`."""
    world = World()
    for index in range(length):
        world.bridge(f"b{index}")
    world.port("p1", on="b0", host="h1").port("p2", on=f"b{length - 1}", host="h1")
    for index in range(length - 1):
        world.port(f"o{index}", on=f"b{index}").port(f"i{index}", on=f"b{index + 1}")
        world.link(f"o{index}", f"i{index}")
    return world


def ring(length: int) -> World:
    """A row of bridges whose last one has a second link, to the first."""
    world = chained(length).port("o9", on=f"b{length - 1}").port("i9", on="b0")
    return world.link("o9", "i9")


def guarded_ring(refusing: tuple[str, ...]) -> World:
    """Two bridges joined by two links; `b1` refuses what enters by some of its ports."""
    world = World().chain("c", rule("drop", in_port_ids=refusing))
    world.bridge("b0").bridge("b1", inbound="c")
    world.port("p1", on="b0", host="h1").port("p2", on="b1", host="h1")
    for left, right in (("o0", "i0"), ("o9", "i9")):
        world.port(left, on="b0").port(right, on="b1").link(left, right)
    return world


def mesh(count: int) -> World:
    """Bridges that are linked with each other; ports `p1` to `p3` on the first three."""
    world = World()
    for index in range(1, count + 1):
        world.bridge(f"b{index}")
        for other in range(1, index):
            ends = f"o{index}-{other}", f"i{index}-{other}"
            world.port(ends[0], on=f"b{index}").port(ends[1], on=f"b{other}").link(*ends)
    for index in (1, 2, 3):
        world.port(f"p{index}", on=f"b{index}", host="h1")
    return world


def star() -> World:
    """Bridge `b0` with port `p1`, and 1,024 bridges linked to it, each with a port."""
    world = World().bridge("b0").port("p1", on="b0", host="h1")
    for index in range(1, 1025):
        world.bridge(f"b{index}").port(f"x{index}", on=f"b{index}", host="h1")
        world.port(f"o{index}", on="b0").port(f"i{index}", on=f"b{index}")
        world.link(f"o{index}", f"i{index}")
    return world


def wide(count: int, *, host: str = "h1", outbound: object = None) -> World:
    """Bridge `b` with local port `p1` and `count - 1` ports at a host; 2,500 times a rule there."""
    world = World().bridge("b").port("p1", on="b", host="h1")
    if outbound is not None:
        world.chain("c", *[outbound] * 2500)  # type: ignore[list-item]
    for index in range(1, count):
        world.port(f"x{index}", on="b", host=host, outbound="c" if outbound else None)
    return world


def with_rules(*rules: object, hook: str = "inbound", on: str = "port") -> World:
    """Two ports on a bridge, with a chain at one hook of the bridge or of the first port."""
    world = World().chain("c", *rules)  # type: ignore[arg-type]
    world.bridge("b", **({hook: "c"} if on == "bridge" else {}))  # type: ignore[arg-type]
    filters = {hook: "c"} if on == "port" else {}
    if hook == "outbound":
        return world.port("p1", on="b", host="h1").port("p2", on="b", host="h1", **filters)  # type: ignore[arg-type]
    return world.port("p1", on="b", host="h1", **filters).port("p2", on="b", host="h1")  # type: ignore[arg-type]


def _everywhere(frame: bytes) -> tuple[object, ...]:
    return (
        at("p2", frame),
        through(103, frame),
        through(104, frame),
        through(105, frame, remote="192.0.2.3"),
    )


SCENARIOS: list[Scenario] = [
    scenario(
        "unknown unicast floods to every port, the answer finds its way",
        lan,
        sent("p1", FRAME, *_everywhere(FRAME)),  # type: ignore[arg-type]
        sent("p2", BACK, at("p1", BACK)),
        sent("p1", FRAME, at("p2", FRAME)),
    ),
    scenario(
        "a station that moves is found at its new port",
        small_lan,
        sent("p1", FRAME, at("p2", FRAME)),
        sent("p2", FRAME, at("p1", FRAME)),
        dropped("p2", BACK, DropReason.HAIRPIN),
    ),
    scenario(
        "known unicast crosses to another host by the key of its port",
        lambda: lan().mac_at("b", B, "p3"),
        sent("p1", FRAME, through(103, FRAME)),
        sent("p1", udp(R6), through(103, udp(R6))),
        sent("p1", raw(0x88CC), through(103, raw(0x88CC))),
    ),
    scenario(
        "a GRE zone tunnels by GRE",
        lambda: lan().tunnel("h2", remote="192.0.2.9", kind=GRE).mac_at("b", B, "p4"),
        sent("p1", FRAME, through(104, FRAME, remote="192.0.2.9", kind=GRE)),
    ),
    scenario(
        "the underlay may be IPv6",
        lambda: lan().tunnel("h2", remote="2001:db8::2", max_inner_length=1400).mac_at(
            "b", B, "p3"
        ),
        sent("p1", udp(R6), through(103, udp(R6), remote="2001:db8::2")),
    ),
    scenario(
        "broadcast and multicast flood",
        small_lan,
        *(
            sent("p1", udp(R4, (A, group)), at("p2", udp(R4, (A, group))))
            for group in (EVERYONE, "01:00:5e:00:00:fb", "33:33:00:00:00:01")
        ),
    ),
    scenario(
        "a host with a flood group gets one copy",
        lambda: lan().flood_group("h2", "b", 7000),
        sent("p1", FRAME, at("p2", FRAME), through(7000, FRAME),
             through(105, FRAME, remote="192.0.2.3")),
    ),
    scenario(
        "a flood group is not used when one port filters",
        lambda: lan().chain("any", rule("accept")).port(
            "p6", on="b", host="h2", outbound="any"
        ).flood_group("h2", "b", 7000),
        sent("p1", FRAME, *_everywhere(FRAME), through(106, FRAME)),  # type: ignore[arg-type]
    ),
    scenario(
        "each copy of a flood meets the filter of its own port",
        lambda: lan().chain("no udp", rule("drop", ip_proto=17)).port(
            "p6", on="b", host="h1", outbound="no udp"
        ),
        sent("p1", FRAME, *_everywhere(FRAME)),  # type: ignore[arg-type]
        sent("p1", tcp(R4), *_everywhere(tcp(R4)), at("p6", tcp(R4))),  # type: ignore[arg-type]
    ),
    scenario(
        "a flood leaves out ports that are down, unreported or out of reach",
        lambda: lan().port("p6", on="b", host="h1", up=False).port(
            "p7", on="b", host="h2", located=False
        ).port("p8", on="b", host="h4").no_tunnel("h4"),
        sent("p1", FRAME, *_everywhere(FRAME)),  # type: ignore[arg-type]
    ),
    scenario(
        "a flood from the only port goes nowhere",
        lambda: World().bridge("b").port("p1", on="b", host="h1"),
        dropped("p1", FRAME, DropReason.NO_FLOOD_TARGET),
    ),
    scenario(
        "a station behind the port the frame came in by is a hairpin",
        lambda: small_lan().mac_at("b", C, "p1"),
        dropped("p1", udp(R4, (A, C)), DropReason.HAIRPIN),
        dropped("p1", udp(R4, (A, A)), DropReason.HAIRPIN),
    ),
    scenario(
        "a group address is nobody's source",
        small_lan,
        dropped("p1", udp(R4, ("01:00:5e:00:00:01", B)), DropReason.SOURCE_MAC_MULTICAST),
    ),
    scenario(
        "a bridge that is down drops without learning",
        lambda: small_lan(up=False),
        dropped("p1", FRAME, DropReason.DEVICE_DOWN),
        dropped("p2", BACK, DropReason.DEVICE_DOWN),
    ),
    scenario(
        "a port that is down lets nothing in and nothing out",
        lambda: small_lan().port("p3", on="b", host="h1", up=False).mac_at("b", C, "p3"),
        dropped("p3", FRAME, DropReason.PORT_DOWN),
        dropped("p1", udp(R4, (A, C)), DropReason.PORT_DOWN),
    ),
    scenario(
        "a port that is neither bound nor linked is unplugged",
        lambda: small_lan().port("p3", on="b").mac_at("b", C, "p3"),
        dropped("p1", udp(R4, (A, C)), DropReason.PORT_UNPLUGGED),
    ),
    scenario(
        "a port whose host has not reported it has no location",
        lambda: small_lan().port("p3", on="b", host="h2", located=False).mac_at("b", C, "p3"),
        dropped("p1", udp(R4, (A, C)), DropReason.NO_LOCATION),
    ),
    scenario(
        "a host without a common zone is out of reach",
        lambda: lan().no_tunnel("h2").mac_at("b", B, "p3"),
        dropped("p1", FRAME, DropReason.NO_TUNNEL),
    ),
    scenario(
        "a MAC entry of a port that is gone floods",
        lambda: small_lan().mac_at("b", B, "gone").absent("gone"),
        sent("p1", FRAME, at("p2", FRAME)),
    ),
    scenario(
        "linked bridges flood into each other and learn the link",
        lambda: chained(3),
        sent("p1", FRAME, at("p2", FRAME)),
        sent("p2", BACK, at("p1", BACK)),
        sent("p1", FRAME, at("p2", FRAME)),
    ),
    scenario(
        "twelve devices in a row pass",
        lambda: chained(12),
        sent("p1", FRAME, at("p2", FRAME)),
    ),
    scenario(
        "a thirteenth device in a row is one too many",
        lambda: chained(13),
        dropped("p1", FRAME, DropReason.LOOP_LIMIT),
    ),
    # VLANs.
    scenario(
        "a trunk delivers a tag to its VLAN, untagged, and to other trunks as it is",
        trunk,
        sent("t1", udp(R4, vlan=10), at("a10", udp(R4)), at("t2", udp(R4, vlan=10))),
        sent("t1", udp(R4, vlan=30), at("t2", udp(R4, vlan=30))),
        sent("t1", udp(R4), at("t2", udp(R4))),
    ),
    scenario(
        "a frame from a VLAN is tagged towards trunks only",
        trunk,
        sent("a20", udp(R6), at("t1", udp(R6, vlan=20)), at("t2", udp(R6, vlan=20))),
    ),
    scenario(
        "the tables of VLANs are apart",
        trunk,
        sent("t1", udp(R4, vlan=10), at("a10", FRAME), at("t2", udp(R4, vlan=10))),
        sent("a20", BACK, at("t1", udp((R4[1], R4[0]), (B, A), vlan=20)),
             at("t2", udp((R4[1], R4[0]), (B, A), vlan=20))),
        sent("a10", BACK, at("t1", udp((R4[1], R4[0]), (B, A), vlan=10))),
    ),
    scenario(
        "a priority tag is taken away and is no VLAN",
        small_lan,
        sent("p1", udp(R4, vlan=5 << 13), at("p2", udp(R4))),
    ),
    scenario(
        "a station in another VLAN is not reached",
        lambda: trunk().mac_at("t", B, "v10", vlan=20).mac_at("t", C, "v10"),
        dropped("t1", udp(R4, vlan=20), DropReason.VLAN_MISMATCH),
        dropped("t1", udp(R4, (A, C)), DropReason.VLAN_MISMATCH),
    ),
    scenario(
        "a tag inside a VLAN is refused",
        trunk,
        dropped("a10", udp(R4, vlan=7), DropReason.VLAN_MISMATCH),
    ),
    scenario(
        "a bridge without VLANs carries tags as payload",
        lambda: lan().mac_at("b", B, "p3"),
        sent("p1", udp(R4, vlan=10), through(103, udp(R4, vlan=10))),
    ),
    # Filters of bridges and their ports.
    *(
        scenario(
            f"a filter of a {place} drops {hook}",
            lambda hook=hook, place=place: with_rules(  # type: ignore[misc]
                rule("drop", l4_dst=PortRange(5000, 5000)), hook=hook, on=place
            ),
            dropped("p1", FRAME, DropReason.FILTERED),
            dropped("p1", udp(R6), DropReason.FILTERED),
            sent("p1", udp(R4, ports=(4000, 5001)), at("p2", udp(R4, ports=(4000, 5001)))),
        )
        for hook in ("inbound", "outbound")
        for place in ("port", "bridge")
    ),
    scenario(
        "tagged frames skip the filters of a bridge, priority tags do not",
        lambda: with_rules(rule("drop"), on="bridge"),
        sent("p1", udp(R4, vlan=5), at("p2", udp(R4, vlan=5))),
        dropped("p1", udp(R4, vlan=0), DropReason.FILTERED),
    ),
    scenario(
        "a source is learnt although the inbound filter of the bridge drops",
        lambda: with_rules(rule("drop", eth_src=A), on="bridge").port("p3", on="b", host="h1"),
        dropped("p1", FRAME, DropReason.FILTERED),
        sent("p2", BACK, at("p1", BACK)),
    ),
    scenario(
        "the outbound filter of a bridge knows the port of unicast only",
        lambda: with_rules(
            rule("drop", out_port_ids=("p2",)), hook="outbound", on="bridge"
        ).mac_at("b", B, "p2"),
        dropped("p1", FRAME, DropReason.FILTERED),
        sent("p1", udp(R4, (A, C)), at("p2", udp(R4, (A, C)))),
    ),
    *(
        scenario(
            f"a rejected {family} datagram is answered in the name of its addressee",
            lambda: with_rules(rule("reject")),
            dropped(
                "p1", udp(route), DropReason.REJECTED,
                at("p1", error("port unreachable", (route[1], route[0]), (B, A), udp(route))),
            ),
            dropped("p1", raw(0x88CC), DropReason.REJECTED),
            dropped("p1", fragment(route, first=False), DropReason.REJECTED),
        )
        for family in FAMILIES
        for route in ((family.host(1, 5), family.host(1, 6)),)
    ),
    scenario(
        "an error is never answered with an error",
        lambda: with_rules(rule("reject")),
        dropped("p1", icmp(R4, (A, B), 3, 3, payload=FRAME[14:]), DropReason.REJECTED),
        dropped("p1", icmp(R6, (A, B), 1, 4, payload=udp(R6)[14:]), DropReason.REJECTED),
    ),
    scenario(
        "frames that are not IP pass a trunk like others",
        trunk,
        sent("t1", retagged(raw(0x88CC), 20), at("t2", retagged(raw(0x88CC), 20)),
             at("a20", raw(0x88CC))),
    ),
    scenario(
        "each port gets one copy of a flood around a ring of two bridges",
        lambda: ring(2),
        sent("p1", FRAME, at("p2", FRAME)),
        sent("p2", BACK, at("p1", BACK)),
        sent("p1", FRAME, at("p2", FRAME)),
    ),
    scenario(
        "a ring of three bridges is usable, from every port to every other",
        lambda: ring(3).port("p3", on="b1", host="h1"),
        sent("p1", FRAME, at("p2", FRAME), at("p3", FRAME)),
        sent("p2", BACK, at("p1", BACK)),
        sent("p3", udp(R4, (C, A)), at("p1", udp(R4, (C, A)))),
        sent("p3", udp(R4, (C, EVERYONE)), at("p1", udp(R4, (C, EVERYONE))),
             at("p2", udp(R4, (C, EVERYONE)))),
        sent("p2", udp(R4, (B, C)), at("p3", udp(R4, (B, C)))),
    ),
    scenario(
        "a copy that a bridge refuses does not stand in the way of one that it takes",
        lambda: guarded_ring(("i0",)),
        sent("p1", FRAME, at("p2", FRAME)),
        sent("p2", BACK, at("p1", BACK)),
    ),
    scenario(
        "a source is learnt once, where it was seen first, though both ways are open or neither",
        lambda: guarded_ring(("i0", "i9")),
        dropped("p1", FRAME, DropReason.FILTERED),
        sent("p2", BACK, at("p1", BACK)),
    ),
    *(
        scenario(
            f"each port gets one copy of a broadcast into {count} bridges linked with each other",
            lambda count=count: mesh(count),  # type: ignore[misc]
            sent("p1", ARP, at("p2", ARP), at("p3", ARP)),
            sent("p1", udp(R6, (A, EVERYONE)),
                 at("p2", udp(R6, (A, EVERYONE))), at("p3", udp(R6, (A, EVERYONE)))),
            sent("p3", BACK, at("p1", BACK)),
        )
        for count in (5, 8)
    ),
    scenario(
        "a frame that two bridges send to each other for ever ends at the loop limit",
        lambda: chained(2).mac_at("b0", B, "o0").mac_at("b1", B, "i0"),
        dropped("p1", FRAME, DropReason.HAIRPIN),
    ),
    scenario(
        "a frame that goes round a ring for ever ends at the loop limit",
        lambda: ring(3).mac_at("b0", B, "o0").mac_at("b1", B, "o1").mac_at("b2", B, "o9"),
        dropped("p1", FRAME, DropReason.LOOP_LIMIT),
    ),
    scenario(
        "a flood to more ports and hosts than a program has outputs is refused whole",
        lambda: wide(1026),
        dropped("p1", FRAME, DropReason.COPY_LIMIT),
        only_simulated="larger than what one transaction writes",
    ),
    scenario(
        "a flood to more ports than a packet may be followed to is refused whole",
        lambda: wide(4098, host="h2").flood_group("h2", "b", 7000),
        dropped("p1", FRAME, DropReason.COPY_LIMIT),
        only_simulated="larger than what one transaction writes",
    ),
    scenario(
        "a flood to many ports of one host is one copy",
        lambda: wide(4000, host="h2").flood_group("h2", "b", 7000),
        sent("p1", FRAME, through(7000, FRAME)),
        only_simulated="larger than what one transaction writes",
    ),
    scenario(
        "a packet that would meet too many rules is refused whole",
        lambda: wide(43, outbound=rule("drop", ip_tos=1)),
        dropped("p1", FRAME, DropReason.RULE_LIMIT),
        only_simulated="larger than what one transaction writes",
    ),
    scenario(
        "a flood into more bridges than a packet may enter is refused whole",
        star,
        dropped("p1", FRAME, DropReason.LOOP_LIMIT),
        only_simulated="larger than what one transaction writes",
    ),
    scenario(
        "a device that is not loaded is waited for",
        lambda: small_lan().mac_at("b", B, "far"),
        waits("p1", FRAME, str(World().id("far"))),
        only_simulated="everything in a store can be loaded",
    ),
]  # fmt: skip
