"""The transition table of TCP: every state, direction and set of the six flags."""

from __future__ import annotations

from itertools import product

import pytest

from midonet.agent.flow_state.connection import Direction, TcpState
from midonet.agent.flow_state.tcp_table import advance, is_pure_syn, merged
from midonet.packets.tcp import TcpFlag

S = TcpState
F, R = Direction.FORWARD, Direction.RETURN
ALL = list(product(TcpState, Direction, range(64)))


def expected(state: TcpState, direction: Direction, flags: TcpFlag) -> TcpState:
    """Return what RFC 9293 makes of a segment, seen from between the ends; in plain words."""
    syn, ack, fin, rst = (
        bool(flags & flag) for flag in (TcpFlag.SYN, TcpFlag.ACK, TcpFlag.FIN, TcpFlag.RST)
    )
    if rst:
        return S.CLOSED
    if (syn and fin) or not (syn or fin or ack):
        return state
    closed = {S.FIN_FORWARD: {F}, S.FIN_RETURN: {R}, S.CLOSING: {F, R}}.get(state, set())
    if fin:
        if state is S.CLOSED or direction in closed:
            return state
        if closed:
            return S.CLOSING
        return S.FIN_FORWARD if direction is F else S.FIN_RETURN
    if syn:
        if state not in (S.NONE, S.SYN_SENT):
            return state
        if direction is F and not ack:
            return S.SYN_SENT
        if direction is F and state is S.SYN_SENT:
            return state  # a side that has sent SYN alone does not answer one
        return S.SYN_RECEIVED
    if state is S.CLOSING:
        return S.CLOSED
    if state is S.SYN_SENT and direction is R:
        return state
    return S.ESTABLISHED if state < S.ESTABLISHED else state


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("state", TcpState)
def test_every_segment_leads_where_the_rfc_says(state: TcpState, direction: Direction) -> None:
    for flags in range(64):
        wanted = expected(state, direction, TcpFlag(flags))
        assert advance(state, direction, flags) is wanted, f"{TcpFlag(flags)!r}"


def test_urgent_push_and_congestion_bits_say_nothing() -> None:
    for state, direction, flags in ALL:
        plain = flags & ~(TcpFlag.PSH | TcpFlag.URG)
        for extra in (0, TcpFlag.ECE, TcpFlag.CWR, TcpFlag.PSH, TcpFlag.URG):
            assert advance(state, direction, flags | extra) is advance(state, direction, plain)


def test_no_state_is_left_backwards() -> None:
    for state, direction, flags in ALL:
        after = advance(state, direction, flags)
        assert after >= state


def played(*segments: tuple[Direction, TcpFlag]) -> TcpState:
    state = S.NONE
    for direction, flags in segments:
        state = advance(state, direction, flags)
    return state


SYN, ACK, FIN, RST = TcpFlag.SYN, TcpFlag.ACK, TcpFlag.FIN, TcpFlag.RST
OPENING = ((F, SYN), (R, SYN | ACK), (F, ACK))


@pytest.mark.parametrize(
    ("segments", "state"),
    [
        (OPENING[:1], S.SYN_SENT),
        (OPENING[:2], S.SYN_RECEIVED),
        (OPENING, S.ESTABLISHED),
        (((F, SYN), (R, SYN), (F, SYN | ACK), (R, ACK)), S.ESTABLISHED),
        ((*OPENING, (F, FIN | ACK)), S.FIN_FORWARD),
        ((*OPENING, (R, FIN | ACK), (F, ACK)), S.FIN_RETURN),
        ((*OPENING, (R, FIN | ACK), (F, FIN | ACK)), S.CLOSING),
        ((*OPENING, (R, FIN | ACK), (F, FIN | ACK), (R, ACK)), S.CLOSED),
        ((*OPENING, (R, RST)), S.CLOSED),
        (((F, SYN), (R, ACK), (F, RST)), S.CLOSED),
        (((F, SYN), (R, RST | ACK)), S.CLOSED),
        (((R, ACK),), S.ESTABLISHED),
        (((F, SYN), (F, SYN), (F, SYN)), S.SYN_SENT),
    ],
)
def test_conversations(segments: tuple[tuple[Direction, TcpFlag], ...], state: TcpState) -> None:
    assert played(*segments) is state


CONVERSATION = (*OPENING, (R, ACK), (F, FIN | ACK), (R, FIN | ACK), (F, ACK), (R, ACK))


def test_two_hosts_that_tell_each_other_know_what_one_knows_that_sees_both() -> None:
    """Each sees what enters there, and tells when its state changes."""
    states = {F: S.NONE, R: S.NONE}
    for length, (direction, flags) in enumerate(CONVERSATION, 1):
        states[direction] = advance(states[direction], direction, flags)
        told = merged(states[F], states[R])
        states = {F: told, R: told}
        assert told is played(*CONVERSATION[:length])


@pytest.mark.parametrize("seen", Direction)
def test_a_host_that_sees_one_direction_and_is_told_nothing_falls_behind_by_little(
    seen: Direction,
) -> None:
    for length in range(1, len(CONVERSATION) + 1):
        part = CONVERSATION[:length]
        own = played(*(one for one in part if one[0] is seen))
        both = played(*part)
        if own is S.NONE:
            continue
        assert own <= both
        if any(flags == ACK for direction, flags in part if direction is seen):
            assert own >= S.ESTABLISHED


def test_merging_is_symmetric_idempotent_and_never_goes_back() -> None:
    for one, other in product(TcpState, TcpState):
        both = merged(one, other)
        assert both is merged(other, one)
        assert both >= max(one, other)
        assert merged(both, other) is both
        assert merged(one, one) is one


def test_only_a_lone_syn_opens() -> None:
    for flags in range(64):
        lone = flags & (SYN | ACK | FIN | RST) == SYN
        assert is_pure_syn(flags) is lone
