"""Asking for the MAC of a next hop, by ARP (RFC 826) or neighbour solicitation (RFC 4861).

One question at a time for each (router, address), whoever waits for it. Questions about unknown
addresses are repeated quickly and given up after a few seconds; the address then counts as
unreachable for a while. Questions that only refresh a stale entry change nothing when they stay
unanswered: the entry expires by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midonet.agent.simulation.result import ResolveNeighbour
from midonet.model.ids import RouterId
from midonet.packets.addresses import IpAddress
from midonet.runtime.clock import Clock

QUESTION_TIMES_S = (0.0, 0.3, 1.0, 2.0)
"""When an unknown address is asked for, in seconds after the first packet for it."""

GIVE_UP_S = 3.0
"""When an unanswered question is given up; below the time a packet may wait."""

REFRESH_INTERVAL_S = 5.0
"""Shortest time between two questions about an entry that is only stale."""

MAX_QUESTIONS = 4096
"""Most addresses asked for at a time; further ones wait for a place."""


@dataclass(slots=True)
class _Question:
    what: ResolveNeighbour
    begun_s: float
    asked: int = 0


class NeighbourBroker:
    """Open questions and when to repeat them."""

    def __init__(
        self,
        clock: Clock,
        ask: Callable[[ResolveNeighbour], None],
        is_known: Callable[[ResolveNeighbour], bool],
    ) -> None:
        """`ask` sends one ARP request or neighbour solicitation; `is_known` tells whether the
        answer is there, which may have come in at another host."""
        self._clock = clock
        self._ask = ask
        self._is_known = is_known
        self._questions: dict[tuple[RouterId, IpAddress], _Question] = {}
        self._refreshed_s: dict[tuple[RouterId, IpAddress], float] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def resolve(self, what: ResolveNeighbour) -> bool:
        """Begin to ask, unless that is under way; False when too much is asked already."""
        key = (what.router_id, what.address)
        if key in self._questions:
            return True
        if len(self._questions) >= MAX_QUESTIONS:
            return False
        question = self._questions[key] = _Question(what, self._clock.now_s())
        self._repeat(question)
        return True

    def refresh(self, what: ResolveNeighbour) -> None:
        """Ask once about an entry that is stale, at most every REFRESH_INTERVAL_S."""
        key = (what.router_id, what.address)
        now_s = self._clock.now_s()
        if key in self._questions or now_s - self._refreshed_s.get(key, -1e9) < REFRESH_INTERVAL_S:
            return
        self._refreshed_s[key] = now_s
        self._ask(what)

    def answered(self, router_id: RouterId, address: IpAddress) -> None:
        """Stop asking."""
        self._questions.pop((router_id, address), None)
        self._refreshed_s.pop((router_id, address), None)

    def tick(self) -> list[tuple[RouterId, IpAddress]]:
        """Repeat what is due; return the addresses given up."""
        now_s = self._clock.now_s()
        for key, question in list(self._questions.items()):
            if self._is_known(question.what):
                self.answered(*key)
        given_up = [
            key
            for key, question in self._questions.items()
            if now_s - question.begun_s >= GIVE_UP_S
        ]
        for key in given_up:
            del self._questions[key]
        for question in list(self._questions.values()):
            self._repeat(question)
        old_s = now_s - REFRESH_INTERVAL_S
        for key in [key for key, asked_s in self._refreshed_s.items() if asked_s < old_s]:
            del self._refreshed_s[key]
        return given_up

    def _repeat(self, question: _Question) -> None:
        elapsed_s = self._clock.now_s() - question.begun_s
        due = sum(1 for time_s in QUESTION_TIMES_S if time_s <= elapsed_s)
        if question.asked < due:
            question.asked = due
            self._ask(question.what)
