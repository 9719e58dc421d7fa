"""The agent: wiring of its parts, and nothing else.

store watches -> TopologyWatcher -> view, delta ----+
store tables  -> SoftStateReplica -> tags ----------+-> Decisions -> Datapath
datapath upcalls -> PacketLoop -> fair queue -------+
bound ports + interfaces -> PortBinder -> attach, locations, deliveries
"""

from __future__ import annotations

import contextlib
import random
import time

import structlog

from midonet.agent.datapath.protocol import Datapath
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.loading import Loader
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flow_exchange.block_leasing import REST_S, BlockLeasing
from midonet.agent.flow_exchange.exchange_engine import ExchangeEngine
from midonet.agent.flow_exchange.flow_exchange import FlowExchange
from midonet.agent.host.connection_journal import ConnectionJournal
from midonet.agent.host.host_keeper import DeclaredInterfaces, HostKeeper, InterfaceSource
from midonet.agent.host.state_directory import StateDirectory
from midonet.agent.operator.control import Control
from midonet.agent.operator.overview import Overview
from midonet.agent.operator.tracing import Tracer
from midonet.agent.ports.binder import PortBinder, places_changed, seen_in
from midonet.agent.ports.bound_ports import LocalPorts
from midonet.agent.ports.placement import StorePlacement
from midonet.agent.soft_state.holdings import DEFAULT_LIMITS, HoldingLimits
from midonet.agent.soft_state.outbox import Outbox, StateWrite
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.agent.soft_state.table_follower import TableFollower
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.agent.topology.watching import TopologyWatcher, WatchSettings
from midonet.agent.underlay.probe_engine import ProbeEngine
from midonet.agent.underlay.prober import Prober
from midonet.agent.underlay.tunnel_follower import TunnelFollower
from midonet.errors import UnavailableError
from midonet.model.hosts import Host
from midonet.nsdb.leases import Leases
from midonet.nsdb.locations import KeySource
from midonet.nsdb.store import Store
from midonet.runtime.clock import Clock
from midonet.runtime.garbage import GarbageCollection
from midonet.runtime.supervisor import OnFailure, Supervisor

_LOADERS = 4
"""Batches of devices that are loaded at a time."""

_COLLECT_KEYS_S = 600.0

_log = structlog.get_logger("agent")


class Agent:
    """One agent. `start` its tasks under a supervisor; `stop` before the supervisor ends."""

    def __init__(
        self,
        host: Host,
        store: Store,
        datapath: Datapath,
        state_directory: StateDirectory,
        clock: Clock,
        *,
        interfaces: InterfaceSource | None = None,
        hash_seed: int,
        session_timeout_s: float = 30.0,
        vxlan_port: int = 6677,
        limits: HoldingLimits = DEFAULT_LIMITS,
    ) -> None:
        """interfaces: None when every bound name counts as an interface that is up.

        limits: of what ports teach.
        """
        self.host = host
        self.datapath = datapath
        self._clock = clock
        epoch = state_directory.next_epoch()
        self.local_ports = LocalPorts(store, host.id, clock)
        self._interfaces = interfaces or DeclaredInterfaces(self.local_ports.interface_names)
        self.topology = TopologyWatcher(
            store,
            host.id,
            self._view_changed,
            settings=WatchSettings(hash_seed=hash_seed),
            now=clock.now_s,
        )
        self._loader = Loader(self.topology.request)
        self.outbox = Outbox(store, clock, self._written, on_refused=self._refused)
        self.soft_state = SoftStateReplica(
            host.id, clock, self.outbox.put, epoch, withdraw=self.outbox.withdraw, limits=limits
        )
        self.decisions = Decisions(
            host.id, datapath, clock, self.soft_state, self._loader.request, mac_limits=limits
        )
        self.topology.set_in_use(self.decisions.objects_in_use)
        self._tables = TableFollower(
            store, self.soft_state, clock, self.decisions.facts_changed, self._wake_decisions
        )
        self._journal = ConnectionJournal(state_directory, self.decisions.connections.table)
        self.loop = PacketLoop(datapath, self.decisions, clock, self._after_batch)
        self.keeper = HostKeeper(
            store,
            clock,
            self.outbox,
            state_directory,
            host=host,
            epoch=epoch,
            session_timeout_s=session_timeout_s,
        )
        self._tunnels = TunnelFollower(
            datapath,
            clock,
            vxlan_port=vxlan_port,
            prober=None if interfaces is None else self._prober(epoch, hash_seed),
            view=lambda: self.decisions.view,
            interfaces=self._interfaces.snapshot,
            on_mtu=self._underlay_mtu_changed,
        )
        self._placement = StorePlacement(
            store, host.id, KeySource(random.SystemRandom(), time.time)
        )
        self.binder = PortBinder(
            datapath,
            self._interfaces,
            self._placement,
            self.local_ports,
            clock,
            seen=seen_in(lambda: self.decisions.view, host.id),
            on_detached=self.decisions.forget_port,
            on_reconciled=self._publish,
        )
        # Its frames, like the probes, are signed by what only this deployment's hosts share.
        self.exchange = FlowExchange(
            ExchangeEngine(host.id, epoch, hash_seed.to_bytes(8, "big")),
            self.decisions.connections.table,
            datapath,
            clock,
            view=lambda: self.decisions.view,
            on_news=self._connections_told,
        )
        self.decisions.connections.fetch = self.exchange.fetch
        translations = self.decisions.connections.translations
        self.leasing = BlockLeasing(
            Leases(store, REST_S, time.time),
            host.id,
            clock,
            translations.allocations,
            random=random.SystemRandom(),
            on_news=self._wake_decisions,
        )
        translations.lease_from(self.leasing, self.leasing.want, self.leasing.is_wanted)
        overview = Overview(
            host,
            datapath,
            self.keeper,
            self.binder,
            self.decisions,
            self._tunnels.network,
            self.outbox,
            self.exchange,
        )
        tracer = Tracer(host, store, self.decisions, self.topology.request)
        self.control = Control(
            host, store, datapath, self.decisions, overview=overview, tracer=tracer, clock=clock
        )

    def _prober(self, epoch: int, hash_seed: int) -> Prober:
        # Probes are keyed by what only this deployment's hosts share.
        engine = ProbeEngine(self.host.id, epoch, hash_seed.to_bytes(8, "big"))
        return Prober(engine, self._clock.now_s)

    async def start(self, supervisor: Supervisor) -> None:
        """Take the datapath into use and start all tasks.

        Raises DatapathError when the datapath cannot be opened.
        """
        await self.datapath.open()
        await self._interfaces.open()
        restored = self._journal.open(self._clock.now_s())
        if restored:
            _log.info("connections_restored", count=restored)
        adopted = self.decisions.programs.adopt()
        if adopted:
            _log.info("programs_adopted", count=adopted)
        supervisor.start("host", self.keeper.run)
        supervisor.start("host_state", self.keeper.run_publishing)
        supervisor.start("outbox", self.outbox.run)
        # These two own a store watcher for good; without them the agent would go blind.
        supervisor.start("topology", self.topology.run, OnFailure.STOP_ALL)
        supervisor.start("tables", self._tables.run, OnFailure.STOP_ALL)
        supervisor.start("overlay", self._tunnels.run)
        if self._tunnels.network is not None:
            supervisor.start("underlay", self._tunnels.network.run)
        supervisor.start("mtu", self._tunnels.follow_mtu)
        supervisor.start("in_sync", self._begin)
        for number in range(_LOADERS):
            supervisor.start(f"loader_{number}", self._loader.run)
        supervisor.start("local_ports", self.local_ports.run)
        supervisor.start("interfaces", self._follow_interfaces)
        supervisor.start("binding", self._bind)
        supervisor.start("tunnel_keys", self._collect_keys)
        supervisor.start("upcalls", self.loop.read)
        supervisor.start("decisions", self.loop.decide)
        supervisor.start("timers", self.loop.keep_time)
        supervisor.start("connections", self.exchange.run)
        supervisor.start("nat_blocks", self.leasing.run)
        supervisor.start("garbage", GarbageCollection(self._clock, self.loop.is_idle).run)

    async def stop(self) -> None:
        """Let go of the datapath. A persistent one keeps forwarding, and the session stays
        open for the next start; otherwise peers learn at once that this host is gone."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._journal.close)
            stack.push_async_callback(self.datapath.close)
            stack.push_async_callback(self._interfaces.close)
            stack.push_async_callback(self._tables.close)
            if not self.datapath.capabilities.is_persistent:
                stack.push_async_callback(self.keeper.end)

    async def _begin(self) -> None:
        """Decide on packets once the ports bound here are attached and in the view.

        What connections are known from before a restart is judged by the topology of now.
        """
        await self.topology.wait_in_sync()
        self._tunnels.begin()
        await self.binder.reconciled.wait()
        self.decisions.connections.begin(self.decisions.view)
        self.datapath.begin_deciding()
        self.loop.may_decide.set()

    # What a change in one room means for the others, in this order.

    def _view_changed(self, view: TopologyView, delta: ViewDelta) -> None:
        last, self.decisions.view = self.decisions.view, view
        if view.tunnels is not last.tunnels or view.underlay_addresses != last.underlay_addresses:
            self._tunnels.update()
        self._tables.follow_view(view)
        self.decisions.view_changed(delta)
        self.loop.wake()
        self.exchange.view_changed(delta.tags | delta.urgent)
        self.binder.look(places_changed(delta))

    def _after_batch(self) -> None:
        self._journal.flush()
        self._tables.watch_new()

    def _wake_decisions(self) -> None:
        self.decisions.release_parked()
        self.loop.wake()

    def _connections_told(self) -> None:
        self.decisions.connections.publish()
        self._wake_decisions()

    def _underlay_mtu_changed(self, mtu_bytes: int) -> None:
        self.topology.set_underlay_mtu(mtu_bytes)
        self._publish()

    async def _follow_interfaces(self) -> None:
        while True:
            self.binder.wake()
            self._tunnels.update()
            self._publish()
            await self._interfaces.changes()

    async def _bind(self) -> None:
        # A location refers to the host's record.
        await self.keeper.registered.wait()
        await self.binder.run()

    async def _collect_keys(self) -> None:
        while True:
            await self._clock.sleep(_COLLECT_KEYS_S)
            self._journal.retry()
            with contextlib.suppress(UnavailableError):
                await self._placement.collect_keys()

    def _publish(self) -> None:
        self.keeper.publish(
            self._interfaces.snapshot(), overlay_mtu_bytes=self._tunnels.overlay_mtu_bytes
        )

    def _written(self, write: StateWrite) -> None:
        self.soft_state.written(write)

    def _refused(self, write: StateWrite) -> None:
        self.soft_state.written(write, is_refused=True)
