"""Chains and conditions, choices among routes, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation.ecmp import route_of_bucket
from midonet.model.chains import FragmentPolicy, PortRange
from midonet.packets.frame import parse_frame
from tests.scenario.bridging import small_lan, with_rules
from tests.scenario.frames import (
    FAMILIES,
    R1,
    R2,
    R3,
    TCP,
    UDP,
    V4,
    V6,
    A,
    B,
    C,
    Family,
    fragment,
    icmp,
    raw,
    tcp,
    udp,
)
from tests.scenario.routed_networks import edge
from tests.scenario.running import Scenario, Step, at, dropped, scenario, sent, through, waits
from tests.worlds import World, rule

ROUTE4 = (V4.host(1, 5), V4.host(1, 6))
ROUTE6 = (V6.host(1, 5), V6.host(1, 6))
DNS4, DNS6 = udp(ROUTE4, ports=(4000, 53)), udp(ROUTE6, ports=(4000, 53))
UDP4, UDP6, TCP4, TCP6 = udp(ROUTE4), udp(ROUTE6), tcp(ROUTE4), tcp(ROUTE6)
FIRST4, LATER4 = (fragment(ROUTE4, first=first) for first in (True, False))
LLDP = raw(0x88CC)
ECHO4, ECHO6 = icmp(ROUTE4, (A, B), 8), icmp(ROUTE6, (A, B), 128)


def passes(*frames: bytes) -> list[Step]:
    """Expect frames to pass from `p1` to `p2`."""
    return [sent("p1", frame, at("p2", frame)) for frame in frames]


def filtered(*frames: bytes) -> list[Step]:
    """Expect a rule to drop frames that enter at `p1`."""
    return [dropped("p1", frame, DropReason.FILTERED) for frame in frames]


def drops(name: str, matched: list[bytes], others: list[bytes], **condition: Any) -> Scenario:
    """Return a scenario of one rule: what it matches is dropped, and only that."""
    return scenario(
        f"a rule that drops {name}",
        lambda: with_rules(rule("drop", **condition)),
        *filtered(*matched),
        *passes(*others),
    )


def chains(**rules: tuple[object, ...]) -> Callable[[], World]:
    """Return a maker of two ports on a bridge; what enters at `p1` meets the chain `top`."""

    def make() -> World:
        world = World()
        for name, specs in rules.items():
            world.chain(name, *specs)  # type: ignore[arg-type]
        world.bridge("b").port("p1", on="b", host="h1", inbound="top")
        return world.port("p2", on="b", host="h1")

    return make


def _nested(depth: int) -> dict[str, tuple[object, ...]]:
    """Return a row of `depth` chains, each jumping to the next; the last one drops UDP."""
    rules: dict[str, tuple[object, ...]] = {
        f"c{index}": (rule("jump", jump=f"c{index + 1}"),) for index in range(2, depth)
    }
    rules["top"] = (rule("jump", jump="c2"),)
    rules[f"c{depth}"] = (rule("drop", ip_proto=UDP),)
    return rules


CONDITIONS = [
    drops("a protocol", [UDP4, UDP6, FIRST4, LATER4], [TCP4, TCP6, LLDP], ip_proto=UDP),
    drops("all but a protocol", [TCP4, ECHO6, LLDP], [UDP4, UDP6], ip_proto=UDP,
          ip_proto_inverted=True),
    drops("an IPv4 source", [UDP4, TCP4, LATER4], [UDP6, LLDP], ip_src="10.0.1.0/24"),
    drops("an IPv6 destination", [UDP6, ECHO6], [UDP4, LLDP], ip_dst=ROUTE6[1]),
    drops("all but a network", [UDP6, LLDP], [UDP4], ip_dst="10.0.0.0/8", ip_dst_inverted=True),
    drops("a range of ports", [DNS4, DNS6], [UDP4, TCP4, LATER4, LLDP], l4_dst=PortRange(50, 60)),
    drops("an ICMP type", [ECHO4], [ECHO6, UDP4], ip_proto=1, l4_src=PortRange(8, 8)),
    drops("a TOS", [udp(ROUTE4, tos=0xB8), udp(ROUTE6, tos=0xB8)], [UDP4, UDP6], ip_tos=0xB8),
    drops("a type", [UDP6], [UDP4, LLDP], eth_type=0x86DD),
    drops("a source MAC", [UDP4, LLDP], [udp(ROUTE4, (C, B))], eth_src=A),
    drops("MACs by mask", [UDP4], [udp(ROUTE4, ("02:ab:00:00:00:01", B))], eth_src=A,
          eth_src_mask=0xFFFF_0000_0000),
    drops("a VLAN", [udp(ROUTE4, vlan=7)], [UDP4, udp(ROUTE4, vlan=8)], vlan=7),
    drops("untagged frames", [UDP4, LLDP, udp(ROUTE4, vlan=0)], [udp(ROUTE4, vlan=7)],
          no_vlan=True),
    drops("several things at once", [DNS4], [DNS6, UDP4], ip_src="10.0.1.5",
          l4_dst=PortRange(53, 53)),
    drops("all that is not several things at once", [UDP4, DNS6], [DNS4], inverted=True,
          ip_src="10.0.1.5", l4_dst=PortRange(53, 53)),
    drops("what entered by a port", [UDP4, LLDP], [], in_port_ids=("p1",)),
    drops("what entered by another port", [], [UDP4, LLDP], in_port_ids=("p2",)),
    drops("forward flow", [UDP4], [], match_forward_flow=True),
    drops("return flow", [], [UDP4], match_return_flow=True),
    drops("first fragments and whole packets", [UDP4, FIRST4], [LATER4],
          fragment_policy=FragmentPolicy.HEADER),
    drops("later fragments", [LATER4, fragment(ROUTE6, first=False)], [FIRST4, UDP4, UDP6],
          fragment_policy=FragmentPolicy.NONHEADER),
    drops("whole packets", [UDP4], [FIRST4, LATER4], fragment_policy=FragmentPolicy.UNFRAGMENTED),
    drops("another protocol, headers only", [UDP4, FIRST4], [LATER4, TCP4], inverted=True,
          ip_proto=TCP, fragment_policy=FragmentPolicy.HEADER),
]  # fmt: skip

CHAINS = [
    scenario(
        "the first rule that decides wins",
        chains(top=(rule("accept", l4_dst=PortRange(53, 53)), rule("drop", ip_proto=UDP))),
        *passes(DNS4, DNS6, TCP4),
        *filtered(UDP4, UDP6),
    ),
    scenario("the end of a chain accepts", chains(top=()), *passes(UDP4, LLDP)),
    scenario(
        "RETURN at the top accepts",
        chains(top=(rule("return"), rule("drop"))),
        *passes(UDP4),
    ),
    scenario(
        "RETURN goes back to the caller",
        chains(
            top=(rule("jump", jump="sub"), rule("drop", ip_proto=TCP)),
            sub=(rule("return"), rule("drop")),
        ),
        *passes(UDP4),
        *filtered(TCP4),
    ),
    scenario(
        "a jump that decides ends the caller too",
        chains(
            top=(rule("jump", jump="sub"), rule("drop")),
            sub=(rule("accept", ip_proto=UDP),),
        ),
        *passes(UDP4),
        *filtered(TCP4),
    ),
    scenario(
        "chains that jump to each other end",
        chains(
            top=(rule("jump", jump="sub"), rule("drop", ip_proto=TCP)),
            sub=(rule("jump", jump="top"),),
        ),
        *passes(UDP4),
        *filtered(TCP4),
    ),
    scenario(
        "a chain is visited once a hook",
        chains(
            top=(rule("jump", jump="sub"), rule("jump", jump="sub"), rule("accept")),
            sub=(rule("return", ip_proto=UDP), rule("drop")),
        ),
        *passes(UDP4),
        *filtered(TCP4),
    ),
    scenario("twenty-five chains deep", chains(**_nested(25)), *filtered(UDP4), *passes(TCP4)),
    scenario(
        "twenty-six chains are too deep",
        chains(**_nested(26)),
        dropped("p1", TCP4, DropReason.CHAIN_LIMIT),
    ),
]


# What is missing.


def missing_filter() -> World:
    world = World().bridge("b").port("p1", on="b", host="h1", inbound="gone")
    return world.port("p2", on="b", host="h1").absent("gone")


MISSING = [
    scenario(
        "a filter that does not exist drops",
        missing_filter,
        dropped("p1", UDP4, DropReason.MISSING_CHAIN),
        dropped("p1", LLDP, DropReason.MISSING_CHAIN),
        only_simulated="a store does not let go of a chain that a port refers to",
    ),
    scenario(
        "a jump to a chain that does not exist drops",
        lambda: chains(top=(rule("jump", jump="gone", ip_proto=UDP),))().absent("gone"),
        dropped("p1", UDP4, DropReason.MISSING_CHAIN),
        *passes(TCP4),
        only_simulated="a store does not let go of a chain that a rule refers to",
    ),
    scenario(
        "a device that does not exist drops",
        lambda: World().bridge("b").port("p1", on="nothing", host="h1").absent("nothing"),
        dropped("p1", UDP4, DropReason.MISSING_DEVICE),
        only_simulated="a store does not let go of a bridge that a port refers to",
    ),
    scenario(
        "a group that does not exist drops, after the tests before it",
        chains(top=(rule("accept", ip_proto=UDP, ip_address_group_src_id=World().id("gone")),)),
        dropped("p1", UDP4, DropReason.MISSING_GROUP),
        *passes(TCP4),
        only_simulated="a store does not let go of a group that a rule refers to",
    ),
    scenario(
        "a port that does not exist drops",
        lambda: small_lan().absent("p9"),
        dropped("p9", UDP4, DropReason.UNKNOWN_INGRESS_PORT),
    ),
    scenario(
        "a filter that is not loaded is waited for",
        lambda: small_lan().port("p1", on="b", host="h1", inbound="later"),
        waits("p1", UDP4, str(World().id("later"))),
        only_simulated="everything in a store can be loaded",
    ),
]


# Choices among routes of equal cost.


def uplinks(family: Family) -> World:
    """Router `r` of `edge` with two default routes of equal cost, by `b` and by `far`."""
    world = edge()
    for port, network in (("b", 2), ("far", 3)):
        world.route("r", family.everywhere, via=port, gateway=family.host(network, 5))
    return world


def _choices(family: Family) -> list[Scenario]:
    """Return scenarios in which both directions and all agents agree on a route."""
    one = family.host(1, 5)
    view = uplinks(family).view()
    (router,) = view.routers.values()
    there = "8.8.8.8" if family is V4 else "2001:4860::8"
    frames = [udp((one, there), (A, R1), ports=(port, 53)) for port in range(2000, 2040)]
    steps, ports = [], set()
    for frame in frames:
        key = parse_frame(frame, hash_seed=view.hash_seed).key
        match = router.fib.lookup(family.version, key.ip_src, key.ip_dst)
        chosen = route_of_bucket(match.routes, key.flow_hash & 0xFF).next_hop_port_id
        is_far = chosen == uplinks(family).port_id("far")
        ports.add(is_far)
        macs = (R3, C) if is_far else (R2, B)
        left = udp((one, there), macs, ports=(key.l4_src, 53), ttl=63)
        steps.append(sent("a", frame, through(103, left) if is_far else at("b", left)))
    assert len(ports) == 2
    return [
        scenario(f"flows share routes of equal cost ({family})", lambda: uplinks(family), *steps)
    ]


def flooded_ports(device: str, *, inverted: bool = False) -> World:
    """Bridge `b` with three ports; what leaves by `p2` must not have passed `device`."""
    world = World().bridge("b").port("p1", on="b", host="h1").port("p3", on="b", host="h1")
    world.chain("c", rule("drop", traversed_device_id=world.id(device),
                          traversed_device_inverted=inverted))  # fmt: skip
    return world.port("p2", on="b", host="h1", outbound="c")


def filter_before_the_next_router() -> World:
    """Routers `r1` and `r2` in a row; what leaves `r1` must not have passed the port of `r2`."""
    world = World().router("r1").router("r2")
    world.chain("c", rule("drop", traversed_device_id=world.id("w")))
    world.port("in", on="r1", host="h1", mac=R1, addresses=("10.0.1.1/24",))
    world.port("e", on="r1", addresses=("10.0.9.1/30",), outbound="c")
    world.port("w", on="r2", addresses=("10.0.9.2/30",)).link("e", "w")
    world.port("out", on="r2", host="h1", mac=R2, addresses=("10.0.2.1/24",))
    world.route("r1", "10.0.2.0/24", via="e", gateway="10.0.9.2")
    return world.neighbour("r2", "10.0.2.5", B)


SCENARIOS: list[Scenario] = [
    scenario(
        "a port that a flood also leaves by has not been passed by the other copies",
        lambda: flooded_ports("p3"),
        sent("p1", UDP4, at("p2", UDP4), at("p3", UDP4)),
    ),
    *(
        scenario(
            f"a packet has passed the {place}",
            lambda device=device: flooded_ports(device),  # type: ignore[misc]
            sent("p1", UDP4, at("p3", UDP4)),
        )
        for place, device in (
            ("port it entered by", "p1"),
            ("bridge it is on", "b"),
            ("port it leaves by", "p2"),
        )
    ),
    scenario(
        "a packet has not passed what it never met",
        lambda: flooded_ports("elsewhere", inverted=True),
        sent("p1", UDP4, at("p3", UDP4)),
    ),
    scenario(
        "a next hop's port that was only asked for its MAC has not been passed",
        filter_before_the_next_router,
        sent(
            "in",
            udp((V4.host(1, 5), V4.host(2, 5)), (A, R1)),
            at("out", udp((V4.host(1, 5), V4.host(2, 5)), (R2, B), ttl=62)),
        ),
    ),
    *CONDITIONS,
    *CHAINS,
    *MISSING,
    *(one for family in FAMILIES for one in _choices(family)),
]
