"""Small virtual networks for tests, in few words.

    world = World("h1")
    world.bridge("b")
    world.port("vm1", on="b", host="h1")
    world.port("vm2", on="b", host="h2")
    view, soft = world.view(), world.soft_state()

Every object has a name; its identifier follows from the name alone (`world.id("vm1")`), so
that worlds built alike are equal. Router ports bring their own LOCAL and connected routes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid5

from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.program import LocalOutput
from midonet.agent.simulation.result import Await, Forward, SimulationResult
from midonet.agent.simulation.simulate import simulate, simulate_generated
from midonet.agent.soft_state.reading import Neighbour, NeighbourState
from midonet.agent.topology.address_set import AddressSet
from midonet.agent.topology.allowed_sources import AllowedSources
from midonet.agent.topology.assembly import nat_pool
from midonet.agent.topology.fib import RoutingTable
from midonet.agent.topology.underlay_addresses import UnderlayAddresses
from midonet.agent.topology.view import (
    AdvertisingView,
    BridgeView,
    ChainView,
    Location,
    Nat64View,
    PortView,
    RouterAttachment,
    RouterView,
    RouteView,
    RuleView,
    TopologyView,
    TunnelRoute,
)
from midonet.model.chains import Condition, NatTarget, RuleAction
from midonet.model.devices import NextHopKind
from midonet.model.hosts import TunnelKind
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    IpAddressGroupId,
    ObjectId,
    PortGroupId,
    PortId,
    RouteId,
    RouterId,
    RuleId,
)
from midonet.packets.addresses import (
    IpAddress,
    IpPrefix,
    IpVersion,
    parse_ip,
    parse_mac,
    parse_prefix,
)
from midonet.packets.frame import ParsedFrame, parse_frame
from tests.balanced_worlds import Balancers
from tests.copy_builder import CopyBuilder
from tests.dhcp_builder import DhcpBuilder
from tests.rule_specs import RuleSpec, nat, retag, rule
from tests.soft_states import DictSoftState

__all__ = ("NOW", "Delivery", "World", "nat", "retag", "rule")

_NAMESPACE = UUID("5f1d1a52-8e2c-4c7c-9b1e-6d6f0a3c9e01")
NOW = 1000.0


class World(CopyBuilder, DhcpBuilder):
    """Builds a TopologyView. `local` is the host whose agent looks at it."""

    def __init__(self, local: str = "h1") -> None:
        super().__init__()
        self.local = local
        self._routes: dict[str, list[RouteView]] = {}
        self._locations: dict[PortId, Location] = {}
        self._tunnels: dict[HostId, TunnelRoute] = {}
        self._flood_groups: dict[tuple[HostId, BridgeId], int] = {}
        self._port_groups: dict[PortGroupId, bool] = {}
        self._address_groups: dict[IpAddressGroupId, AddressSet] = {}
        self._absent: set[ObjectId] = set()
        self._soft = DictSoftState()
        self.balancers = Balancers(self.id)
        self.revision = 1

    # Identifiers.

    def id(self, name: str) -> UUID:
        """Return the identifier of the object with a name."""
        return uuid5(_NAMESPACE, name)

    def port_id(self, name: str) -> PortId:
        return PortId(self.id(name))

    def name(self, object_id: UUID) -> str:
        """Return the name of a port."""
        return next(name for name in self._ports if self.id(name) == object_id)

    # Devices.

    def bridge(
        self, name: str, *, inbound: str | None = None, outbound: str | None = None, up: bool = True
    ) -> World:
        """Add a bridge. inbound, outbound: names of chains."""
        self._bridges[name] = BridgeView(
            BridgeId(self.id(name)), up, self._chain_id(inbound), self._chain_id(outbound)
        )
        return self

    def router(
        self, name: str, *, inbound: str | None = None, outbound: str | None = None, up: bool = True
    ) -> World:
        """Add a router. inbound, outbound: names of chains."""
        self._routers[name] = RouterView(
            RouterId(self.id(name)),
            RoutingTable(),
            up,
            self._chain_id(inbound),
            self._chain_id(outbound),
        )
        self._routes.setdefault(name, [])
        return self

    def nat64(self, name: str, prefix: str, first: str, last: str = "") -> World:
        """Let a router show IPv4 to IPv6 machines, which speak from these addresses."""
        targets = NatTarget(first, last or first, 1024, 65535)
        view = Nat64View(parse_prefix(prefix).network, nat_pool((targets,)))
        self._routers[name] = replace(self._routers[name], nat64=view)
        return self

    def filters(
        self, name: str, *, inbound: str | None = None, outbound: str | None = None
    ) -> World:
        """Change the filters of a router, bridge or port."""
        chains = {
            "inbound_filter_id": self._chain_id(inbound),
            "outbound_filter_id": self._chain_id(outbound),
        }
        for objects in (self._ports, self._bridges, self._routers):
            if name in objects:
                objects[name] = replace(objects[name], **chains)  # type: ignore[index,arg-type,type-var]
        return self

    def port(
        self,
        name: str,
        *,
        on: str,
        host: str | None = None,
        mac: str | None = None,
        addresses: tuple[str, ...] = (),
        inbound: str | None = None,
        outbound: str | None = None,
        vlan: int = 0,
        up: bool = True,
        key: int | None = None,
        located: bool = True,
        routes: bool = True,
        active: bool = True,
    ) -> World:
        """Add a port to the bridge or router `on`.

        host: where it is bound. key: its tunnel key, by default 100 + its ordinal number.
        located: whether its host has reported it. routes: whether a router port brings its
        LOCAL and connected routes.
        """
        port_id = self.port_id(name)
        is_router_port = on in self._routers
        ordinal = len(self._ports) + 1
        prefixes = tuple(parse_prefix(text) for text in addresses)
        self._ports[name] = PortView(
            port_id,
            None if is_router_port else BridgeId(self.id(on)),
            RouterId(self.id(on)) if is_router_port else None,
            up,
            self._chain_id(inbound),
            self._chain_id(outbound),
            HostId(self.id(host)) if host else None,
            None,
            vlan,
            parse_mac(mac) if mac else (0x02_0000_0000_00 | ordinal if is_router_port else 0),
            prefixes,
        )
        if host and located:
            self._locations[port_id] = Location(
                HostId(self.id(host)), 100 + ordinal if key is None else key, active
            )
            if host != self.local and HostId(self.id(host)) not in self._tunnels:
                self.tunnel(host)
        if is_router_port and routes:
            for prefix in prefixes:
                self._connect(on, name, prefix)
        return self

    def _connect(self, router: str, port: str, prefix: IpPrefix) -> None:
        bits = prefix.version.bits
        own = str(IpPrefix(prefix.version, prefix.value, bits))
        self.route(router, own, via=port, kind=NextHopKind.LOCAL)
        if prefix.length < bits:
            self.route(
                router, str(IpPrefix(prefix.version, prefix.network, prefix.length)), via=port
            )

    def advertise(self, port: str, **fields: Any) -> World:
        """Let a router port advertise. fields: of `AdvertisingView`."""
        self._ports[port] = replace(self._ports[port], advertising=AdvertisingView(**fields))
        return self

    def link(self, left: str, right: str) -> World:
        """Make two ports peers."""
        self._ports[left] = replace(self._ports[left], peer_port_id=self.port_id(right))
        self._ports[right] = replace(self._ports[right], peer_port_id=self.port_id(left))
        return self

    def unlink(self, port: str) -> World:
        """Part a port from its peer."""
        peer_id = self._ports[port].peer_port_id
        for name, view in self._ports.items():
            if name == port or view.id == peer_id:
                self._ports[name] = replace(view, peer_port_id=None)
        return self

    def set_up(self, name: str, up: bool) -> World:
        """Change the administrative state of a port or device."""
        for objects in (self._ports, self._bridges, self._routers):
            if name in objects:
                objects[name] = replace(objects[name], admin_state_up=up)  # type: ignore[index,arg-type]
        return self

    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of ports and of devices."""
        return list(self._ports), [*self._bridges, *self._routers]

    def attach(self, router_port: str, bridge: str, *, vlan: int = 0) -> World:
        """Link a router port to a new port of a bridge, called `<router port>-peer`."""
        self.port(f"{router_port}-peer", on=bridge, vlan=vlan)
        return self.link(router_port, f"{router_port}-peer")

    def route(
        self,
        router: str,
        destination: str,
        *,
        via: str | None = None,
        gateway: str | None = None,
        source: str | None = None,
        weight: int = 0,
        kind: NextHopKind = NextHopKind.NORMAL,
    ) -> World:
        """Add a route."""
        prefix = parse_prefix(destination)
        everywhere = "0.0.0.0/0" if prefix.version is IpVersion.V4 else "::/0"
        routes = self._routes[router]
        text = f"{router} {destination} {via} {gateway} {source} {weight} {kind}"
        routes.append(
            RouteView(
                RouteId(self.id(text)),
                kind,
                parse_prefix(source or everywhere),
                prefix,
                self.port_id(via) if via else None,
                parse_ip(gateway) if gateway else None,
                weight,
            )
        )
        return self

    def chain(self, name: str, *rules: RuleSpec) -> World:
        """Add a chain of rules."""
        chain_id = ChainId(self.id(name))
        self._chains[chain_id] = ChainView(
            chain_id,
            tuple(
                RuleView(
                    RuleId(self.id(f"{name} rule {index}")),
                    RuleAction(spec.action),
                    self._condition(spec.condition),
                    self._chain_id(spec.jump),
                    nat_pool(spec.targets) if spec.targets else None,
                    spec.then,
                    transform=spec.transform,
                    target_port_id=self.port_id(spec.to) if spec.to else None,
                )
                for index, spec in enumerate(rules)
            ),
        )
        return self

    def _condition(self, fields: dict[str, object]) -> Condition:
        for key in ("in_port_ids", "out_port_ids"):
            names = fields.get(key)
            if isinstance(names, tuple):
                fields = {**fields, key: tuple(self.port_id(str(name)) for name in names)}
        for key, name in fields.items():
            if "group" in key and isinstance(name, str):
                fields = {**fields, key: self.id(name)}
        return Condition(**fields)  # type: ignore[arg-type]

    def _chain_id(self, name: str | None) -> ChainId | None:
        return ChainId(self.id(name)) if name else None

    def secure(self, port: str, *pairs: str) -> World:
        """Give a bridge port port security. pairs: `MAC`, or `MAC PREFIX`."""
        parsed = []
        for pair in pairs:
            mac, _, prefix = pair.partition(" ")
            parsed.append((parse_mac(mac), parse_prefix(prefix) if prefix else None))
        self._ports[port] = replace(self._ports[port], allowed_sources=AllowedSources(parsed))
        return self

    # Groups. Conditions refer to them by name.

    def port_group(self, name: str, *ports: str, stateful: bool = False) -> World:
        """Add a group of ports that are there already."""
        group_id = PortGroupId(self.id(name))
        self._port_groups[group_id] = stateful
        for port in ports:
            view = self._ports[port]
            self._ports[port] = replace(
                view,
                port_group_ids=tuple(sorted((*view.port_group_ids, group_id))),
                stateful_group_id=group_id if stateful else view.stateful_group_id,
            )
        return self

    def address_group(self, name: str, *members: str) -> World:
        """Add a group of addresses (with their length) and prefixes."""
        self._address_groups[IpAddressGroupId(self.id(name))] = AddressSet(
            map(parse_prefix, members)
        )
        return self

    # Placement.

    def tunnel(
        self,
        host: str,
        *,
        remote: str | None = None,
        kind: TunnelKind = TunnelKind.VXLAN,
        max_inner_length: int = 1450,
    ) -> World:
        """Say how the local host reaches another."""
        address = parse_ip(remote) if remote else parse_ip(f"192.0.2.{len(self._tunnels) + 2}")
        local = (
            parse_ip("192.0.2.1") if address.version is IpVersion.V4 else parse_ip("2001:db8::1")
        )
        self._tunnels[HostId(self.id(host))] = TunnelRoute(kind, local, address, max_inner_length)
        return self

    def no_tunnel(self, host: str) -> World:
        self._tunnels.pop(HostId(self.id(host)), None)
        return self

    def flood_group(self, host: str, bridge: str, key: int) -> World:
        """Say by which key a host delivers floods of a bridge."""
        self._flood_groups[HostId(self.id(host)), BridgeId(self.id(bridge))] = key
        return self

    def absent(self, *names: str) -> World:
        """Say that objects do not exist. Others that were not added are not loaded."""
        self._absent.update(self.id(name) for name in names)
        return self

    # Results.

    def soft_state(self) -> DictSoftState:
        """Return the soft state of this world; the methods below fill it."""
        return self._soft

    def mac_at(self, bridge: str, mac: str, port: str, *, vlan: int = 0) -> World:
        """Say behind which port of a bridge a MAC is."""
        self._soft.macs[BridgeId(self.id(bridge)), vlan, parse_mac(mac)] = self.port_id(port)
        return self

    def bridge_neighbour(self, bridge: str, address: str, mac: str) -> World:
        """Put an address into the ARP table of a bridge."""
        self._soft.bridge_neighbours[BridgeId(self.id(bridge)), parse_ip(address)] = parse_mac(mac)
        return self

    def neighbour(
        self, router: str, address: str, mac: str | None, *, stale: bool = False
    ) -> World:
        """Put an address into the neighbour table of a router; without MAC, as failed."""
        state = Neighbour(parse_mac(mac), stale) if mac else NeighbourState.FAILED
        self._soft.neighbours[RouterId(self.id(router)), parse_ip(address)] = state
        return self

    def view(self) -> TopologyView:
        """Return the view of all that was added."""
        return TopologyView(
            revision=self.revision,
            host_id=HostId(self.id(self.local)),
            ports={port.id: port for port in self._ports.values()},
            bridges={bridge.id: self._complete(bridge) for bridge in self._bridges.values()},
            routers={
                router.id: replace(
                    router,
                    fib=RoutingTable(self._routes[name]),
                    load_balancer_id=self.balancers.of(name),
                    port_ids=tuple(p.id for p in self._ports.values() if p.router_id == router.id),
                )
                for name, router in self._routers.items()
            },
            chains=dict(self._chains),
            mirrors=dict(self._mirrors),
            qos_policies=dict(self._qos_policies),
            balancers=self.balancers.views(),
            locations=dict(self._locations),
            tunnels=dict(self._tunnels),
            flood_groups=dict(self._flood_groups),
            port_groups=dict(self._port_groups),
            address_groups=dict(self._address_groups),
            absent=frozenset(self._absent),
            underlay_addresses=UnderlayAddresses.of(
                end for tunnel in self._tunnels.values() for end in (tunnel.local, tunnel.remote)
            ),
            hash_seed=0x0123_4567_89AB_CDEF,
            dhcp=self.served_dhcp(),
            overlay_mtu_bytes=min(
                (tunnel.max_inner_length for tunnel in self._tunnels.values()), default=0
            ),
        )

    def _complete(self, bridge: BridgeView) -> BridgeView:
        ports = sorted(
            (port for port in self._ports.values() if port.bridge_id == bridge.id),
            key=lambda port: port.id.int,
        )
        by_id = {port.id: port for port in self._ports.values()}
        attachments: dict[tuple[int, int], RouterAttachment] = {}
        by_address: dict[tuple[int, IpAddress], RouterAttachment] = {}
        for port in ports:
            peer = by_id.get(port.peer_port_id) if port.peer_port_id else None
            if peer is None or peer.router_id is None:
                continue
            addresses = tuple(prefix.address for prefix in peer.addresses)
            vlan = port.vlan_id
            speaks = peer.advertising is not None
            attachment = RouterAttachment(
                port.id, peer.id, peer.router_id, peer.mac, addresses, vlan, speaks
            )
            attachments.setdefault((vlan, peer.mac), attachment)
            for address in addresses:
                by_address.setdefault((vlan, address), attachment)
        linked = tuple(port.id for port in ports if port.peer_port_id is not None)
        attached = {
            port.id
            for port in ports
            if port.peer_port_id in by_id and by_id[port.peer_port_id].router_id is not None
        }
        return replace(
            bridge,
            flood_port_ids=tuple(port.id for port in ports if port.host_id is not None),
            linked_port_ids=linked,
            vlan_ports={
                vlan: tuple(port.id for port in ports if port.vlan_id == vlan)
                for vlan in {port.vlan_id for port in ports if port.vlan_id}
            },
            bridge_port_ids=tuple(
                port_id
                for port_id in linked
                if not by_id[port_id].vlan_id and port_id not in attached
            ),
            attachments=attachments,
            attachment_by_address=by_address,
        )

    # Running.

    def simulate(
        self, ingress: str, frame: bytes | ParsedFrame, *, trace: bool = False
    ) -> SimulationResult:
        """Simulate a frame that enters at a port."""
        packet = frame if isinstance(frame, ParsedFrame) else parse_frame(frame)
        return simulate(self.view(), self._soft, packet, self.port_id(ingress), NOW, trace=trace)

    def settle(self, result: SimulationResult, frame: bytes = b"") -> list[Delivery]:
        """Return what leaves the network in the end: outputs, then generated packets' outputs.

        Effects are applied to the soft state. A packet that awaits something ends there.
        """
        if isinstance(result, Await):
            return []
        self._soft.apply(result.effects)
        delivered: list[Delivery] = []
        if isinstance(result, Forward):
            for output in result.program.outputs:
                place: str | int = (
                    self.name(output.port_id)
                    if isinstance(output, LocalOutput)
                    else output.tunnel_key
                )
                # As its receiver reads it, without what is taken away (priority tags).
                entered = parse_frame(frame).frame
                delivered.append(Delivery(place, apply_rewrite(entered, output.rewrite)))
        for generated in result.generated:
            again = simulate_generated(
                self.view(),
                self._soft,
                parse_frame(generated.frame),
                generated.egress,
                NOW,
                router_id=generated.router_id,
                is_unfiltered=generated.is_unfiltered,
            )
            delivered += self.settle(again, generated.frame)
        return delivered

    def send(self, ingress: str, frame: bytes) -> list[Delivery]:
        """Simulate a frame and return what leaves the network in the end."""
        packet = parse_frame(frame)
        return self.settle(self.simulate(ingress, packet), packet.frame)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame that left: at a local port, by name, or to another host, by tunnel key."""

    place: str | int
    frame: bytes

    @property
    def packet(self) -> ParsedFrame:
        """The frame, parsed."""
        return parse_frame(self.frame)


__all__ = ["NOW", "Delivery", "DictSoftState", "World", "nat", "rule"]
