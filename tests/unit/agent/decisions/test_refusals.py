"""A port's packets lead to so many ICMP errors and resets a second, and no more."""

from __future__ import annotations

from collections import Counter

from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.decisions.refusals import REFUSALS_BURST, REFUSALS_PER_S
from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.frame import parse_frame
from tests.scenario.frames import R1, R2, V4, A, B, echo, tcp, udp
from tests.unit.agent.decisions.test_decisions import Routed

AWAY = (V4.host(1, 5), "172.16.5.5")
CHUNK = 50
"""Packets sent at once: fewer than a queue of the agent holds."""


async def refuse(shell: Routed, count: int, frame: bytes) -> None:
    """Send a packet that is refused so many times."""
    while count:
        number = min(count, CHUNK)
        await shell.send(*[frame] * number, port_id=shell.a)
        count -= number


async def test_refusals_beyond_the_budget_of_a_port_are_a_named_drop() -> None:
    shell = await Routed().open()
    closed, reset = udp(AWAY, (A, R1)), tcp((V4.host(1, 5), V4.host(1, 1)), (A, R1))
    await refuse(shell, REFUSALS_BURST - 1, closed)
    await refuse(shell, 3, reset)
    assert len(shell.left) == REFUSALS_BURST
    assert parse_frame(shell.left[-1][1]).key.ip_proto == 6
    drops = Counter({reason: count for (_, reason), count in shell.datapath.drops().items()})
    assert drops == {
        DropReason.NO_ROUTE: REFUSALS_BURST - 1,
        DropReason.LOCAL_NOT_HANDLED: 3,
        DropReason.REFUSAL_RATE: 2,
    }


async def test_other_answers_and_other_ports_have_what_they_need() -> None:
    shell = await Routed().open()
    b = shell.decisions.view.ports[shell.world.port_id("b")]
    shell.datapath.attach(PortAttachment(b.id, "tapb"))
    await refuse(shell, REFUSALS_BURST + 1, udp(AWAY, (A, R1)))
    before = len(shell.left)
    await shell.send(echo((V4.host(1, 5), V4.host(1, 1)), (A, R1)), port_id=shell.a)
    assert len(shell.left) == before + 1
    await shell.send(udp((V4.host(2, 5), "172.16.5.5"), (B, R2)), port_id=b.id)
    assert shell.left[-1][0] == b.id


async def test_the_budget_comes_back_with_time_and_goes_with_the_port() -> None:
    shell = await Routed().open()
    frame = udp(AWAY, (A, R1))
    await refuse(shell, REFUSALS_BURST + 5, frame)
    shell.clock.advance(10 / REFUSALS_PER_S)
    before = len(shell.left)
    await refuse(shell, 20, frame)
    assert len(shell.left) == before + 10
    shell.decisions.forget_port(shell.a)
    await refuse(shell, 20, frame)
    assert len(shell.left) == before + 30
