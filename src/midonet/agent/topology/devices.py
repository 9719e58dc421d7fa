"""Bridges and routers put together port by port, so that one change costs one port. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from uuid import UUID

from midonet.agent.topology.fib import RoutingTable
from midonet.agent.topology.view import (
    BridgeView,
    PortView,
    RouterAttachment,
    RouterView,
    RouteView,
)
from midonet.model.devices import Bridge, Router
from midonet.model.ids import PortId, RouteId
from midonet.packets.addresses import IpAddress


class PortList:
    """Ids of ports in ascending order."""

    def __init__(self) -> None:
        self._ids: list[PortId] = []
        self._frozen: tuple[PortId, ...] | None = ()

    def put(self, port_id: PortId, *, is_member: bool) -> None:
        """Make a port a member, or make it none."""
        place = bisect_left(self._ids, port_id.int, key=_number)
        was_member = place < len(self._ids) and self._ids[place] == port_id
        if was_member is is_member:
            return
        self._frozen = None
        if is_member:
            insort(self._ids, port_id, key=_number)
        else:
            del self._ids[place]

    def frozen(self) -> tuple[PortId, ...]:
        """Return the members; the same tuple until they change."""
        if self._frozen is None:
            self._frozen = tuple(self._ids)
        return self._frozen


class BridgeAssembly:
    """The parts of one bridge."""

    def __init__(self) -> None:
        self._flooded = PortList()
        self._linked = PortList()
        self._attachments: dict[PortId, RouterAttachment] = {}
        self._by_mac: Mapping[int, RouterAttachment] = {}
        self._by_address: Mapping[IpAddress, RouterAttachment] = {}

    def put(
        self, port_id: PortId, port: PortView | None, attachment: RouterAttachment | None
    ) -> None:
        """Set a port of the bridge (None: it is gone) and the router behind it."""
        self._flooded.put(port_id, is_member=port is not None and port.host_id is not None)
        self._linked.put(port_id, is_member=port is not None and port.peer_port_id is not None)
        if self._attachments.get(port_id) == attachment:
            return
        if attachment is None:
            del self._attachments[port_id]
        else:
            self._attachments[port_id] = attachment
        by_mac: dict[int, RouterAttachment] = {}
        by_address: dict[IpAddress, RouterAttachment] = {}
        # Two routers with one MAC or address: the lowest port id holds it, on every host.
        for key in sorted(self._attachments, key=_number):
            attached = self._attachments[key]
            by_mac.setdefault(attached.mac, attached)
            for address in attached.addresses:
                by_address.setdefault(address, attached)
        self._by_mac = by_mac
        self._by_address = by_address

    def view(self, bridge: Bridge) -> BridgeView:
        """Return the bridge as it is now."""
        return BridgeView(
            id=bridge.id,
            admin_state_up=bridge.admin_state_up,
            inbound_filter_id=bridge.inbound_filter_id,
            outbound_filter_id=bridge.outbound_filter_id,
            flood_port_ids=self._flooded.frozen(),
            linked_port_ids=self._linked.frozen(),
            attachments=self._by_mac,
            attachment_by_address=self._by_address,
            mac_ageing_s=bridge.mac_ageing_s,
        )


class RouterAssembly:
    """The parts of one router.

    unread: ids of routes whose stored record has changed and is not taken over yet.
    """

    def __init__(self) -> None:
        self._ports = PortList()
        self._routes: dict[RouteId, RouteView] = {}
        self._by_port: dict[PortId, set[RouteId]] = {}
        self._fib = RoutingTable()
        self._stale: set[RouteId] = set()
        self._usable: dict[PortId, bool] = {}
        self.unread: set[RouteId] = set()

    def put_port(self, port_id: PortId, *, is_present: bool, is_usable: bool) -> None:
        """Set a port of the router, and whether routes may use it."""
        self._ports.put(port_id, is_member=is_present)
        if self._usable.get(port_id, False) is is_usable:
            return
        if is_usable:
            self._usable[port_id] = True
        else:
            del self._usable[port_id]
        self._stale.update(self._by_port.get(port_id, ()))

    def put_route(self, route_id: RouteId, route: RouteView | None) -> None:
        """Set a route of the router (None: it is gone)."""
        old = self._routes.pop(route_id, None)
        if old is not None and old.next_hop_port_id is not None:
            users = self._by_port[old.next_hop_port_id]
            users.discard(route_id)
            if not users:
                del self._by_port[old.next_hop_port_id]
        if route is not None:
            self._routes[route_id] = route
            if route.next_hop_port_id is not None:
                self._by_port.setdefault(route.next_hop_port_id, set()).add(route_id)
        self._stale.add(route_id)

    def view(self, router: Router) -> RouterView:
        """Return the router as it is now."""
        if self._stale:
            usable = [route for route in map(self._routes.get, self._stale) if route is not None]
            added = [route for route in usable if self._is_usable(route)]
            self._fib = self._fib.updated(removed=self._stale, added=added)
            self._stale = set()
        return RouterView(
            id=router.id,
            fib=self._fib,
            admin_state_up=router.admin_state_up,
            inbound_filter_id=router.inbound_filter_id,
            outbound_filter_id=router.outbound_filter_id,
            port_ids=self._ports.frozen(),
        )

    def _is_usable(self, route: RouteView) -> bool:
        port_id = route.next_hop_port_id
        return port_id is None or self._usable.get(port_id, False)


def _number(object_id: UUID) -> int:
    return object_id.int
