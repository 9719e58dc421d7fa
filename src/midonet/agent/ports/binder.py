"""From bound ports to the datapath: attach, claim the location, deliver, say that it is active.

A reconciler. Desired: the ports that the network state database binds to this host, on the
interfaces that exist. Actual: what the datapath reads back. Each pass brings the actual state to
the desired one; a second pass changes nothing. Before the bound ports have been read completely
nothing is touched, so that a restart takes nothing away.

Order for a new port: claim the location, say that it is active, attach to the datapath once this
host's own view shows it there (other hosts then know it too, so that answers to its first packets
find it), deliver its tunnel key. With the store away a port is attached without waiting. In the
other direction: detach, stop delivering, release the location.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog

from midonet.agent.datapath.protocol import Datapath, PortAttachment
from midonet.agent.host.host_keeper import InterfaceSource
from midonet.agent.ports.bound_ports import LocalPorts
from midonet.agent.ports.placement import Placement
from midonet.errors import ConflictError, DatapathError, UnavailableError, UserError
from midonet.model.devices import Port
from midonet.model.hosts import Interface
from midonet.model.ids import BridgeId, PortId
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle

T = TypeVar("T")

_log = structlog.get_logger("binding")

_RETRY_S = 1.0

_VISIBLE_WITHIN_S = 0.5
"""A port is attached after this time even if the view does not show its location."""


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A port of this host as it is now. tunnel_key: None until its location is claimed."""

    port_id: PortId
    interface_name: str
    is_attached: bool
    is_active: bool
    tunnel_key: int | None


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
        is_visible: Callable[[PortId], bool],
        on_detached: Callable[[PortId], None],
        on_reconciled: Callable[[], None],
    ) -> None:
        """`is_visible` tells whether the view shows a port as active here; `on_detached` is
        called when a port has been detached from the datapath, `on_reconciled` after each
        pass."""
        self.reconciled = asyncio.Event()
        self.ports: Mapping[PortId, LocalPort] = {}
        self._datapath = datapath
        self._interfaces = interfaces
        self._placement = placement
        self._local_ports = local_ports
        self._clock = clock
        self._is_visible = is_visible
        self._on_detached = on_detached
        self._on_reconciled = on_reconciled
        self._throttle = Throttle(clock)
        self._wake = local_ports.changed
        self._active: dict[PortId, bool] = {}
        self._keys: dict[PortId, int] = {}
        self._groups: dict[BridgeId, int] = {}
        self._attach_by_s: dict[PortId, float] = {}
        self._refused: set[PortId] = set()

    @property
    def is_waiting(self) -> bool:
        """Tell whether a port waits to be seen in the view."""
        return bool(self._attach_by_s)

    def wake(self) -> None:
        """Reconcile soon, because interfaces changed."""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile after each change, and again a second later when something failed."""
        is_done = True
        while True:
            try:
                async with asyncio.timeout(self._pause_s(is_done)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            is_done = await self.reconcile()

    def _pause_s(self, is_done: bool) -> float | None:
        if self._attach_by_s:
            return max(0.0, min(self._attach_by_s.values()) - self._clock.now_s())
        return None if is_done else _RETRY_S

    async def reconcile(self) -> bool:
        """Make one pass; False when something has to be tried again."""
        bound = self._local_ports.bound
        if bound is None:
            return True
        interfaces = self._interfaces.snapshot()
        present = {
            port_id: port for port_id, port in bound.items() if port.interface_name in interfaces
        }
        is_done = await self._withdraw(bound, present)
        is_done &= await self._place_all(bound, present, interfaces)
        attached = self._attach(present)
        if self._refused & self._active.keys():
            is_done &= await self._place_all(bound, present, interfaces)
        is_done &= len(attached) == len(present)
        for port_id in attached:
            self._deliver(port_id)
        is_done &= await self._place_groups(attached)
        if is_done:
            self._forget_deliveries()
        self._report(bound, attached)
        self.reconciled.set()
        self._on_reconciled()
        return is_done

    async def _withdraw(self, bound: Mapping[PortId, Port], present: Mapping[PortId, Port]) -> bool:
        """Detach what is not to be attached, and give up the places of unbound ports."""
        for port_id, name in self._datapath.attached().items():
            wanted = present.get(port_id)
            if wanted is None or wanted.interface_name != name:
                self._datapath.detach(port_id)
                self._on_detached(port_id)
                _log.info("port_detached", port_id=str(port_id), interface=name)
        is_done = True
        for port_id in [port_id for port_id in self._keys if port_id not in bound]:
            if await self._try(self._placement.release_port, port_id):
                del self._keys[port_id]
                self._active.pop(port_id, None)
            else:
                is_done = False
        return is_done

    def _attach(self, present: Mapping[PortId, Port]) -> dict[PortId, Port]:
        attached = self._datapath.attached()
        done: dict[PortId, Port] = {}
        for port_id, port in present.items():
            name = port.interface_name or ""
            if attached.get(port_id) != name:
                if not self._may_attach(port_id):
                    continue
                try:
                    self._datapath.attach(PortAttachment(port_id, name))
                except DatapathError as error:
                    self._refused.add(port_id)
                    self._complain("attach_failed", port_id, error)
                    continue
                _log.info("port_attached", port_id=str(port_id), interface=name)
            self._refused.discard(port_id)
            self._attach_by_s.pop(port_id, None)
            done[port_id] = port
        for port_id in self._attach_by_s.keys() - present.keys():
            del self._attach_by_s[port_id]
        self._refused &= present.keys()
        return done

    def _may_attach(self, port_id: PortId) -> bool:
        """Tell whether a port's packets may come: its location is known, or cannot be."""
        if port_id in self._refused or not self._active.get(port_id) or self._is_visible(port_id):
            return True
        now_s = self._clock.now_s()
        return now_s >= self._attach_by_s.setdefault(port_id, now_s + _VISIBLE_WITHIN_S)

    async def _place_all(
        self,
        bound: Mapping[PortId, Port],
        present: Mapping[PortId, Port],
        interfaces: Mapping[str, Interface],
    ) -> bool:
        is_done = True
        for port_id, port in bound.items():
            if port_id in present or port_id in self._keys:
                is_active = _is_up(port, interfaces) and port_id not in self._refused
                is_done &= await self._place(port_id, is_active)
        return is_done

    async def _place(self, port_id: PortId, is_active: bool) -> bool:
        """Claim the location of a port and say whether it is active, when that has changed."""
        if self._active.get(port_id) is is_active:
            return True
        try:
            if port_id not in self._keys:
                self._keys[port_id] = await self._placement.claim_port(port_id)
            if not await self._placement.set_port_active(port_id, is_active=is_active):
                # Another host has claimed the port in between; if it is still bound here, the
                # next pass claims it back.
                del self._keys[port_id]
                return False
        except (UnavailableError, ConflictError, UserError) as error:
            self._complain("claim_failed", port_id, error)
            return False
        self._active[port_id] = is_active
        return True

    def _deliver(self, port_id: PortId) -> None:
        key = self._keys.get(port_id)
        if key is not None and self._datapath.deliveries().get(key) != (port_id,):
            self._datapath.set_delivery(key, (port_id,))

    async def _place_groups(self, attached: Mapping[PortId, Port]) -> bool:
        """Deliver one key for all ports of a bridge here, and drop groups without ports."""
        members: dict[BridgeId, list[PortId]] = {}
        for port_id, port in attached.items():
            if port.bridge_id is not None:
                members.setdefault(port.bridge_id, []).append(port_id)
        is_done = True
        for bridge_id in [bridge_id for bridge_id in self._groups if bridge_id not in members]:
            is_done &= await self._try(self._placement.release_group, bridge_id)
            self._groups.pop(bridge_id)
        for bridge_id, port_ids in members.items():
            if bridge_id not in self._groups:
                try:
                    self._groups[bridge_id] = await self._placement.claim_group(bridge_id)
                except (UnavailableError, ConflictError, UserError) as error:
                    self._complain("flood_group_failed", bridge_id, error)
                    is_done = False
                    continue
            delivery = tuple(sorted(port_ids))
            key = self._groups[bridge_id]
            if self._datapath.deliveries().get(key) != delivery:
                self._datapath.set_delivery(key, delivery)
        return is_done

    def _forget_deliveries(self) -> None:
        wanted = set(self._keys.values()) | set(self._groups.values())
        for key in self._datapath.deliveries():
            if key not in wanted:
                self._datapath.set_delivery(key, ())

    async def _try(self, release: Callable[[T], Awaitable[None]], object_id: T) -> bool:
        """Give something up; False when the store is away and it has to be tried again."""
        try:
            await release(object_id)
        except (UnavailableError, ConflictError) as error:
            self._complain("release_failed", object_id, error)
            return False
        return True

    def _report(self, bound: Mapping[PortId, Port], attached: Mapping[PortId, Port]) -> None:
        self.ports = {
            port_id: LocalPort(
                port_id,
                port.interface_name or "",
                port_id in attached,
                self._active.get(port_id, False),
                self._keys.get(port_id),
            )
            for port_id, port in bound.items()
        }

    def _complain(self, event: str, object_id: object, error: Exception) -> None:
        held_back = self._throttle.allow(f"{event} {object_id}")
        if held_back is not None:
            _log.warning(event, id=str(object_id), error=str(error), held_back=held_back)


def _is_up(port: Port, interfaces: Mapping[str, Interface]) -> bool:
    interface = interfaces.get(port.interface_name or "")
    return interface is not None and interface.is_up and interface.has_link
