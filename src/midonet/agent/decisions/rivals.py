"""Connections that stand in the way of a new one: they have one of its keys.

Such a key is given back by a connection whose answers would not reach where it began any more:
its address has a new owner, who sends the packet that is refused. Where its answers go is found
out with its own packets, as they were: not with those of whoever claims its key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from midonet.agent.decisions.synthesis import answer_frame, synthesise_frame
from midonet.agent.flow_state.connection import Connection, ConnectionKey
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flow_state.effects import ConfirmConnection, KillConnection
from midonet.agent.flow_state.zone import Zone
from midonet.agent.simulation.result import Await, Forward, SimulationResult
from midonet.agent.topology.view import TopologyView
from midonet.errors import DecodeError
from midonet.model.ids import PortId

Judge = Callable[[PortId, bytes], SimulationResult | None]
"""Simulates a frame that enters at a port, and asks for its connection; None: malformed."""


def dead_rivals(
    connections: ConnectionTable, view: TopologyView, result: Forward, judge: Judge, now_s: float
) -> tuple[KillConnection, ...]:
    """Return the end of each connection that has a key of the one that a packet would begin, and
    whose answers lead elsewhere."""
    found: dict[ConnectionKey, Connection] = {}
    for effect in result.effects:
        if isinstance(effect, ConfirmConnection):
            for key in effect.connection.returns:
                rival = connections.find(key, now_s)
                if rival is not None and rival.forward != effect.connection.forward:
                    found[key] = rival
    return tuple(
        KillConnection(rival)
        for key, rival in found.items()
        if any(
            _ends(judge(port_id, frame), rival)
            for port_id, frame in _answers(connections, view, judge, key, rival)
        )
    )


def _answers(
    connections: ConnectionTable,
    view: TopologyView,
    judge: Judge,
    key: ConnectionKey,
    rival: Connection,
) -> Iterator[tuple[PortId, bytes]]:
    """Yield the answers to a packet of a connection, each with the port where it enters."""
    sample, port_id = connections.sample(rival), _port_of(view, key.zone)
    if sample is None or port_id is None:
        return
    asked = synthesise_frame(sample.key, icmp_id=sample.icmp_id)
    sent = judge(rival.initiator, asked)
    if not isinstance(sent, Forward):
        return
    for output in sent.program.outputs:
        with suppress(DecodeError):
            answer = answer_frame(asked, output.rewrite)
            if answer is not None:
                yield port_id, answer


def _ends(answered: SimulationResult | None, rival: Connection) -> bool:
    return (
        answered is not None
        and not isinstance(answered, Await)
        and KillConnection(rival) in answered.effects
    )


def _port_of(view: TopologyView, zone: Zone) -> PortId | None:
    """Return a port of a zone."""
    if PortId(zone.scope) in view.ports:
        return PortId(zone.scope)
    members = (port.id for port in view.ports.values() if port.stateful_group_id == zone.scope)
    return min(members, default=None)
