"""Idle times: at least what the RFCs ask."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from midonet.agent.flow_state.connection import Connection, ConnectionKey, TcpState
from midonet.agent.flow_state.timeouts import idle_lifetime_s
from midonet.agent.flow_state.zone import Zone
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple

PORT = PortId(UUID(int=1))


def of(protocol: int, *, tcp: TcpState = TcpState.NONE, answered: bool = True) -> Connection:
    key = ConnectionKey(Zone(PORT), FiveTuple(IpVersion.V4, protocol, 1, 2, 3, 4))
    return Connection(key, (), PORT, tcp=tcp, is_answered=answered)


@pytest.mark.parametrize(
    ("connection", "least_s"),
    [
        (of(6, tcp=TcpState.SYN_SENT, answered=False), 240),
        (of(6, tcp=TcpState.SYN_RECEIVED), 240),
        (of(6, tcp=TcpState.ESTABLISHED), 7440),
        (of(6, tcp=TcpState.FIN_FORWARD), 7440),
        (of(6, tcp=TcpState.FIN_RETURN), 7440),
        (of(6, tcp=TcpState.CLOSING), 240),
        (of(6, tcp=TcpState.CLOSED), 240),
        (of(17, answered=False), 120),
        (of(17), 300),
        (of(1), 60),
        (of(58), 60),
    ],
)
def test_idle_time_is_what_the_rfc_asks(connection: Connection, least_s: float) -> None:
    assert idle_lifetime_s(connection) >= least_s


def test_who_is_not_answered_holds_nothing_for_long() -> None:
    for state in TcpState:
        assert idle_lifetime_s(of(6, tcp=state, answered=False)) <= 240


def test_an_answer_never_shortens_a_life() -> None:
    for protocol in (1, 6, 17, 58, 132):
        for state in TcpState:
            answered = of(protocol, tcp=state)
            unanswered = replace(answered, is_answered=False)
            assert idle_lifetime_s(answered) >= idle_lifetime_s(unanswered)
