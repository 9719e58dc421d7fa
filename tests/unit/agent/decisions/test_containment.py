"""A packet on which the agent fails, or that it cannot finish, costs no other packet anything."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from midonet.agent.datapath.protocol import PortAttachment, Upcall, UpcallReason
from midonet.agent.decisions import decisions
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.tags import FlowTag, mac_tag
from midonet.agent.topology.view import ChainView, Fib, FibMatch, RuleView
from midonet.model.chains import Condition, RuleAction
from midonet.model.ids import BridgeId, ChainId, PortId, RuleId
from midonet.packets.addresses import IpVersion, parse_ip
from tests.scenario.bridging import ARP, ring
from tests.scenario.frames import R1, V4, A, echo, udp
from tests.unit.agent.decisions.test_decisions import BRIDGE, HERE, THERE, Routed, Shell, frame


class Faulty:
    """A forwarding table with a fault: it fails for some destinations."""

    def __init__(self, fib: Fib, *destinations: str) -> None:
        self._fib = fib
        self._failing = {parse_ip(text).value for text in destinations}

    def lookup(self, version: IpVersion, source: int, destination: int) -> FibMatch:
        if destination in self._failing:
            raise ZeroDivisionError("a fault")
        return self._fib.lookup(version, source, destination)


def with_fault(shell: Routed, *destinations: str) -> None:
    view = shell.decisions.view
    routers = {
        router_id: replace(router, fib=Faulty(router.fib, *destinations))
        for router_id, router in view.routers.items()
    }
    shell.decisions.view = replace(view, routers=routers)


async def test_packet_on_which_the_agent_fails_costs_no_other_packet_anything() -> None:
    shell = await Routed().open()
    with_fault(shell, V4.host(3, 9))
    good, bad = (udp((V4.host(1, 5), V4.host(3, last)), (A, R1)) for last in (5, 9))
    with capture_logs() as lines:
        await shell.send(bad, bad, good, bad, good, port_id=shell.a)
    assert shell.datapath.drops() == {(shell.a, DropReason.INTERNAL): 3}
    assert len(shell.decisions.programs.table) == 1
    [line] = [line for line in lines if line["event"] == "packet_failed"]
    assert (line["frame"], line["port"]) == (bad.hex(), str(shell.a))


async def test_answer_on_which_the_agent_fails_costs_its_packet_nothing() -> None:
    shell = await Routed().open()
    # The answer leaves by a port whose chain does not read: the fault is behind the first walk.
    view = shell.decisions.view
    chain = ChainId(UUID(int=9))
    fault = RuleView(RuleId(UUID(int=8)), RuleAction.DROP, Condition(ip_src="nonsense"))
    shell.decisions.view = replace(
        view,
        ports={**view.ports, shell.a: replace(view.ports[shell.a], outbound_filter_id=chain)},
        chains={chain: ChainView(chain, (fault,))},
    )
    await shell.send(echo((V4.host(1, 5), V4.host(1, 1)), (A, R1)), port_id=shell.a)
    assert shell.datapath.drops() == {(shell.a, DropReason.INTERNAL): 1}
    good = udp((V4.host(1, 5), V4.host(3, 5)), (A, R1))
    await shell.send(good, port_id=shell.a)
    assert len(shell.decisions.programs.table) == 1


async def test_program_that_cannot_be_judged_again_is_removed() -> None:
    shell = await Routed().open()
    packets = [udp((V4.host(1, 5), V4.host(3, 5)), (A, R1), tos=tos) for tos in (0, 8)]
    await shell.send(packets[0], port_id=shell.a)
    with_fault(shell, V4.host(3, 5))
    [held] = shell.datapath.installed()
    shell.decisions.programs.change(held.program.tags)
    shell.work()
    assert list(shell.datapath.installed()) == []
    assert shell.datapath.drops() == {(shell.a, DropReason.INTERNAL): 1}


async def test_packet_whose_facts_never_hold_still_is_a_named_drop() -> None:
    shell = await Shell().open()
    shell.show_bridge()
    learn = shell.decisions.soft_state.learn_mac

    def restless(bridge_id: BridgeId, vlan: int, mac: int, port_id: PortId) -> frozenset[FlowTag]:
        learn(bridge_id, vlan, mac, THERE)  # as if another host claimed it at the same moment
        return frozenset({mac_tag(bridge_id, vlan, mac)})

    shell.decisions.soft_state.learn_mac = restless  # type: ignore[method-assign]
    await shell.send(frame())
    assert shell.drops(DropReason.UNSETTLED) == 1
    assert shell.left == []


async def test_cut_packet_that_must_be_sent_whole_is_a_named_drop() -> None:
    shell = await Routed().open()
    await shell.send(udp((V4.host(1, 5), V4.host(3, 5)), (A, R1)), port_id=shell.a)
    [held] = shell.datapath.installed()
    whole = udp((V4.host(1, 5), V4.host(3, 5)), (A, R1), size=1300)
    cut = Upcall(shell.a, whole[:200], len(whole), UpcallReason.GUARD, held.program_id)
    shell.decisions.enqueue(cut)
    shell.work()
    assert shell.datapath.drops() == {(shell.a, DropReason.PACKET_CUT): 1}


@pytest.mark.parametrize("place", ["the datapath's queue", "the agent's queue"])
async def test_packet_that_waited_too_long_is_a_named_drop_and_teaches_nothing(place: str) -> None:
    """No agent ran meanwhile, or it did not know the topology yet."""
    shell = await Shell().open()
    shell.show_bridge()
    for age_s, is_taken in (
        (decisions.UPCALL_LIMIT_S, True),
        (decisions.UPCALL_LIMIT_S + 1, False),
    ):
        source = 0x02_00_00_00_00_00 | int(age_s)
        shell.datapath.receive(HERE, frame()[:6] + source.to_bytes(6, "big") + frame()[12:])
        if place == "the datapath's queue":
            shell.clock.advance(age_s)
        for upcall in await shell.datapath.upcalls():
            shell.decisions.enqueue(upcall)
        if place == "the agent's queue":
            shell.clock.advance(age_s)
        shell.work()
        learned = shell.decisions.soft_state.mac_port(BRIDGE, 0, source)
        assert learned == (HERE if is_taken else None)
    assert shell.datapath.drops() == {(HERE, DropReason.UPCALL_TOO_OLD): 1}


async def test_answers_beyond_what_one_packet_may_lead_to_are_a_named_drop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decisions, "MAX_GENERATED_DEPTH", -1)
    shell = await Routed().open()
    await shell.send(echo((V4.host(1, 5), V4.host(1, 1)), (A, R1)), port_id=shell.a)
    assert shell.left == []
    assert shell.datapath.drops() == {(shell.a, DropReason.GENERATED_LIMIT): 1}


async def test_broadcast_in_a_ring_of_bridges_is_decided_on_and_installed() -> None:
    world = ring(3).port("p3", on="b1", host="h1")
    shell = await Shell().open()
    names = {world.port_id(name): name for name in ("p1", "p2", "p3")}
    for port_id, name in names.items():
        shell.datapath.attach(PortAttachment(port_id, name))
    shell.decisions.view = world.view()
    await shell.send(ARP, port_id=world.port_id("p1"))
    assert sorted(names[port_id] for port_id, _ in shell.left) == ["p2", "p3"]
    assert len(shell.decisions.programs.table) == 1
    assert not shell.datapath.drops()
