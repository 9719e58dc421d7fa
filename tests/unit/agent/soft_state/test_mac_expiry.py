"""A learnt MAC that idles out takes the programs with it, so that traffic teaches it again."""

from __future__ import annotations

from midonet.agent.flows.program import LocalOutput
from midonet.agent.soft_state.learning import MAC_EXPIRY_S
from midonet.packets.addresses import parse_ip
from midonet.packets.build import Envelope, udp_frame
from tests.unit.agent.decisions.test_decisions import HERE, MAC_1, MAC_2, THERE, Shell, frame

REPLY = udp_frame(Envelope(MAC_2, MAC_1, parse_ip("10.0.0.2"), parse_ip("10.0.0.1")), 2000, 1000)


async def test_traffic_after_the_expiry_of_a_mac_teaches_it_again() -> None:
    shell = await Shell().open()
    shell.show_bridge()
    await shell.send(frame())
    await shell.send(REPLY, port_id=THERE)
    assert len(shell.decisions.learning) == 2

    shell.clock.advance(MAC_EXPIRY_S + 5)
    shell.loop.tick()
    assert len(shell.decisions.learning) == 0
    assert list(shell.datapath.installed()) == []

    await shell.send(frame())
    await shell.send(REPLY, port_id=THERE)
    assert len(shell.decisions.learning) == 2
    outputs = {entry.program.ingress: entry.program.outputs for entry in shell.datapath.installed()}
    assert outputs[HERE] == (LocalOutput(THERE),)
    assert outputs[THERE] == (LocalOutput(HERE),)
