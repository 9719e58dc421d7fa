"""What stays where it is: reserved groups on a bridge, special addresses and links at a router."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import RuleAction
from midonet.model.devices import NextHopKind
from tests.scenario.bridging import small_lan, trunk
from tests.scenario.frames import (
    R1,
    R2,
    V4,
    V6,
    A,
    B,
    C,
    Family,
    aged,
    echo,
    error,
    icmp,
    raw,
    retagged,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge
from tests.scenario.running import Scenario, at, dropped, scenario, sent, taken, through
from tests.worlds import World, rule

RESERVED_GROUPS = tuple(f"01:80:c2:00:00:{last:02x}" for last in range(16))
RELAYED_GROUPS = (
    "01:80:c2:00:00:10",
    "01:80:c2:00:00:21",
    "01:80:c2:00:01:00",
    "01:00:0c:cc:cc:cc",
    "01:00:5e:00:00:fb",
    "33:33:00:00:00:01",
)

NEVER = {
    V4: ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "240.0.0.1", "255.255.255.254",
         "255.255.255.255"),
    V6: ("::", "::1"),
}  # fmt: skip
"""Addresses that no packet on the way through a router has, as source or as destination.

IPv4-mapped ones do not come so far: no packet with them is parsed.
"""

ROUTED = {
    V4: ("1.0.0.0", "8.8.8.8", "100.64.0.1", "126.255.255.255", "128.0.0.0", "169.253.255.255",
         "169.255.0.0", "192.0.2.9", "198.18.0.1", "223.255.255.255"),
    V6: ("::2", "::8.8.8.8", "::fffe:8.8.8.8", "::1:ffff:808:808", "64:ff9b::808:808", "100::1",
         "2001:db8:9::9", "fc00::1", "fe00::1", "febf:ffff::1", "fec0::1", "feff::1"),
}  # fmt: skip
"""Addresses next to those, or often mistaken for them."""


def with_default_routes() -> World:
    """`edge`, with everything else behind a gateway on network 2."""
    world = edge()
    for family in (V4, V6):
        world.route("r", family.everywhere, via="b", gateway=family.host(2, 5))
    return world


def transfer_network() -> World:
    """Routers `r1` and `r2` with a link-local IPv4 network between them; `in` and `out` outside."""
    world = World().router("r1").router("r2")
    world.port("in", on="r1", host="h1", mac=R1, addresses=("10.0.1.1/24",))
    world.port("e", on="r1", addresses=("169.254.255.1/30",))
    world.port("w", on="r2", addresses=("169.254.255.2/30",)).link("e", "w")
    world.port("out", on="r2", host="h2", key=7, mac=R2, addresses=("10.0.2.1/24",))
    world.route("r1", "10.0.2.0/24", via="e", gateway="169.254.255.2")
    world.route("r2", "10.0.1.0/24", via="w", gateway="169.254.255.1")
    world.neighbour("r1", "10.0.1.5", A).neighbour("r2", "10.0.2.5", B)
    return world.tunnel("h2", remote="192.0.2.2", max_inner_length=1400)


def _of_family(family: Family) -> list[Scenario]:
    one, two = family.host(1, 5), family.host(2, 5)
    link_local = "169.254.1.1" if family is V4 else "fe80::1"
    group = "224.0.0.251" if family is V4 else "ff0e::fb"
    return [
        scenario(
            f"a reserved destination is not routed ({family})",
            with_default_routes,
            *(
                dropped("a", packet, DropReason.DESTINATION_ADDRESS_INVALID)
                for address in NEVER[family]
                for packet in (udp((one, address), IN), tcp((one, address), IN))
            ),
        ),
        scenario(
            f"a reserved source is not routed, and told nothing ({family})",
            with_default_routes,
            *(
                dropped("a", udp((address, to), IN, ttl=ttl), DropReason.SOURCE_ADDRESS_INVALID)
                for address in (*NEVER[family], group)
                for to in (two, family.host(1, 1))
                for ttl in (64, 1)
            ),
        ),
        scenario(
            f"what is next to the reserved addresses is routed ({family})",
            with_default_routes,
            *(
                sent("a", udp(route, IN), at("b", udp(route, OUT, ttl=63)))
                for address in ROUTED[family]
                if not (family is V6 and address.startswith("feb"))
                for route in ((one, address), (address, two))
            ),
        ),
        scenario(
            f"a link-local address is not routed, from it or to it ({family})",
            with_default_routes,
            dropped("a", udp((one, link_local), IN),
                    DropReason.DESTINATION_ADDRESS_INVALID if family is V4
                    else DropReason.NOT_FOR_ROUTER),
            dropped("a", udp((link_local, two), IN), DropReason.SOURCE_ADDRESS_INVALID),
        ),
        scenario(
            f"a group is not routed, however its frame is addressed ({family})",
            with_default_routes,
            dropped("a", udp((one, group), IN), DropReason.NOT_FOR_ROUTER),
            dropped("a", udp((one, group), (A, "01:00:5e:00:00:fb")), DropReason.NOT_FOR_ROUTER),
        ),
        scenario(
            f"a route for a reserved destination changes nothing ({family})",
            lambda: edge().route(
                "r", f"{NEVER[family][1]}/{family.version.bits}", via="b", gateway=two
            ),
            dropped("a", udp((one, NEVER[family][1]), IN), DropReason.DESTINATION_ADDRESS_INVALID),
        ),
    ]  # fmt: skip


def _scenarios() -> list[Scenario]:
    probe = udp(("10.0.1.5", "10.0.2.5"), IN, size=1500, df=True)
    at_w = udp(
        ("10.0.1.5", "10.0.2.5"),
        ("02:00:00:00:00:02", "02:00:00:00:00:03"),
        size=1500,
        df=True,
        ttl=63,
    )
    told = aged(error("too big", ("169.254.255.2", "10.0.1.5"), (R1, A), at_w, mtu=1400), 1, V4)
    return [
        *(
            scenario(
                f"a bridge relays no frame to a reserved group ({name})",
                world,
                *(
                    dropped(port, make(raw(0x88CC, (A, group))), DropReason.LINK_LOCAL_FRAME)
                    for group in RESERVED_GROUPS
                ),
            )
            for name, world, port, make in (
                ("untagged", small_lan, "p1", lambda frame: frame),
                ("tagged", small_lan, "p1", lambda frame: retagged(frame, 10)),
                ("from a trunk", trunk, "t1", lambda frame: retagged(frame, 10)),
                ("from a VLAN", trunk, "a10", lambda frame: frame),
            )
        ),
        scenario(
            "a bridge relays frames to other groups",
            small_lan,
            *(
                sent("p1", raw(0x88CC, (A, group)), at("p2", raw(0x88CC, (A, group))))
                for group in RELAYED_GROUPS
            ),
        ),
        scenario(
            "the sender of a frame to a reserved group is learnt",
            lambda: small_lan().port("p3", on="b", host="h1"),
            dropped("p1", raw(0x8809, (A, RESERVED_GROUPS[2])), DropReason.LINK_LOCAL_FRAME),
            sent("p2", udp((V4.host(1, 6), V4.host(1, 5)), (B, A)),
                 at("p1", udp((V4.host(1, 6), V4.host(1, 5)), (B, A)))),
        ),
        *(one for family in (V4, V6) for one in _of_family(family)),
        scenario(
            "a directed broadcast is not forwarded",
            edge,
            dropped("a", udp(("10.0.1.5", "10.0.2.255"), IN),
                    DropReason.DESTINATION_ADDRESS_INVALID),
            dropped("a", echo(("10.0.1.5", "10.0.2.255"), IN),
                    DropReason.DESTINATION_ADDRESS_INVALID),
        ),
        scenario(
            "a gateway on a link-local network is used, and its address answers",
            transfer_network,
            sent("in", udp(("10.0.1.5", "10.0.2.5"), IN), through(7, udp(
                ("10.0.1.5", "10.0.2.5"), OUT, ttl=62))),
            taken("in", echo(("10.0.1.5", "169.254.255.1"), IN),
                  at("in", echo(("169.254.255.1", "10.0.1.5"), (R1, A), reply=True))),
        ),
        scenario(
            "path MTU discovery goes through a link-local network",
            transfer_network,
            dropped("in", probe, DropReason.MTU_EXCEEDED, at("in", told)),
        ),
        scenario(
            "but nothing else comes from a link-local network",
            lambda: transfer_network().neighbour("r1", "10.0.1.6", C),
            dropped("in", udp(("169.254.255.9", "10.0.1.6"), IN),
                    DropReason.SOURCE_ADDRESS_INVALID),
            dropped("in", icmp(("169.254.255.9", "10.0.1.6"), IN, 8, payload=bytes(8)),
                    DropReason.SOURCE_ADDRESS_INVALID),
        ),
        scenario(
            "a refused reserved source is told nothing by a filter either",
            lambda: World().bridge("b", inbound="c").chain("c", rule(RuleAction.REJECT.value))
            .port("p1", on="b", host="h1").port("p2", on="b", host="h1"),
            *(
                dropped("p1", udp((address, V4.host(1, 5))), DropReason.REJECTED)
                for address in NEVER[V4]
            ),
            *(
                dropped("p1", udp((address, V6.host(1, 5))), DropReason.REJECTED)
                for address in NEVER[V6]
            ),
        ),
        scenario(
            "a REJECT route tells nothing about a reserved destination",
            lambda: edge().route("r", "127.0.0.0/8", kind=NextHopKind.REJECT),
            dropped("a", udp((V4.host(1, 5), "127.0.0.1"), IN),
                    DropReason.DESTINATION_ADDRESS_INVALID),
        ),
    ]  # fmt: skip


SCENARIOS: list[Scenario] = _scenarios()
