"""The exchange: told until proven, asked once, and nothing forged or repeated is taken in."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from midonet.agent.flow_exchange.exchange_engine import (
    ASK_S,
    ASKS_PER_S,
    ASKS_PER_S_OF_A_ZONE,
    NOBODY_S,
    RETRY_S,
    ExchangeEngine,
    Outgoing,
)
from midonet.agent.flow_exchange.replay_window import WINDOW, ReplayWindow
from midonet.agent.flow_state.connection import TcpState
from midonet.agent.flow_state.state_message import Ask, Kill, Nothing, Signed, Tell
from midonet.agent.flow_state.zone import Zone
from midonet.model.ids import HostId
from tests.unit.agent.flow_state.connection_samples import udp_connection

A, B, C = (HostId(UUID(int=number)) for number in (1, 2, 3))
SECRET = b"secret"
ONE = udp_connection()


def _engine(host_id: HostId = A, epoch: int = 1) -> ExchangeEngine:
    return ExchangeEngine(host_id, epoch, SECRET)


def _read(engine: ExchangeEngine, out: Outgoing) -> Signed:
    signed = engine.receive(out.data)
    assert signed is not None
    return signed


def _prove(told: ExchangeEngine, out: Outgoing, teller: ExchangeEngine) -> None:
    signed = _read(told, out)
    assert teller.receive(told.prove(signed, out.ends).data) is None


def test_a_connection_is_told_again_until_it_is_proven() -> None:
    a, b = _engine(), _engine(B)
    (first,) = a.tell(ONE, 120, [B], 0.0)
    assert first.host_id == B
    assert a.due(RETRY_S[0] - 0.001) == []
    (second,) = a.due(RETRY_S[0])
    assert _read(b, first).message == _read(b, second).message == Tell(ONE, 120)
    (third,) = a.due(RETRY_S[1])
    _prove(b, third, a)
    assert a.due(100.0) == []
    assert a.next_timer() is None


def test_nobody_proves_and_it_ends() -> None:
    a = _engine()
    a.tell(ONE, 120, [B], 0.0)
    sent, now_s = 0, 0.0
    while (timer := a.next_timer()) is not None:
        assert timer >= now_s
        now_s = timer
        sent += len(a.due(now_s))
    assert sent == len(RETRY_S)
    assert a.counters.unacknowledged == 1


def test_only_the_latest_state_is_told_again() -> None:
    a, b = _engine(), _engine(B)
    later = replace(ONE, tcp=TcpState.ESTABLISHED)
    a.tell(ONE, 120, [B, C], 0.0)
    a.tell(later, 240, [B, C], 0.005)
    again = a.due(1.0)
    assert {out.host_id for out in again} == {B, C}
    to_b = next(out for out in again if out.host_id == B)
    assert _read(b, to_b).message == Tell(later, 240)


def test_an_end_takes_the_place_of_what_was_told() -> None:
    a, b = _engine(), _engine(B)
    a.tell(ONE, 120, [B], 0.0)
    a.kill(ONE, [B], 0.005)
    (again,) = a.due(1.0)
    assert _read(b, again).message == Kill(ONE.forward)


def test_a_repeated_message_is_not_taken_in_twice() -> None:
    a, b = _engine(), _engine(B)
    (out,) = a.tell(ONE, 120, [B], 0.0)
    _read(b, out)
    assert b.receive(out.data) is None
    assert b.counters.repeated == 1


def test_news_that_were_overtaken_change_nothing() -> None:
    a, b = _engine(), _engine(B)
    (end,) = a.kill(ONE, [B], 0.0)
    (begun_again,) = a.tell(ONE, 120, [B], 0.0)
    _read(b, begun_again)
    assert b.receive(end.data) is None
    assert b.counters.overtaken == 1


def test_forged_and_own_messages_are_refused() -> None:
    a, b, stranger = _engine(), _engine(B), ExchangeEngine(C, 1, b"guessed")
    (forged,) = stranger.tell(ONE, 120, [B], 0.0)
    assert b.receive(forged.data) is None
    (own,) = a.tell(ONE, 120, [B], 0.0)
    assert a.receive(own.data) is None
    assert (b.counters.forged, a.counters.repeated) == (1, 1)


def test_messages_of_before_a_restart_are_over() -> None:
    before, after, b = _engine(), _engine(epoch=2), _engine(B)
    (old,) = before.tell(ONE, 120, [B], 0.0)
    (new,) = after.tell(ONE, 120, [B], 0.0)
    _read(b, new)
    assert b.receive(old.data) is None


def test_a_key_is_asked_for_once_and_waited_for() -> None:
    a, b = _engine(), _engine(B)
    key = ONE.returns[0]
    assert a.should_wait(key, 0.0)
    asked = a.ask(key, [B, C], 0.0)
    assert {out.host_id for out in asked} == {B, C}
    assert a.ask(key, [B, C], 0.01) == []
    assert a.should_wait(key, ASK_S / 2)
    to_b = next(out for out in asked if out.host_id == B)
    assert _read(b, to_b).message == Ask(key)
    answer = _read(a, b.answer(A, key, None))
    assert answer.message == Nothing(key)
    assert a.should_wait(key, ASK_S / 2)  # the other has not answered
    assert not a.should_wait(key, ASK_S)
    assert not a.should_wait(key, NOBODY_S - 0.001)
    assert a.should_wait(key, NOBODY_S)


def test_all_answers_end_the_waiting() -> None:
    a, b = _engine(), _engine(B)
    key = ONE.returns[0]
    a.ask(key, [B], 0.0)
    answer = _read(a, b.answer(A, key, (ONE, 77.9)))
    assert answer.message == Tell(ONE, 77)
    assert not a.should_wait(key, 0.0)


def test_nobody_to_ask_is_no_reason_to_wait() -> None:
    a = _engine()
    assert a.ask(ONE.forward, [], 0.0) == []
    assert not a.should_wait(ONE.forward, 0.0)


def test_questions_are_limited_for_each_zone_and_in_all() -> None:
    a = _engine()
    scanned = [a.ask(udp_connection(n).forward, [B], 0.0) for n in range(300)]
    assert sum(map(len, scanned)) == ASKS_PER_S_OF_A_ZONE
    assert not a.should_wait(udp_connection(299).forward, 0.0)

    # Other zones ask, until all together have asked too often.
    others = [
        a.ask(ONE.forward._replace(zone=Zone(UUID(int=100 + n))), [B], 0.0)
        for n in range(ASKS_PER_S)
    ]
    assert sum(map(len, others)) == ASKS_PER_S - ASKS_PER_S_OF_A_ZONE
    assert a.counters.not_asked == 300
    assert a.ask(udp_connection(1000).forward, [B], 1.0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3 * WINDOW)), max_size=60))
def test_a_window_takes_each_sequence_once(sent: list[tuple[int, int]]) -> None:
    window = ReplayWindow()
    taken: set[tuple[int, int]] = set()
    newest = (-1, 0)
    for epoch, sequence in sent:
        is_new = window.take(epoch, sequence)
        assert not (is_new and (epoch, sequence) in taken)
        if epoch > newest[0] or (epoch == newest[0] and sequence > newest[1]):
            assert is_new
            newest = epoch, sequence
        elif epoch == newest[0] and newest[1] - sequence < WINDOW:
            assert is_new == ((epoch, sequence) not in taken)
        else:
            assert not is_new
        if is_new:
            taken.add((epoch, sequence))
