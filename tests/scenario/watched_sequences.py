"""Mirrors, marks and services that come, change and go."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from tests.scenario.bridging import BACK, FRAME, R4
from tests.scenario.frames import TCP, UDP, A, tcp, udp
from tests.scenario.marking import EF, EF_TOS, policed
from tests.scenario.mirroring import watched
from tests.scenario.redirecting import guarded, inward, one, outward
from tests.scenario.running import Step, at, dropped, sent, through
from tests.scenario.sequences import Sequence, state
from tests.worlds import World

SEGMENT = tcp(R4)
_ALONE = (sent("p1", FRAME, at("p2", FRAME)), sent("p1", SEGMENT, at("p2", SEGMENT)))


def _watched(**w: object) -> World:
    return watched(**w).port("v", on="taps", host="h1")


MIRRORS = Sequence(
    "a mirror comes, changes and goes",
    (
        state("no mirror", _watched, *_ALONE),
        state("a mirror that nothing names", lambda: _watched().mirror("m", "w", {}), *_ALONE),
        state(
            "of UDP",
            lambda: _watched().mirror("m", "w", {"ip_proto": UDP}, inbound="p1"),
            sent("p1", FRAME, at("p2", FRAME), at("w", FRAME)),
            _ALONE[1],
        ),
        state(
            "of TCP",
            lambda: _watched().mirror("m", "w", {"ip_proto": TCP}, inbound="p1"),
            _ALONE[0],
            sent("p1", SEGMENT, at("p2", SEGMENT), at("w", SEGMENT)),
        ),
        state(
            "to another port",
            lambda: _watched().mirror("m", "v", {}, inbound="p1"),
            sent("p1", FRAME, at("p2", FRAME), at("v", FRAME)),
        ),
        state(
            "to another host",
            lambda: _watched(host="h2", key=77).mirror("m", "w", {}, inbound="p1"),
            sent("p1", FRAME, at("p2", FRAME), through(77, FRAME)),
        ),
        state(
            "to a port that is down",
            lambda: _watched(up=False).mirror("m", "w", {}, inbound="p1"),
            *_ALONE,
        ),
        state(
            "of the bridge",
            lambda: _watched().mirror("m", "w", {}, outbound="b"),
            sent("p1", FRAME, at("p2", FRAME), at("w", FRAME)),
        ),
        state(
            "two mirrors",
            lambda: _watched().mirror("m", "w", {}, outbound="b").mirror("n", "v", {}, inbound="b"),
            sent("p1", FRAME, at("p2", FRAME), at("w", FRAME), at("v", FRAME)),
        ),
    ),
)


def _marked(tos: int) -> Step:
    return sent("p1", FRAME, at("p2", udp(R4, tos=tos)))


MARKS = Sequence(
    "a policy comes, changes and goes",
    (
        state("no policy", lambda: policed(EF), _marked(0)),
        state("of the port", lambda: policed(EF, "p1"), _marked(EF_TOS)),
        state("another mark", lambda: policed(10, "p1"), _marked(10 << 2)),
        state("no mark", lambda: policed(None, "p1"), _marked(0)),
        state("of the bridge", lambda: policed(EF, "b"), _marked(EF_TOS)),
        state("of both", lambda: policed(EF, "b").qos_policy("s", 10, "p1"), _marked(10 << 2)),
    ),
)

_OPEN = (sent("p1", FRAME, at("p2", FRAME)), sent("p2", BACK, at("p1", BACK)))


def _served(vlan: int) -> tuple[Step, ...]:
    """Return the steps of a service that all traffic passes."""
    return (
        sent("p1", FRAME, at("s", inward(FRAME, vlan))),
        sent("p2", BACK, at("s", outward(BACK, vlan))),
        sent("s", inward(FRAME, vlan), at("p2", FRAME)),
        sent("s", outward(BACK, vlan), at("p1", BACK)),
    )


def _failed(reason: DropReason) -> tuple[Step, ...]:
    return (dropped("p1", FRAME, reason), dropped("p2", BACK, reason))


SERVICES = Sequence(
    "a service comes, fails and goes",
    (
        state("no service", guarded, *_OPEN),
        state("a service", one, *_served(7)),
        state("with another VLAN", lambda: one(8), *_served(8)),
        state("inactive", lambda: one(active=False), *_failed(DropReason.SERVICE_DOWN)),
        state("down", lambda: one(up=False), *_failed(DropReason.PORT_DOWN)),
        state("failing open", lambda: one(fail_open=True, active=False), *_OPEN),
        state("healthy again", lambda: one(fail_open=True), *_served(7)),
        state(
            "on another host",
            lambda: one(host="h2", key=77),
            sent("p1", FRAME, through(77, inward(FRAME, 7))),
            sent("p2", BACK, through(77, outward(BACK, 7))),
        ),
        state(
            "behind another one",
            lambda: one().insert("p1", "t", A, vlan=9, position=-1),
            sent("p1", FRAME, at("t", inward(FRAME, 9))),
            sent("t", inward(FRAME, 9), at("s", inward(FRAME, 7))),
            sent("s", inward(FRAME, 7), at("p2", FRAME)),
        ),
    ),
)

SEQUENCES: tuple[Sequence, ...] = (MIRRORS, MARKS, SERVICES)
