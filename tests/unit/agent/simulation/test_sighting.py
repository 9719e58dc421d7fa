"""What a walk sees of the packet's connection, and what it says is to become of it."""

from __future__ import annotations

from midonet.agent.flow_state.connection import Connection, ConnectionKey, Direction
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flow_state.effects import AdvanceConnection, ConfirmConnection, KillConnection
from midonet.agent.flow_state.zone import Zone
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.tags import connection_tag
from midonet.agent.simulation.result import Drop, Forward, SimulationResult
from midonet.agent.simulation.simulate import simulate
from midonet.packets.five_tuple import five_tuple
from midonet.packets.frame import parse_frame
from tests.scenario.frames import A, B, udp
from tests.worlds import NOW, World, retag, rule

THERE, BACK = ("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")
QUESTION = udp(THERE, (A, B), ports=(5000, 53))
ANSWER = udp(BACK, (B, A), ports=(53, 5000))


def guarded(*, deny: bool = False) -> World:
    """Return a bridge of two ports, the second of which may only answer."""
    world = World().bridge("b").port("a", on="b", host="h1", inbound="asks")
    world.port("b1", on="b", host="h1", inbound="answers")
    first = rule("drop") if deny else rule("accept", match_forward_flow=True)
    world.chain("asks", rule("drop", match_return_flow=True, ip_tos=7), first)
    world.chain("answers", rule("accept", match_return_flow=True), rule("drop"))
    return world.mac_at("b", A, "a").mac_at("b", B, "b1")


def key_of(world: World, port: str, frame: bytes) -> ConnectionKey:
    found = five_tuple(parse_frame(frame))
    assert found is not None
    return ConnectionKey(Zone(world.id(port)), found)


def run(world: World, port: str, frame: bytes, table: ConnectionTable) -> SimulationResult:
    return simulate(
        world.view(),
        world.soft_state(),
        parse_frame(frame),
        world.port_id(port),
        NOW,
        connections=table,
    )


def enter(table: ConnectionTable, result: SimulationResult) -> Connection:
    """Confirm the connection that a packet begins."""
    assert isinstance(result, Forward)
    [confirm] = [one for one in result.effects if isinstance(one, ConfirmConnection)]
    entered = table.confirm(confirm.connection, NOW, sample=confirm.sample)
    assert isinstance(entered, Connection)
    return entered


def test_answers_pass_where_others_do_not() -> None:
    world, table = guarded(), ConnectionTable()
    refused = run(world, "b1", ANSWER, table)
    assert isinstance(refused, Drop)
    assert refused.reason is DropReason.FILTERED
    connection = enter(table, run(world, "a", QUESTION, table))
    assert connection.forward == key_of(world, "a", QUESTION)
    assert connection.returns == (key_of(world, "b1", ANSWER),)
    answered = run(world, "b1", ANSWER, table)
    assert isinstance(answered, Forward)
    assert AdvanceConnection(key_of(world, "b1", ANSWER), Direction.RETURN) in answered.effects


def test_whom_a_rule_redirects_to_is_a_place_of_the_answer() -> None:
    """So its host is told of the connection, as that of any port where it leaves."""
    world = World().bridge("b").bridge("svc").port("s", on="svc", host="h2")
    world.chain("c", rule("drop", match_return_flow=True), retag(to="s"))
    world.port("a", on="b", host="h1", inbound="c").port("b1", on="b", host="h1")
    connection = enter(ConnectionTable(), run(world, "a", QUESTION, ConnectionTable()))
    assert connection.returns == (key_of(world, "s", ANSWER),)


def test_programs_depend_on_the_connection_whether_it_is_there_or_not() -> None:
    world, table = guarded(), ConnectionTable()
    tag = connection_tag(key_of(world, "b1", ANSWER))
    refused = run(world, "b1", ANSWER, table)
    assert isinstance(refused, Drop)
    assert tag in refused.program.tags
    enter(table, run(world, "a", QUESTION, table))
    answered = run(world, "b1", ANSWER, table)
    assert isinstance(answered, Forward)
    assert tag in answered.program.tags
    assert answered.program.connection == key_of(world, "b1", ANSWER)


def test_what_policy_forbids_now_is_over() -> None:
    table = ConnectionTable()
    connection = enter(table, run(guarded(), "a", QUESTION, table))
    denied = run(guarded(deny=True), "a", QUESTION, table)
    assert isinstance(denied, Drop)
    assert KillConnection(connection) in denied.effects


def test_nobody_asks_in_vain() -> None:
    world = World().bridge("b").port("a", on="b", host="h1").port("b1", on="b", host="h1")
    result = run(world.mac_at("b", A, "a").mac_at("b", B, "b1"), "a", QUESTION, ConnectionTable())
    assert isinstance(result, Forward)
    assert not any(isinstance(one, ConfirmConnection) for one in result.effects)
    assert result.program.mask.l4_src == 0
