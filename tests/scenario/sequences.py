"""Named sequences of states of a network. What is true in a state depends on no state before it.

The states of a sequence have the same learnt state, so that only the topology changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.devices import NextHopKind
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.neighbour import arp_reply, arp_request
from tests.scenario.bridging import lan
from tests.scenario.filtering import chains
from tests.scenario.frames import (
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
    error,
    retagged,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge, edge_ports
from tests.scenario.running import Leaving, Step, at, dropped, sent, taken, through
from tests.worlds import World, rule


@dataclass(frozen=True)
class State:
    """A state of a network, with packets and their verdicts.

    only_stored: the loader leaves out what is not usable, which a view built by hand has.
    """

    name: str
    make: Callable[[], World]
    steps: tuple[Step, ...]
    only_stored: bool = False


@dataclass(frozen=True)
class Sequence:
    """States that follow each other."""

    name: str
    states: tuple[State, ...]


def state(name: str, make: Callable[[], World], *steps: Step, only_stored: bool = False) -> State:
    """Return a state."""
    return State(name, make, steps, only_stored)


ROUTE = (V4.host(1, 5), V4.host(2, 5))
ROUTE6 = (V6.host(1, 5), V6.host(2, 5))
DATAGRAM, DATAGRAM6, SEGMENT = udp(ROUTE), udp(ROUTE6), tcp(ROUTE)


def pair(**ingress: str | bool) -> World:
    """Two ports on a bridge; keywords go to the first."""
    world = World().bridge("b").port("p1", on="b", host="h1", **ingress)  # type: ignore[arg-type]
    return world.port("p2", on="b", host="h1")


def _filtered(*rules: object) -> Callable[[], World]:
    return lambda: pair(inbound="c").chain("c", *rules)  # type: ignore[arg-type]


_PASSES = sent("p1", DATAGRAM, at("p2", DATAGRAM))
_FILTERED = dropped("p1", DATAGRAM, DropReason.FILTERED)

FILTERS = Sequence(
    "a filter comes, changes and goes",
    (
        state("no filter", pair, _PASSES),
        state("an empty chain", _filtered(), _PASSES),
        state("drop", _filtered(rule("drop")), _FILTERED),
        state(
            "drop UDP",
            _filtered(rule("drop", ip_proto=UDP)),
            _FILTERED,
            sent("p1", SEGMENT, at("p2", SEGMENT)),
        ),
        state("accept before drop", _filtered(rule("accept"), rule("drop")), _PASSES),
        state(
            "reject",
            _filtered(rule("reject")),
            dropped(
                "p1",
                DATAGRAM,
                DropReason.REJECTED,
                at("p1", error("port unreachable", (ROUTE[1], ROUTE[0]), (B, A), DATAGRAM)),
            ),
        ),
        state(
            "at the egress of the other port",
            lambda: pair().chain("c", rule("drop")).port("p2", on="b", host="h1", outbound="c"),
            _FILTERED,
        ),
        state(
            "on the bridge",
            lambda: pair().chain("c", rule("drop")).bridge("b", outbound="c"),
            _FILTERED,
        ),
    ),
)

_TARGETS = (("no UDP", "udp"), ("no TCP", "tcp"), ("no UDP, no TCP", "deep"))

JUMPS = Sequence(
    "a jump is turned to other chains",
    (
        state("no chain", pair, _PASSES),
        *(
            state(
                name,
                chains(
                    top=(rule("jump", jump=target),),
                    udp=(rule("drop", ip_proto=UDP),),
                    tcp=(rule("drop", ip_proto=TCP),),
                    deep=(rule("jump", jump="udp"), rule("jump", jump="tcp")),
                ),
                _FILTERED if "UDP" in name else _PASSES,
                dropped("p1", SEGMENT, DropReason.FILTERED)
                if "TCP" in name
                else sent("p1", SEGMENT, at("p2", SEGMENT)),
            )
            for name, target in _TARGETS
        ),
    ),
)


def _known(world: World) -> World:
    return world.mac_at("b", B, "p2")


def _placed(name: str, verdict: Step, **place: object) -> State:
    def make() -> World:
        world = World().bridge("b").port("p1", on="b", host="h1")
        for host, remote in (("h2", "192.0.2.2"), ("h3", "192.0.2.3")):
            world.tunnel(host, remote=remote)
        return _known(world.port("p2", on="b", **place))  # type: ignore[arg-type]

    return state(name, make, verdict)


PLACES = Sequence(
    "a port moves",
    (
        _placed("here", _PASSES, host="h1"),
        _placed("on h2", sent("p1", DATAGRAM, through(77, DATAGRAM)), host="h2", key=77),
        _placed(
            "on h3",
            sent("p1", DATAGRAM, through(78, DATAGRAM, remote="192.0.2.3")),
            host="h3",
            key=78,
        ),
        _placed(
            "bound and not reported",
            dropped("p1", DATAGRAM, DropReason.NO_LOCATION),
            host="h3",
            located=False,
        ),
        _placed("with another key", sent("p1", DATAGRAM, through(79, DATAGRAM)), host="h2", key=79),
        _placed("down", dropped("p1", DATAGRAM, DropReason.PORT_DOWN), host="h1", up=False),
        _placed("bound nowhere", dropped("p1", DATAGRAM, DropReason.PORT_UNPLUGGED)),
    ),
)


def _zone(name: str, *steps: Step, **tunnel: object) -> State:
    def make() -> World:
        world = _known(pair().port("p2", on="b", host="h2", key=77))
        return world.tunnel("h2", **tunnel) if tunnel else world.no_tunnel("h2")  # type: ignore[arg-type]

    return state(name, make, *steps)


def _by(kind: TunnelKind, remote: str) -> Step:
    return sent("p1", DATAGRAM, through(77, DATAGRAM, remote=remote, kind=kind))


ZONES = Sequence(
    "a tunnel zone changes",
    (
        _zone("VXLAN", _by(TunnelKind.VXLAN, "192.0.2.2"), remote="192.0.2.2"),
        _zone(
            "GRE",
            _by(TunnelKind.GRE, "192.0.2.2"),
            remote="192.0.2.2",
            kind=TunnelKind.GRE,
        ),
        _zone("no zone", dropped("p1", DATAGRAM, DropReason.NO_TUNNEL)),
        _zone(
            "IPv6",
            _by(TunnelKind.VXLAN, "2001:db8::2"),
            remote="2001:db8::2",
            max_inner_length=1400,
        ),
        _zone(
            "a path that takes less",
            dropped("p1", udp(ROUTE, size=1000), DropReason.MTU_EXCEEDED),
            _by(TunnelKind.VXLAN, "192.0.2.2"),
            remote="192.0.2.2",
            max_inner_length=900,
        ),
    ),
)

_AWAY = (V4.host(1, 5), "172.16.5.5")
_AWAY_IN = udp(_AWAY, IN)
_BY_B = sent("a", _AWAY_IN, at("b", udp(_AWAY, OUT, ttl=63)))
_BY_FAR = sent("a", _AWAY_IN, through(103, udp(_AWAY, (R3, C), ttl=63)))
_NEAR = sent("a", udp(ROUTE, IN), at("b", udp(ROUTE, OUT, ttl=63)))
_NEAR6 = sent("a", udp(ROUTE6, IN), at("b", udp(ROUTE6, OUT, ttl=63)))


def _told(name: str, about: bytes) -> Leaving:
    return at("a", error(name, (V4.host(1, 1), V4.host(1, 5)), (R1, A), about))


def _default() -> World:
    return edge().route("r", "0.0.0.0/0", via="b", gateway=V4.host(2, 5))


ROUTES = Sequence(
    "routes come and go",
    (
        state(
            "none",
            edge,
            dropped("a", _AWAY_IN, DropReason.NO_ROUTE, _told("no route", _AWAY_IN)),
            _NEAR,
        ),
        state("a default route", _default, _BY_B, _NEAR),
        state(
            "a longer one by another port",
            lambda: _default().route("r", "172.16.0.0/12", via="far", gateway=V4.host(3, 5)),
            _BY_FAR,
            _NEAR,
        ),
        state(
            "a hole in it",
            lambda: (
                _default()
                .route("r", "172.16.0.0/12", via="far", gateway=V4.host(3, 5))
                .route("r", "172.16.5.5/32", kind=NextHopKind.BLACKHOLE)
            ),
            dropped("a", _AWAY_IN, DropReason.BLACKHOLE_ROUTE),
            _NEAR,
        ),
        state(
            "a hole for others",
            lambda: _default().route(
                "r", "172.16.5.5/32", source="10.0.9.0/24", kind=NextHopKind.BLACKHOLE
            ),
            _BY_B,
        ),
        state(
            "a better one of the same length",
            lambda: (
                edge()
                .route("r", "0.0.0.0/0", via="b", gateway=V4.host(2, 5), weight=9)
                .route("r", "0.0.0.0/0", via="far", gateway=V4.host(3, 5), weight=8)
            ),
            _BY_FAR,
        ),
    ),
)

DEVICES = Sequence(
    "devices go down and come up",
    (
        state("all up", edge, _NEAR, _NEAR6),
        state(
            "the router is down",
            lambda: edge(up=False),
            dropped(
                "a", udp(ROUTE, IN), DropReason.DEVICE_DOWN, _told("prohibited", udp(ROUTE, IN))
            ),
        ),
        state(
            "the egress port is down and takes its routes along",
            lambda: edge_ports(World().router("r"), up=False),
            dropped("a", udp(ROUTE, IN), DropReason.NO_ROUTE, _told("no route", udp(ROUTE, IN))),
            only_stored=True,
        ),
        state(
            "the egress port is filtered",
            lambda: edge_ports(World().chain("c", rule("drop")).router("r"), outbound="c"),
            dropped("a", udp(ROUTE, IN), DropReason.FILTERED),
        ),
    ),
)


def _joined(vlan: int | None) -> World:
    world = World().bridge("b").bridge("c")
    world.port("p1", on="b", host="h1").port("p2", on="b", host="h1").port("q", on="c", host="h1")
    if vlan is not None:
        world.port("up", on="b", vlan=vlan).port("down", on="c").link("up", "down")
    return world


_TAGGED = udp(ROUTE, vlan=10)

LINKS = Sequence(
    "bridges are joined and parted",
    (
        state("apart", lambda: _joined(None), _PASSES),
        state(
            "joined",
            lambda: _joined(0),
            sent("p1", DATAGRAM, at("p2", DATAGRAM), at("q", DATAGRAM)),
        ),
        state(
            "joined by a VLAN",
            lambda: _joined(10),
            _PASSES,
            sent("p1", _TAGGED, at("p2", _TAGGED), at("q", DATAGRAM)),
        ),
        state(
            "joined by another VLAN",
            lambda: _joined(20),
            _PASSES,
            sent("p1", _TAGGED, at("p2", _TAGGED)),
        ),
    ),
)  # fmt: skip

_QUESTION = arp_request(parse_mac(A), parse_ip(V4.host(1, 5)).value, parse_ip(V4.host(1, 1)).value)


def _answer(router_mac: str) -> Step:
    reply = arp_reply(
        parse_mac(router_mac),
        parse_ip(V4.host(1, 1)).value,
        parse_mac(A),
        parse_ip(V4.host(1, 5)).value,
    )
    return taken("p1", _QUESTION, at("p1", reply))


def _attached(router_mac: str, *addresses: str) -> World:
    world = pair().router("r")
    world.port("g", on="r", mac=router_mac, addresses=addresses)
    return world.attach("g", "b")


_TO_R1 = udp(ROUTE, IN)
_NOT_ROUTED = sent("p1", _TO_R1, at("p2", _TO_R1))


def _no_route(about: bytes) -> Leaving:
    return at("p1", error("no route", (V4.host(1, 1), V4.host(1, 5)), (R1, A), about))


ATTACHMENTS = Sequence(
    "a router comes to a bridge, changes and goes",
    (
        state("no router", pair, sent("p1", _QUESTION, at("p2", _QUESTION)), _NOT_ROUTED),
        state(
            "a router",
            lambda: _attached(R1, V4.router(1)),
            _answer(R1),
            dropped("p1", _TO_R1, DropReason.NO_ROUTE, _no_route(_TO_R1)),
        ),
        state(
            "with another MAC",
            lambda: _attached(R2, V4.router(1)),
            _answer(R2),
            _NOT_ROUTED,
        ),
        state(
            "with another address",
            lambda: _attached(R1, V4.router(3), V6.router(1)),
            sent("p1", _QUESTION, at("p2", _QUESTION)),
        ),
    ),
)


def _configured(**bridge: str | bool) -> Callable[[], World]:
    def make() -> World:
        world = World().chain("c", rule("drop")).bridge("b", **bridge)  # type: ignore[arg-type]
        return world.port("p1", on="b", host="h1").port("p2", on="b", host="h1")

    return make


BRIDGES = Sequence(
    "a bridge alone is configured",
    (
        state("as it comes", _configured(), _PASSES),
        state("down", _configured(up=False), dropped("p1", DATAGRAM, DropReason.DEVICE_DOWN)),
        state("filtered on the way in", _configured(inbound="c"), _FILTERED),
        state("filtered on the way out", _configured(outbound="c"), _FILTERED),
    ),
)

_COPIES = (
    at("p2", DATAGRAM),
    through(103, DATAGRAM),
    through(104, DATAGRAM),
    through(105, DATAGRAM, remote="192.0.2.3"),
)

FLOODS = Sequence(
    "the ports that a flood reaches change",
    (
        state("all ports", lan, sent("p1", DATAGRAM, *_COPIES)),
        state(
            "a group for a host",
            lambda: lan().flood_group("h2", "b", 7000),
            sent("p1", DATAGRAM, _COPIES[0], through(7000, DATAGRAM), _COPIES[3]),
        ),
        state(
            "another key for it",
            lambda: lan().flood_group("h2", "b", 7001),
            sent("p1", DATAGRAM, _COPIES[0], through(7001, DATAGRAM), _COPIES[3]),
        ),
        state(
            "a port of it is down",
            lambda: lan().port("p4", on="b", host="h2", up=False).flood_group("h2", "b", 7000),
            sent("p1", DATAGRAM, _COPIES[0], _COPIES[1], _COPIES[3]),
        ),
        state("no other port", lambda: World().bridge("b").port("p1", on="b", host="h1"),
              dropped("p1", DATAGRAM, DropReason.NO_FLOOD_TARGET)),
    ),
)  # fmt: skip


def _in_vlan(vlan: int, *, host: str = "h1") -> World:
    world = World().bridge("t").port("t1", on="t", host="h1").port("q", on="t", host="h1", vlan=20)
    return world.port("p", on="t", host=host, vlan=vlan, key=77)


_T10, _T20 = udp(ROUTE, vlan=10), udp(ROUTE, vlan=20)

ACCESS = Sequence(
    "an access port changes its VLAN",
    (
        state(
            "VLAN 10",
            lambda: _in_vlan(10),
            sent("t1", _T10, at("p", DATAGRAM)),
            sent("p", DATAGRAM, at("t1", _T10)),
            sent("t1", _T20, at("q", DATAGRAM)),
        ),
        state(
            "VLAN 20",
            lambda: _in_vlan(20),
            sent("t1", _T20, at("p", DATAGRAM), at("q", DATAGRAM)),
            sent("p", DATAGRAM, at("t1", _T20), at("q", DATAGRAM)),
            dropped("t1", _T10, DropReason.NO_FLOOD_TARGET),
        ),
        state(
            "a trunk",
            lambda: _in_vlan(0),
            sent("t1", _T10, at("p", _T10)),
            sent("t1", DATAGRAM, at("p", DATAGRAM)),
            sent("p", _T20, at("t1", _T20), at("q", DATAGRAM)),
        ),
        state(
            "VLAN 10 at another host",
            lambda: _in_vlan(10, host="h2"),
            sent("t1", _T10, through(77, DATAGRAM)),
        ),
    ),
)


def _gateway_in(vlan: int | None) -> World:
    world = World().bridge("t").port("t1", on="t", host="h1").port("t2", on="t", host="h1")
    world.router("r").port("g", on="r", mac=R1, addresses=(V4.router(1),))
    world.port("keep", on="t", vlan=30)
    return world if vlan is None else world.attach("g", "t", vlan=vlan)


_ASKED = arp_request(parse_mac(A), parse_ip(V4.host(1, 5)).value, parse_ip(V4.host(1, 1)).value)
_ASKED_10 = retagged(_ASKED, 10)
_SAID = arp_reply(
    parse_mac(R1), parse_ip(V4.host(1, 1)).value, parse_mac(A), parse_ip(V4.host(1, 5)).value
)

GATEWAYS = Sequence(
    "a router comes to a VLAN and goes to another",
    (
        state(
            "no router",
            lambda: _gateway_in(None),
            sent("t1", _ASKED, at("t2", _ASKED)),
            sent("t1", _ASKED_10, at("t2", _ASKED_10)),
        ),
        state(
            "in VLAN 10",
            lambda: _gateway_in(10),
            sent("t1", _ASKED, at("t2", _ASKED)),
            taken("t1", _ASKED_10, at("t1", retagged(_SAID, 10))),
            sent("t1", _TO_R1, at("t2", _TO_R1)),
        ),
        state(
            "without VLAN",
            lambda: _gateway_in(0),
            taken("t1", _ASKED, at("t1", _SAID)),
            sent("t1", _ASKED_10, at("t2", _ASKED_10)),
        ),
        state(
            "in VLAN 20",
            lambda: _gateway_in(20),
            sent("t1", _ASKED, at("t2", _ASKED)),
            sent("t1", _ASKED_10, at("t2", _ASKED_10)),
            taken("t1", retagged(_ASKED, 20), at("t1", retagged(_SAID, 20))),
        ),
    ),
)

_REFUSED = dropped(
    "a", udp(ROUTE, IN), DropReason.REJECTED, _told("port unreachable", udp(ROUTE, IN))
)


def _with_filter(hook: str, action: str) -> World:
    world = World().chain("c", rule(action))
    if hook == "egress port":
        return edge_ports(world.router("r"), outbound="c")
    return edge_ports(world.router("r", **{hook: "c"}))


ROUTER_FILTERS = Sequence(
    "filters of a router come, refuse and go",
    (
        state("none", edge, _NEAR, _NEAR6),
        state("inbound rejects", lambda: _with_filter("inbound", "reject"), _REFUSED),
        state("outbound rejects", lambda: _with_filter("outbound", "reject"), _REFUSED),
        state("the port rejects", lambda: _with_filter("egress port", "reject"), _REFUSED),
        state(
            "inbound drops",
            lambda: _with_filter("inbound", "drop"),
            dropped("a", udp(ROUTE, IN), DropReason.FILTERED),
        ),
        state("inbound accepts", lambda: _with_filter("inbound", "accept"), _NEAR, _NEAR6),
    ),
)

SEQUENCES = (
    FILTERS, JUMPS, PLACES, ZONES, ROUTES, DEVICES, LINKS, ATTACHMENTS, BRIDGES, FLOODS,
    ACCESS, GATEWAYS, ROUTER_FILTERS,
)  # fmt: skip
