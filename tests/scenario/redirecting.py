"""Rules that change tags and redirect, and L2 insertions, which are made of them."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from tests.scenario.bridging import BACK, FRAME, R4, R6
from tests.scenario.frames import EVERYONE, UDP, V4, A, B, C, raw, retagged, tcp, udp
from tests.scenario.routed_networks import IN, edge
from tests.scenario.running import Scenario, at, dropped, scenario, sent, through
from tests.worlds import World, retag, rule

IN_TAG, OUT_TAG = 1 << 13, 2 << 13
"""Priorities that tell a service in which direction a frame goes."""

TAGGED = retagged(FRAME, 7)
DOUBLE = retagged(TAGGED, 9)
FRAME6, BACK6 = udp(R6), udp(R6[::-1], (B, A))
SEGMENT = tcp(R4)
STRANGER = udp(R4, (C, B))
TO_ALL = udp(R4, (A, EVERYONE))
TO_A_ALL = udp(R4[::-1], (B, EVERYONE))


ROUTED = udp((V4.host(1, 5), V4.host(2, 5)), IN)


def inward(frame: bytes, vlan: int = 0) -> bytes:
    """Return an untagged frame as a service sees it that comes from the protected port."""
    return retagged(frame, IN_TAG | vlan)


def outward(frame: bytes, vlan: int = 0) -> bytes:
    """Return an untagged frame as a service sees it that goes to the protected port."""
    return retagged(frame, OUT_TAG | vlan)


def ruled(*rules: object, where: str = "inbound", **s: object) -> World:
    """Bridge `b` with ports `p1` and `p2`; bridge `svc` with ports `s` (keywords) and `t`.

    rules: of the chain of `p1`, or of `p2` when it is an outbound one.
    """
    world = World().chain("c", *rules).chain("drop", rule("drop"))  # type: ignore[arg-type]
    world.bridge("b").bridge("svc")
    filters = {where: "c"}
    world.port("p1", on="b", host="h1", **(filters if where == "inbound" else {}))  # type: ignore[arg-type]
    world.port("p2", on="b", host="h1", **(filters if where == "outbound" else {}))  # type: ignore[arg-type]
    world.port("s", on="svc", **{"host": "h1", **s})  # type: ignore[arg-type]
    return world.port("t", on="svc", host="h1")


RULES = [
    scenario(
        "a rule redirects out of another port, as the frame is",
        lambda: ruled(retag(to="s", ip_proto=UDP)),
        sent("p1", FRAME, at("s", FRAME)),
        sent("p1", FRAME6, at("s", FRAME6)),
        sent("p1", SEGMENT, at("p2", SEGMENT)),
    ),
    scenario(
        "what is redirected out of a port does not meet its outbound filter",
        lambda: ruled(retag(to="s"), outbound="drop"),
        sent("p1", FRAME, at("s", FRAME)),
    ),
    scenario(
        "of the mirrors of the port only those after the filter see what is redirected out",
        lambda: (
            ruled(retag(to="s"))
            .bridge("taps")
            .port("v", on="taps", host="h1")
            .port("w", on="taps", host="h1")
            .mirror("m", "v", {}, pre_out_filter="s")
            .mirror("n", "w", {}, outbound="s")
        ),
        sent("p1", FRAME, at("s", FRAME), at("w", FRAME)),
    ),
    scenario(
        "a rule redirects into another port, past whose filter and device the frame goes on",
        lambda: ruled(retag(to="s", ingress=True)),
        sent("p1", FRAME, at("t", FRAME)),
        # It has been learnt where it entered.
        sent("t", BACK, at("s", BACK)),
    ),
    scenario(
        "a frame that is redirected into a port meets its inbound filter",
        lambda: ruled(retag(to="s", ingress=True), inbound="drop"),
        dropped("p1", FRAME, DropReason.FILTERED),
    ),
    scenario(
        "a rule redirects to a port of another host",
        lambda: ruled(retag(to="s"), host="h2", key=77),
        sent("p1", FRAME, through(77, FRAME)),
    ),
    scenario(
        "a rule of an outbound filter redirects one copy of a flood",
        lambda: ruled(retag(to="s"), where="outbound").port("p3", on="b", host="h1"),
        sent("p1", FRAME, at("p3", FRAME), at("s", FRAME)),
    ),
    scenario(
        "a rule of a bridge redirects, and the bridge has learnt the source",
        lambda: (
            ruled()
            .chain("d", retag(to="s", eth_src=A))
            .bridge("b", inbound="d")
            .port("p3", on="b", host="h1")
        ),
        sent("p1", FRAME, at("s", FRAME)),
        sent("p2", BACK, at("p1", BACK)),
    ),
    scenario(
        "a rule of a router redirects",
        lambda: (
            edge(inbound="d")
            .chain("d", retag(to="s"))
            .bridge("svc")
            .port("s", on="svc", host="h1")
        ),
        sent("a", ROUTED, at("s", ROUTED)),
    ),
    scenario(
        "a frame is not redirected out of the port by which it came",
        lambda: ruled(retag(to="p1")),
        dropped("p1", FRAME, DropReason.HAIRPIN),
    ),
    scenario(
        "ports that redirect into each other end at the device limit",
        lambda: ruled(retag(to="s", ingress=True), inbound="back").chain(
            "back", retag(to="p1", ingress=True)
        ),
        dropped("p1", FRAME, DropReason.LOOP_LIMIT),
    ),
    scenario(
        "a rule that lost its port drops",
        lambda: ruled(retag(to="gone")).absent("gone"),
        dropped("p1", FRAME, DropReason.MISSING_DEVICE),
        only_simulated="a rule lets go of a port that goes",
    ),
]  # fmt: skip

TAGS = [
    scenario(
        "a rule takes a tag away and accepts",
        lambda: ruled(retag(pop=True)),
        sent("p1", TAGGED, at("p2", FRAME)),
        sent("p1", FRAME, at("p2", FRAME)),
    ),
    scenario(
        "a rule puts a tag on and accepts",
        lambda: ruled(retag(push=IN_TAG | 7)),
        sent("p1", FRAME, at("p2", retagged(FRAME, IN_TAG | 7))),
        sent("p1", TAGGED, at("p2", retagged(TAGGED, IN_TAG | 7))),
    ),
    scenario(
        "a rule changes a tag and redirects",
        lambda: ruled(retag(pop=True, push=9, to="s", vlan=7)),
        sent("p1", TAGGED, at("s", retagged(FRAME, 9))),
        sent("p1", FRAME, at("p2", FRAME)),
    ),
    scenario(
        "a second tag is not put on",
        lambda: (
            ruled(retag(push=7))
            .chain("d", retag(push=9))
            .port("p2", on="b", host="h1", outbound="d")
        ),
        dropped("p1", FRAME, DropReason.VLAN_MISMATCH),
    ),
    scenario(
        "a tag that hides another one is not taken away",
        lambda: ruled(retag(pop=True)),
        dropped("p1", DOUBLE, DropReason.VLAN_MISMATCH),
    ),
    scenario(
        "a condition asks for the priority of a tag when it names one",
        lambda: ruled(rule("drop", vlan=IN_TAG | 7)),
        dropped("p1", retagged(FRAME, IN_TAG | 7), DropReason.FILTERED),
        sent("p1", TAGGED, at("p2", TAGGED)),
        sent("p1", retagged(FRAME, OUT_TAG | 7), at("p2", retagged(FRAME, OUT_TAG | 7))),
    ),
    scenario(
        "a condition without a priority takes any",
        lambda: ruled(rule("drop", vlan=7)),
        dropped("p1", retagged(FRAME, IN_TAG | 7), DropReason.FILTERED),
        dropped("p1", TAGGED, DropReason.FILTERED),
    ),
]

FAILURES = [
    scenario(
        "a redirection to a port that is down drops",
        lambda: ruled(retag(to="s"), up=False),
        dropped("p1", FRAME, DropReason.PORT_DOWN),
    ),
    scenario(
        "a redirection to a port that is inactive drops",
        lambda: ruled(retag(to="s"), active=False),
        dropped("p1", FRAME, DropReason.SERVICE_DOWN),
    ),
    scenario(
        "a redirection to a port that is neither bound nor linked drops",
        lambda: ruled(retag(to="s"), host=None),
        dropped("p1", FRAME, DropReason.SERVICE_DOWN),
    ),
    *(
        scenario(
            f"a redirection that fails open enters by the port, {name}",
            lambda port=port: ruled(retag(to="s", fail_open=True), **port),
            sent("p1", FRAME, at("t", FRAME)),
        )
        for name, port in (
            ("which is down", {"up": False}),
            ("which is inactive", {"active": False}),
            ("which nobody has reported", {"located": False}),
        )
    ),
]


def guarded(*, s: dict[str, object] | None = None, p1: dict[str, object] | None = None) -> World:
    """Bridge `b` with machines at `p1` (A) and `p2` (B), bridge `svc` with service ports."""
    world = World().bridge("b").bridge("svc").chain("drop", rule("drop"))
    world.port("p1", on="b", **{"host": "h1", **(p1 or {})})  # type: ignore[arg-type]
    world.port("p2", on="b", host="h1")
    world.port("s", on="svc", **{"host": "h1", **(s or {})})  # type: ignore[arg-type]
    world.port("t", on="svc", host="h1")
    return world.mac_at("b", A, "p1").mac_at("b", B, "p2")


def one(vlan: int = 7, *, fail_open: bool = False, **s: object) -> World:
    """Return `guarded` with a service for `p1`. Keywords go to the service port."""
    return guarded(s=s).insert("p1", "s", A, vlan=vlan, fail_open=fail_open)


INSERTIONS = [
    scenario(
        "what a protected machine sends passes the service, and goes on as if it had not",
        one,
        sent("p1", FRAME, at("s", inward(FRAME, 7))),
        sent("s", inward(FRAME, 7), at("p2", FRAME)),
        sent("p1", FRAME6, at("s", inward(FRAME6, 7))),
        sent("s", inward(FRAME6, 7), at("p2", FRAME6)),
    ),
    scenario(
        "what is sent to a protected machine passes the service",
        one,
        sent("p2", BACK, at("s", outward(BACK, 7))),
        sent("s", outward(BACK, 7), at("p1", BACK)),
        sent("p2", BACK6, at("s", outward(BACK6, 7))),
        sent("s", outward(BACK6, 7), at("p1", BACK6)),
    ),
    scenario(
        "an insertion without a VLAN tells the directions by the machine's MAC",
        lambda: one(0),
        sent("p1", FRAME, at("s", FRAME)),
        sent("s", FRAME, at("p2", FRAME)),
        sent("p2", BACK, at("s", BACK)),
        sent("s", BACK, at("p1", BACK)),
        sent("p1", TAGGED, at("s", TAGGED)),
        sent("s", TAGGED, at("p2", TAGGED)),
    ),
    scenario(
        "a service that returns nothing lets nothing pass",
        one,
        sent("p1", FRAME, at("s", inward(FRAME, 7))),
        sent("s", FRAME, at("t", FRAME)),
    ),
    scenario(
        "services are passed in the order of their positions",
        lambda: (
            guarded()
            .insert("p1", "s", A, vlan=7, position=2)
            .insert("p1", "t", A, vlan=8, position=1)
        ),
        sent("p1", FRAME, at("t", inward(FRAME, 8))),
        sent("t", inward(FRAME, 8), at("s", inward(FRAME, 7))),
        sent("s", inward(FRAME, 7), at("p2", FRAME)),
        sent("p2", BACK, at("t", outward(BACK, 8))),
        sent("t", outward(BACK, 8), at("s", outward(BACK, 7))),
        sent("s", outward(BACK, 7), at("p1", BACK)),
    ),
    scenario(
        "two protected machines that speak with each other are looked at twice",
        lambda: one().insert("p2", "s", B, vlan=8),
        sent("p1", FRAME, at("s", inward(FRAME, 7))),
        sent("s", inward(FRAME, 7), at("s", outward(FRAME, 8))),
        sent("s", outward(FRAME, 8), at("p2", FRAME)),
    ),
    scenario(
        "frames of other machines at a protected port pass the service by",
        one,
        sent("p1", STRANGER, at("p2", STRANGER)),
    ),
    scenario(
        "what a protected machine sends to everybody passes the service before it is flooded",
        one,
        sent("p1", TO_ALL, at("s", inward(TO_ALL, 7))),
        sent("s", inward(TO_ALL, 7), at("p2", TO_ALL)),
        sent("p2", TO_A_ALL, at("p1", TO_A_ALL)),
    ),
    scenario(
        "a protected port's own filter sees what the service let pass",
        lambda: guarded(p1={"inbound": "drop"}).insert("p1", "s", A, vlan=7),
        sent("p1", FRAME, at("s", inward(FRAME, 7))),
        dropped("s", inward(FRAME, 7), DropReason.FILTERED),
    ),
    scenario(
        "a service sees nothing that the protected port's outbound filter drops",
        lambda: guarded(p1={"outbound": "drop"}).insert("p1", "s", A, vlan=7),
        dropped("p2", BACK, DropReason.FILTERED),
    ),
    scenario(
        "a machine cannot pretend to have passed its service",
        one,
        sent("p1", inward(FRAME, 7), at("s", inward(inward(FRAME, 7), 7))),
        sent("p1", retagged(FRAME, 1 << 15), at("s", inward(FRAME, 7))),
        dropped("s", inward(inward(FRAME, 7), 7), DropReason.VLAN_MISMATCH),
    ),
    scenario(
        "a service port sends out what is redirected to it only",
        lambda: (
            one().port("p3", on="svc", host="h1").mac_at("svc", C, "s")
        ),
        sent("t", udp(R4, (B, EVERYONE)), at("p3", udp(R4, (B, EVERYONE)))),
        dropped("t", udp(R4, (B, C)), DropReason.NOT_REDIRECTED),
    ),
    scenario(
        "a service on another host is reached through the tunnel",
        lambda: one(host="h2", key=77),
        sent("p1", FRAME, through(77, inward(FRAME, 7))),
        sent("p2", BACK, through(77, outward(BACK, 7))),
    ),
    *(
        scenario(
            f"a service that is {name} lets nothing pass",
            lambda port=port: one(**port),
            dropped("p1", FRAME, reason),
            dropped("p2", BACK, reason),
        )
        for name, port, reason in (
            ("down", {"up": False}, DropReason.PORT_DOWN),
            ("inactive", {"active": False}, DropReason.SERVICE_DOWN),
        )
    ),
    *(
        scenario(
            f"a service that is {name} and fails open is passed by",
            lambda port=port: one(fail_open=True, **port),
            sent("p1", FRAME, at("p2", FRAME)),
            sent("p2", BACK, at("p1", BACK)),
            sent("p1", FRAME6, at("p2", FRAME6)),
        )
        for name, port in (("down", {"up": False}), ("inactive", {"active": False}))
    ),
    scenario(
        "one service of several that fails open is passed by, the others are not",
        lambda: (
            guarded(s={"active": False})
            .insert("p1", "s", A, vlan=7, position=1, fail_open=True)
            .insert("p1", "t", A, vlan=8, position=2)
        ),
        sent("p1", FRAME, at("t", inward(FRAME, 8))),
        sent("p2", BACK, at("t", outward(BACK, 8))),
    ),
    scenario(
        "frames of any kind pass the service",
        one,
        sent("p1", raw(0x88CC), at("s", inward(raw(0x88CC), 7))),
        sent("s", inward(raw(0x88CC), 7), at("p2", raw(0x88CC))),
    ),
]  # fmt: skip

SCENARIOS: list[Scenario] = [*RULES, *TAGS, *FAILURES, *INSERTIONS]
