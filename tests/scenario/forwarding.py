"""Translation of destinations, and by two routers in a row.

Router `r` has `a` inside (network 1) and `b` outside (network 2).
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import FlowAction, PortRange
from midonet.packets.tcp import TcpFlag
from tests.scenario.frames import (
    FAMILIES,
    R1,
    R2,
    A,
    B,
    C,
    Family,
    aged,
    error,
    fragment,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge, row
from tests.scenario.running import (
    Scenario,
    at,
    dropped,
    scenario,
    sent,
)
from tests.worlds import World, nat

INWARDS, OUTWARDS = (B, R2), (R1, A)
"""MACs of a packet that enters the router from outside, and of one that leaves it inside."""

PORTS, BACK = (4000, 5000), (5000, 4000)
HTTP, HTTP_BACK = (4000, 80), (80, 4000)
FOREVER_S = 100_000.0
SYN, ACK, RST, FIN = TcpFlag.SYN, TcpFlag.ACK, TcpFlag.RST, TcpFlag.FIN


def forwarded(family: Family, *targets: str, port: int = 80) -> World:
    """Return `edge` that hands what comes for a port of its outer address to a host inside."""
    world = edge(inbound="pre", outbound="post").chain("post", nat("rev_dnat"))
    own, bits = family.host(2, 1), family.version.bits
    return world.chain(
        "pre", nat("dnat", *targets, ip_dst=f"{own}/{bits}", l4_dst=PortRange(port, port))
    )


def _destinations(family: Family) -> list[Scenario]:
    vm, other = family.host(1, 5), family.host(1, 6)
    own, outside = family.host(2, 1), family.host(2, 5)
    here, there = (outside, own), (outside, vm)
    back, home = (vm, outside), (own, outside)
    target = f"{vm} 8080"
    asked = sent("b", tcp(here, INWARDS), at("a", tcp(there, OUTWARDS, ports=(4000, 8080), ttl=63)))
    answered = sent(
        "a",
        tcp(back, IN, ports=(8080, 4000), flags=SYN | ACK),
        at("b", tcp(home, OUT, ports=HTTP_BACK, flags=SYN | ACK, ttl=63)),
    )
    return [
        scenario(
            f"a port is forwarded to a host inside, and its answer comes from there ({family})",
            lambda: forwarded(family, target),
            asked,
            answered,
            asked,
        ),
        scenario(
            f"datagrams to a port are forwarded, and answered ({family})",
            lambda: forwarded(family, target),
            sent(
                "b",
                udp(here, INWARDS, ports=HTTP),
                at("a", udp(there, OUTWARDS, ports=(4000, 8080), ttl=63)),
            ),
            sent(
                "a",
                udp(back, IN, ports=(8080, 4000)),
                at("b", udp(home, OUT, ports=HTTP_BACK, ttl=63)),
            ),
        ),
        scenario(
            f"what a host inside begins from a forwarded port is not translated back ({family})",
            lambda: forwarded(family, target),
            sent(
                "a",
                tcp(back, IN, ports=(8080, 4000)),
                at("b", tcp(back, OUT, ports=(8080, 4000), ttl=63)),
            ),
        ),
        scenario(
            f"a target without ports keeps the port ({family})",
            lambda: forwarded(family, f"{vm}-{vm}", f"{vm}"),
            sent("b", tcp(here, INWARDS), at("a", tcp(there, OUTWARDS, ttl=63))),
        ),
        scenario(
            f"errors about what was forwarded are translated both ways ({family})",
            lambda: forwarded(family, target),
            sent(
                "b",
                udp(here, INWARDS, ports=HTTP),
                at("a", udp(there, OUTWARDS, ports=(4000, 8080), ttl=63)),
            ),
            sent(
                "a",
                error("port unreachable", back, IN, udp(there, OUTWARDS, ports=(4000, 8080))),
                at(
                    "b",
                    aged(
                        error("port unreachable", home, OUT, udp(here, OUTWARDS, ports=HTTP)),
                        1,
                        family,
                    ),
                ),
            ),
            # A router behind the forwarder is hidden (RFC 5508 section 4.2).
            sent(
                "a",
                error(
                    "time exceeded",
                    (family.host(1, 77), outside),
                    IN,
                    udp(there, OUTWARDS, ports=(4000, 8080)),
                ),
                at(
                    "b",
                    aged(
                        error("time exceeded", home, OUT, udp(here, OUTWARDS, ports=HTTP)),
                        1,
                        family,
                    ),
                ),
            ),
            sent(
                "a",
                udp(back, IN, ports=(8080, 4000)),
                at("b", udp(home, OUT, ports=HTTP_BACK, ttl=63)),
            ),
            sent(
                "b",
                error("unreachable", here, INWARDS, udp(home, OUT, ports=HTTP_BACK)),
                at(
                    "a",
                    aged(
                        error("unreachable", there, OUTWARDS, udp(back, OUT, ports=(8080, 4000))),
                        1,
                        family,
                    ),
                ),
            ),
        ),
        scenario(
            f"a host inside reaches another by the forwarded port of the outer address ({family})",
            lambda: _hairpin(family),
            sent(
                "a",
                tcp((other, own), (C, R1)),
                at("a", tcp((family.host(1, 1), vm), OUTWARDS, ports=(6000, 8080), ttl=63)),
            ),
            sent(
                "a",
                tcp((vm, family.host(1, 1)), IN, ports=(8080, 6000), flags=SYN | ACK),
                at("a", tcp((own, other), (R1, C), ports=HTTP_BACK, flags=SYN | ACK, ttl=63)),
            ),
        ),
        scenario(
            f"fragments to a forwarded port follow their first ({family})",
            lambda: forwarded(family, target, port=5000),
            sent(
                "b",
                fragment(here, INWARDS, first=True),
                at("a", fragment(there, OUTWARDS, first=True, ports=(4000, 8080), ttl=63)),
            ),
            sent(
                "b",
                fragment(here, INWARDS, first=False),
                at("a", fragment(there, OUTWARDS, first=False, ttl=63)),
            ),
        ),
    ]


def _hairpin(family: Family) -> World:
    """Return a router that forwards a port for inside hosts too, in its own inner name."""
    world = forwarded(family, f"{family.host(1, 5)} 8080")
    world.neighbour("r", family.host(1, 6), C)
    inner = f"{family.host(1, 1)} 6000"
    own, bits = family.host(2, 1), family.version.bits
    world.chain(
        "pre",
        nat("rev_snat", then=FlowAction.CONTINUE),
        nat("dnat", f"{family.host(1, 5)} 8080", ip_dst=f"{own}/{bits}", l4_dst=PortRange(80, 80)),
    )
    return world.chain(
        "post",
        nat("rev_dnat", then=FlowAction.CONTINUE),
        nat("snat", inner, out_port_ids=("a",), ip_dst=f"{family.host(1, 5)}/{bits}"),
    )


def _twice(family: Family) -> list[Scenario]:
    vm, outside = family.host(1, 5), family.host(2, 5)
    middle, outer = family.host(30, 1), family.host(2, 1)
    out = sent(
        "in",
        udp((vm, outside), IN),
        at("out", udp((outer, outside), OUT, ports=(7000, 5000), ttl=62)),
    )
    back = sent(
        "out",
        udp((outside, outer), INWARDS, ports=(5000, 7000)),
        at("in", udp((outside, vm), OUTWARDS, ports=BACK, ttl=62)),
    )

    def both() -> World:
        world = _row(family, f"{middle} 6000")
        return world.chain("post2", nat("snat", f"{outer} 7000")).chain("pre2", nat("rev_snat"))

    return [
        scenario(
            f"two routers in a row translate, and both undo it ({family})", both, out, back, out
        ),
        scenario(
            f"an error about what was translated twice finds back ({family})",
            both,
            out,
            sent(
                "out",
                error(
                    "port unreachable",
                    (outside, outer),
                    INWARDS,
                    udp((outer, outside), OUT, ports=(7000, 5000)),
                ),
                at(
                    "in",
                    aged(
                        error("port unreachable", (outside, vm), OUTWARDS, udp((vm, outside), OUT)),
                        2,
                        family,
                    ),
                ),
            ),
        ),
        scenario(
            f"a router behind the translation tells the sender what it sent ({family})",
            lambda: _row(family, f"{middle} 6000"),
            dropped(
                "in",
                udp((vm, outside), IN, ttl=2),
                DropReason.TTL_EXCEEDED,
                at("in", aged(_from_second(family, udp((vm, outside), IN, ttl=1)), 1, family)),
            ),
        ),
        scenario(
            f"the reverse rule of another router does not act ({family})",
            lambda: _row(family, f"{middle} 6000").chain("pre2", nat("rev_snat")).chain("post2"),
            sent(
                "in",
                udp((vm, outside), IN),
                at("out", udp((middle, outside), OUT, ports=(6000, 5000), ttl=62)),
            ),
            sent(
                "out",
                udp((outside, middle), INWARDS, ports=(5000, 6000)),
                at("in", udp((outside, vm), OUTWARDS, ports=BACK, ttl=62)),
            ),
        ),
    ]


def _from_second(family: Family, about: bytes) -> bytes:
    teller = family.host(21, 2)
    return error("time exceeded", (teller, family.host(1, 5)), OUTWARDS, about)


def _row(family: Family, target: str) -> World:
    """Return two routers in a row; the first translates what leaves towards the second."""
    world = row(2)
    world.filters("r1", inbound="pre", outbound="post").filters(
        "r2", inbound="pre2", outbound="post2"
    )
    world.chain("pre", nat("rev_snat")).chain("post", nat("snat", target, out_port_ids=("e1",)))
    world.chain("pre2").chain("post2")
    bits = family.version.bits
    world.route("r2", f"{family.host(30, 1)}/{bits}", via="w2", gateway=family.host(21, 1))
    return world


SCENARIOS: list[Scenario] = [
    one for family in FAMILIES for part in (_destinations, _twice) for one in part(family)
]
