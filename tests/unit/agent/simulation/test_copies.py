"""Copies of mirrors and what else a walk does: connections that are asked for, traces."""

from __future__ import annotations

import pytest

from midonet.agent.flow_state.connection import Connection, ConnectionKey
from midonet.agent.simulation.result import Await, Drop, FetchConnection, Forward
from midonet.agent.simulation.simulate import simulate
from midonet.agent.simulation.trace import Answered, FollowsCopy, Mirrored
from midonet.packets.frame import parse_frame
from midonet.packets.neighbour import arp_request
from tests.scenario.frames import A, B, address, mac, tcp, udp
from tests.scenario.mirroring import watched
from tests.worlds import NOW, World, rule

ANSWER = udp(("10.0.1.5", "10.0.1.6"))


class Unasked:
    """Knows no connection, and has not asked other hosts yet."""

    def find(self, key: ConnectionKey, now_s: float) -> Connection | None:
        return None

    def should_wait(self, key: ConnectionKey, now_s: float) -> bool:
        return True


def answers_only() -> World:
    """A port that lets nothing out but answers; they may come by any port of a group."""
    world = watched(p2={"outbound": "answers"}).port_group("uplinks", "p1", stateful=True)
    return world.chain("answers", rule("accept", match_return_flow=True), rule("drop"))


@pytest.mark.parametrize("is_watched", [False, True])
def test_a_copy_that_arrives_does_not_make_an_answer_pass_for_delivered(is_watched: bool) -> None:
    world = answers_only()
    if is_watched:
        world.mirror("m", "w", {}, inbound="p1")
    result = simulate(
        world.view(),
        world.soft_state(),
        parse_frame(ANSWER),
        world.port_id("p1"),
        NOW,
        connections=Unasked(),
    )
    assert isinstance(result, Await)
    assert isinstance(result.what, FetchConnection)


def test_a_mirror_that_asks_for_the_connection_begins_none() -> None:
    world = watched().mirror("m", "w", {"match_forward_flow": True}, inbound="p1")
    result = world.simulate("p1", tcp(("10.0.1.5", "10.0.1.6")))
    assert isinstance(result, Forward)
    assert len(result.program.outputs) == 2
    assert [type(effect).__name__ for effect in result.effects] == ["LearnMac"]


def test_a_trace_follows_the_packet_and_then_its_copies() -> None:
    world = watched(host=None).bridge("far").port("v", on="far").link("w", "v")
    world.bridge_neighbour("far", "10.0.0.2", B).mirror("m", "w", {}, inbound="p1")
    request = arp_request(mac(A), address("10.0.0.1").value, address("10.0.0.2").value)
    result = world.simulate("p1", request, trace=True)
    assert isinstance(result, Forward | Drop)
    kinds = [type(step.event) for step in result.steps]
    assert kinds.index(Mirrored) < kinds.index(FollowsCopy)
    assert FollowsCopy not in kinds[: kinds.index(Mirrored)]
    assert Answered not in kinds, "nothing that concerns a copy is sent"
    assert result.generated == ()
