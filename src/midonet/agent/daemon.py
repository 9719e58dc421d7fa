"""The agent: wiring of its parts, and nothing else.

store watches -> TopologyWatcher -> view, delta ----+
store tables  -> SoftStateReplica -> tags ----------+-> Decisions -> Datapath
datapath upcalls -> PacketLoop -> fair queue -------+
bound ports + interfaces -> PortBinder -> attach, locations, deliveries
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from typing import Any

import structlog

from midonet.agent.datapath.memory import MemoryDatapath
from midonet.agent.datapath.protocol import Datapath
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.loading import Loader
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flows.tags import TagKind, device_tag, location_tag
from midonet.agent.host.host_keeper import DeclaredInterfaces, HostKeeper, InterfaceSource
from midonet.agent.host.state_directory import StateDirectory
from midonet.agent.operator.control import Control
from midonet.agent.ports.binder import PortBinder
from midonet.agent.ports.bound_ports import LocalPorts
from midonet.agent.ports.placement import StorePlacement
from midonet.agent.soft_state.outbox import Outbox, StateWrite
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.agent.topology.watching import TopologyWatcher, WatchSettings
from midonet.agent.underlay.host_network import HostNetwork
from midonet.agent.underlay.overlay import OverlayKeeper
from midonet.agent.underlay.probe_engine import ProbeEngine
from midonet.agent.underlay.prober import Prober
from midonet.errors import UnavailableError
from midonet.model.hosts import Host
from midonet.model.ids import ObjectId, PortId
from midonet.nsdb.locations import KeySource
from midonet.nsdb.store import Store, TableChange
from midonet.runtime.clock import Clock
from midonet.runtime.supervisor import OnFailure, Supervisor

_LOADERS = 4
"""Batches of devices that are loaded at a time."""

_LOADED_KINDS = frozenset((TagKind.DEVICE, TagKind.CHAIN))
_RETRY_S = 1.0
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
    ) -> None:
        """interfaces: None when every bound name counts as an interface that is up."""
        self.host = host
        self.datapath = datapath
        self._store = store
        self._interfaces = interfaces or DeclaredInterfaces(self._bound_names)
        self._clock = clock
        self._overlay = OverlayKeeper(
            datapath, clock, vxlan_port=vxlan_port, on_mtu=self._set_underlay_mtu
        )
        self._mtu_bytes = 0
        self._mtu_changed = asyncio.Event()
        self._is_in_sync = False
        epoch = state_directory.next_epoch()
        self.outbox = Outbox(store, clock, self._written)
        self.soft_state = SoftStateReplica(host.id, clock, self.outbox.put, epoch)
        self._loader = Loader(self._load)
        self.decisions = Decisions(host.id, datapath, clock, self.soft_state, self._loader.request)
        self.loop = PacketLoop(datapath, self.decisions, clock, self._watch_new_tables)
        self.keeper = HostKeeper(
            store,
            clock,
            self.outbox,
            state_directory,
            host=host,
            epoch=epoch,
            session_timeout_s=session_timeout_s,
        )
        self.local_ports = LocalPorts(store, host.id, clock)
        self._placement = StorePlacement(
            store, host.id, KeySource(random.SystemRandom(), time.time)
        )
        self._network = None if interfaces is None else self._host_network(epoch, hash_seed)
        self.binder = PortBinder(
            datapath,
            self._interfaces,
            self._placement,
            self.local_ports,
            clock,
            is_visible=self._is_visible,
            on_detached=self._detached,
            on_reconciled=self._reconciled,
        )
        self.control = Control(host, store, datapath, self.decisions, overview=self)
        self._tables = store.watcher()
        self.topology = TopologyWatcher(
            store,
            host.id,
            self._view_changed,
            settings=WatchSettings(hash_seed=hash_seed),
            now=clock.now_s,
        )
        self.topology.set_in_use(self._objects_in_use)
        if isinstance(datapath, MemoryDatapath):
            datapath.subscribe(self.control.deliveries.add)

    def _host_network(self, epoch: int, hash_seed: int) -> HostNetwork:
        # Probes are keyed by what only this deployment's hosts share.
        engine = ProbeEngine(self.host.id, epoch, hash_seed.to_bytes(8, "big"))
        return HostNetwork(Prober(engine, self._clock.now_s), self._paths_changed)

    async def start(self, supervisor: Supervisor) -> None:
        """Take the datapath into use and start all tasks.

        Raises DatapathError when the datapath cannot be opened.
        """
        await self.datapath.open()
        await self._interfaces.open()
        adopted = self.decisions.programs.adopt()
        if adopted:
            _log.info("programs_adopted", count=adopted)
        supervisor.start("host", self.keeper.run)
        supervisor.start("outbox", self.outbox.run)
        # These two own a store watcher for good; without them the agent would go blind.
        supervisor.start("topology", self._follow_topology, OnFailure.STOP_ALL)
        supervisor.start("tables", self._follow_tables, OnFailure.STOP_ALL)
        supervisor.start("overlay", self._overlay.run)
        if self._network is not None:
            supervisor.start("underlay", self._network.run)
        supervisor.start("mtu", self._follow_mtu)
        supervisor.start("in_sync", self._wait_in_sync)
        for number in range(_LOADERS):
            supervisor.start(f"loader_{number}", self._loader.run)
        supervisor.start("local_ports", self.local_ports.run)
        supervisor.start("interfaces", self._follow_interfaces)
        supervisor.start("binding", self._bind)
        supervisor.start("tunnel_keys", self._collect_keys)
        supervisor.start("upcalls", self.loop.read)
        supervisor.start("decisions", self.loop.decide)
        supervisor.start("timers", self.loop.keep_time)

    async def stop(self) -> None:
        """Let go of the datapath. A persistent one keeps forwarding, and the session stays
        open for the next start; otherwise peers learn at once that this host is gone."""
        if not self.datapath.capabilities.is_persistent:
            await self.keeper.end()
        await self._tables.close()
        await self._interfaces.close()
        await self.datapath.close()

    def overview(self) -> dict[str, Any]:
        """Return what `GET /state` answers."""
        counters = self.decisions.counters
        view = self.decisions.view
        return {
            "hostId": str(self.host.id),
            "hostName": self.host.name,
            "store": "connected" if self.keeper.is_live else "away",
            "datapath": self.datapath.capabilities.name,
            "ports": [
                {
                    "id": str(port.port_id),
                    "interface": port.interface_name,
                    "attached": port.is_attached,
                    "active": port.is_active,
                    "tunnelKey": port.tunnel_key,
                }
                for port in self.binder.ports.values()
            ],
            "peers": sorted({str(route.remote) for route in view.tunnels.values()}),
            "paths": [] if self._network is None else self._network.overview(),
            "counters": {
                "upcalls": counters.upcalls,
                "simulations": counters.simulations,
                "duplicates": counters.duplicates,
                "rejudged": counters.rejudged,
                "slow_path": counters.slow_path,
                "programs": len(self.decisions.programs.table),
                "parked": len(self.decisions.parking),
                "queued": len(self.decisions.queue),
                "unwritten": len(self.outbox),
            },
        }

    # Topology.

    async def _follow_topology(self) -> None:
        await self.topology.run()

    async def _wait_in_sync(self) -> None:
        await self.topology.wait_in_sync()
        self._is_in_sync = True
        self._update_overlay()
        self._may_decide()

    async def _load(self, object_ids: Sequence[ObjectId]) -> None:
        await self.topology.request(object_ids)

    def _objects_in_use(self) -> set[ObjectId]:
        return {
            tag.owner
            for installed in self.decisions.programs.table
            for tag in installed.program.tags
            if tag.kind in _LOADED_KINDS
        }

    def _view_changed(self, view: TopologyView, delta: ViewDelta) -> None:
        before = self.decisions.view
        self.decisions.view = view
        if view.tunnels != before.tunnels:
            self._update_overlay()
        self.soft_state.watch_devices(view.bridges, view.routers)
        devices = frozenset((*view.bridges, *view.routers))
        self._tables.remove(self.soft_state.retain_devices(devices))
        self._watch_new_tables()
        self.decisions.programs.change(delta.tags, delta.regions, delta.urgent)
        self.decisions.release_parked()
        self._may_decide()
        self.loop.wake()
        if self.binder.is_waiting:
            self.binder.wake()

    def _is_visible(self, port_id: PortId) -> bool:
        location = self.decisions.view.locations.get(port_id)
        return location is not None and location.host_id == self.host.id and location.active

    def _update_overlay(self) -> None:
        # Until all peers are known, a persistent datapath keeps those from before the restart.
        if self._is_in_sync:
            if self._network is not None:
                self._network.follow(self.decisions.view.tunnels)
            self._overlay.update(self.decisions.view, self._interfaces.snapshot())

    def _paths_changed(self, interface_names: frozenset[str], mtu_bytes: int) -> None:
        self._overlay.follow_paths(interface_names, mtu_bytes)
        self._update_overlay()

    def _set_underlay_mtu(self, mtu_bytes: int) -> None:
        # The new MTU makes a new view, and this is called while one is taken into effect.
        self._mtu_bytes = mtu_bytes
        self._mtu_changed.set()

    async def _follow_mtu(self) -> None:
        while True:
            await self._mtu_changed.wait()
            self._mtu_changed.clear()
            self.topology.set_underlay_mtu(self._mtu_bytes)
            self._publish()

    def _may_decide(self) -> None:
        """Decide on packets once the ports bound here are attached and in the view."""
        if self.binder.reconciled.is_set() and self._is_in_sync:
            self.loop.may_decide.set()

    # Soft state.

    def _watch_new_tables(self) -> None:
        tables = self.soft_state.take_unwatched()
        if tables:
            self._tables.add(tables)

    async def _follow_tables(self) -> None:
        while True:
            try:
                changes = await self._tables.changes()
            except UnavailableError:
                await self._clock.sleep(_RETRY_S)
                continue
            if not changes:
                return
            for change in changes:
                if isinstance(change, TableChange):
                    self.decisions.facts_changed(self.soft_state.apply(change))
            self.decisions.release_parked()
            self.loop.wake()

    def _written(self, write: StateWrite) -> None:
        self.soft_state.written(write)

    # Ports.

    async def _follow_interfaces(self) -> None:
        while True:
            self.binder.wake()
            self._update_overlay()
            self._publish()
            await self._interfaces.changes()

    async def _bind(self) -> None:
        # A location refers to the host's record.
        await self.keeper.registered.wait()
        await self.binder.run()

    async def _collect_keys(self) -> None:
        while True:
            await self._clock.sleep(_COLLECT_KEYS_S)
            with contextlib.suppress(UnavailableError):
                await self._placement.collect_keys()

    def _reconciled(self) -> None:
        self._publish()
        self._may_decide()

    def _publish(self) -> None:
        self.keeper.publish(
            self._interfaces.snapshot(), overlay_mtu_bytes=self._overlay.overlay_mtu_bytes
        )

    def _bound_names(self) -> frozenset[str]:
        bound = self.local_ports.bound or {}
        return frozenset(port.interface_name for port in bound.values() if port.interface_name)

    def _detached(self, port_id: PortId) -> None:
        decisions = self.decisions
        decisions.programs.forget_port(port_id)
        decisions.queue.drop_port(port_id)
        decisions.facts_changed(decisions.learning.forget_port(port_id))
        urgent = frozenset({device_tag(port_id), location_tag(port_id)})
        decisions.programs.change(frozenset(), urgent=urgent)
