"""What is known of a connection changes nothing for the packets of who began it.

A connection that is judged again gets what its packet would get if nothing were known: filters
see a forward packet either way. So re-judging and judging from scratch agree, for each connection
of each history. (Without rules of NAT, of which that is not true.)
"""

from __future__ import annotations

from dataclasses import replace

from midonet.agent.decisions.synthesis import synthesise_frame
from midonet.agent.flow_state.connection import Connection, Side
from midonet.agent.flow_state.effects import ConfirmConnection, KillConnection
from midonet.agent.flow_state.reader import ConnectionReader, Without
from midonet.agent.simulation.result import Await, Drop, Forward, SimulationResult
from midonet.agent.simulation.simulate import simulate
from midonet.packets.frame import parse_frame
from tests.differential.judging import HASH_SEED, Case
from tests.worlds import NOW


def judged(case: Case, connection: Connection, known: ConnectionReader) -> SimulationResult:
    sample = case.connections.table.sample(connection)
    assert sample is not None
    frame = synthesise_frame(sample.key, icmp_id=sample.icmp_id)
    return simulate(
        case.view,
        case.soft_state,
        parse_frame(frame, hash_seed=HASH_SEED),
        connection.initiator,
        NOW,
        connections=known,
        nat=case.connections.translations,
        must_ask=True,
    )


def translates(case: Case) -> bool:
    """Tell whether a network has rules of NAT: what they have chosen is taken, and one that began
    untranslated stays so, so that a judgement from scratch may be another."""
    return any(rule.pool is not None for chain in case.view.chains.values() for rule in chain.rules)


def test_a_connection_judged_again_is_judged_as_from_scratch() -> None:
    compared = kept = 0
    for seed in range(40_000, 40_400):
        case = Case(seed, packets=1, history=60)
        if translates(case):
            continue
        table = case.connections.table
        for connection in list(table):
            if any(one.side is Side.SOURCE for one in connection.bindings):
                continue  # a client hidden behind a router: its port is taken, by itself
            again = judged(case, connection, table)
            scratch = judged(case, connection, Without(table, connection))
            why = f"seed {seed}: {connection}"
            assert type(again) is type(scratch), why
            if isinstance(again, Await):
                continue
            compared += 1
            assert again.generated == tuple(
                replace(one, sight=two.sight)
                for one, two in zip(scratch.generated, again.generated, strict=True)
            ), why
            if isinstance(again, Forward) and isinstance(scratch, Forward):
                assert again.program.outputs == scratch.program.outputs, why
                killed = any(isinstance(one, KillConnection) for one in again.effects)
                begun = [one for one in scratch.effects if isinstance(one, ConfirmConnection)]
                assert all(one.connection.forward == connection.forward for one in begun), why
                assert not (killed and begun), why  # killed: a mirror's copy alone leaves
                kept += bool(begun)
            elif isinstance(again, Drop) and isinstance(scratch, Drop):
                assert again.reason is scratch.reason, why
    assert compared > 50
    assert kept > 25
