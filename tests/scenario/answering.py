"""Answers begin with the packet they answer: class, priority, DF, identification, label."""

from __future__ import annotations

from typing import Any

from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.tcp import TcpFlag
from tests.scenario.bridging import with_rules
from tests.scenario.frames import R1, V4, V6, A, B, Family, echo, error, tcp, udp
from tests.scenario.routed_networks import IN, edge
from tests.scenario.running import Scenario, at, dropped, scenario, taken
from tests.worlds import rule

CLASSES = (0, 0x08, 0x20, 0x28, 0xB8, 0xFC)
ECN = (1, 2, 3)
PRIORITY = 5 << 13


def _reset(route: tuple[str, str], macs: tuple[str, str], **link: Any) -> bytes:
    return tcp(
        route, macs, ports=(80, 4000), flags=TcpFlag.RST | TcpFlag.ACK,
        sequence=0, acknowledgment=8, window=0, **link,
    )  # fmt: skip


def _of_family(family: Family) -> list[Scenario]:
    one, gateway, two = family.host(1, 5), family.host(1, 1), family.host(1, 6)
    asked, back = (one, gateway), (gateway, one)
    only: list[dict[str, Any]] = (
        [{"df": True}, {"df": True, "identification": 7}, {"identification": 0xBEEF}]
        if family is V4
        else [{"flow_label": 0xABCDE}]
    )
    same: list[dict[str, Any]] = [{"tos": tos} for tos in CLASSES] + only
    return [
        scenario(
            f"an echo reply has what its request had ({family})",
            edge,
            *(
                taken("a", echo(asked, IN, **link),
                      at("a", echo(back, (R1, A), reply=True, **link)))
                for link in same
            ),
            *(
                taken("a", echo(asked, IN, tos=0xB8 | ecn),
                      at("a", echo(back, (R1, A), reply=True, tos=0xB8)))
                for ecn in ECN
            ),
        ),
        scenario(
            f"a reset has what its segment had ({family})",
            edge,
            *(
                dropped("a", tcp(asked, IN, **link), DropReason.LOCAL_NOT_HANDLED,
                        at("a", _reset(back, (R1, A), **link)))
                for link in same
            ),
            dropped("a", tcp(asked, IN, tos=0x03), DropReason.LOCAL_NOT_HANDLED,
                    at("a", _reset(back, (R1, A)))),
        ),
        scenario(
            f"a reset in the name of the addressee has what its segment had ({family})",
            lambda: with_rules(rule("reject")),
            *(
                dropped("p1", tcp((one, two), **link), DropReason.REJECTED,
                        at("p1", _reset((two, one), (B, A), **link)))
                for link in [*same, {"tos": 0x20, "vlan": 7}, {"vlan": PRIORITY | 7}]
            ),
        ),
        scenario(
            f"an error has what its packet had ({family})",
            edge,
            *(
                dropped("a", udp(asked, IN, **link), DropReason.LOCAL_NOT_HANDLED,
                        at("a", error("port unreachable", back, (R1, A), udp(asked, IN, **link))))
                for link in [*same, {"tos": 0xB9}]
            ),
        ),
    ]  # fmt: skip


SCENARIOS: list[Scenario] = [one for family in (V4, V6) for one in _of_family(family)]
