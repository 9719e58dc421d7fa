"""Groups of ports and of addresses in conditions, and conditions that look further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import PortRange
from midonet.packets.neighbour import arp_request
from tests.scenario.frames import (
    R1,
    R2,
    UDP,
    V4,
    V6,
    A,
    B,
    address,
    error,
    fragment,
    icmp,
    mac,
    raw,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT
from tests.scenario.running import Scenario, Step, at, dropped, scenario, sent, through
from tests.scenario.sequences import Sequence, state
from tests.worlds import World, rule

ROUTE4, ROUTE6 = (V4.host(1, 5), V4.host(1, 6)), (V6.host(1, 5), V6.host(1, 6))
BACK4 = (ROUTE4[1], ROUTE4[0])
UDP4, UDP6, TCP4 = udp(ROUTE4), udp(ROUTE6), tcp(ROUTE4)
OTHER4 = udp((V4.host(1, 9), V4.host(1, 6)))
LLDP = raw(0x88CC)
ARP = arp_request(mac(A), address(ROUTE4[0]).value, address(ROUTE4[1]).value)


def passes(*frames: bytes) -> list[Step]:
    return [sent("p1", frame, at("p2", frame)) for frame in frames]


def filtered(*frames: bytes) -> list[Step]:
    return [dropped("p1", frame, DropReason.FILTERED) for frame in frames]


def pair(*specs: object, hook: str = "inbound") -> World:
    """Ports `p1` and `p2` of a bridge; what enters at `p1` (or leaves by `p2`) meets the rules."""
    world = World().chain("c", *specs).bridge("b")  # type: ignore[arg-type]
    hooks = {"inbound": "c"} if hook == "inbound" else {}
    world.port("p1", on="b", host="h1", **hooks)  # type: ignore[arg-type]
    hooks = {"outbound": "c"} if hook == "outbound" else {}
    return world.port("p2", on="b", host="h1", **hooks)  # type: ignore[arg-type]


def of_addresses(*members: str, **condition: Any) -> Callable[[], World]:
    """Return a maker of a network in which the group `g` is in the condition of a drop."""
    return lambda: pair(rule("drop", **condition)).address_group("g", *members)


def quoting(kind: str, quoted: bytes) -> bytes:
    """Return an ICMP error to host 5 about a frame."""
    return error(kind, (V4.host(1, 6), V4.host(1, 5)), (A, B), quoted)


ADDRESSES = [
    scenario(
        "a rule for a group of sources meets its addresses and prefixes, of both versions",
        of_addresses("10.0.1.5/32", "fd00:1::/64", ip_address_group_src_id="g"),
        *filtered(UDP4, UDP6, TCP4, ARP, fragment(ROUTE4, first=False)),
        *passes(OTHER4, LLDP, udp(BACK4)),
    ),
    scenario(
        "a rule for a group of destinations",
        of_addresses("10.0.1.6/32", ip_address_group_dst_id="g"),
        *filtered(UDP4, OTHER4, ARP),
        *passes(UDP6, LLDP),
    ),
    scenario(
        "a rule for all that is not in a group meets what has no address too",
        of_addresses(
            "10.0.1.5/32", ip_address_group_src_id="g", ip_address_group_src_inverted=True
        ),
        *filtered(OTHER4, UDP6, LLDP),
        *passes(UDP4, ARP),
    ),
    scenario(
        "an empty group matches nothing",
        of_addresses(ip_address_group_src_id="g"),
        *passes(UDP4, UDP6, LLDP),
    ),
    scenario(
        "prefixes in a group may lie within each other and touch",
        of_addresses(
            "10.0.1.0/30", "10.0.1.4/30", "10.0.1.5/32", "10.0.0.0/31",
            ip_address_group_src_id="g",
        ),
        *filtered(UDP4),
        *passes(OTHER4, udp((V4.host(1, 8), V4.host(1, 6)))),
    ),
    scenario(
        "the whole of a version can be in a group",
        of_addresses("::/0", ip_address_group_src_id="g"),
        *filtered(UDP6),
        *passes(UDP4, ARP, LLDP),
    ),
    scenario(
        "source and destination may be in one group",
        of_addresses(
            "10.0.1.5/32", "10.0.1.6/32", ip_address_group_src_id="g",
            ip_address_group_dst_id="g",
        ),
        *filtered(UDP4, TCP4),
        *passes(OTHER4),
    ),
    scenario(
        "the tests before the group decide first",
        lambda: pair(rule("drop", l4_dst=PortRange(5000, 5000), ip_address_group_src_id="gone")),
        dropped("p1", UDP4, DropReason.MISSING_GROUP),
        *passes(TCP4, LLDP),
        only_simulated="a store does not let go of a group that a rule refers to",
    ),
    scenario(
        "a group that does not exist drops, inverted or not",
        lambda: pair(
            rule("accept", ip_address_group_dst_id="gone", ip_address_group_dst_inverted=True)
        ),
        *(dropped("p1", frame, DropReason.MISSING_GROUP) for frame in (UDP4, UDP6, LLDP)),
        only_simulated="a store does not let go of a group that a rule refers to",
    ),
]  # fmt: skip


def grouped(*ports: str, hook: str = "inbound", **condition: Any) -> Callable[[], World]:
    """Return a maker of a network in which `g` has those of the ports `p1` and `p2`."""
    return lambda: pair(rule("drop", **condition), hook=hook).port_group("g", *ports)


def behind_a_router(**condition: Any) -> World:
    """Port `p1` on a bridge, a router behind it, port `b` at `h2` behind the router, filtered."""
    world = World().chain("c", rule("drop", **condition)).bridge("br").router("r")
    world.port("p1", on="br", host="h1")
    world.port("a", on="r", mac=R1, addresses=(V4.router(1),)).attach("a", "br")
    world.port("b", on="r", host="h2", key=7, mac=R2, addresses=(V4.router(2),), outbound="c")
    return world.neighbour("r", V4.host(2, 5), B)


ROUTED = udp((V4.host(1, 5), V4.host(2, 5)), IN)
FORWARDED = sent("p1", ROUTED, through(7, udp((V4.host(1, 5), V4.host(2, 5)), OUT, ttl=63)))


def _reached(*group: str, **condition: Any) -> Callable[[], World]:
    return lambda: behind_a_router(**condition).port_group("g", *group)


PORTS = [
    scenario(
        "a rule for a group of ingress ports",
        grouped("p1", in_port_group_id="g"),
        *filtered(UDP4, LLDP),
    ),
    scenario(
        "a rule for a group of ingress ports without the port",
        grouped("p2", in_port_group_id="g"),
        *passes(UDP4, LLDP),
    ),
    scenario(
        "a rule for all but a group of ingress ports",
        grouped("p2", in_port_group_id="g", in_port_group_inverted=True),
        *filtered(UDP4),
    ),
    scenario(
        "a rule for a group of egress ports",
        grouped("p2", hook="outbound", out_port_group_id="g"),
        *filtered(UDP4),
    ),
    scenario(
        "no egress port is known where the packet enters",
        grouped("p1", "p2", out_port_group_id="g"),
        *passes(UDP4),
    ),
    scenario(
        "no egress port is in no group",
        grouped("p1", "p2", out_port_group_id="g", out_port_group_inverted=True),
        *filtered(UDP4),
    ),
    scenario(
        "an empty port group matches nothing",
        grouped(in_port_group_id="g"),
        *passes(UDP4),
    ),
    scenario(
        "a port group that does not exist drops, inverted or not",
        lambda: pair(rule("accept", in_port_group_id="gone", in_port_group_inverted=True)),
        dropped("p1", UDP4, DropReason.MISSING_GROUP),
        only_simulated="a store does not let go of a group that a rule refers to",
    ),
    scenario(
        "a port may be in several groups",
        lambda: pair(rule("drop", in_port_group_id="g2")).port_group("g1", "p1").port_group(
            "g2", "p1"
        ),
        *filtered(UDP4),
    ),
    scenario(
        "a stateful group is a group",
        lambda: pair(rule("drop", in_port_group_id="g")).port_group("g", "p1", stateful=True),
        *filtered(UDP4),
    ),
    scenario(
        "the port group of a packet is that of the bound port where it came in",
        _reached("p1", port_group_id="g"),
        dropped("p1", ROUTED, DropReason.FILTERED),
    ),
    scenario(
        "a linked port on the way is in no port group of the packet",
        _reached("a", port_group_id="g"),
        FORWARDED,
    ),
    scenario(
        "the ingress port group is that of the port of the router",
        _reached("a", in_port_group_id="g"),
        dropped("p1", ROUTED, DropReason.FILTERED),
    ),
    scenario(
        "and not that of the port where the packet came in",
        _reached("p1", in_port_group_id="g"),
        FORWARDED,
    ),
    scenario(
        "a remote port is in its groups too",
        _reached("b", out_port_group_id="g"),
        dropped("p1", ROUTED, DropReason.FILTERED),
    ),
]  # fmt: skip

ABOUT_UDP = quoting("port unreachable", udp((V4.host(1, 5), V4.host(1, 6)), (A, B)))
ABOUT_OTHER = quoting("port unreachable", udp((V4.host(7, 5), V4.host(7, 6)), (A, B)))
TRUNCATED = icmp((V4.host(1, 6), V4.host(1, 5)), (A, B), 3, 3, payload=b"\x45\x00\x00")
ECHO = icmp(ROUTE4, (A, B), 8, payload=bytes(28))
ABOUT_UDP6 = error("port unreachable", (ROUTE6[1], ROUTE6[0]), (A, B), udp(ROUTE6))


def dropping(**condition: Any) -> Callable[[], World]:
    return lambda: pair(rule("drop", **condition))


QUOTES = [
    scenario(
        "a rule for the source of the packet that an error quotes",
        dropping(icmp_data_src="10.0.1.0/24"),
        *filtered(ABOUT_UDP),
        *passes(ABOUT_OTHER, TRUNCATED, ECHO, UDP4, LLDP, ABOUT_UDP6),
    ),
    scenario(
        "a rule for the destination of the packet that an error quotes",
        dropping(icmp_data_dst="10.0.1.6/32"),
        *filtered(ABOUT_UDP),
        *passes(ABOUT_OTHER, ECHO, UDP4),
    ),
    scenario(
        "a rule for errors about anything but a network",
        dropping(ip_proto=1, icmp_data_src="10.0.1.0/24", icmp_data_src_inverted=True),
        *filtered(ABOUT_OTHER, TRUNCATED, ECHO),
        *passes(ABOUT_UDP, UDP4),
    ),
    scenario(
        "a rule for the quote of an ICMPv6 error",
        dropping(icmp_data_dst="fd00:1::/64"),
        *filtered(ABOUT_UDP6),
        *passes(ABOUT_UDP, UDP6),
    ),
    scenario(
        "errors of one class are told apart by what they quote",
        dropping(icmp_data_src="10.0.1.5/32"),
        *filtered(ABOUT_UDP),
        *passes(ABOUT_OTHER),
        *filtered(ABOUT_UDP),
    ),
    scenario(
        "no destination is translated without a rule that does it",
        dropping(match_ip_dst_rewritten=True),
        *passes(UDP4, UDP6, LLDP),
    ),
    scenario(
        "a rule for what was not translated meets everything",
        dropping(match_ip_dst_rewritten=True, inverted=True),
        *filtered(UDP4, LLDP),
    ),
]

SCENARIOS: list[Scenario] = [*ADDRESSES, *PORTS, *QUOTES]

_PASSES, _FILTERED = passes(UDP4)[0], filtered(UDP4)[0]
_OTHER_PASSES, _OTHER_FILTERED = passes(OTHER4)[0], filtered(OTHER4)[0]


def _with_members(*texts: str) -> Callable[[], World]:
    return of_addresses(*texts, ip_address_group_src_id="g")


MEMBERS = Sequence(
    "members of an address group come and go",
    (
        state("none", _with_members(), _PASSES, _OTHER_PASSES),
        state("one address", _with_members("10.0.1.5/32"), _FILTERED, _OTHER_PASSES),
        state("another one", _with_members("10.0.1.9/32"), _PASSES, _OTHER_FILTERED),
        state("both", _with_members("10.0.1.5/32", "10.0.1.9/32"), _FILTERED, _OTHER_FILTERED),
        state("their network", _with_members("10.0.1.0/24"), _FILTERED, _OTHER_FILTERED),
        state("a network beside", _with_members("10.0.2.0/24"), _PASSES, _OTHER_PASSES),
        state("no group", lambda: pair(rule("drop", ip_proto=UDP)), _FILTERED, _OTHER_FILTERED),
        state("no rule", pair, _PASSES, _OTHER_PASSES),
    ),
)

MEMBERSHIPS = Sequence(
    "a port comes into groups and leaves them",
    (
        state("in none", grouped(in_port_group_id="g"), _PASSES),
        state("in it", grouped("p1", in_port_group_id="g"), _FILTERED),
        state("the other port in it", grouped("p2", in_port_group_id="g"), _PASSES),
        state("both in it", grouped("p1", "p2", in_port_group_id="g"), _FILTERED),
        state(
            "and it stateful",
            lambda: pair(rule("drop", in_port_group_id="g")).port_group("g", "p1", stateful=True),
            _FILTERED,
        ),
        state("no group", pair, _PASSES),
    ),
)

SEQUENCES = (MEMBERS, MEMBERSHIPS)
