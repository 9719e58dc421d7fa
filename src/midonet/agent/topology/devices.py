"""Bridges and routers put together port by port, so that one change costs one port. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar
from uuid import UUID

from midonet.agent.topology.assembly import nat64_view
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

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


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


class _Holders(Generic[K, V]):
    """What several ports may hold under one key: the lowest port id has it, on every host."""

    def __init__(self) -> None:
        self._by_key: dict[K, dict[PortId, V]] = {}
        self._touched: set[K] = set()
        self._frozen: Mapping[K, V] = {}

    def put(self, key: K, port_id: PortId, value: V) -> None:
        """Let a port hold a key."""
        self._by_key.setdefault(key, {})[port_id] = value
        self._touched.add(key)

    def drop(self, key: K, port_id: PortId) -> None:
        """Let a port hold a key no more."""
        held = self._by_key[key]
        del held[port_id]
        if not held:
            del self._by_key[key]
        self._touched.add(key)

    def frozen(self) -> Mapping[K, V]:
        """Return what is held; the same mapping until that changes."""
        if self._touched:
            present = dict(self._frozen)
            for key in self._touched:
                held = self._by_key.get(key)
                if held is None:
                    present.pop(key, None)
                else:
                    present[key] = held[min(held, key=_number)]
            self._frozen = present
            self._touched = set()
        return self._frozen


class _VlanPorts:
    """Ids of ports by their VLAN, those of each in ascending order."""

    def __init__(self) -> None:
        self._vlans: dict[PortId, int] = {}
        self._ports: dict[int, PortList] = {}
        self._frozen: Mapping[int, tuple[PortId, ...]] = {}

    def put(self, port_id: PortId, vlan: int) -> None:
        """Set the VLAN of a port; 0: it has none, or is gone."""
        old = self._vlans.pop(port_id, 0)
        if vlan:
            self._vlans[port_id] = vlan
        if vlan == old:
            return
        present = dict(self._frozen)
        for one, is_member in ((old, False), (vlan, True)):
            if one:
                ports = self._ports.setdefault(one, PortList())
                ports.put(port_id, is_member=is_member)
                present[one] = ports.frozen()
                if not present[one]:
                    del present[one], self._ports[one]
        self._frozen = present

    def frozen(self) -> Mapping[int, tuple[PortId, ...]]:
        """Return the ports; the same mapping until they change."""
        return self._frozen


class BridgeAssembly:
    """The parts of one bridge."""

    def __init__(self) -> None:
        self._flooded = PortList()
        self._linked = PortList()
        self._bridges = PortList()
        self._vlans = _VlanPorts()
        self._attachments: dict[PortId, RouterAttachment] = {}
        self._by_mac: _Holders[tuple[int, int], RouterAttachment] = _Holders()
        self._by_address: _Holders[tuple[int, IpAddress], RouterAttachment] = _Holders()

    def put(
        self, port_id: PortId, port: PortView | None, attachment: RouterAttachment | None
    ) -> None:
        """Set a port of the bridge (None: it is gone) and the router behind it."""
        is_linked = port is not None and port.peer_port_id is not None
        vlan = port.vlan_id if port is not None else 0
        self._flooded.put(port_id, is_member=port is not None and port.host_id is not None)
        self._linked.put(port_id, is_member=is_linked)
        self._bridges.put(port_id, is_member=is_linked and not vlan and attachment is None)
        self._vlans.put(port_id, vlan)
        self._attach(port_id, attachment)

    def _attach(self, port_id: PortId, attachment: RouterAttachment | None) -> None:
        old = self._attachments.get(port_id)
        if old == attachment:
            return
        if old is not None:
            del self._attachments[port_id]
            self._by_mac.drop((old.vlan_id, old.mac), port_id)
            for address in dict.fromkeys(old.addresses):
                self._by_address.drop((old.vlan_id, address), port_id)
        if attachment is not None:
            self._attachments[port_id] = attachment
            self._by_mac.put((attachment.vlan_id, attachment.mac), port_id, attachment)
            for address in attachment.addresses:
                self._by_address.put((attachment.vlan_id, address), port_id, attachment)

    def view(self, bridge: Bridge) -> BridgeView:
        """Return the bridge as it is now."""
        return BridgeView(
            id=bridge.id,
            admin_state_up=bridge.admin_state_up,
            inbound_filter_id=bridge.inbound_filter_id,
            outbound_filter_id=bridge.outbound_filter_id,
            flood_port_ids=self._flooded.frozen(),
            linked_port_ids=self._linked.frozen(),
            vlan_ports=self._vlans.frozen(),
            bridge_port_ids=self._bridges.frozen(),
            attachments=self._by_mac.frozen(),
            attachment_by_address=self._by_address.frozen(),
            mac_ageing_s=bridge.mac_ageing_s,
            inbound_mirror_ids=bridge.inbound_mirror_ids,
            outbound_mirror_ids=bridge.outbound_mirror_ids,
            qos_policy_id=bridge.qos_policy_id,
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
            load_balancer_id=router.load_balancer_id,
            inbound_mirror_ids=router.inbound_mirror_ids,
            outbound_mirror_ids=router.outbound_mirror_ids,
            nat64=nat64_view(router),
        )

    def _is_usable(self, route: RouteView) -> bool:
        port_id = route.next_hop_port_id
        return port_id is None or self._usable.get(port_id, False)


def _number(object_id: UUID) -> int:
    return object_id.int
