"""Translation without state: floating IPs, hairpins, and what errors quote.

Router `r` has `a` inside (network 1) and `b` outside (network 2). The hosts 5 and 6 inside have the
floating addresses 105 and 106 of network 2.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import FlowAction
from midonet.packets.tcp import TcpFlag
from tests.scenario.bridging import with_rules
from tests.scenario.frames import (
    FAMILIES,
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
    fragment,
    icmp,
    other_protocol,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge, edge_ports
from tests.scenario.running import Scenario, at, dropped, scenario, sent, through
from tests.worlds import World, nat, rule

INWARDS, OUTWARDS = (B, R2), (R1, A)
"""MACs of a packet that enters the router from outside, and of one that leaves it inside."""


def floating(family: Family, **post: object) -> World:
    """Return `edge` with a floating address for each of the two inside hosts."""
    world = edge(inbound="pre", outbound="post")
    world.neighbour("r", family.host(1, 6), C)
    hosts = [(family.host(1, own), family.host(2, 100 + own)) for own in (5, 6)]
    bits = family.version.bits
    world.chain("pre", *(nat("dnat", own, ip_dst=f"{public}/{bits}") for own, public in hosts))
    return world.chain(
        "post", *(nat("snat", public, ip_src=f"{own}/{bits}", **post) for own, public in hosts)
    )


def _static(family: Family) -> list[Scenario]:
    vm, other = family.host(1, 5), family.host(1, 6)
    public, other_public, outside = family.host(2, 105), family.host(2, 106), family.host(2, 5)
    bits = family.version.bits
    there, here = (outside, vm), (outside, public)
    back, out = (vm, outside), (public, outside)
    return [
        scenario(
            f"a floating address leads to its host, TCP, UDP and echo ({family})",
            lambda: floating(family),
            sent("b", udp(here, INWARDS), at("a", udp(there, OUTWARDS, ttl=63))),
            sent("b", tcp(here, INWARDS), at("a", tcp(there, OUTWARDS, ttl=63))),
            sent("b", echo(here, INWARDS), at("a", echo(there, OUTWARDS, ttl=63))),
        ),
        scenario(
            f"a host with a floating address answers and speaks from it ({family})",
            lambda: floating(family),
            sent("a", udp(back, IN), at("b", udp(out, OUT, ttl=63))),
            sent(
                "a",
                tcp(back, IN, flags=TcpFlag.ACK),
                at("b", tcp(out, OUT, flags=TcpFlag.ACK, ttl=63)),
            ),
            sent("a", echo(back, IN, reply=True), at("b", echo(out, OUT, reply=True, ttl=63))),
        ),
        scenario(
            f"a floating address carries protocols without ports ({family})",
            lambda: floating(family),
            sent(
                "b", other_protocol(here, INWARDS), at("a", other_protocol(there, OUTWARDS, ttl=63))
            ),
            sent("a", other_protocol(back, IN), at("b", other_protocol(out, OUT, ttl=63))),
        ),
        scenario(
            f"fragments of all kinds pass a floating address, and keep their checksum ({family})",
            lambda: floating(family),
            *(
                step
                for first in (True, False)
                for step in (
                    sent(
                        "b",
                        fragment(here, INWARDS, first=first),
                        at("a", fragment(there, OUTWARDS, first=first, ttl=63)),
                    ),
                    sent(
                        "a",
                        fragment(back, IN, first=first),
                        at("b", fragment(out, OUT, first=first, ttl=63)),
                    ),
                )
            ),
        ),
        scenario(
            f"an address without a rule is not translated ({family})",
            lambda: floating(family),
            sent(
                "a",
                udp((family.host(1, 7), outside), IN),
                at("b", udp((family.host(1, 7), outside), OUT, ttl=63)),
            ),
        ),
        scenario(
            f"two floating addresses of one router reach each other ({family})",
            lambda: floating(family),
            sent("a", udp((vm, other_public), IN), at("a", udp((public, other), (R1, C), ttl=63))),
            sent(
                "a",
                udp((other, public), (C, R1)),
                at("a", udp((other_public, vm), OUTWARDS, ttl=63)),
            ),
            sent("a", tcp((vm, other_public), IN), at("a", tcp((public, other), (R1, C), ttl=63))),
            sent(
                "a", echo((vm, other_public), IN), at("a", echo((public, other), (R1, C), ttl=63))
            ),
            sent(
                "a",
                echo((other, public), (C, R1), reply=True),
                at("a", echo((other_public, vm), OUTWARDS, reply=True, ttl=63)),
            ),
        ),
        scenario(
            f"a host reaches itself by its floating address ({family})",
            lambda: floating(family),
            sent("a", udp((vm, public), IN), at("a", udp((public, vm), OUTWARDS, ttl=63))),
        ),
        scenario(
            f"an error from outside about a host's packet is translated with its quote ({family})",
            lambda: floating(family),
            *(
                sent(
                    "b",
                    error(name, here, INWARDS, about(out, OUT, ttl=9), mtu=mtu),
                    at(
                        "a",
                        _passed(
                            error(name, there, OUTWARDS, about(back, IN, ttl=9), mtu=mtu), family
                        ),
                    ),
                )
                for about in (udp, tcp, echo)
                for name, mtu in (
                    ("unreachable", 0),
                    ("port unreachable", 0),
                    ("too big", 1300),
                    ("time exceeded", 0),
                    ("prohibited", 0),
                )
            ),
        ),
        scenario(
            f"an error of a router far outside reaches the host ({family})",
            lambda: floating(family),
            sent(
                "b",
                error("time exceeded", (family.host(9, 9), public), INWARDS, udp(out, OUT, ttl=1)),
                at(
                    "a",
                    _passed(
                        error(
                            "time exceeded", (family.host(9, 9), vm), OUTWARDS, udp(back, IN, ttl=1)
                        ),
                        family,
                    ),
                ),
            ),
        ),
        scenario(
            f"a host's error about what came to its floating address is translated ({family})",
            lambda: floating(family),
            *(
                sent(
                    "a",
                    error("port unreachable", back, IN, about(there, OUTWARDS, ttl=63)),
                    at(
                        "b",
                        _passed(
                            error("port unreachable", out, OUT, about(here, INWARDS, ttl=63)),
                            family,
                        ),
                    ),
                )
                for about in (udp, tcp, echo)
            ),
        ),
        scenario(
            f"an error that quotes eight bytes of transport is translated ({family})",
            lambda: floating(family),
            sent(
                "b",
                _short(family, here, INWARDS, tcp(out, OUT)),
                at("a", _passed(_short(family, there, OUTWARDS, tcp(back, OUT)), family)),
            ),
        ),
        scenario(
            f"an error that quotes rubbish is translated as it is ({family})",
            lambda: floating(family),
            *(
                sent(
                    "b",
                    _quoting(family, here, INWARDS, quote),
                    at("a", _passed(_quoting(family, there, OUTWARDS, quote), family)),
                )
                for quote in (b"", b"\x45", bytes(40), b"\xff" * 60)
            ),
        ),
        scenario(
            f"an error that quotes somebody else's packet keeps its quote ({family})",
            lambda: floating(family),
            sent(
                "b",
                error("unreachable", here, INWARDS, udp((other_public, outside), OUT)),
                at(
                    "a",
                    _passed(
                        error("unreachable", there, OUTWARDS, udp((other_public, outside), OUT)),
                        family,
                    ),
                ),
            ),
        ),
        scenario(
            f"a router tells the sender what it sent, not what translation made of it ({family})",
            lambda: floating(family),
            dropped(
                "b",
                udp(here, INWARDS, ttl=1),
                DropReason.TTL_EXCEEDED,
                at(
                    "b",
                    error(
                        "time exceeded",
                        (family.host(2, 1), outside),
                        (R2, B),
                        udp(here, INWARDS, ttl=1),
                    ),
                ),
            ),
            dropped(
                "a",
                udp(back, IN, ttl=1),
                DropReason.TTL_EXCEEDED,
                at(
                    "a",
                    error("time exceeded", (family.host(1, 1), vm), (R1, A), udp(back, IN, ttl=1)),
                ),
            ),
        ),
        scenario(
            f"what is too long behind a floating address is reported as it was sent ({family})",
            lambda: _far(family),
            dropped(
                "b",
                udp(here, INWARDS, size=1500, df=True),
                DropReason.MTU_EXCEEDED,
                at(
                    "b",
                    error(
                        "too big",
                        (family.host(2, 1), outside),
                        (R2, B),
                        udp(here, INWARDS, size=1500, df=True),
                        mtu=1450,
                    ),
                ),
            ),
            sent(
                "b",
                udp(here, INWARDS, size=900, df=True),
                through(
                    103,
                    udp(
                        (outside, family.host(3, 5)),
                        ("02:bb:00:00:00:03", C),
                        size=900,
                        df=True,
                        ttl=63,
                    ),
                ),
            ),
        ),
        scenario(
            f"a rule of NAT for the other IP version is passed over ({family})",
            lambda: edge(inbound="pre").chain(
                "pre", nat("dnat", (V6 if family is V4 else V4).host(1, 5)), rule("drop")
            ),
            dropped("b", udp(here, INWARDS), DropReason.FILTERED),
        ),
        scenario(
            f"a reverse rule without a connection is passed over ({family})",
            lambda: edge(inbound="pre").chain(
                "pre", nat("rev_snat"), nat("rev_dnat"), rule("drop")
            ),
            dropped("b", udp(here, INWARDS), DropReason.FILTERED),
        ),
        scenario(
            f"after a translation the chain goes on, ends or returns as the rule says ({family})",
            lambda: _actions(family),
            # continue: the next rule sees the new destination.
            dropped("b", udp((outside, family.host(2, 105)), INWARDS), DropReason.FILTERED),
            # accept: the rest of all chains is left out.
            sent(
                "b",
                udp((outside, family.host(2, 106)), INWARDS),
                at("a", udp(there, OUTWARDS, ttl=63)),
            ),
            # return: the calling chain goes on, and drops.
            dropped("b", udp((outside, family.host(2, 107)), INWARDS), DropReason.FILTERED),
        ),
        scenario(
            f"a rule sees that the destination was translated at this port ({family})",
            lambda: (
                edge(inbound="pre", outbound="post")
                .chain("pre", nat("dnat", vm, ip_dst=f"{public}/{bits}"))
                .chain("post", rule("drop", match_ip_dst_rewritten=True))
            ),
            dropped("b", udp(here, INWARDS), DropReason.FILTERED),
            sent("b", udp(there, INWARDS), at("a", udp(there, OUTWARDS, ttl=63))),
        ),
        scenario(
            f"a rule about what an error quotes translates the quote alone ({family})",
            lambda: edge(inbound="pre").chain(
                "pre", nat("dnat", other, icmp_data_dst=f"{outside}/{bits}")
            ),
            sent(
                "b",
                error("unreachable", there, INWARDS, udp((vm, outside), OUT)),
                at(
                    "a",
                    _passed(error("unreachable", there, OUTWARDS, udp((vm, other), OUT)), family),
                ),
            ),
            sent("b", udp(there, INWARDS), at("a", udp(there, OUTWARDS, ttl=63))),
        ),
        scenario(
            f"a rule translates on a port of the router ({family})",
            lambda: (
                edge_ports(World().router("r"), inbound="pre", outbound="post")
                .chain("pre", nat("dnat", vm, ip_dst=f"{public}/{bits}"))
                .chain("post", nat("snat", public, ip_src=f"{vm}/{bits}"))
            ),
            sent("b", udp(here, INWARDS), at("a", udp(there, OUTWARDS, ttl=63))),
            sent("a", udp(back, IN), at("b", udp(out, OUT, ttl=63))),
        ),
        scenario(
            f"a rule translates on a bridge, but nothing of the link itself ({family})",
            lambda: with_rules(nat("snat", family.host(1, 99))),
            sent("p1", udp((vm, other)), at("p2", udp((family.host(1, 99), other)))),
        ),
        scenario(
            f"a chain of a static rule costs what it says when it does not match ({family})",
            lambda: floating(family).chain(
                "post", nat("snat", public, ip_src=f"{other}/{bits}"), rule("drop")
            ),
            dropped("a", udp(back, IN), DropReason.FILTERED),
        ),
    ]


def _far(family: Family) -> World:
    """Return `edge` with a floating address for a host behind a tunnel."""
    bits = family.version.bits
    return edge(inbound="pre").chain(
        "pre", nat("dnat", family.host(3, 5), ip_dst=f"{family.host(2, 105)}/{bits}")
    )


def _actions(family: Family) -> World:
    vm, bits = family.host(1, 5), family.version.bits

    def to(own: int) -> str:
        return f"{family.host(2, own)}/{bits}"

    world = edge(inbound="pre").chain("pre", rule("jump", jump="inner"), rule("drop"))
    return world.chain(
        "inner",
        nat("dnat", vm, ip_dst=to(105), then=FlowAction.CONTINUE),
        nat("dnat", vm, ip_dst=to(106), then=FlowAction.ACCEPT),
        nat("dnat", vm, ip_dst=to(107), then=FlowAction.RETURN),
        rule("accept", ip_dst=to(105)),
        rule("drop", ip_dst=f"{vm}/{bits}"),
        rule("accept"),
    )


def _quoting(family: Family, route: tuple[str, str], macs: tuple[str, str], quote: bytes) -> bytes:
    kind, code = (3, 1) if family is V4 else (1, 3)
    return icmp(route, macs, kind, code, payload=quote)


def _short(family: Family, route: tuple[str, str], macs: tuple[str, str], about: bytes) -> bytes:
    size = (20 if family is V4 else 40) + 8
    return _quoting(family, route, macs, about[14 : 14 + size])


def _passed(frame: bytes, family: Family) -> bytes:
    """Return an untagged frame one hop later."""
    return aged(frame, 1, family)


SCENARIOS: list[Scenario] = [one for family in FAMILIES for one in _static(family)]
