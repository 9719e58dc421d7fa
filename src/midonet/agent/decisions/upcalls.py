"""The packet loop: upcalls in, decisions, programs judged again, and the timers of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from midonet.agent.datapath.protocol import Datapath
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
        self._clock = clock
        self._on_batch = on_batch
        self._wake = asyncio.Event()
        self._next_slow_s = 0.0

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
            if not has_packet and not has_program:
                break
            is_busy = True
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
        decisions.expire_parked()
        for router_id, address in decisions.broker.tick():
            decisions.facts_changed(decisions.soft_state.fail_neighbour(router_id, address))
        if self._clock.now_s() >= self._next_slow_s:
            self._next_slow_s = self._clock.now_s() + _SLOW_TICK_S
            self._slow_tick()
        decisions.programs.retry_waiting()
        self._on_batch()
        self._wake.set()

    def _slow_tick(self) -> None:
        """Follow use: keep alive what traffic uses, let go of the rest."""
        decisions = self._decisions
        table = decisions.programs.table
        table.observe(self._datapath.statistics())
        now_s = self._clock.now_s()
        since_ns = self._clock.boot_ns() - int(_SLOW_TICK_S * 1e9)
        for learned in table.learned_in_use(since_ns):
            decisions.learning.keep_alive(learned, now_s)
        forgotten = decisions.learning.expire()
        decisions.programs.change(forgotten, urgent=forgotten)
        self._refresh_neighbours()
        decisions.facts_changed(decisions.soft_state.expire())

    def _refresh_neighbours(self) -> None:
        """Ask again for stale neighbours that installed programs send to."""
        decisions = self._decisions
        stale = {
            neighbour_tag(router_id, *address): (router_id, address)
            for router_id, address in decisions.soft_state.stale_neighbours()
        }
        if not stale:
            return
        used_since_ns = self._clock.boot_ns() - int(_IN_USE_S * 1e9)
        statistics = self._datapath.statistics()
        for installed in decisions.programs.table:
            usage = statistics.get(installed.program_id)
            if usage is None or usage.last_used_ns < used_since_ns:
                continue
            for tag in installed.program.tags & stale.keys():
                router_id, address = stale.pop(tag)
                port_id = port_towards(decisions.view, router_id, address)
                if port_id is not None:
                    decisions.broker.refresh(ResolveNeighbour(router_id, port_id, address))
