"""Chains that are long enough to be looked up: the same verdicts as of short ones."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.chains import FlowAction, PortRange
from tests.scenario.filtering import chains
from tests.scenario.frames import TCP, UDP, V4, V6, A, B, fragment, icmp, raw, tcp, udp
from tests.scenario.grouping import filtered, passes
from tests.scenario.routed_networks import IN, OUT, edge
from tests.scenario.running import Scenario, Step, at, dropped, scenario, sent
from tests.worlds import World, nat, rule

ROUTE4, ROUTE6 = (V4.host(1, 5), V4.host(1, 6)), (V6.host(1, 5), V6.host(1, 6))
UDP4, UDP6, TCP4 = udp(ROUTE4), udp(ROUTE6), tcp(ROUTE4)
FILLER = tuple(
    rule("drop", ip_proto=UDP, ip_src=f"172.16.{index}.0/24", ip_dst=f"192.168.{index}.7")
    for index in range(40)
)
"""Rules that match nothing here."""


def behind(*rules: object) -> tuple[object, ...]:
    return (*FILLER, *rules)


def services(count: int) -> tuple[object, ...]:
    """Return rules that let UDP to one port each pass, to host 6, and drop what is left."""
    return (
        *(
            rule("accept", ip_proto=UDP, ip_dst=ROUTE4[1], l4_dst=PortRange(port, port))
            for port in range(4900, 4900 + count)
        ),
        rule("drop"),
    )


def translating(*rules: object) -> World:
    """`edge`, whose router translates what comes for host 9 of network 2 to host 5."""
    translation = nat("dnat", V4.host(2, 5), then=FlowAction.CONTINUE, ip_dst=V4.host(2, 9))
    world = edge(inbound="pre").chain("pre", *rules)  # type: ignore[arg-type]
    return world.chain("dnat", translation)


_TO_9, _TO_5 = (udp((V4.host(1, 5), V4.host(2, host)), IN) for host in (9, 5))
_ARRIVES = sent("a", _TO_9, at("b", udp((V4.host(1, 5), V4.host(2, 5)), OUT, ttl=63)))
_TRANSLATION = nat("dnat", V4.host(2, 5), then=FlowAction.CONTINUE, ip_dst=V4.host(2, 9))


def _dropped_at_router(frame: bytes) -> Step:
    return dropped("a", frame, DropReason.FILTERED)


SCENARIOS: list[Scenario] = [
    scenario(
        "a rule far down a chain meets its packets",
        chains(top=behind(rule("drop", ip_proto=UDP, ip_src="10.0.1.0/24"))),
        *filtered(UDP4, fragment(ROUTE4, first=False)),
        *passes(UDP6, TCP4, raw(0x88CC)),
    ),
    scenario(
        "the first rule that decides wins, however far down",
        chains(
            top=behind(
                rule("accept", l4_dst=PortRange(53, 53)),
                *FILLER,
                rule("drop", ip_dst=ROUTE4[1]),
                rule("accept", ip_dst="10.0.0.0/8"),
                rule("drop"),
            )
        ),
        *passes(udp(ROUTE4, ports=(4000, 53)), udp(ROUTE6, ports=(4000, 53))),
        *filtered(UDP4, TCP4, UDP6, raw(0x88CC)),
        *passes(udp((ROUTE4[1], ROUTE4[0]), (A, B))),
    ),
    scenario(
        "a service among a hundred, and its neighbours",
        chains(top=services(101)),
        *passes(UDP4, udp(ROUTE4, ports=(1, 4900))),
        *filtered(
            udp(ROUTE4, ports=(1, 4899)),
            udp(ROUTE4, ports=(1, 5001)),
            udp(ROUTE4, ports=(1, 0x0D88)),
            TCP4,
            UDP6,
            fragment(ROUTE4, first=False),
            icmp(ROUTE4, (A, B), 8),
        ),
        *passes(fragment(ROUTE4, first=True)),
    ),
    scenario(
        "prefixes of a long chain may lie within each other",
        chains(
            top=(
                *(
                    rule("return" if length % 2 else "drop", ip_src=f"{ROUTE4[0]}/{length}")
                    for length in range(32, 4, -1)
                ),
            )
        ),
        *filtered(UDP4, udp((V4.host(1, 7), ROUTE4[1]))),
        *passes(udp((V4.host(1, 4), ROUTE4[1])), udp((V4.host(17, 5), ROUTE4[1])), UDP6),
    ),
    scenario(
        "an inverted rule in a long chain meets all the rest",
        chains(top=behind(rule("drop", inverted=True, ip_proto=TCP, ip_dst=ROUTE4[1]))),
        *passes(TCP4),
        *filtered(UDP4, UDP6, raw(0x88CC)),
    ),
    scenario(
        "a long chain is jumped to and returned from",
        chains(
            top=behind(rule("jump", jump="sub"), rule("drop", ip_proto=TCP)),
            sub=behind(rule("return", ip_proto=TCP), rule("drop", ip_proto=UDP)),
        ),
        *filtered(TCP4, UDP4, UDP6),
        *passes(raw(0x88CC)),
    ),
    scenario(
        "rules behind a translation see the new address in a long chain",
        lambda: translating(
            *FILLER, _TRANSLATION, *FILLER, rule("drop", ip_dst=V4.host(2, 9)),
            rule("accept", ip_dst=V4.host(2, 5)), rule("drop"),
        ),
        _ARRIVES,
    ),
    scenario(
        "rules before a translation see the old one",
        lambda: translating(
            *FILLER, rule("drop", ip_dst=V4.host(2, 9)), _TRANSLATION, *FILLER
        ),
        _dropped_at_router(_TO_9),
    ),
    scenario(
        "rules behind a jump see what was translated there",
        lambda: translating(
            rule("jump", jump="dnat"), *FILLER, rule("drop", ip_dst=V4.host(2, 5))
        ),
        _dropped_at_router(_TO_9),
        _dropped_at_router(_TO_5),
    ),
]  # fmt: skip
