"""What becomes of one packet: simulate it, carry out the effects, program the datapath.

Everything here runs to its end without waiting, so that the view, the soft state and the
revision of facts are the same for one packet from its simulation to its installation. A packet
that needs something unknown is parked and simulated again later, from the start.

Whatever a packet holds, it costs no other packet anything: one on which the agent fails is
dropped as INTERNAL, and its bytes are in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import assert_never

import structlog

from midonet.agent.datapath.protocol import Datapath, Upcall, UpcallReason
from midonet.agent.decisions.fair_queue import FairQueue
from midonet.agent.decisions.flow_programs import FlowPrograms
from midonet.agent.decisions.neighbours import NeighbourBroker
from midonet.agent.decisions.parking import AWAIT_LIMIT_S, Parking
from midonet.agent.decisions.questions import question_packet
from midonet.agent.decisions.refusals import RefusalBudgets
from midonet.agent.decisions.rivals import dead_rivals
from midonet.agent.decisions.synthesis import synthesise_frame
from midonet.agent.decisions.teaching import would_teach
from midonet.agent.decisions.tracked_connections import Settlement, TrackedConnections
from midonet.agent.decisions.work import (
    MAX_GENERATED_DEPTH,
    Allowance,
    Counters,
    Generated,
    Work,
    is_settled,
    is_stale,
    outputs_of,
)
from midonet.agent.flow_state.connection import Connection
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flow_state.effects import (
    KillConnection,
)
from midonet.agent.flow_state.reader import With
from midonet.agent.flow_state.source_choice import LeaseBlock
from midonet.agent.flows.apply import prepared
from midonet.agent.flows.classification import meets_guards
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.plans import InstallOutcome, Refusal
from midonet.agent.flows.program import FlowProgram, InstalledProgram
from midonet.agent.flows.tags import FlowTag, TagKind, device_tag, location_tag
from midonet.agent.simulation.result import (
    Await,
    Awaited,
    Consume,
    Drop,
    Effect,
    FetchConnection,
    FetchFirstFragment,
    Forward,
    GeneratedPacket,
    LoadDevices,
    RefreshNeighbour,
    ResolveNeighbour,
    SimulationResult,
)
from midonet.agent.simulation.simulate import simulate, simulate_generated
from midonet.agent.soft_state.holdings import DEFAULT_LIMITS, HoldingLimits
from midonet.agent.soft_state.learning import MacLearning
from midonet.agent.soft_state.lessons import LearnMac, LearnNeighbour, MoveBridgeNeighbour
from midonet.agent.soft_state.reading import Neighbour, NeighbourState
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.errors import DecodeError
from midonet.model.ids import BridgeId, HostId, ObjectId, PortId
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle
from midonet.runtime.supervisor import contained

UPCALL_LIMIT_S = AWAIT_LIMIT_S
"""How long a packet may have waited when its turn comes: as long as one waits for facts."""

_log = structlog.get_logger("decisions")

_LOADED_KINDS = frozenset((TagKind.DEVICE, TagKind.CHAIN))

_MAX_ATTEMPTS = 4
"""Simulations of one packet whose own effects change what it depends on."""


class Decisions:
    """Decides on packets. Synchronous; owned by one task."""

    def __init__(
        self,
        host_id: HostId,
        datapath: Datapath,
        clock: Clock,
        soft_state: SoftStateReplica,
        request_load: Callable[[tuple[ObjectId, ...]], None],
        *,
        mac_limits: HoldingLimits = DEFAULT_LIMITS,
        connection_table: ConnectionTable | None = None,
    ) -> None:
        """`request_load` asks the topology for objects that the view lacks."""
        self.view = TopologyView(revision=0, host_id=host_id)
        self.counters = Counters()
        self.programs = FlowPrograms(datapath, clock)
        self.queue: FairQueue[Work] = FairQueue()
        self.parking: Parking[Work] = Parking(clock)
        self.refusals = RefusalBudgets(clock, datapath.count_drop)
        self.learning = MacLearning(
            soft_state,
            clock,
            limits=mac_limits,
            ageing_s=self._mac_ageing_s,
            needed=self._macs_of_neighbours,
            is_elsewhere=self._is_elsewhere,
        )
        self.broker = NeighbourBroker(clock, self._ask, self._is_resolved)
        self.connections = TrackedConnections(
            clock, self._connections_changed, table=connection_table
        )
        self.soft_state = soft_state
        self._datapath = datapath
        self._clock = clock
        self._request_load = request_load
        self._throttle = Throttle(clock)

    # Packets.

    def enqueue(self, upcall: Upcall) -> bool:
        """Put an upcall in its port's queue; a full queue is a counted drop, and so is an upcall
        that has waited too long in the datapath's."""
        self.counters.upcalls += 1
        if self._is_too_old(upcall):
            return False
        if self.queue.put(upcall.ingress, upcall):
            return True
        self._datapath.count_drop(upcall.ingress, DropReason.UPCALL_RING_FULL)
        return False

    def decide_next(self) -> bool:
        """Decide on one queued packet; False when there is none."""
        work = self.queue.take()
        if work is None:
            return False
        if isinstance(work, Upcall):
            if self._is_too_old(work):
                return True
            with contained(partial(self._failed, work.ingress, work.frame)):
                self._decide(work)
        else:
            self._send_generated(work)
        return True

    def _is_too_old(self, upcall: Upcall) -> bool:
        """Tell, and count, that a packet waited longer than its sender will for an answer: no agent
        ran, or it did not know the topology yet. What it would teach may be wrong by now."""
        age_ns = self._clock.boot_ns() - upcall.received_ns
        is_too_old = bool(upcall.received_ns) and age_ns > int(UPCALL_LIMIT_S * 1e9)
        if is_too_old:
            self._datapath.count_drop(upcall.ingress, DropReason.UPCALL_TOO_OLD)
        return is_too_old

    def _failed(self, port_id: PortId, frame: bytes, error: Exception) -> None:
        """Take note of a packet on which the agent failed."""
        self._datapath.count_drop(port_id, DropReason.INTERNAL)
        held_back = self._throttle.allow(type(error).__name__)
        if held_back is not None:
            _log.error(
                "packet_failed",
                port=str(port_id),
                frame=frame.hex(),
                error=str(error) or type(error).__name__,
                held_back=held_back,
                exc_info=error,
            )

    def _decide(self, upcall: Upcall) -> None:
        ingress = upcall.ingress
        packet = self._parse(ingress, upcall.frame, upcall.length, gso_size=upcall.gso_size)
        if packet is None:
            return
        if upcall.reason is UpcallReason.MISS:
            held = self.programs.lookup(ingress, packet.key)
            if held is not None and meets_guards(held.program.guards, packet):
                # A packet of the same class was decided on while this one was on its way up.
                self.counters.duplicates += 1
                if self.programs.repair(held):
                    self._datapath.reinject(upcall)
                    return
            elif held is not None:
                # The program is not for this packet: by now it would come up for its guard.
                upcall = replace(upcall, reason=UpcallReason.GUARD, program_id=held.program_id)
        elif upcall.reason is UpcallReason.EARLIER and self.programs.lookup(ingress, packet.key):
            return
        for _ in range(_MAX_ATTEMPTS):
            result = self._simulate(packet, ingress)
            if self._carry_out(result, upcall, packet):
                return
        self._datapath.count_drop(ingress, DropReason.UNSETTLED)

    def _carry_out(self, result: SimulationResult, upcall: Upcall, packet: ParsedFrame) -> bool:
        """Do what a simulation says; False to simulate again, because facts changed.

        Connections come first: what they are after it is what the program was made for.
        """
        if isinstance(result, Await):
            self._park(upcall.ingress, upcall, result.what)
            return True
        settlement = self.connections.settle(result.effects)
        if settlement is Settlement.AGAIN:
            return False
        if settlement is Settlement.REFUSED:
            if self._frees_key(result, upcall.ingress):
                return False
            self._datapath.count_drop(upcall.ingress, DropReason.CONNECTION_LIMIT)
            return True
        revision = self.programs.revision
        match result:
            case Consume():
                self._apply(result.effects, upcall.ingress)
                self._generate(result.generated, upcall.ingress, 0, Allowance())
                return True
            case Forward() | Drop() if is_settled(upcall, result.program):
                # Another version's program has carried it out: only the program is wanted here.
                self._apply(result.effects, upcall.ingress)
                return not is_stale(self.programs.install(result.program, revision))
            case Forward():
                self._apply(result.effects, upcall.ingress)
                if not self._forward(result.program, upcall, packet, revision):
                    return False
                self._generate(result.generated, upcall.ingress, 0, Allowance())
                return True
            case Drop():
                self._apply(result.effects, upcall.ingress)
                if result.program.slow_path is None and is_stale(
                    self.programs.install(result.program, revision)
                ):
                    return False
                self._datapath.count_drop(upcall.ingress, result.reason)
                self._generate(result.generated, upcall.ingress, 0, Allowance())
                return True

    def _forward(
        self, program: FlowProgram, upcall: Upcall, packet: ParsedFrame, revision: int
    ) -> bool:
        if program.slow_path is not None:
            self._emit(program, upcall, packet)
            return True
        outcome = self.programs.install(program, revision)
        if is_stale(outcome):
            return False
        if (
            isinstance(outcome, Refusal)
            or not meets_guards(program.guards, packet)
            or (upcall.reason is UpcallReason.GUARD and outcome is InstallOutcome.UNCHANGED)
        ):
            # There is no program, or it would send the packet up again: a bridge forwards even a
            # TTL of 0.
            self._emit(program, upcall, packet)
        else:
            self._datapath.reinject(upcall)
        return True

    def _emit(self, program: FlowProgram, upcall: Upcall, packet: ParsedFrame) -> None:
        self.counters.slow_path += 1
        if packet.is_cut:
            self._datapath.count_drop(upcall.ingress, DropReason.PACKET_CUT)
            return
        for frame, outputs in prepared(upcall.frame, program.outputs):
            self._datapath.emit(frame, outputs, gso_size=upcall.gso_size)

    # Generated packets.

    def _generate(
        self,
        packets: Iterable[GeneratedPacket],
        source: PortId,
        depth: int,
        allowance: Allowance,
    ) -> None:
        for packet in self.refusals.admitted(packets, source):
            if depth > MAX_GENERATED_DEPTH or not allowance.take():
                self._datapath.count_drop(packet.egress, DropReason.GENERATED_LIMIT)
            else:
                self._send_generated(Generated(packet, depth, allowance))

    def _send_generated(self, work: Generated) -> None:
        with contained(partial(self._failed, work.packet.egress, work.packet.frame)):
            self._walk_generated(work)

    def _walk_generated(self, work: Generated) -> None:
        egress = work.packet.egress
        frame = work.packet.frame
        packet = self._parse(egress, frame)
        if packet is None:
            return
        self.counters.simulations += 1
        result = simulate_generated(
            self.view,
            self.soft_state,
            packet,
            egress,
            self._clock.now_s(),
            router_id=work.packet.router_id,
            sight=work.packet.sight,
            is_unfiltered=work.packet.is_unfiltered,
        )
        match result:
            case Await() | Drop() if work.packet.is_local:
                return  # whoever is not reached from here hears it from another host
            case Await(what):
                self._park(egress, work, what)
                return
            case Forward():
                for edited, outputs in prepared(frame, outputs_of(work.packet, result.program)):
                    self._datapath.emit(edited, outputs)
            case Drop():
                self._datapath.count_drop(egress, result.reason)
            case Consume():
                pass
        self._apply(result.effects, egress)
        self._generate(result.generated, egress, work.depth + 1, work.allowance)

    def send(self, packet: GeneratedPacket) -> None:
        """Send a packet that a device makes of its own accord."""
        self._send_generated(Generated(packet, 0, Allowance()))

    def _ask(self, what: ResolveNeighbour) -> None:
        packet = question_packet(self.view, what)
        if packet is not None:
            self.send(packet)

    # Waiting.

    def _park(self, port_id: PortId, work: Work, what: Awaited) -> None:
        if not self.parking.park(port_id, work, what):
            self._datapath.count_drop(port_id, DropReason.AWAIT_QUEUE_FULL)
            return
        self._obtain(what)

    def _obtain(self, what: Awaited) -> None:
        match what:
            case LoadDevices(object_ids):
                self._request_load(object_ids)
            case ResolveNeighbour():
                self.broker.resolve(what)
            case FetchConnection(key):
                self.connections.fetch(key)
            case FetchFirstFragment() | LeaseBlock():
                self.connections.translations.obtain(what)
            case _:
                assert_never(what)

    def release_parked(self) -> None:
        """Queue again the packets whose awaited thing has come."""
        if len(self.parking):
            for parked in self.parking.release(self._has_come):
                if not self.queue.put(parked.port_id, parked.item):
                    self._datapath.count_drop(parked.port_id, DropReason.UPCALL_RING_FULL)

    def expire_parked(self) -> None:
        """Drop the packets that have waited too long."""
        for parked in self.parking.expire():
            self._datapath.count_drop(parked.port_id, DropReason.AWAIT_TIMEOUT)

    def _has_come(self, what: Awaited) -> bool:
        match what:
            case LoadDevices(object_ids):
                return all(self.view.knows(object_id) for object_id in object_ids)
            case ResolveNeighbour(router_id, _, address):
                known = self.soft_state.neighbour(router_id, address)
                return known is not NeighbourState.UNKNOWN
            case FetchConnection(key):
                return not self.connections.reader.should_wait(key, self._clock.now_s())
            case FetchFirstFragment() | LeaseBlock():
                return self.connections.translations.has_come(what)
            case _:
                assert_never(what)

    def _is_resolved(self, what: ResolveNeighbour) -> bool:
        known = self.soft_state.neighbour(what.router_id, what.address)
        return isinstance(known, Neighbour)

    # Facts.

    def view_changed(self, delta: ViewDelta) -> None:
        """Take note of what is different in `view`, which is the new one already."""
        self.programs.change(delta.tags, delta.regions, delta.urgent)
        self.connections.view_changed(delta.tags | delta.urgent, delta.regions)
        self.release_parked()

    def forget_port(self, port_id: PortId) -> None:
        """Drop what is known of a port that was detached here, and what depends on it."""
        self.programs.forget_port(port_id)
        self.queue.drop_port(port_id)
        self.refusals.forget_port(port_id)
        self.connections.forget_port(port_id)
        self.facts_changed(self.learning.forget_port(port_id))
        gone = frozenset({device_tag(port_id), location_tag(port_id)})
        self.programs.change(frozenset(), urgent=gone)
        self.programs.remove(self.programs.table.dependents(gone))

    def objects_in_use(self) -> set[ObjectId]:
        """Return the devices and chains that installed programs depend on."""
        return {
            tag.owner
            for installed in self.programs.table
            for tag in installed.program.tags
            if tag.kind in _LOADED_KINDS
        }

    def _connections_changed(self, tags: frozenset[FlowTag], is_urgent: bool) -> None:
        if is_urgent:
            self.programs.change(frozenset(), urgent=tags)
        else:
            self.programs.change(tags)

    def facts_changed(self, tags: frozenset[FlowTag]) -> None:
        """Take note of changed soft state."""
        self.programs.change(tags)
        self.release_parked()

    def _apply(self, effects: Iterable[Effect], source: PortId) -> None:
        """Carry effects out. source: the port to which what is learnt counts."""
        for effect in effects:
            match effect:
                case LearnMac(entry):
                    learnt = self.learning.learn(entry, source)
                    self.programs.change(frozenset(), urgent=learnt.evicted)
                    self.facts_changed(learnt.tags)
                case LearnNeighbour():
                    tags = self.soft_state.learn_neighbour(effect, source)
                    self.broker.answered(effect.router_id, effect.address)
                    self.facts_changed(tags)
                case MoveBridgeNeighbour():
                    self.facts_changed(self.soft_state.move_bridge_neighbour(effect))
                case RefreshNeighbour():
                    self.broker.refresh(
                        ResolveNeighbour(effect.router_id, effect.port_id, effect.address)
                    )
                case _:
                    pass  # of a connection: that came first

    def _mac_ageing_s(self, bridge_id: BridgeId) -> float:
        bridge = self.view.bridges.get(bridge_id)
        own_s = bridge.mac_ageing_s if bridge is not None else None
        return float(self.view.mac_ageing_s if own_s is None else own_s)

    def _is_elsewhere(self, port_id: PortId) -> bool:
        port = self.view.ports.get(port_id)
        if port is None:
            return port_id in self.view.absent
        return port.peer_port_id is None and port.host_id != self.view.host_id

    def _macs_of_neighbours(self, bridge_id: BridgeId) -> frozenset[int]:
        """Return the MACs behind a bridge that the routers attached to it send to."""
        bridge = self.view.bridges.get(bridge_id)
        routers = {one.router_id for one in bridge.attachments.values()} if bridge else set()
        return frozenset().union(*(self.soft_state.neighbour_macs(one) for one in routers))

    # Programs that have to be judged again.

    def rejudge_next(self) -> bool:
        """Judge one program again; False when none is queued."""
        installed = self.programs.next_waiting()
        if installed is None:
            return False
        self.counters.rejudged += 1
        ingress = installed.program.ingress
        frame = synthesise_frame(installed.program.key)

        def on_failure(error: Exception) -> None:
            self._failed(ingress, frame, error)
            self.programs.remove((installed.program_id,))

        with contained(on_failure):
            self._rejudge(installed, frame)
        return True

    def _rejudge(self, installed: InstalledProgram, frame: bytes) -> None:
        ingress = installed.program.ingress
        packet = self._parse(ingress, frame)
        if packet is None:
            self.programs.remove((installed.program_id,))
            return
        revision = self.programs.revision
        result = self._simulate(packet, ingress)
        if not isinstance(result, Await) and self._is_killed(result):
            return  # a fact it depends on has changed with that
        match result:
            case Await(what):
                # It runs on until its time is over, unless it is urgent; what is awaited may come
                # before.
                self._obtain(what)
                self.programs.give_up(installed)
            case Forward(program) | Drop(_, program) if (
                program.slow_path is None
                and not would_teach(installed, result.effects, self.soft_state)
            ):
                self.programs.install(program, revision, in_place_of=installed.program_id)
            case Forward() | Drop() | Consume():
                # What has become of its class holds for single packets only.
                self.programs.remove((installed.program_id,))
            case _:
                assert_never(result)

    def _frees_key(self, result: Forward | Drop | Consume, ingress: PortId) -> bool:
        """Tell whether a key that was taken is free now, so that the packet gets another try."""
        if not isinstance(result, Forward):
            return False
        self._apply(result.effects, ingress)  # it shows where its sender's address is
        kills = dead_rivals(
            self.connections.table, self.view, result, self._judge, self._clock.now_s()
        )
        self.connections.settle(kills)
        return bool(kills)

    def _judge(self, port_id: PortId, frame: bytes) -> SimulationResult | None:
        packet = self._parse(port_id, frame)
        return None if packet is None else self._simulate(packet, port_id, must_ask=True)

    def _is_killed(self, result: Forward | Drop | Consume) -> bool:
        """Carry out the end of a connection whose packets are not wanted any more."""
        kills = [effect for effect in result.effects if isinstance(effect, KillConnection)]
        self.connections.settle(kills)
        return bool(kills)

    def judge_connection(self) -> bool:
        """Judge one connection again whose configuration has changed; False when none waits."""
        suspect = self.connections.next_suspect()
        if suspect is None:
            return False
        self.counters.rejudged += 1
        ingress = suspect.connection.initiator
        frame = synthesise_frame(suspect.sample.key, icmp_id=suspect.sample.icmp_id)
        with contained(partial(self._failed, ingress, frame)):
            # It must ask: a rule that denies by the header alone does not.
            result = self._judge(ingress, frame)
            if isinstance(result, Await):
                self._obtain(result.what)
                self.connections.defer(suspect)
            elif result is not None:
                self.connections.judged(suspect, result, self.view)
        return True

    def explain(
        self,
        packet: ParsedFrame,
        ingress: PortId,
        *,
        must_ask: bool = False,
        assumed: Connection | None = None,
    ) -> SimulationResult:
        """Return what would become of a packet now, with its steps; nothing comes of it.

        must_ask: look for its connection in any case. assumed: a connection that is not there.
        """
        return self._simulate(packet, ingress, must_ask=must_ask, assumed=assumed, trace=True)

    def _simulate(
        self,
        packet: ParsedFrame,
        ingress: PortId,
        *,
        must_ask: bool = False,
        assumed: Connection | None = None,
        trace: bool = False,
    ) -> SimulationResult:
        self.counters.simulations += not trace
        known = self.connections
        return simulate(
            self.view,
            self.soft_state,
            packet,
            ingress,
            self._clock.now_s(),
            connections=known.reader if assumed is None else With(known.reader, assumed),
            nat=known.translations,
            fragments=known.translations.fragments,
            must_ask=must_ask,
            trace=trace,
        )

    def _parse(
        self, port_id: PortId, frame: bytes, length: int | None = None, *, gso_size: int = 0
    ) -> ParsedFrame | None:
        try:
            return parse_frame(
                frame, length=length, gso_size=gso_size, hash_seed=self.view.hash_seed
            )
        except DecodeError:
            self._datapath.count_drop(port_id, DropReason.MALFORMED)
            return None
