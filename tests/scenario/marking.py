"""DSCP marks by the QoS policies of bridge ports and bridges."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from tests.scenario.bridging import R4, R6, lan, small_lan
from tests.scenario.frames import FAMILIES, R1, R2, V4, A, B, Family, fragment, raw, retagged, udp
from tests.scenario.routed_networks import IN, OUT, edge, networks
from tests.scenario.running import Scenario, Step, at, dropped, scenario, sent, through
from tests.worlds import World, rule

EF = 46
"""Expedited forwarding (RFC 3246): 0xB8 in the TOS field, without ECN."""
EF_TOS = EF << 2


def marks(route: tuple[str, str], before: int, after: int) -> Step:
    """Expect a datagram from `p1` with one TOS to arrive at `p2` with another."""
    return sent("p1", udp(route, tos=before), at("p2", udp(route, tos=after)))


def policed(dscp: int | None, *devices: str) -> World:
    """Bridge `b` with ports `p1` and `p2`, and a policy of some of these."""
    return small_lan().qos_policy("gold", dscp, *devices)


def of_family(family: Family) -> list[Scenario]:
    """Return the scenarios that are alike for both IP versions."""
    route = R4 if family is V4 else R6
    one, two = family.host(1, 5), family.host(2, 5)
    return [
        scenario(
            f"what enters by a port gets the DSCP of the port's policy ({family})",
            lambda: policed(EF, "p1"),
            marks(route, 0, EF_TOS),
            marks(route, EF_TOS, EF_TOS),
            sent("p2", udp(route[::-1], (B, A)), at("p1", udp(route[::-1], (B, A)))),
        ),
        scenario(
            f"ECN stays as it is ({family})",
            lambda: policed(EF, "p1"),
            *(marks(route, 0x20 | ecn, EF_TOS | ecn) for ecn in range(4)),
        ),
        scenario(
            f"DSCP 0 takes marks away ({family})",
            lambda: policed(0, "p1"),
            marks(route, EF_TOS | 1, 1),
        ),
        scenario(
            f"a policy without a DSCP rule leaves packets alone ({family})",
            lambda: policed(None, "p1"),
            marks(route, 0x22, 0x22),
        ),
        scenario(
            f"a port without a policy has that of its bridge ({family})",
            lambda: policed(EF, "b"),
            marks(route, 0, EF_TOS),
        ),
        scenario(
            f"the port's policy comes before that of the bridge ({family})",
            lambda: policed(EF, "b").qos_policy("silver", 10, "p1"),
            marks(route, 0, 10 << 2),
        ),
        scenario(
            f"a port's policy without a rule hides that of the bridge ({family})",
            lambda: policed(EF, "b").qos_policy("plain", None, "p1"),
            marks(route, 0, 0),
        ),
        scenario(
            f"fragments are marked ({family})",
            lambda: policed(EF, "p1"),
            *(
                sent("p1", one, at("p2", _with_tos(one, family)))
                for one in (fragment(route, first=first) for first in (True, False))
            ),
        ),
        scenario(
            f"a filter sees the mark ({family})",
            lambda: (
                World()
                .chain("c", rule("drop", ip_tos=EF_TOS))
                .bridge("b")
                .port("p1", on="b", host="h1", inbound="c")
                .port("p2", on="b", host="h1")
                .qos_policy("gold", EF, "p1")
            ),
            dropped("p1", udp(route), DropReason.FILTERED),
        ),
        scenario(
            f"a mirror copies with the mark ({family})",
            lambda: (
                policed(EF, "p1")
                .bridge("taps")
                .port("w", on="taps", host="h1")
                .mirror("m", "w", {"ip_tos": EF_TOS}, inbound="p1")
            ),
            sent("p1", udp(route), *(at(w, udp(route, tos=EF_TOS)) for w in ("p2", "w"))),
        ),
        scenario(
            f"a router port marks nothing, its policy or not ({family})",
            lambda: edge().qos_policy("gold", EF, "a"),
            sent("a", udp((one, two), IN), at("b", udp((one, two), OUT, ttl=63))),
        ),
        scenario(
            f"what comes from a router gets the mark of the bridge it enters ({family})",
            lambda: networks().qos_policy("gold", EF, "n2").neighbour("r", two, B),
            sent(
                "vm1",
                udp((one, two), (A, R1)),
                at("vm2", udp((one, two), (R2, B), ttl=63, tos=EF_TOS)),
            ),
        ),
    ]


def _with_tos(frame: bytes, family: Family) -> bytes:
    """Return an untagged frame with TOS 0 as it is with that of expedited forwarding."""
    if family is V4:
        header = bytearray(frame[14:34])
        header[1] = EF_TOS
        header[10:12] = bytes(2)
        total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
        total = (total & 0xFFFF) + (total >> 16)
        header[10:12] = (0xFFFF - total).to_bytes(2, "big")
        return frame[:14] + bytes(header) + frame[34:]
    word = int.from_bytes(frame[14:18], "big") | EF_TOS << 20
    return frame[:14] + word.to_bytes(4, "big") + frame[18:]


OTHERS = [
    scenario(
        "frames without an IP header are not marked",
        lambda: policed(EF, "p1"),
        sent("p1", raw(0x88CC), at("p2", raw(0x88CC))),
    ),
    scenario(
        "packets in tagged frames are marked",
        lambda: policed(EF, "p1"),
        sent("p1", retagged(udp(R4), 7), at("p2", retagged(udp(R4, tos=EF_TOS), 7))),
    ),
    scenario(
        "a flood is marked for here and for other hosts",
        lambda: lan().qos_policy("gold", EF, "b"),
        sent(
            "p1",
            udp(R4),
            at("p2", udp(R4, tos=EF_TOS)),
            through(103, udp(R4, tos=EF_TOS)),
            through(104, udp(R4, tos=EF_TOS)),
            through(105, udp(R4, tos=EF_TOS), remote="192.0.2.3"),
        ),
    ),
    scenario(
        "a policy that does not exist marks nothing",
        lambda: policed(EF, "p1").unpolice("gold").absent("gold"),
        marks(R4, 0, 0),
        only_simulated="a device lets go of a policy that goes",
    ),
]

SCENARIOS = [*(one for family in FAMILIES for one in of_family(family)), *OTHERS]
