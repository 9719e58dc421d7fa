"""Decides which stored versions are visible, and puts them into the draft. Pure.

A version becomes visible together with what it refers to: until its filter chains (with their
rules, the chains they jump to and the groups they name), its own groups, its location, the record
of its peer and its load balancer are known, the version before it stays. A chain whose deletion
is seen before its users' is kept likewise. What is still held after the caller's grace is
*settled*: an answered but missing referent is then absent, and what needs it fails closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from midonet.agent.topology.assembly import (
    chain_view,
    location_view,
    may_carry,
    overlay_mtu,
    port_view,
    route_view,
    router_attachment,
    tunnel_route,
)
from midonet.agent.topology.balancers import VisibleBalancers
from midonet.agent.topology.closure import REQUESTED_KINDS, TRACKED_KINDS, filters_of
from midonet.agent.topology.devices import BridgeAssembly, RouterAssembly
from midonet.agent.topology.dhcp_assembly import VisibleDhcp
from midonet.agent.topology.draft import ViewDraft
from midonet.agent.topology.facts import (
    ALL_ZONE_HOSTS,
    Facts,
    MissingMember,
    flood_groups_of,
    rules_of,
)
from midonet.agent.topology.groups import VisibleGroups
from midonet.agent.topology.policies import VisiblePolicies
from midonet.agent.topology.tracker import Dirty, Tracker
from midonet.agent.topology.underlay_addresses import UnderlayAddresses
from midonet.agent.topology.view import (
    ChainView,
    Location,
    PortView,
    RouterAttachment,
    RouteView,
    TunnelRoute,
)
from midonet.errors import DecodeError
from midonet.model.chains import Chain, Rule
from midonet.model.coordination import CLUSTER_SETTINGS_ID, MAC_AGEING_S, ClusterSettings
from midonet.model.devices import Bridge, Port, Route, Router
from midonet.model.groups import PortGroup
from midonet.model.hosts import FloodGroup, PortLocation, TunnelZone, TunnelZoneHost
from midonet.model.ids import BridgeId, ChainId, HostId, LoadBalancerId, ObjectId, PortId, RouterId
from midonet.model.load_balancer import LoadBalancer
from midonet.nsdb.store import Referrers
from midonet.packets.addresses import IpAddress, parse_ip

_Filtered = Port | Bridge | Router


class Visibility:
    """Visible versions and what waits to become visible.

    waiting: ids by kind whose newest version is held back.
    undecodable: objects that cannot be understood, with the reason; they count as missing.
    """

    def __init__(self, tracker: Tracker, draft: ViewDraft, underlay_mtu_bytes: int) -> None:
        self._tracker = tracker
        self._facts: Facts = tracker.facts
        self._draft = draft
        self.underlay_mtu_bytes = underlay_mtu_bytes
        self.waiting: dict[type, set[ObjectId]] = {kind: set() for kind in TRACKED_KINDS}
        self.undecodable: dict[ObjectId, str] = {}
        self._named_groups = VisibleGroups(self._facts, draft, self.undecodable)
        self._dhcp = VisibleDhcp(self._facts, draft, self.undecodable)
        self._balancers = VisibleBalancers(
            self._facts, draft, self.waiting[LoadBalancer], self.undecodable
        )
        self._policies = VisiblePolicies(tracker, draft)
        self._retiring: set[ChainId] = set()
        self._users: dict[ChainId, set[ObjectId]] = {}
        self._blocked: dict[ChainId, set[PortId]] = {}
        self._unblocked: set[PortId] = set()
        self._uses: dict[ObjectId, frozenset[ChainId]] = {}
        self._bridges: dict[BridgeId, BridgeAssembly] = {}
        self._routers: dict[RouterId, RouterAssembly] = {}
        self._dirty_bridges: set[ObjectId] = set()
        self._dirty_routers: set[ObjectId] = set()
        self._located: dict[HostId, set[PortId]] = {}
        self._groups: dict[ObjectId, tuple[HostId, BridgeId]] = {}

    @property
    def is_holding(self) -> bool:
        """Tell whether something waits to become visible, or to go."""
        return bool(self._retiring) or self._named_groups.is_holding or any(self.waiting.values())

    def advance(self, dirty: Dirty, *, settle: bool) -> None:
        """Make visible what can be. settle: wait no longer for referents that do not exist."""
        self._named_groups.advance(dirty)
        self._chains(dirty.objects[Chain] | self.waiting[Chain], settle)
        # A port whose record, location or peer was answered is dirty; else only a chain helps.
        unblocked, self._unblocked = self._unblocked, set()
        for object_id in dirty.objects[Port] | unblocked:
            self._port(PortId(object_id))
        for host_id in dirty.hosts:
            for port_id in self._located.get(host_id, ()):
                self._router_port(port_id)
        for router_id, route_ids in dirty.routes.items():
            if router_id in self._tracker.tracked[Router]:
                self._router_assembly(router_id).unread |= route_ids
                self._dirty_routers.add(router_id)
        balancer_ids = dirty.objects[LoadBalancer] | self.waiting[LoadBalancer]
        self._balancers.advance(balancer_ids & self._tracker.tracked[LoadBalancer], settle=settle)
        bridge_ids = dirty.objects[Bridge] | self.waiting[Bridge] | self._dirty_bridges
        router_ids = dirty.objects[Router] | self.waiting[Router] | self._dirty_routers
        self._dirty_bridges, self._dirty_routers = set(), set()
        for object_id in bridge_ids:
            self._bridge(BridgeId(object_id))
        for object_id in router_ids:
            self._router(RouterId(object_id), settle)
        self._retire(settle)
        self._named_groups.retire(settle=settle)
        self._balancers.retire(settle=settle)
        self._policies.advance(dirty)
        for object_id in dirty.groups:
            self._flood_group(object_id)
        self._dhcp.advance(dirty.dhcp)
        if dirty.tunnels:
            self._tunnels()
        if dirty.settings:
            settings = self._facts.get(ClusterSettings, CLUSTER_SETTINGS_ID)
            self._draft.mac_ageing_s = settings.mac_ageing_s if settings else MAC_AGEING_S
        for object_id in dirty.requested:
            self._requested(object_id)

    def forget(self, forgotten: dict[type, set[ObjectId]]) -> None:
        """Take objects out that are tracked no more."""
        for kind in TRACKED_KINDS:
            self.waiting[kind] -= forgotten[kind]
            for object_id in forgotten[kind]:
                self._use(object_id, ())
                self._draft.absent.put(object_id, None)
                self.undecodable.pop(object_id, None)
        for object_id in forgotten[Chain]:
            self._draft.chains.put(ChainId(object_id), None)
            self._named_groups.use(ChainId(object_id), ())
            self._blocked.pop(ChainId(object_id), None)
            self._retiring.discard(ChainId(object_id))
        for object_id in forgotten[Port]:
            self._show_port(PortId(object_id), None)
        for object_id in forgotten[Bridge]:
            self._draft.bridges.put(BridgeId(object_id), None)
            self._bridges.pop(BridgeId(object_id), None)
        for object_id in forgotten[Router]:
            self._draft.routers.put(RouterId(object_id), None)
            self._routers.pop(RouterId(object_id), None)
            self._balancers.use(RouterId(object_id), None)
        for object_id in forgotten[LoadBalancer]:
            self._balancers.forget(LoadBalancerId(object_id))
        self._named_groups.forget_unwatched()
        self._policies.forget(forgotten)
        self._dhcp.forget_unwatched()
        gone = [group for group in self._groups if self._facts.get(FloodGroup, group) is None]
        for group_id in gone:
            self._flood_group(group_id)

    # Chains.

    def _chains(self, chain_ids: Iterable[ObjectId], settle: bool) -> None:
        ready: dict[ChainId, ChainView] = {}
        for object_id in chain_ids:
            chain_id = ChainId(object_id)
            if chain_id not in self._tracker.tracked[Chain]:
                continue
            self.waiting[Chain].discard(chain_id)
            self._retiring.discard(chain_id)
            view = self._assemble_chain(chain_id, settle)
            if view is not None:
                ready[chain_id] = view
        # Chains that jump in circles become visible together: start from all, take away.
        while held := [one for one, view in ready.items() if not self._may_show(view, ready)]:
            for chain_id in held:
                del ready[chain_id]
                self.waiting[Chain].add(chain_id)
        for chain_id, view in ready.items():
            self._draft.chains.put(chain_id, view)
            self._draft.absent.put(chain_id, None)
            self._unblocked |= self._blocked.pop(chain_id, set())
            self._use(chain_id, _jumps(view))
            self._named_groups.use(chain_id, view.rules)

    def _may_show(self, view: ChainView, ready: dict[ChainId, ChainView]) -> bool:
        return all(target in ready or self._is_chain_known(target) for target in _jumps(view))

    def _assemble_chain(self, chain_id: ChainId, settle: bool) -> ChainView | None:
        """Return a chain that is complete; else note why it waits, goes or is absent."""
        facts = self._facts
        chain, rule_ids = facts.get(Chain, chain_id), facts.ids(rules_of(chain_id))
        if chain is None and facts.is_answered(Chain, chain_id):
            if chain_id in self._draft.chains:
                self._retiring.add(chain_id)
            else:
                self._miss_chain(chain_id, settle)
        elif chain is None or rule_ids is None:
            self.waiting[Chain].add(chain_id)
        else:
            rules = facts.members(Rule, rule_ids)
            if rules is MissingMember.ABSENT:
                self._miss_chain(chain_id, settle)
            elif rules is MissingMember.UNKNOWN or not self._named_groups.are_known(
                rule.condition for rule in rules
            ):
                self.waiting[Chain].add(chain_id)
            else:
                return chain_view(chain.id, rules, self._draft.chains.get(chain_id))
        return None

    def _miss_chain(self, chain_id: ChainId, settle: bool) -> None:
        """Wait for a chain that is not there, or lacks a rule; drop it when that is settled."""
        if chain_id in self._draft.absent:
            return
        if settle:
            self._drop_chain(chain_id)
        else:
            self.waiting[Chain].add(chain_id)

    def _retire(self, settle: bool) -> None:
        """Let go of deleted chains that nothing visible uses any more."""
        for chain_id in list(self._retiring):
            if settle or self._users.get(chain_id, set()) <= self._retiring:
                self._drop_chain(chain_id)

    def _drop_chain(self, chain_id: ChainId) -> None:
        self._retiring.discard(chain_id)
        self._draft.chains.put(chain_id, None)
        self._draft.absent.put(chain_id, True)
        self._unblocked |= self._blocked.pop(chain_id, set())
        self._use(chain_id, ())
        self._named_groups.use(chain_id, ())

    def _is_chain_known(self, chain_id: ChainId | None) -> bool:
        return chain_id is None or chain_id in self._draft.chains or chain_id in self._draft.absent

    def _use(self, user_id: ObjectId, chain_ids: Iterable[ChainId | None]) -> None:
        """Note which chains a visible object uses."""
        new = frozenset(chain_id for chain_id in chain_ids if chain_id is not None)
        old = self._uses.get(user_id, frozenset())
        if new == old:
            return
        self._uses[user_id] = new
        if not new:
            del self._uses[user_id]
        for chain_id in old - new:
            users = self._users[chain_id]
            users.discard(user_id)
            if not users:
                del self._users[chain_id]
        for chain_id in new - old:
            self._users.setdefault(chain_id, set()).add(user_id)

    def _are_filters_known(self, device: _Filtered) -> bool:
        return self._is_chain_known(device.inbound_filter_id) and self._is_chain_known(
            device.outbound_filter_id
        )

    # Ports.

    def _port(self, port_id: PortId) -> None:
        facts = self._facts
        if port_id not in self._tracker.tracked[Port]:
            return
        port = facts.get(Port, port_id)
        if not facts.is_answered(Port, port_id) or (
            port is not None and not self._is_port_complete(port)
        ):
            self.waiting[Port].add(port_id)
            return
        self.waiting[Port].discard(port_id)
        view = None
        if port is not None:
            try:
                view = port_view(port, self._groups_of(port))
                self.undecodable.pop(port_id, None)
            except DecodeError as error:
                self.undecodable[port_id] = str(error)
        self._draft.absent.put(port_id, True if view is None else None)
        self._use(port_id, () if view is None else filters_of(view))
        self._show_port(port_id, view)

    def _groups_of(self, port: Port) -> list[PortGroup]:
        found = (self._facts.get(PortGroup, one) for one in port.port_group_ids)
        return [group for group in found if group is not None]

    def _is_port_complete(self, port: Port) -> bool:
        facts = self._facts
        if not all(facts.is_answered(PortGroup, one) for one in port.port_group_ids):
            return False
        if port.host_id is not None and not facts.is_answered(PortLocation, port.id):
            return False
        if (
            port.bridge_id is not None
            and port.peer_port_id is not None
            and not facts.is_answered(Port, port.peer_port_id)
        ):
            return False
        is_complete = True
        for chain_id in filters_of(port):
            if chain_id is not None and not self._is_chain_known(chain_id):
                self._blocked.setdefault(chain_id, set()).add(port.id)
                is_complete = False
        return is_complete

    def _show_port(self, port_id: PortId, view: PortView | None) -> None:
        draft = self._draft
        old = draft.ports.get(port_id)
        old_location = draft.locations.get(port_id)
        stored = self._facts.get(PortLocation, port_id)
        is_bound = view is not None and view.host_id is not None
        location = self._location(view, stored) if is_bound and stored is not None else None
        if old != view:
            draft.ports.put(port_id, view)
        if old_location != location:
            draft.locations.put(port_id, location)
            if old_location is not None:
                located = self._located[old_location.host_id]
                located.discard(port_id)
                if not located:
                    del self._located[old_location.host_id]
            if location is not None:
                self._located.setdefault(location.host_id, set()).add(port_id)
        bridge_ids = {port.bridge_id for port in (old, view) if port and port.bridge_id}
        router_ids = {port.router_id for port in (old, view) if port and port.router_id}
        for bridge_id in bridge_ids:
            self._bridge_port(bridge_id, port_id, view)
        for router_id in router_ids:
            self._router_port_of(router_id, port_id, view)

    def _location(self, port: PortView | None, stored: PortLocation) -> Location:
        """Return the place of a port. That of a service says whether its host lives, as it decides
        whether what is redirected to it fails."""
        location = location_view(stored)
        is_dead = stored.host_id not in self._facts.host_states
        if port is not None and port.is_service and location.active and is_dead:
            return replace(location, active=False)
        return location

    def _bridge_port(self, bridge_id: BridgeId, port_id: PortId, view: PortView | None) -> None:
        if bridge_id not in self._tracker.tracked[Bridge]:
            return
        here = view if view is not None and view.bridge_id == bridge_id else None
        attachment: RouterAttachment | None = None
        peer = self._facts.get(Port, here.peer_port_id) if here is not None else None
        if here is not None and peer is not None:
            try:
                attachment = router_attachment(here, peer)
                self.undecodable.pop(peer.id, None)
            except DecodeError as error:
                self.undecodable[peer.id] = str(error)
        self._bridges.setdefault(bridge_id, BridgeAssembly()).put(port_id, here, attachment)
        self._dirty_bridges.add(bridge_id)

    def _router_port(self, port_id: PortId) -> None:
        view = self._draft.ports.get(port_id)
        if view is not None and view.is_service:
            self._show_port(port_id, view)
        if view is not None and view.router_id is not None:
            self._router_port_of(view.router_id, port_id, view)

    def _router_port_of(self, router_id: RouterId, port_id: PortId, view: PortView | None) -> None:
        if router_id not in self._tracker.tracked[Router]:
            return
        here = view if view is not None and view.router_id == router_id else None
        location = self._draft.locations.get(port_id)
        is_alive = location is not None and location.host_id in self._facts.host_states
        self._router_assembly(router_id).put_port(
            port_id,
            is_present=here is not None,
            is_usable=here is not None and may_carry(here, location, is_host_alive=is_alive),
        )
        self._dirty_routers.add(router_id)

    def _router_assembly(self, router_id: RouterId) -> RouterAssembly:
        return self._routers.setdefault(router_id, RouterAssembly())

    # Bridges and routers.

    def _bridge(self, bridge_id: BridgeId) -> None:
        facts = self._facts
        if bridge_id not in self._tracker.tracked[Bridge]:
            return
        bridge = facts.get(Bridge, bridge_id)
        if bridge is None and facts.is_answered(Bridge, bridge_id):
            self.waiting[Bridge].discard(bridge_id)
            self._draft.bridges.put(bridge_id, None)
            self._draft.absent.put(bridge_id, True)
            self._use(bridge_id, ())
            return
        groups = facts.ids(flood_groups_of(bridge_id))
        if (
            bridge is None
            or not self._are_filters_known(bridge)
            or groups is None
            or not all(facts.is_answered(FloodGroup, one) for one in groups)
            or not self._are_ports_shown("bridge_id", bridge_id, bridge_id in self._draft.bridges)
        ):
            self.waiting[Bridge].add(bridge_id)
            return
        self.waiting[Bridge].discard(bridge_id)
        assembly = self._bridges.setdefault(bridge_id, BridgeAssembly())
        self._draft.bridges.put(bridge_id, assembly.view(bridge))
        self._draft.absent.put(bridge_id, None)
        self._use(bridge_id, filters_of(bridge))

    def _are_ports_shown(self, reference: str, device_id: ObjectId, is_shown: bool) -> bool:
        """Tell whether a device's ports are visible. Once it is shown they may come later."""
        ids = self._facts.ids(Referrers(Port, reference, device_id))
        if ids is None:
            return False
        shown = self._draft.ports.current
        absent = self._draft.absent.current
        return is_shown or all(one in shown or one in absent for one in ids)

    def _router(self, router_id: RouterId, settle: bool) -> None:
        facts = self._facts
        if router_id not in self._tracker.tracked[Router]:
            return
        router = facts.get(Router, router_id)
        if router is None and facts.is_answered(Router, router_id):
            self.waiting[Router].discard(router_id)
            self._draft.routers.put(router_id, None)
            self._draft.absent.put(router_id, True)
            self._use(router_id, ())
            self._balancers.use(router_id, None)
            return
        is_shown = router_id in self._draft.routers
        assembly = self._router_assembly(router_id)
        if (
            router is None
            or not self._are_filters_known(router)
            or not self._balancers.is_known(router.load_balancer_id)
            or not self._are_ports_shown("router_id", router_id, is_shown)
            or facts.ids(Referrers(Route, "router_id", router_id)) is None
        ):
            self.waiting[Router].add(router_id)
            return
        self._read_routes(router_id, assembly, settle)
        if assembly.unread:
            self.waiting[Router].add(router_id)
            if not is_shown:
                return
        else:
            self.waiting[Router].discard(router_id)
        self._draft.routers.put(router_id, assembly.view(router))
        self._draft.absent.put(router_id, None)
        self._use(router_id, filters_of(router))
        self._balancers.use(router_id, router.load_balancer_id)

    def _read_routes(self, router_id: RouterId, assembly: RouterAssembly, settle: bool) -> None:
        """Take over changed routes, all at once, so that a replaced route leaves no gap."""
        facts = self._facts
        listed = facts.ids(Referrers(Route, "router_id", router_id))
        if listed is None:
            return
        unread = assembly.unread
        ready = {
            one
            for one in unread
            if one not in listed
            or facts.get(Route, one) is not None
            or (settle and facts.is_absent(Route, one))
        }
        if len(ready) < len(unread) and not settle:
            return
        for route_id in ready:
            self.undecodable.pop(route_id, None)
            route = facts.get(Route, route_id) if route_id in listed else None
            assembly.put_route(route_id, self._route(route))
        assembly.unread = unread - ready

    def _route(self, route: Route | None) -> RouteView | None:
        if route is None:
            return None
        try:
            view = route_view(route)
        except DecodeError as error:
            self.undecodable[route.id] = str(error)
            return None
        return view

    # Hosts and requests.

    def _flood_group(self, group_id: ObjectId) -> None:
        old = self._groups.pop(group_id, None)
        group = self._facts.get(FloodGroup, group_id)
        if old is not None:
            self._draft.flood_groups.put(old, None)
        if group is not None:
            self._groups[group_id] = (group.host_id, group.bridge_id)
            self._draft.flood_groups.put((group.host_id, group.bridge_id), group.tunnel_key)

    def _tunnels(self) -> None:
        facts = self._facts
        by_host: dict[HostId, list[TunnelZoneHost]] = {}
        addresses: set[IpAddress] = set()
        for object_id in facts.ids(ALL_ZONE_HOSTS) or ():
            member = facts.get(TunnelZoneHost, object_id)
            if member is not None:
                by_host.setdefault(member.host_id, []).append(member)
                with suppress(DecodeError):
                    addresses.add(parse_ip(member.address))
        self._draft.underlay_addresses = UnderlayAddresses.of(addresses)
        ours = {one.tunnel_zone_id: one for one in by_host.pop(self._tracker.host_id, [])}
        shown = self._draft.tunnels
        for host_id in shown.current.keys() | by_host.keys():
            shared = [
                (zone, ours[one.tunnel_zone_id], one)
                for one in by_host.get(host_id, ())
                if one.tunnel_zone_id in ours
                and (zone := facts.get(TunnelZone, one.tunnel_zone_id)) is not None
            ]
            route = self._tunnel(host_id, shared)
            if shown.get(host_id) != route:
                shown.put(host_id, route)
        zones = ((facts.get(TunnelZone, zone_id), one) for zone_id, one in ours.items())
        self._draft.overlay_mtu_bytes = overlay_mtu(
            [(zone, one) for zone, one in zones if zone is not None],
            self.underlay_mtu_bytes,
            shown.current.values(),
        )

    def _tunnel(
        self,
        host_id: HostId,
        shared: list[tuple[TunnelZone, TunnelZoneHost, TunnelZoneHost]],
    ) -> TunnelRoute | None:
        peer_mtu_bytes = self._facts.host_states.get(host_id, 0)
        try:
            route = tunnel_route(shared, self.underlay_mtu_bytes, peer_mtu_bytes)
        except DecodeError as error:
            self.undecodable[host_id] = str(error)
            return None
        self.undecodable.pop(host_id, None)
        return route

    def _requested(self, object_id: ObjectId) -> None:
        """Note that a requested object of no kind exists."""
        is_tracked = any(object_id in self._tracker.tracked[kind] for kind in TRACKED_KINDS)
        if is_tracked:
            return
        is_absent = object_id in self._tracker.requested and all(
            self._facts.is_absent(kind, object_id) for kind in REQUESTED_KINDS
        )
        self._draft.absent.put(object_id, True if is_absent else None)


def _jumps(chain: ChainView) -> list[ChainId]:
    return [rule.jump_chain_id for rule in chain.rules if rule.jump_chain_id is not None]
