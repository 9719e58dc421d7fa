"""From bound ports to the datapath: attach, claim the location, deliver, say that it is active.

A reconciler. Desired: the ports that the network state database binds to this host, on the
interfaces that exist. Actual: what the datapath reads back. Each pass brings the actual state to
the desired one; a second pass changes nothing. Before the bound ports have been read completely
nothing is touched, so that a restart takes nothing away.

Order for a new port: attach to the datapath, claim the location, deliver its tunnel key. In the
other direction: stop delivering, detach, release the location.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog

from midonet.agent.datapath.protocol import Datapath, PortAttachment
from midonet.agent.hosting import InterfaceSource
from midonet.agent.local_ports import LocalPorts
from midonet.agent.placement import Placement
from midonet.errors import ConflictError, DatapathError, UnavailableError, UserError
from midonet.model.devices import Port
from midonet.model.hosts import Interface
from midonet.model.ids import BridgeId, PortId
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle

T = TypeVar("T")

_log = structlog.get_logger("binding")

_RETRY_S = 1.0


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
        self._on_detached = on_detached
        self._on_reconciled = on_reconciled
        self._throttle = Throttle(clock)
        self._wake = local_ports.changed
        self._active: dict[PortId, bool] = {}
        self._keys: dict[PortId, int] = {}
        self._groups: dict[BridgeId, int] = {}

    def wake(self) -> None:
        """Reconcile soon, because interfaces changed."""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile after each change, and again a second later when something failed."""
        is_done = True
        while True:
            try:
                async with asyncio.timeout(None if is_done else _RETRY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            is_done = await self.reconcile()

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
        attached = self._attach(present)
        is_done &= len(attached) == len(present)
        for port_id, port in bound.items():
            is_active = port_id in attached and _is_up(port, interfaces)
            if port_id in attached or port_id in self._keys:
                is_done &= await self._place(port_id, is_active)
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
                try:
                    self._datapath.attach(PortAttachment(port_id, name))
                except DatapathError as error:
                    self._complain("attach_failed", port_id, error)
                    continue
                _log.info("port_attached", port_id=str(port_id), interface=name)
            done[port_id] = port
        return done

    async def _place(self, port_id: PortId, is_active: bool) -> bool:
        """Claim the location of a port and deliver its key, when that has changed."""
        if self._active.get(port_id) is is_active:
            return True
        try:
            key = self._keys.get(port_id)
            if key is None:
                key = self._keys[port_id] = await self._placement.claim_port(port_id)
            self._datapath.set_delivery(key, (port_id,))
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
