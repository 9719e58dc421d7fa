"""The packet loop: upcalls in, decisions, programs judged again, and the timers of both."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping

from midonet.agent.datapath.protocol import Datapath, ProgramStatistics
from midonet.agent.decisions.advertiser import Advertiser
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.questions import port_towards
from midonet.agent.flows.tags import neighbour_tag
from midonet.agent.simulation.result import ResolveNeighbour
from midonet.runtime.clock import Clock

_BATCH = 4
"""Decisions between two turns of the event loop. A turn (1 to 2 ms) is what the first packet of a
port waits while another port floods."""

_READ_LIMIT = 1024
"""Upcalls taken at a time. Fairness between ports begins in our queue, so what waits in the
datapath's is taken over quickly; it is many times what is decided on in one turn."""

_TICK_S = 0.1
_SLOW_TICK_S = 2.0
_PROGRAMS_AT_A_TIME = 2048
"""Programs whose counters are looked at in one tick: a few milliseconds."""

_LONGEST_ROUND_S = 10.0
"""Use of a program counts in the round that follows it, unless it is older than this."""

_IN_USE_S = 30.0
"""A neighbour used this recently is asked for again when its entry is stale."""


class PacketLoop:
    """Drives `Decisions` from the datapath's upcalls."""

    def __init__(
        self,
        datapath: Datapath,
        decisions: Decisions,
        clock: Clock,
        on_batch: Callable[[], None],
    ) -> None:
        """`on_batch` runs after each batch of decisions."""
        self.may_decide = asyncio.Event()
        self._datapath = datapath
        self._decisions = decisions
        self._advertiser = Advertiser(clock)
        self._clock = clock
        self._on_batch = on_batch
        self._wake = asyncio.Event()
        self._next_slow_s = 0.0
        self._seen_upcalls = 0
        self._next_program = sys.maxsize  # behind all: a round begins with the first tick
        self._next_round_s = 0.0
        self._round_since_ns = self._round_ns = 0

    def is_idle(self) -> bool:
        """Tell whether nothing came up since this was asked last, and nothing is left to do."""
        upcalls, self._seen_upcalls = self._seen_upcalls, self._decisions.counters.upcalls
        is_quiet = upcalls == self._seen_upcalls and not self._decisions.programs.has_waiting
        return is_quiet and not len(self._decisions.queue)

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def read(self) -> None:
        """Queue upcalls until cancelled."""
        while True:
            for upcall in await self._datapath.upcalls(_READ_LIMIT):
                self._decisions.enqueue(upcall)
            self._wake.set()
            await asyncio.sleep(0)

    async def decide(self) -> None:
        """Decide on queued packets and judge programs again, until cancelled.

        Nothing is decided before the topology is known for the first time: a decision on an
        empty view would drop what should pass.
        """
        await self.may_decide.wait()
        while True:
            if self.decide_batch():
                await asyncio.sleep(0)
            else:
                self._wake.clear()
                await self._wake.wait()

    def decide_batch(self) -> bool:
        """Decide on some packets and judge some programs again; False when idle."""
        decisions = self._decisions
        is_busy = False
        for _ in range(_BATCH):
            has_packet = decisions.decide_next()
            has_program = decisions.rejudge_next()
            has_connection = decisions.judge_connection()
            if not has_packet and not has_program and not has_connection:
                break
            is_busy = True
        is_busy |= decisions.programs.expire()
        if is_busy:
            self._on_batch()
        return is_busy

    async def keep_time(self) -> None:
        """Run the timers until cancelled."""
        while True:
            await self._clock.sleep(_TICK_S)
            if self.may_decide.is_set():
                self.tick()

    def tick(self) -> None:
        """Run what is due."""
        decisions = self._decisions
        decisions.programs.expire()
        self._follow_use()
        decisions.release_parked()
        decisions.expire_parked()
        decisions.connections.expire()
        for router_id, address in decisions.broker.tick():
            decisions.facts_changed(decisions.soft_state.fail_neighbour(router_id, address))
        if self._clock.now_s() >= self._next_slow_s:
            self._next_slow_s = self._clock.now_s() + _SLOW_TICK_S
            self._slow_tick()
        for packet in self._advertiser.due():
            decisions.send(packet)
        decisions.programs.retry_waiting()
        self._on_batch()
        self._wake.set()

    def _slow_tick(self) -> None:
        """Let go of what is not used any more."""
        decisions = self._decisions
        self._advertiser.follow(decisions.view)
        forgotten = decisions.learning.expire()
        decisions.programs.change(forgotten, urgent=forgotten)
        decisions.facts_changed(decisions.soft_state.expire())
        decisions.connections.retry_deferred()

    def _follow_use(self) -> None:
        """Look at the counters of some programs in turn: keep alive what traffic uses, and ask
        again for stale neighbours that it is sent to."""
        decisions = self._decisions
        table = decisions.programs.table
        now_s, now_ns = self._clock.now_s(), self._clock.boot_ns()
        if self._next_program > table.highest_id:
            if now_s < self._next_round_s:
                return
            self._next_program, self._next_round_s = 1, now_s + _SLOW_TICK_S
            self._round_since_ns = max(self._round_ns, now_ns - int(_LONGEST_ROUND_S * 1e9))
            self._round_ns = now_ns
        ids = table.ids_from(self._next_program, _PROGRAMS_AT_A_TIME)
        self._next_program += _PROGRAMS_AT_A_TIME
        statistics = self._datapath.statistics(ids)
        table.observe(statistics)
        for learned in table.learned_in_use(self._round_since_ns, ids):
            decisions.learning.keep_alive(learned, now_s)
        decisions.connections.use(table.connections_in_use(self._round_since_ns, ids))
        self._refresh_neighbours(ids, statistics, now_ns - int(_IN_USE_S * 1e9))

    def _refresh_neighbours(
        self, ids: list[int], statistics: Mapping[int, ProgramStatistics], used_since_ns: int
    ) -> None:
        decisions = self._decisions
        stale = {
            neighbour_tag(router_id, *address): (router_id, address)
            for router_id, address in decisions.soft_state.stale_neighbours()
        }
        if not stale:
            return
        for program_id in ids:
            usage = statistics.get(program_id)
            installed = decisions.programs.table.get(program_id)
            if usage is None or installed is None or usage.last_used_ns < used_since_ns:
                continue
            for tag in installed.program.tags & stale.keys():
                router_id, address = stale.pop(tag)
                port_id = port_towards(decisions.view, router_id, address)
                if port_id is not None:
                    decisions.broker.refresh(ResolveNeighbour(router_id, port_id, address))
