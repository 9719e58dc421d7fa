"""A learnt MAC that idles out takes the programs with it, so that traffic teaches it again."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from midonet.agent.flows.program import LocalOutput
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.topology.view import RouterAttachment
from midonet.model.coordination import MAC_AGEING_S
from midonet.model.ids import PortId, RouterId
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

    shell.clock.advance(MAC_AGEING_S + 5)
    shell.loop.tick()
    shell.work()
    assert len(shell.decisions.learning) == 0
    assert list(shell.datapath.installed()) == []

    await shell.send(frame())
    await shell.send(REPLY, port_id=THERE)
    assert len(shell.decisions.learning) == 2
    outputs = {entry.program.ingress: entry.program.outputs for entry in shell.datapath.installed()}
    assert outputs[HERE] == (LocalOutput(THERE),)
    assert outputs[THERE] == (LocalOutput(HERE),)


async def test_bridge_and_cluster_say_how_long_a_mac_is_kept() -> None:
    shell = await Shell().open()
    shell.show_bridge(mac_ageing_s=20)
    await shell.send(frame())
    shell.clock.advance(19)
    shell.loop.tick()
    shell.work()
    assert len(shell.decisions.learning) == 1
    shell.clock.advance(2)
    shell.loop.tick()
    shell.work()
    assert len(shell.decisions.learning) == 0

    shell.show_bridge()
    shell.decisions.view = replace(shell.decisions.view, mac_ageing_s=40)
    await shell.send(frame())
    shell.clock.advance(39)
    shell.loop.tick()
    shell.work()
    assert len(shell.decisions.learning) == 1
    shell.clock.advance(2)
    shell.loop.tick()
    shell.work()
    assert len(shell.decisions.learning) == 0


async def test_neighbour_of_a_router_keeps_its_mac() -> None:
    shell = await Shell().open()
    router_id, router_port = RouterId(UUID(int=50)), PortId(UUID(int=51))
    linked = PortId(UUID(int=52))
    attachment = RouterAttachment(linked, router_port, router_id, 0x02FF, ())
    shell.show_bridge(attachments={(0, 0x02FF): attachment}, mac_ageing_s=20)
    await shell.send(frame())
    address = parse_ip("10.0.0.1")
    soft_state = shell.decisions.soft_state
    soft_state.learn_neighbour(LearnNeighbour(router_id, address, MAC_1))
    for _ in range(4):
        shell.clock.advance(20)
        shell.loop.tick()
        assert len(shell.decisions.learning) == 1
    # The neighbour entry, which nobody confirmed, ends at last; then the MAC ages as any other.
    for _ in range(3):
        shell.clock.advance(20)
        shell.loop.tick()
    assert len(shell.decisions.learning) == 0
