"""Translation with state: who gets which end point, answers, errors, fragments, exhaustion.

Router `r` has `a` inside (network 1) and `b` outside (network 2). What leaves by `b` comes from the
router's own address there, unless a scenario says otherwise.
"""

from __future__ import annotations

from midonet.agent.flow_state.allocations import AllocationTable
from midonet.agent.flow_state.pool import EndpointRange, NatPool
from midonet.agent.flow_state.source_choice import Chosen, FixedBlocks, SourceChooser
from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import parse_ip
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.tcp import TcpFlag
from tests.scenario.frames import (
    ERRORS,
    FAMILIES,
    R1,
    R2,
    V4,
    A,
    B,
    C,
    Family,
    aged,
    error,
    fragment,
    icmp,
    other_protocol,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge
from tests.scenario.running import (
    Scenario,
    Step,
    at,
    dropped,
    later,
    scenario,
    sent,
    waits,
)
from tests.worlds import World, nat, rule

INWARDS, OUTWARDS = (B, R2), (R1, A)
"""MACs of a packet that enters the router from outside, and of one that leaves it inside."""

PORTS, BACK = (4000, 5000), (5000, 4000)
HTTP, HTTP_BACK = (4000, 80), (80, 4000)
FOREVER_S = 100_000.0
SYN, ACK, RST, FIN = TcpFlag.SYN, TcpFlag.ACK, TcpFlag.RST, TcpFlag.FIN


def masquerade(family: Family, *targets: str, **condition: object) -> World:
    """Return `edge` that translates what leaves by `b`; inside are hosts 5 and 6."""
    world = edge(inbound="pre", outbound="post").chain("pre", nat("rev_snat"))
    world.neighbour("r", family.host(1, 6), C).neighbour("r", family.host(2, 6), C)
    places = targets or (f"{family.host(2, 1)} 5000",)
    return world.chain("post", nat("snat", *places, out_port_ids=("b",), **condition))


def identifier(family: Family, source: str, destination: str, old: int) -> int:
    """Return what the identifier of an echo from `source` becomes, as the first of all."""
    world, own = World(), parse_ip(family.host(2, 1))
    pool = NatPool((EndpointRange(own.version, own.value, own.value, 5000, 5000),))
    ends = parse_ip(source).value, parse_ip(destination).value
    protocol = 1 if family is V4 else 58
    packet = FiveTuple(family.version, protocol, ends[0], old, ends[1], old)
    choice = SourceChooser(AllocationTable(), FixedBlocks()).choose(world.id("r"), pool, packet, 0)
    assert isinstance(choice, Chosen)
    return choice.endpoint.port


def _ping(
    family: Family,
    route: tuple[str, str],
    macs: tuple[str, str],
    number: int,
    *,
    reply: bool = False,
    ttl: int = 64,
) -> bytes:
    kinds = (8, 0) if family is V4 else (128, 129)
    return icmp(route, macs, kinds[reply], rest=number << 16 | 1, payload=b"payload!", ttl=ttl)


def _sources(family: Family) -> list[Scenario]:
    vm, other = family.host(1, 5), family.host(1, 6)
    own, outside = family.host(2, 1), family.host(2, 5)
    there, home = (own, outside), (outside, own)
    out, back = (vm, outside), (outside, vm)
    first = sent("a", udp(out, IN), at("b", udp(there, OUT, ports=(5000, 5000), ttl=63)))
    answer = sent(
        "b",
        udp(home, INWARDS, ports=(5000, 5000)),
        at("a", udp(back, OUTWARDS, ports=BACK, ttl=63)),
    )
    opened = _opened(family)
    mapped = identifier(family, vm, outside, 7)

    def pinged(number: int = 7) -> Step:
        return sent(
            "a",
            _ping(family, out, IN, number),
            at("b", _ping(family, there, OUT, identifier(family, vm, outside, number), ttl=63)),
        )

    return [
        scenario(
            f"a source is translated, and the answer finds back ({family})",
            lambda: masquerade(family),
            first,
            answer,
            first,
            answer,
        ),
        scenario(
            f"a TCP conversation is translated from its first segment to its last ({family})",
            lambda: masquerade(family),
            *opened,
            sent(
                "a",
                tcp(out, IN, flags=FIN | ACK),
                at("b", tcp(there, OUT, ports=(5000, 80), flags=FIN | ACK, ttl=63)),
            ),
            sent(
                "b",
                tcp(home, INWARDS, ports=(80, 5000), flags=FIN | ACK),
                at("a", tcp(back, OUTWARDS, ports=HTTP_BACK, flags=FIN | ACK, ttl=63)),
            ),
            sent(
                "a",
                tcp(out, IN, flags=ACK),
                at("b", tcp(there, OUT, ports=(5000, 80), flags=ACK, ttl=63)),
            ),
        ),
        scenario(
            f"an echo is translated with its identifier, and its reply back ({family})",
            lambda: masquerade(family),
            pinged(),
            sent(
                "b",
                _ping(family, home, INWARDS, mapped, reply=True),
                at("a", _ping(family, back, OUTWARDS, 7, reply=True, ttl=63)),
            ),
            pinged(8),
        ),
        scenario(
            f"what nobody asked for is not translated ({family})",
            lambda: masquerade(family),
            _refused(family, udp(home, INWARDS, ports=(5000, 5000))),
            first,
            _refused(family, udp(home, INWARDS, ports=(5001, 5000))),
            _refused(family, udp(home, INWARDS, ports=(5000, 5001))),
            _refused(
                family,
                udp((family.host(2, 6), own), INWARDS, ports=(5000, 5000)),
                family.host(2, 6),
            ),
        ),
        scenario(
            f"two hosts with one port get an end point each ({family})",
            lambda: masquerade(family, f"{own} 5000-5001"),
            first,
            sent(
                "a",
                udp((other, outside), (C, R1)),
                at("b", udp(there, OUT, ports=(5001, 5000), ttl=63)),
            ),
            sent(
                "b",
                udp(home, INWARDS, ports=(5000, 5001)),
                at("a", udp((outside, other), (R1, C), ports=BACK, ttl=63)),
            ),
            answer,
        ),
        scenario(
            f"one end point serves several destinations ({family})",
            lambda: masquerade(family),
            first,
            sent(
                "a",
                udp(out, IN, ports=(4000, 5001)),
                at("b", udp(there, OUT, ports=(5000, 5001), ttl=63)),
            ),
            sent(
                "a",
                udp((other, outside), (C, R1), ports=(4000, 5002)),
                at("b", udp(there, OUT, ports=(5000, 5002), ttl=63)),
            ),
            answer,
        ),
        scenario(
            f"a pool that is used up is a named drop, until something is free again ({family})",
            lambda: masquerade(family),
            first,
            dropped("a", udp((other, outside), (C, R1)), DropReason.NAT_EXHAUSTED),
            dropped("a", udp(out, IN, ports=(4001, 5000)), DropReason.NAT_EXHAUSTED),
            first,
            later(
                FOREVER_S,
                sent(
                    "a",
                    udp((other, outside), (C, R1)),
                    at("b", udp(there, OUT, ports=(5000, 5000), ttl=63)),
                ),
            ),
            dropped("a", udp(out, IN), DropReason.NAT_EXHAUSTED),
        ),
        scenario(
            f"targets are used up in their order ({family})",
            lambda: masquerade(family, f"{family.host(2, 90)} 5000", f"{family.host(2, 80)} 5000"),
            *(
                sent(
                    "a",
                    udp(out, IN, ports=(port, 5000)),
                    at(
                        "b", udp((family.host(2, public), outside), OUT, ports=(5000, 5000), ttl=63)
                    ),
                )
                for port, public in ((1, 90), (2, 80))
            ),
            dropped("a", udp(out, IN, ports=(3, 5000)), DropReason.NAT_EXHAUSTED),
        ),
        scenario(
            f"what is denied behind the translation uses nothing up ({family})",
            lambda: (
                masquerade(family)
                .chain("deny", rule("drop", ip_dst=f"{family.host(2, 6)}"))
                .filters("b", outbound="deny")
            ),
            *(
                dropped(
                    "a", udp((vm, family.host(2, 6)), IN, ports=(port, 5000)), DropReason.FILTERED
                )
                for port in range(1, 9)
            ),
            first,
        ),
        scenario(
            f"the middle of a conversation that nobody knows is not translated ({family})",
            lambda: masquerade(family),
            *(
                dropped("a", tcp(out, IN, flags=flags), DropReason.CONNECTION_UNKNOWN)
                for flags in (ACK, RST, FIN | ACK, SYN | ACK)
            ),
            dropped("a", _ping(family, out, IN, 7, reply=True), DropReason.CONNECTION_UNKNOWN),
        ),
        scenario(
            f"a protocol without ports is left to the next rule ({family})",
            lambda: masquerade(family).chain(
                "post", nat("snat", f"{own} 5000"), rule("drop", ip_proto=47)
            ),
            dropped("a", other_protocol(out, IN), DropReason.FILTERED),
            sent(
                "a",
                other_protocol(out, IN, protocol=50),
                at("b", other_protocol(out, OUT, protocol=50, ttl=63)),
            ),
        ),
        scenario(
            f"an end point whose answers are another's is passed over ({family})",
            lambda: masquerade(family, f"{own} 5000-5001", ip_src=f"{vm}/{family.version.bits}"),
            # Somebody speaks from the very end point, and is tracked as `pre` asks.
            sent(
                "a",
                udp((own, outside), IN, ports=(5000, 5000)),
                at("b", udp(there, OUT, ports=(5000, 5000), ttl=63)),
            ),
            sent("a", udp(out, IN), at("b", udp(there, OUT, ports=(5001, 5000), ttl=63))),
        ),
        scenario(
            f"errors from outside about what was translated find back ({family})",
            lambda: masquerade(family),
            first,
            *opened,
            pinged(),
            *(
                _told(family, name, udp(there, OUT, ports=(5000, 5000)), udp(out, IN))
                for name in ERRORS
            ),
            _told(
                family,
                "too big",
                tcp(there, OUT, ports=(5000, 80), flags=ACK),
                tcp(out, IN, flags=ACK),
            ),
            _told(
                family,
                "time exceeded",
                _ping(family, there, OUT, mapped),
                _ping(family, out, IN, 7),
            ),
            _told(
                family,
                "time exceeded",
                udp(there, OUT, ports=(5000, 5000), ttl=1),
                udp(out, IN, ttl=1),
                by=family.host(9, 9),
            ),
        ),
        scenario(
            f"an error that quotes eight bytes finds back ({family})",
            lambda: masquerade(family),
            *opened,
            sent(
                "b",
                _brief(family, home, INWARDS, tcp(there, OUT, ports=(5000, 80))),
                at("a", aged(_brief(family, back, OUTWARDS, tcp(out, OUT)), 1, family)),
            ),
        ),
        scenario(
            f"an error about nobody's packet is not translated ({family})",
            lambda: masquerade(family),
            first,
            dropped(
                "b",
                error("unreachable", home, INWARDS, udp(there, OUT, ports=(5001, 5000))),
                DropReason.LOCAL_NOT_HANDLED,
            ),
            dropped(
                "b",
                error(
                    "unreachable",
                    home,
                    INWARDS,
                    udp((own, family.host(2, 6)), OUT, ports=(5000, 5000)),
                ),
                DropReason.LOCAL_NOT_HANDLED,
            ),
            dropped("b", _brief(family, home, INWARDS, b"\xff" * 80), DropReason.LOCAL_NOT_HANDLED),
            answer,
        ),
        scenario(
            f"a host's error about an answer is translated on its way out ({family})",
            lambda: masquerade(family),
            first,
            answer,
            sent(
                "a",
                error("port unreachable", out, IN, udp(back, OUTWARDS, ports=BACK)),
                at(
                    "b",
                    aged(
                        error(
                            "port unreachable", there, OUT, udp(home, OUTWARDS, ports=(5000, 5000))
                        ),
                        1,
                        family,
                    ),
                ),
            ),
        ),
        scenario(
            f"what nobody answered is begun again when a rule would translate it ({family})",
            lambda: _asked_first(family),
            sent("a", udp(out, IN, tos=4), at("b", udp(out, OUT, tos=4, ttl=63))),
            first,
            answer,
        ),
        scenario(
            f"a conversation that began as it is stays so ({family})",
            lambda: _asked_first(family),
            sent("a", udp(out, IN, tos=4), at("b", udp(out, OUT, tos=4, ttl=63))),
            sent(
                "b",
                udp(back, INWARDS, ports=BACK),
                at("a", udp(back, OUTWARDS, ports=BACK, ttl=63)),
            ),
            sent("a", udp(out, IN), at("b", udp(out, OUT, ttl=63))),
        ),
        scenario(
            f"the first fragment is translated, and later ones follow it both ways ({family})",
            lambda: masquerade(family),
            _piece(family, first=True),
            _piece(family, first=False),
            sent(
                "b",
                fragment(home, INWARDS, first=True, ports=(5000, 5000)),
                at("a", fragment(back, OUTWARDS, first=True, ports=BACK, ttl=63)),
            ),
            sent(
                "b",
                fragment(home, INWARDS, first=False),
                at("a", fragment(back, OUTWARDS, first=False, ttl=63)),
            ),
        ),
        scenario(
            f"a later fragment waits for its first, but not for long ({family})",
            lambda: masquerade(family),
            waits("a", fragment(out, IN, first=False), "first fragment"),
            _piece(family, first=True),
            _piece(family, first=False),
        ),
        scenario(
            f"a later fragment whose first does not come is dropped ({family})",
            lambda: masquerade(family),
            waits("a", fragment(out, IN, first=False), "first fragment"),
            later(1.0, dropped("a", fragment(out, IN, first=False), DropReason.FRAGMENT_UNKNOWN)),
        ),
        scenario(
            f"fragments that overlap are refused, and all that follow ({family})",
            lambda: masquerade(family),
            _piece(family, first=True),
            dropped("a", fragment(out, IN, first=False, offset=24), DropReason.FRAGMENT_INVALID),
            dropped("a", fragment(out, IN, first=False), DropReason.FRAGMENT_INVALID),
            later(40.0, _piece(family, first=True)),
        ),
    ]


def _opened(family: Family) -> list[Step]:
    """Return the steps of a TCP handshake through the translation."""
    vm, own, outside = family.host(1, 5), family.host(2, 1), family.host(2, 5)
    there, home, out, back = (own, outside), (outside, own), (vm, outside), (outside, vm)
    return [
        sent("a", tcp(out, IN), at("b", tcp(there, OUT, ports=(5000, 80), ttl=63))),
        sent("a", tcp(out, IN), at("b", tcp(there, OUT, ports=(5000, 80), ttl=63))),
        sent(
            "b",
            tcp(home, INWARDS, ports=(80, 5000), flags=SYN | ACK),
            at("a", tcp(back, OUTWARDS, ports=HTTP_BACK, flags=SYN | ACK, ttl=63)),
        ),
        sent(
            "a",
            tcp(out, IN, flags=ACK),
            at("b", tcp(there, OUT, ports=(5000, 80), flags=ACK, ttl=63)),
        ),
        sent(
            "b",
            tcp(home, INWARDS, ports=(80, 5000), flags=ACK),
            at("a", tcp(back, OUTWARDS, ports=HTTP_BACK, flags=ACK, ttl=63)),
        ),
    ]


def _refused(family: Family, frame: bytes, sender: str = "") -> Step:
    """Expect the router to say that it serves no such port."""
    own, outside = family.host(2, 1), sender or family.host(2, 5)
    answer = error("port unreachable", (own, outside), (R2, B), frame)
    return dropped("b", frame, DropReason.LOCAL_NOT_HANDLED, at("b", answer))


def _told(family: Family, name: str, about: bytes, meant: bytes, *, by: str = "") -> Step:
    """Expect an error from outside about a translated packet to reach who sent it."""
    vm, own, teller = family.host(1, 5), family.host(2, 1), by or family.host(2, 5)
    mtu = 1300 if name == "too big" else 0
    return sent(
        "b",
        error(name, (teller, own), INWARDS, about, mtu=mtu),
        at("a", aged(error(name, (teller, vm), OUTWARDS, meant, mtu=mtu), 1, family)),
    )


def _brief(family: Family, route: tuple[str, str], macs: tuple[str, str], about: bytes) -> bytes:
    kind, code = (3, 1) if family is V4 else (1, 3)
    size = (20 if family is V4 else 40) + 8
    return icmp(route, macs, kind, code, payload=about[14 : 14 + size])


def _piece(family: Family, *, first: bool) -> Step:
    vm, own, outside = family.host(1, 5), family.host(2, 1), family.host(2, 5)
    return sent(
        "a",
        fragment((vm, outside), IN, first=first),
        at("b", fragment((own, outside), OUT, first=first, ports=(5000, 5000), ttl=63)),
    )


def _asked_first(family: Family) -> World:
    """Return a network that translates only packets without a mark, and tracks all."""
    return masquerade(family, ip_tos=0)


SCENARIOS: list[Scenario] = [one for family in FAMILIES for one in _sources(family)]
