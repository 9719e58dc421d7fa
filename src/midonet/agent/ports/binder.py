"""From bound ports to the datapath: claim the location, say that it is active, deliver, attach.

A reconciler. Desired: the ports that the network state database binds to this host, on the
interfaces that exist. Actual: what the datapath holds, and what the database records of this
host. Each pass brings the actual state to the desired one; a second pass changes nothing. Both
halves are read back: the datapath in each pass, the database at the start, after each failure,
and wherever the view of this host shows something else than was recorded last. Before the bound
ports have been read completely nothing is touched, so that a restart takes nothing away.

Order for a new port: keep its interface from the host's own stack; claim its location, say that
it is active, and claim the flood group of its bridge here; wait until this host's own view shows
the location (other hosts then know it too); admit it, and deliver the tunnel keys of both to it;
attach it. Its packets come in while the kernel still carries that out, and whoever gets the first
asks for its sender by a broadcast, which is repeated only after a second: the whole way back must
be there before. With the store away a port is attached without waiting. In the other direction:
detach, stop delivering, release the location; the interface stays closed.

A pass costs with the number of ports, a change in it with what changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import structlog

from midonet.agent.datapath.protocol import Datapath, PortAttachment
from midonet.agent.flows.tags import TagKind
from midonet.agent.host.host_keeper import InterfaceSource
from midonet.agent.ports.bound_ports import LocalPorts
from midonet.agent.ports.placement import Place, Placement
from midonet.agent.ports.retrying import Retries
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.errors import (
    ConflictError,
    DatapathError,
    DecodeError,
    MidoNetError,
    UnavailableError,
    UserError,
)
from midonet.model.devices import Port
from midonet.model.hosts import Interface
from midonet.model.ids import BridgeId, HostId, ObjectId, PortId
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle
from midonet.runtime.waiting import wait_at_most

T = TypeVar("T")

_log = structlog.get_logger("binding")

_VISIBLE_WITHIN_S = 0.5
"""A port is attached after this time even if the view does not show its location."""

_GROUPS_AT_ONCE = 32
"""Flood groups claimed at a time; the store commits together what comes together."""

_REFUSALS = (ConflictError, UserError, DecodeError)


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A port of this host as it is now. tunnel_key: None until its location is claimed."""

    port_id: PortId
    interface_name: str
    is_attached: bool
    is_active: bool
    tunnel_key: int | None


@dataclass(frozen=True, slots=True)
class SeenPlaces:
    """What the view shows of this host's ports and flood groups; None: that it has none.

    port: its place here. group: the tunnel key of a bridge's flood group here.
    """

    port: Callable[[PortId], Place | None]
    group: Callable[[BridgeId], int | None]


def seen_in(view: Callable[[], TopologyView], host_id: HostId) -> SeenPlaces:
    """Return what the present view shows of a host's places."""

    def port(port_id: PortId) -> Place | None:
        location = view().locations.get(port_id)
        if location is None or location.host_id != host_id:
            return None
        return Place(location.tunnel_key, location.active)

    return SeenPlaces(port, lambda bridge_id: view().flood_groups.get((host_id, bridge_id)))


def _takes_any_flood(port: Port) -> bool:
    """Tell whether a port takes whatever is flooded to its bridge on this host.

    Who sends leaves the group out when a port of it does not, but who has not yet seen that port,
    or its filter, sends all the same.
    """
    return port.admin_state_up and port.outbound_filter_id is None and not port.vlan_id


def places_changed(delta: ViewDelta) -> set[ObjectId]:
    """Return the ports and bridges of whose places a new view shows something else."""
    changed: set[ObjectId] = set()
    for tag in delta.tags:
        if tag.kind is TagKind.LOCATION:
            changed.add(tag.owner)
        elif tag.kind is TagKind.FLOOD_GROUP and isinstance(tag.element, UUID):
            changed |= {tag.owner, tag.element}
    return changed


class PortBinder:
    """Reconciles the ports of this host."""

    def __init__(
        self,
        datapath: Datapath,
        interfaces: InterfaceSource,
        placement: Placement,
        local_ports: LocalPorts,
        clock: Clock,
        *,
        seen: SeenPlaces,
        on_detached: Callable[[PortId], None],
        on_reconciled: Callable[[], None],
    ) -> None:
        """`on_detached` is called when a port has been detached from the datapath,
        `on_reconciled` after each pass."""
        self.reconciled = asyncio.Event()
        self.ports: Mapping[PortId, LocalPort] = {}
        self._datapath = datapath
        self._interfaces = interfaces
        self._placement = placement
        self._local_ports = local_ports
        self._clock = clock
        self._seen = seen
        self._on_detached = on_detached
        self._on_reconciled = on_reconciled
        self._throttle = Throttle(clock)
        self._wake = local_ports.changed
        self._places: dict[PortId, Place] = {}
        self._groups: dict[BridgeId, int] = {}
        self._is_read = False
        self._attach_by_s: dict[PortId, float] = {}
        self._refused: set[PortId] = set()
        self._retries = Retries(clock)

    @property
    def is_waiting(self) -> bool:
        """Tell whether a port waits to be seen in the view."""
        return bool(self._attach_by_s)

    def wake(self) -> None:
        """Reconcile soon, because interfaces changed."""
        self._wake.set()

    def look(self, changed: Collection[ObjectId]) -> None:
        """Take note that the view shows something else of these ports or bridges."""
        if self._attach_by_s or any(one in self._places or one in self._groups for one in changed):
            self._wake.set()

    async def run(self) -> None:
        """Reconcile at once, after each change, and after a pause when something failed."""
        while True:
            self._wake.clear()
            await self.reconcile()
            await wait_at_most(self._wake, self._clock, self._pause_s())

    def _pause_s(self) -> float | None:
        due_s = [*self._attach_by_s.values(), *self._retries.due_s()]
        return max(0.0, min(due_s) - self._clock.now_s()) if due_s else None

    async def reconcile(self) -> bool:
        """Make one pass; False when something has to be tried again."""
        bound = self._local_ports.bound
        if bound is None:
            return True
        interfaces = self._interfaces.snapshot()
        present = {
            port_id: port for port_id, port in bound.items() if port.interface_name in interfaces
        }
        self._enclose(present)
        self._retries.begin()
        await self._read_places()
        await self._withdraw(bound, present)
        await asyncio.gather(
            self._place_all(bound, present, interfaces), self._claim_groups(self._wanted(present))
        )
        deliveries = dict(self._datapath.deliveries())
        refused = set(self._refused)
        attached = await self._attach(present, deliveries)
        if self._refused != refused:
            # A port is active only while it is attached.
            await self._place_all(bound, present, interfaces)
        await self._place_groups(present, attached, deliveries)
        if self._is_read and self._places.keys() >= present.keys():
            self._forget_deliveries(deliveries)
        self._retries.end()
        self._report(bound, attached)
        self.reconciled.set()
        self._on_reconciled()
        return not self._retries and len(attached) == len(present)

    def _enclose(self, present: Mapping[PortId, Port]) -> None:
        """Keep what a workload sends from the host's stack, before anything else is known.

        What stands in the way is said when the port is attached.
        """
        names = {port.interface_name or "" for port in present.values()}
        self._datapath.enclose(names - set(self._datapath.attached().values()))

    # What the database records.

    async def _read_places(self) -> None:
        """Read back what is recorded of this host, at the start and after a failure."""
        if self._is_read or not self._retries.may_try("read"):
            return
        try:
            recorded = await self._placement.read()
        except UnavailableError as error:
            self._fail("read", "places_not_read", error)
            return
        self._retries.succeeded("read")
        self._places, self._groups = dict(recorded.ports), dict(recorded.groups)
        self._is_read = True

    async def _place_all(
        self,
        bound: Mapping[PortId, Port],
        present: Mapping[PortId, Port],
        interfaces: Mapping[str, Interface],
    ) -> None:
        """Claim the locations of ports and say whether they are active, where that has changed
        or the view shows something else."""
        wanted: dict[PortId, bool] = {}
        for port_id, port in bound.items():
            place = self._places.get(port_id)
            if port_id in present or place is not None:
                is_active = _is_up(port, interfaces) and port_id not in self._refused
                is_settled = (
                    place is not None
                    and place.is_active is is_active
                    and self._seen.port(port_id) == place
                )
                if not is_settled and self._retries.may_try(("place", port_id)):
                    wanted[port_id] = is_active
        if not wanted:
            return
        try:
            done = await self._placement.place(wanted)
        except UnavailableError as error:
            self._is_read = False
            for port_id in wanted:
                self._fail(("place", port_id), "claim_failed", error)
            return
        for port_id, place_or_error in done.items():
            if isinstance(place_or_error, MidoNetError):
                # Another host's, or gone: what was known of it does not hold.
                self._places.pop(port_id, None)
                self._fail(("place", port_id), "claim_failed", place_or_error)
            else:
                self._places[port_id] = place_or_error
                self._retries.succeeded(("place", port_id))

    async def _withdraw(self, bound: Mapping[PortId, Port], present: Mapping[PortId, Port]) -> None:
        """Detach what is not to be attached, and give up the places of unbound ports."""
        for port_id, name in self._datapath.attached().items():
            wanted = present.get(port_id)
            if wanted is None or wanted.interface_name != name:
                await self._datapath.disconnect(port_id)
                self._on_detached(port_id)
                self._retries.hurry()  # another port may wait for the interface
                _log.info("port_detached", port_id=str(port_id), interface=name)
        for port_id in [port_id for port_id in self._places if port_id not in bound]:
            if await self._try("release", self._placement.release_port, port_id):
                del self._places[port_id]

    def _wanted(self, present: Mapping[PortId, Port]) -> set[BridgeId]:
        """Return the bridges that have ports here, but for ports that the datapath refused."""
        return {
            port.bridge_id
            for port in present.values()
            if port.bridge_id is not None and port.id not in self._refused
        }

    async def _claim_groups(self, bridge_ids: Collection[BridgeId]) -> None:
        """Claim the flood groups that the view does not show as they are recorded."""
        wanted = [bridge_id for bridge_id in bridge_ids if not self._is_claimed(bridge_id)]
        for start in range(0, len(wanted), _GROUPS_AT_ONCE):
            chunk = wanted[start : start + _GROUPS_AT_ONCE]
            await asyncio.gather(*(self._claim_group(bridge_id) for bridge_id in chunk))

    def _is_claimed(self, bridge_id: BridgeId) -> bool:
        key = self._groups.get(bridge_id)
        return key is not None and self._seen.group(bridge_id) == key

    async def _claim_group(self, bridge_id: BridgeId) -> None:
        retry = ("group", bridge_id)
        if not self._retries.may_try(retry):
            return
        try:
            self._groups[bridge_id] = await self._placement.claim_group(bridge_id)
            self._retries.succeeded(retry)
        except UnavailableError as error:
            self._is_read = False
            self._fail(retry, "flood_group_failed", error)
        except _REFUSALS as error:
            self._groups.pop(bridge_id, None)
            self._fail(retry, "flood_group_failed", error)

    async def _place_groups(
        self,
        present: Mapping[PortId, Port],
        attached: Mapping[PortId, Port],
        deliveries: dict[int, tuple[PortId, ...]],
    ) -> None:
        """Deliver the key of each bridge to its attached ports, and drop groups without ports."""
        wanted = self._wanted(present)
        members: dict[BridgeId, list[PortId]] = {}
        for port_id, port in attached.items():
            if port.bridge_id is not None:
                taking = members.setdefault(port.bridge_id, [])
                if _takes_any_flood(port):
                    taking.append(port_id)
        for bridge_id in [bridge_id for bridge_id in self._groups if bridge_id not in wanted]:
            if await self._try("release", self._placement.release_group, bridge_id):
                del self._groups[bridge_id]
        # A port that was refused before and is attached now brings its bridge only here.
        await self._claim_groups([one for one in members if one not in self._groups])
        for bridge_id, port_ids in members.items():
            key = self._groups.get(bridge_id)
            if key is not None:
                self._deliver(key, tuple(sorted(port_ids)), deliveries)

    async def _try(self, what: str, release: Callable[[T], Awaitable[None]], object_id: T) -> bool:
        """Give something up; False when it has to be tried again."""
        retry = (what, object_id)
        if not self._retries.may_try(retry):
            return False
        try:
            await release(object_id)
        except (UnavailableError, *_REFUSALS) as error:
            self._fail(retry, "release_failed", error)
            return False
        self._retries.succeeded(retry)
        return True

    # What the datapath holds.

    async def _attach(
        self, present: Mapping[PortId, Port], deliveries: dict[int, tuple[PortId, ...]]
    ) -> dict[PortId, Port]:
        attached = self._datapath.attached()
        done = {
            port_id: port
            for port_id, port in present.items()
            if attached.get(port_id) == port.interface_name
        }
        coming = [port for port in present.values() if port.id not in done]
        coming = self._admit([port for port in coming if self._may_attach(port)])
        for port in (*done.values(), *coming):
            place = self._places.get(port.id)
            if place is not None:
                self._deliver(place.tunnel_key, (port.id,), deliveries)
        self._join_groups(coming, attached, deliveries)
        for port in coming:
            if await self._connect(port):
                done[port.id] = port
            elif port.id in self._places:
                self._deliver(self._places[port.id].tunnel_key, (), deliveries)
        self._refused -= done.keys()
        self._refused &= present.keys()
        for port_id in self._attach_by_s.keys() - (present.keys() - done.keys()):
            del self._attach_by_s[port_id]
        return done

    def _admit(self, ports: Collection[Port]) -> list[Port]:
        """Let packets be delivered to ports, before any key says that they are: until then, while
        another version's programs are asked, those know better. Return those that may be."""
        wanted = [PortAttachment(port.id, port.interface_name or "") for port in ports]
        refused = self._datapath.admit(wanted)
        for port in ports:
            error = refused.get(port.id)
            if error is not None:
                self._refuse(port, error)
        return [port for port in ports if port.id not in refused]

    def _join_groups(
        self,
        coming: Collection[Port],
        attached: Mapping[PortId, str],
        deliveries: dict[int, tuple[PortId, ...]],
    ) -> None:
        """Let ports have what is flooded to this host before they are attached."""
        joining: dict[int, set[PortId]] = {}
        for port in coming:
            key = self._groups.get(port.bridge_id) if port.bridge_id is not None else None
            if key is not None and _takes_any_flood(port):
                joining.setdefault(key, set()).add(port.id)
        for key, port_ids in joining.items():
            port_ids.update(one for one in deliveries.get(key, ()) if one in attached)
            self._deliver(key, tuple(sorted(port_ids)), deliveries)

    async def _connect(self, port: Port) -> bool:
        name = port.interface_name or ""
        retry = ("attach", port.id, name)
        self._attach_by_s.pop(port.id, None)
        try:
            await self._datapath.connect(PortAttachment(port.id, name))
        except DatapathError as error:
            self._refuse(port, error)
            return False
        self._retries.succeeded(retry)
        _log.info("port_attached", port_id=str(port.id), interface=name)
        return True

    def _refuse(self, port: Port, error: DatapathError) -> None:
        self._attach_by_s.pop(port.id, None)
        self._refused.add(port.id)
        self._fail(("attach", port.id, port.interface_name or ""), "attach_failed", error)

    def _may_attach(self, port: Port) -> bool:
        """Tell whether a port's packets may come: its location is known, or cannot be."""
        if not self._retries.may_try(("attach", port.id, port.interface_name or "")):
            return False
        place = self._places.get(port.id)
        if port.id in self._refused or place is None or not place.is_active:
            return True
        seen = self._seen.port(port.id)
        if seen is not None and seen.is_active:
            return True
        now_s = self._clock.now_s()
        return now_s >= self._attach_by_s.setdefault(port.id, now_s + _VISIBLE_WITHIN_S)

    def _deliver(
        self,
        key: int,
        port_ids: tuple[PortId, ...],
        deliveries: dict[int, tuple[PortId, ...]],
    ) -> None:
        """Have a key delivered to these ports. deliveries: what is held, kept up to date."""
        if deliveries.get(key, ()) == port_ids or not self._retries.may_try(("deliver", key)):
            return
        try:
            self._datapath.set_delivery(key, port_ids)
        except DatapathError as error:
            self._fail(("deliver", key), "delivery_failed", error)
        else:
            self._retries.succeeded(("deliver", key))
            deliveries[key] = port_ids

    def _forget_deliveries(self, deliveries: dict[int, tuple[PortId, ...]]) -> None:
        wanted = {place.tunnel_key for place in self._places.values()}
        wanted.update(self._groups.values())
        for key in [key for key in deliveries if key not in wanted]:
            self._deliver(key, (), deliveries)

    # What people and other passes are told.

    def _report(self, bound: Mapping[PortId, Port], attached: Mapping[PortId, Port]) -> None:
        places = self._places
        self.ports = {
            port_id: LocalPort(
                port_id,
                port.interface_name or "",
                port_id in attached,
                port_id in places and places[port_id].is_active,
                places[port_id].tunnel_key if port_id in places else None,
            )
            for port_id, port in bound.items()
        }

    def _fail(self, retry: Hashable, event: str, error: Exception) -> None:
        is_away = isinstance(error, UnavailableError)
        self._retries.failed(retry, is_away=is_away)
        held_back = self._throttle.allow(event if is_away else f"{event} {retry}")
        if held_back is not None:
            _log.warning(event, what=str(retry), error=str(error), held_back=held_back)


def _is_up(port: Port, interfaces: Mapping[str, Interface]) -> bool:
    interface = interfaces.get(port.interface_name or "")
    return interface is not None and interface.is_up and interface.has_link
