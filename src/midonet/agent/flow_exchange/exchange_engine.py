"""What is told to other hosts of connections, when it is told again, and what is asked.

An engine without I/O: changes, received messages and the time go in; messages to send and news
come out. A connection that begins or changes is told at once, before its packet leaves, and again
after 10 ms, 100 ms and 1 s until the other host has acknowledged it. One in use is told again
before half of its life is over there (`refresh`), which also mends what was lost for longer.

A key that is not known here but may be elsewhere is asked for once; the packet waits for the
answers, at most `ASK_S`. What nobody knew is not asked for again for a while.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from midonet.agent.flow_exchange.replay_window import ReplayWindow
from midonet.agent.flow_state.connection import Connection, ConnectionKey
from midonet.agent.flow_state.state_message import (
    Ask,
    Kill,
    Nothing,
    Proof,
    Signed,
    StateMessage,
    Tell,
    decode_message,
    encode_message,
)
from midonet.errors import DecodeError
from midonet.model.ids import HostId, ObjectId
from midonet.packets.five_tuple import FiveTuple

RETRY_S = (0.01, 0.1, 1.0)
"""After these times (s) a message that is not acknowledged is sent again."""

ASK_S = 0.05
"""A packet waits so long (s) for what other hosts know of its connection."""

NOBODY_S = 1.0
"""A key that nobody knew, or nobody answered for, is not asked for again so soon (s)."""

ASKS_PER_S = 1000
ASKS_PER_S_OF_A_ZONE = 200
"""Questions a second, of all zones and of one: who scans from outside asks for each packet."""

ZONES_MAX = 4096
PENDING_MAX = 65_536
"""Messages that wait for their proof. With more, new ones are sent once and left to refreshing."""

QUESTIONS_MAX = 16_384
ORDERED_MAX = 65_536
"""Connections of which it is kept how new the news of them are."""


_TIME_TO_LOOK = 0
"""In place of a sequence: of no message, but of the end of waiting for answers."""


class Outgoing(NamedTuple):
    """An encoded message, the host it is for, and the ends of the connection it is about."""

    host_id: HostId
    data: bytes
    ends: FiveTuple


@dataclass(slots=True)
class ExchangeCounters:
    """What was exchanged, and what was refused of what came. All count messages."""

    sent: int = 0
    sent_again: int = 0
    received: int = 0
    forged: int = 0
    repeated: int = 0
    overtaken: int = 0
    other_versions: int = 0
    unacknowledged: int = 0
    not_tracked: int = 0
    not_asked: int = 0


@dataclass(slots=True)
class _Pending:
    host_id: HostId
    message: StateMessage
    ends: FiveTuple
    tries: int = 0


@dataclass(slots=True)
class _Question:
    asked_at_s: float
    unanswered: set[HostId] = field(default_factory=set)


class _Credit:
    """So many a second, a second's worth at once."""

    __slots__ = ("_at_s", "_left", "_per_s")

    def __init__(self, per_s: int) -> None:
        self._per_s = self._left = float(per_s)
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        if self._at_s is not None:
            self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class ExchangeEngine:
    """Messages of one host about connections. All times are seconds on one monotonic clock."""

    def __init__(self, host_id: HostId, epoch: int, secret: bytes) -> None:
        """epoch: grows with each start of this agent. secret: shared by the deployment."""
        self.counters = ExchangeCounters()
        self._host_id = host_id
        self._epoch = epoch
        self._secret = secret
        self._sequence = 0
        self._windows: dict[HostId, ReplayWindow] = {}
        self._pending: dict[int, _Pending] = {}
        self._latest: dict[tuple[HostId, ConnectionKey], int] = {}
        self._timers: list[tuple[float, int]] = []
        self._newest: OrderedDict[tuple[HostId, ConnectionKey], tuple[int, int]] = OrderedDict()
        self._questions: OrderedDict[ConnectionKey, _Question] = OrderedDict()
        self._credit = _Credit(ASKS_PER_S)
        self._zone_credits: OrderedDict[ObjectId, _Credit] = OrderedDict()

    # Telling.

    def tell(
        self, connection: Connection, remaining_s: float, hosts: Iterable[HostId], now_s: float
    ) -> list[Outgoing]:
        """Return the messages that tell hosts of a connection as it is now.

        remaining_s: how long it lives on without packets.
        """
        message = Tell(connection, int(remaining_s))
        return self._send_all(message, connection.forward, hosts, now_s)

    def kill(self, connection: Connection, hosts: Iterable[HostId], now_s: float) -> list[Outgoing]:
        """Return the messages that end a connection at other hosts."""
        return self._send_all(Kill(connection.forward), connection.forward, hosts, now_s)

    def _send_all(
        self, message: StateMessage, key: ConnectionKey, hosts: Iterable[HostId], now_s: float
    ) -> list[Outgoing]:
        sent = []
        for host_id in hosts:
            # What was said before of this connection is out of date: it is not said again.
            self._forget(self._latest.pop((host_id, key), 0))
            out = self._send(host_id, message, key.tuple)
            sent.append(out)
            if len(self._pending) >= PENDING_MAX:
                self.counters.not_tracked += 1
                continue
            self._pending[self._sequence] = _Pending(host_id, message, key.tuple)
            self._latest[host_id, key] = self._sequence
            heapq.heappush(self._timers, (now_s + RETRY_S[0], self._sequence))
        return sent

    def _send(self, host_id: HostId, message: StateMessage, ends: FiveTuple) -> Outgoing:
        self._sequence += 1
        self.counters.sent += 1
        signed = Signed(self._host_id, self._epoch, self._sequence, message)
        return Outgoing(host_id, encode_message(signed, self._secret), ends)

    def _forget(self, sequence: int) -> _Pending | None:
        pending = self._pending.pop(sequence, None)
        if pending is not None:
            place = pending.host_id, _key_of(pending.message)
            if self._latest.get(place) == sequence:
                del self._latest[place]
        return pending

    def due(self, now_s: float) -> list[Outgoing]:
        """Return what is to be sent again now. Answers that were waited for may be overdue."""
        again = []
        while self._timers and self._timers[0][0] <= now_s:
            _, sequence = heapq.heappop(self._timers)
            pending = self._forget(sequence)
            if pending is None:
                continue
            pending.tries += 1
            if pending.tries > len(RETRY_S):
                self.counters.unacknowledged += 1
                continue
            again.append(self._send(pending.host_id, pending.message, pending.ends))
            self.counters.sent_again += 1
            self._pending[self._sequence] = pending
            self._latest[pending.host_id, _key_of(pending.message)] = self._sequence
            if pending.tries < len(RETRY_S):
                delay_s = RETRY_S[pending.tries] - RETRY_S[pending.tries - 1]
            else:
                delay_s = RETRY_S[-1]
            heapq.heappush(self._timers, (now_s + delay_s, self._sequence))
        return again

    def is_due(self, now_s: float) -> bool:
        """Tell whether the time of `next_timer` has come."""
        timer_s = self.next_timer()
        return timer_s is not None and timer_s <= now_s

    def next_timer(self) -> float | None:
        """Return when `due` has something, or an answer is overdue; else None."""
        while self._timers:
            at_s, sequence = self._timers[0]
            if sequence == _TIME_TO_LOOK or sequence in self._pending:
                return at_s
            heapq.heappop(self._timers)
        return None

    # Asking.

    def should_wait(self, key: ConnectionKey, now_s: float) -> bool:
        """Tell whether a packet with a key unknown here should wait: it was not asked for yet, or
        somebody's answer is due still."""
        question = self._questions.get(key)
        if question is None:
            return True
        age_s = now_s - question.asked_at_s
        if age_s >= NOBODY_S:
            return True
        return age_s < ASK_S and bool(question.unanswered)

    def ask(self, key: ConnectionKey, hosts: Iterable[HostId], now_s: float) -> list[Outgoing]:
        """Return the messages that ask hosts for a key, [] when that is under way or too often."""
        question = self._questions.get(key)
        if question is not None and now_s - question.asked_at_s < NOBODY_S:
            return []
        unanswered = set(hosts)
        if unanswered and not self._may_ask(key.zone.scope, now_s):
            self.counters.not_asked += 1
            unanswered = set()
        self._questions.pop(key, None)
        while len(self._questions) >= QUESTIONS_MAX:
            self._questions.popitem(last=False)
        self._questions[key] = _Question(now_s, unanswered)
        if unanswered:
            heapq.heappush(self._timers, (now_s + ASK_S, _TIME_TO_LOOK))
        return [self._send(host_id, Ask(key), key.tuple) for host_id in sorted(unanswered)]

    def _may_ask(self, scope: ObjectId, now_s: float) -> bool:
        of_zone = self._zone_credits.pop(scope, None) or _Credit(ASKS_PER_S_OF_A_ZONE)
        while len(self._zone_credits) >= ZONES_MAX:
            self._zone_credits.popitem(last=False)
        self._zone_credits[scope] = of_zone
        return of_zone.take(now_s) and self._credit.take(now_s)

    def answer(
        self, sender: HostId, key: ConnectionKey, found: tuple[Connection, float] | None
    ) -> Outgoing:
        """Return the answer to an `Ask`. found: the connection and its remaining life in s."""
        if found is None:
            return self._send(sender, Nothing(key), key.tuple)
        connection, remaining_s = found
        return self._send(sender, Tell(connection, int(remaining_s)), key.tuple)

    # Receiving.

    def receive(self, data: bytes) -> Signed | None:
        """Return a message for the shell to act on; None when there is nothing to do for it.

        Raises nothing: what is not genuine, not new or not understood is counted.
        """
        try:
            signed = decode_message(data, self._secret)
        except DecodeError:
            self.counters.forged += 1
            return None
        if signed is None:
            self.counters.other_versions += 1
            return None
        window = self._windows.setdefault(signed.sender, ReplayWindow())
        if signed.sender == self._host_id or not window.take(signed.epoch, signed.sequence):
            self.counters.repeated += 1
            return None
        self.counters.received += 1
        message = signed.message
        if isinstance(message, Proof):
            self._forget(message.sequence)
            return None
        if isinstance(message, Nothing):
            self._answered(message.key, signed.sender)
        elif isinstance(message, Tell):
            for key in message.connection.keys:
                self._answered(key, signed.sender)
        if isinstance(message, Tell | Kill) and not self._is_news(signed):
            self.counters.overtaken += 1
            return None
        return signed

    def _is_news(self, signed: Signed) -> bool:
        """Tell whether nothing newer has come of that connection from that sender."""
        place = signed.sender, _key_of(signed.message)
        at = signed.epoch, signed.sequence
        last = self._newest.pop(place, at)
        if last > at:
            self._newest[place] = last
            return False
        while len(self._newest) >= ORDERED_MAX:
            self._newest.popitem(last=False)
        self._newest[place] = at
        return True

    def _answered(self, key: ConnectionKey, sender: HostId) -> None:
        question = self._questions.get(key)
        if question is not None:
            question.unanswered.discard(sender)

    def prove(self, signed: Signed, ends: FiveTuple) -> Outgoing:
        """Return the acknowledgement of a message that was taken in."""
        return self._send(signed.sender, Proof(signed.sequence), ends)


def _key_of(message: StateMessage) -> ConnectionKey:
    match message:
        case Tell(connection):
            return connection.forward
        case Kill(key) | Ask(key) | Nothing(key):
            return key
        case Proof():
            raise AssertionError("a proof is not kept")
