"""Connections, translations and fragments of a scenario: the agent's own, on a still clock."""

from __future__ import annotations

from midonet.agent.decisions.tracked_connections import Settlement, TrackedConnections
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flow_state.effects import ConfirmConnection
from midonet.agent.flow_state.nat_reader import NatReader
from midonet.agent.flow_state.pool import NatPool
from midonet.agent.flow_state.source_choice import SourceChoice
from midonet.agent.simulation.result import Await, Drop, SimulationResult
from midonet.agent.simulation.simulate import simulate
from midonet.agent.soft_state.reading import SoftState
from midonet.agent.topology.view import TopologyView
from midonet.model.ids import ObjectId, PortId
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.frame import ParsedFrame
from midonet.runtime.clock import ManualClock
from tests.worlds import NOW


class _OneSeed:
    """The end points that are free, in the same order whatever the deployment's seed."""

    def __init__(self, nat: NatReader) -> None:
        self._nat = nat

    def choose_source(
        self, owner: ObjectId, pool: NatPool, packet: FiveTuple, seed: int
    ) -> SourceChoice:
        return self._nat.choose_source(owner, pool, packet, 0)


class FlowStates:
    """What the packets of a scenario have left behind."""

    def __init__(self, table: ConnectionTable | None = None) -> None:
        self.clock = ManualClock(NOW)
        self.tracked = TrackedConnections(self.clock, lambda _tags, _is_urgent: None, table=table)

    @property
    def now_s(self) -> float:
        """Return the time of the next packet."""
        return self.clock.now_s()

    def pass_time(self, duration_s: float) -> None:
        """Let time go by, with what is due in it."""
        self.clock.advance(duration_s)
        self.tracked.expire()

    def judge(
        self,
        view: TopologyView,
        soft_state: SoftState,
        packet: ParsedFrame,
        ingress: PortId,
        *,
        must_ask: bool = False,
        trace: bool = False,
    ) -> SimulationResult:
        """Return what becomes of a packet; nothing comes of it yet."""
        translations = self.tracked.translations
        return simulate(
            view,
            soft_state,
            packet,
            ingress,
            self.now_s,
            connections=self.tracked.reader,
            nat=_OneSeed(translations),
            fragments=translations.fragments,
            must_ask=must_ask,
            trace=trace,
        )

    def settle(self, result: SimulationResult) -> Settlement:
        """Carry out what a result says of connections."""
        if isinstance(result, Await):
            return Settlement.DONE
        if isinstance(result, Drop):
            begun = [one for one in result.effects if isinstance(one, ConfirmConnection)]
            assert not begun, "what does not leave confirms nothing"
        return self.tracked.settle(result.effects)
