"""Representations of bridges, routers and routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct, field

from midonet.errors import ValidationError, Violation
from midonet.model.address_rules import unusable_host
from midonet.model.devices import Bridge, NextHopKind, Route, Router
from midonet.model.ids import PortId, RouteId, RouterId
from midonet.model.schema import (
    CREATE_ONLY,
    READ_ONLY,
    REQUIRED,
    UNSUPPORTED,
    MediaType,
    ResourceSchema,
    copy_fields,
    link_to,
    one_of,
    text,
)
from midonet.model.validation import IP, IPV4, PREFIX, PRINTABLE, broken, invalid
from midonet.packets.addresses import (
    IpAddress,
    IpPrefix,
    IpVersion,
    parse_ip,
    parse_prefix,
)
from midonet.packets.nat64 import PREFIX_LENGTH

Name = Annotated[str, Meta(max_length=255, pattern=PRINTABLE)]
ProjectName = Annotated[str, Meta(max_length=1024, pattern=PRINTABLE)]


class BridgeResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A virtual L2 segment.

    id: chosen by the server when absent.
    project_id: owner, free text.
    name: need not be unique.
    admin_state_up: a bridge that is down drops everything.
    inbound_filter_id: chain run on frames entering the bridge.
    outbound_filter_id: chain run on frames leaving the bridge.
    inbound_mirror_ids: mirrors of what enters, before the inbound filter.
    outbound_mirror_ids: mirrors of what leaves, after the outbound filter; a flood is copied once.
    qos_policy_id: policy of ports that have none of their own.
    mac_ageing_s: time in seconds until an unused MAC is forgotten; null is the cluster's setting.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/bridges/{id}")] = None
    project_id: ProjectName | None = field(default=None, name="tenantId")
    name: Name | None = None
    admin_state_up: bool = True
    inbound_filter_id: UUID | None = None
    outbound_filter_id: UUID | None = None
    mac_ageing_s: Annotated[int, Meta(ge=1, le=1_000_000)] | None = field(
        default=None, name="macAgeingSeconds"
    )
    vxlan_port_ids: Annotated[tuple[UUID, ...], UNSUPPORTED] = field(
        default=(), name="vxLanPortIds"
    )
    inbound_mirror_ids: tuple[UUID, ...] = ()
    outbound_mirror_ids: tuple[UUID, ...] = ()
    qos_policy_id: UUID | None = None
    inbound_filter: Annotated[str | None, link_to("/chains/{inbound_filter_id}")] = None
    outbound_filter: Annotated[str | None, link_to("/chains/{outbound_filter_id}")] = None
    ports: Annotated[str | None, link_to("/bridges/{id}/ports")] = None
    peer_ports: Annotated[str | None, link_to("/bridges/{id}/peer_ports")] = None
    vxlan_ports: Annotated[str | None, link_to("/bridges/{id}/vxlan_ports")] = field(
        default=None, name="vxLanPorts"
    )
    mac_table: Annotated[str | None, link_to("/bridges/{id}/mac_table")] = None
    arp_table: Annotated[str | None, link_to("/bridges/{id}/arp_table")] = None
    dhcp_subnets: Annotated[str | None, link_to("/bridges/{id}/dhcp")] = None
    dhcp_subnet6s: Annotated[str | None, link_to("/bridges/{id}/dhcpV6")] = field(
        default=None, name="dhcpSubnet6s"
    )
    vlan_mac_table_template: Annotated[
        str | None, link_to("/bridges/{id}/vlans/{vlanId}/mac_table")
    ] = None
    mac_port_template: Annotated[
        str | None, link_to("/bridges/{id}/mac_table/{macAddress}_{portId}")
    ] = None
    vlan_mac_port_template: Annotated[
        str | None, link_to("/bridges/{id}/vlans/{vlanId}/mac_table/{macAddress}_{portId}")
    ] = None


class RouterResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A virtual L3 device.

    id: chosen by the server when absent.
    project_id: owner, free text.
    name: need not be unique.
    admin_state_up: a router that is down rejects everything.
    inbound_filter_id: chain run before routing.
    outbound_filter_id: chain run after routing.
    inbound_mirror_ids: mirrors of what enters, before the inbound filter.
    outbound_mirror_ids: mirrors of what leaves, after the outbound filter.
    as_number: BGP autonomous system of the router; 0 when it has none.
    load_balancer_id: for whose VIPs the router answers; of one router at most. A router that has
        one is not deleted.
    nat64_prefix: IPv6 network of 96 bits; an address in it stands for the IPv4 address of its last
        32 bits, and the router translates what IPv6 machines send there. Null: it does not.
    nat64_address_from: first IPv4 address that IPv6 machines speak from; required with
        `nat64Prefix`, and only with it. Answers to it have to reach the router.
    nat64_address_to: last such address; null means that there is one.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/routers/{id}")] = None
    project_id: ProjectName | None = field(default=None, name="tenantId")
    name: Name | None = None
    admin_state_up: bool = True
    inbound_filter_id: UUID | None = None
    outbound_filter_id: UUID | None = None
    as_number: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)] = 0
    load_balancer_id: UUID | None = None
    inbound_mirror_ids: tuple[UUID, ...] = ()
    outbound_mirror_ids: tuple[UUID, ...] = ()
    nat64_prefix: Annotated[str | None, text(PREFIX)] = None
    nat64_address_from: Annotated[str | None, text(IPV4)] = None
    nat64_address_to: Annotated[str | None, text(IPV4)] = None
    local_redirect_chain_id: Annotated[UUID | None, UNSUPPORTED] = None
    forward_chain_id: Annotated[UUID | None, UNSUPPORTED] = None
    inbound_filter: Annotated[str | None, link_to("/chains/{inbound_filter_id}")] = None
    outbound_filter: Annotated[str | None, link_to("/chains/{outbound_filter_id}")] = None
    ports: Annotated[str | None, link_to("/routers/{id}/ports")] = None
    peer_ports: Annotated[str | None, link_to("/routers/{id}/peer_ports")] = None
    routes: Annotated[str | None, link_to("/routers/{id}/routes")] = None
    load_balancer: Annotated[str | None, link_to("/load_balancers/{load_balancer_id}")] = None
    bgp_networks: Annotated[str | None, link_to("/routers/{id}/bgp_networks")] = None
    bgp_peers: Annotated[str | None, link_to("/routers/{id}/bgp_peers")] = None
    local_redirect_chain: Annotated[str | None, link_to("/chains/{local_redirect_chain_id}")] = None
    forward_chain: Annotated[str | None, link_to("/chains/{forward_chain_id}")] = None


PrefixLength = Annotated[int, Meta(ge=0, le=128)]


class RouteResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """One route of a router. Both prefixes and the gateway are of one IP version.

    kind: Normal, BlackHole, Reject or Local.
    destination_address: network that the route is for, with `dstNetworkLength`.
    source_address: the route is only for packets from this network.
    next_hop_port_id: port of this router; required for Normal and Local.
    gateway: next hop behind the port of a Normal route: the unicast address of a neighbour, not
        an address of the port itself nor the network or broadcast address of its subnets. Null
        when the destination is directly connected; 0.0.0.0, 255.255.255.255 and :: are taken
        for null.
    weight: the lowest wins among routes of equal destination length.
    learned: true for a route learned by a routing protocol.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/routes/{id}")] = None
    router_id: Annotated[UUID | None, READ_ONLY] = None
    kind: Annotated[str, REQUIRED, one_of(*NextHopKind)] = field(default="", name="type")
    destination_address: Annotated[str, REQUIRED, text(IP)] = field(
        default="", name="dstNetworkAddr"
    )
    destination_length: PrefixLength = field(default=0, name="dstNetworkLength")
    source_address: Annotated[str, REQUIRED, text(IP)] = field(default="", name="srcNetworkAddr")
    source_length: PrefixLength = field(default=0, name="srcNetworkLength")
    next_hop_port_id: UUID | None = field(default=None, name="nextHopPort")
    gateway: Annotated[str | None, text(IP)] = field(default=None, name="nextHopGateway")
    weight: Annotated[int, Meta(ge=0, le=0x7FFF_FFFF)] = 0
    attributes: Annotated[str, Meta(max_length=4096, pattern=PRINTABLE)] | None = None
    learned: Annotated[bool, READ_ONLY] = False
    router: Annotated[str | None, link_to("/routers/{router_id}")] = None


def router_to_model(resource: RouterResource, current: Router | None) -> Router:
    """Return the stored form of a router. Raises ValidationError."""
    violations = list(_of_nat64(resource))
    if violations:
        raise ValidationError(violations)
    router: Router = copy_fields(resource, Router, current)
    return router


def _of_nat64(resource: RouterResource) -> Iterator[Violation]:
    first, last = resource.nat64_address_from, resource.nat64_address_to
    if resource.nat64_prefix is None:
        for name, value in (("nat64AddressFrom", first), ("nat64AddressTo", last)):
            if value is not None:
                yield broken(name, "needs nat64Prefix", value)
        return
    prefix = parse_prefix(resource.nat64_prefix)
    if prefix.version is not IpVersion.V6 or prefix.length != PREFIX_LENGTH:
        yield broken("nat64Prefix", "must be an IPv6 network of 96 bits", resource.nat64_prefix)
    elif prefix.network != prefix.value:
        yield broken("nat64Prefix", "must be 0 behind its 96 bits", resource.nat64_prefix)
    if first is None:
        yield Violation("nat64AddressFrom", "is required with nat64Prefix")
        return
    for name, value in (("nat64AddressFrom", first), ("nat64AddressTo", last)):
        rule = None if value is None else unusable_host(parse_ip(value))
        if rule is not None:
            yield broken(name, rule, value)
    if last is not None and parse_ip(first).value > parse_ip(last).value:
        yield broken("nat64AddressTo", "must not be below nat64AddressFrom", last)


def route_to_model(resource: RouteResource, current: Route | None) -> Route:
    """Return the stored form; the caller sets `router_id`. Raises ValidationError."""
    try:
        kind = NextHopKind(resource.kind)
    except ValueError:
        raise invalid("type", "This type of route is invalid.") from None
    destination = _prefix(
        resource.destination_address, resource.destination_length, "dstNetworkLength"
    )
    source = _prefix(resource.source_address, resource.source_length, "srcNetworkLength")
    gateway = _gateway(resource.gateway)
    violations = []
    if source.version is not destination.version:
        violations.append(
            Violation("srcNetworkAddr", "must be of the same IP version as dstNetworkAddr")
        )
    if gateway is not None:
        violations += _gateway_violations(kind, gateway, destination.version)
    if kind in (NextHopKind.NORMAL, NextHopKind.LOCAL) and resource.next_hop_port_id is None:
        violations.append(Violation("nextHopPort", f"is required for a {kind} route"))
    if violations:
        raise ValidationError(violations)
    assert resource.id is not None
    assert resource.router_id is not None
    return Route(
        id=RouteId(resource.id),
        router_id=RouterId(resource.router_id),
        kind=kind,
        source=str(source),
        destination=str(destination),
        next_hop_port_id=None
        if resource.next_hop_port_id is None
        else PortId(resource.next_hop_port_id),
        gateway=None if gateway is None else str(gateway),
        weight=resource.weight,
        attributes=resource.attributes,
    )


_V4_BROADCAST = IpAddress(IpVersion.V4, 0xFFFF_FFFF)


def _gateway(text_form: str | None) -> IpAddress | None:
    """Return the next hop, None also for the addresses by which old clients say so."""
    if text_form is None:
        return None
    address = parse_ip(text_form)
    return None if address.value == 0 or address == _V4_BROADCAST else address


def _gateway_violations(
    kind: NextHopKind, gateway: IpAddress, version: IpVersion
) -> list[Violation]:
    name = "nextHopGateway"
    if kind is not NextHopKind.NORMAL:
        return [broken(name, f"must be null for a {kind} route", str(gateway))]
    if gateway.version is not version:
        rule = "must be of the same IP version as dstNetworkAddr"
        return [broken(name, rule, str(gateway))]
    unusable = unusable_host(gateway)
    return [] if unusable is None else [broken(name, unusable, str(gateway))]


def _prefix(address: str, length: int, field_name: str) -> IpPrefix:
    parsed: IpAddress = parse_ip(address)
    if length > parsed.version.bits:
        raise invalid(field_name, f"must be at most {parsed.version.bits}")
    return IpPrefix(parsed.version, parsed.value, length)


def route_from_model(route: Route) -> RouteResource:
    """Return the representation of a stored route."""
    destination, source = parse_prefix(route.destination), parse_prefix(route.source)
    return RouteResource(
        id=route.id,
        router_id=route.router_id,
        kind=route.kind,
        destination_address=str(destination.address),
        destination_length=destination.length,
        source_address=str(source.address),
        source_length=source.length,
        next_hop_port_id=route.next_hop_port_id,
        gateway=route.gateway,
        weight=route.weight,
        attributes=route.attributes,
    )


BRIDGE = ResourceSchema(
    title="Bridge",
    representation=BridgeResource,
    kind=Bridge,
    media=MediaType("Bridge", (5, 4, 3, 2)),
    collection="bridges",
    root_keys=("bridges", "bridgeTemplate"),
)
ROUTER = ResourceSchema(
    title="Router",
    representation=RouterResource,
    kind=Router,
    media=MediaType("Router", (3, 2)),
    collection="routers",
    root_keys=("routers", "routerTemplate"),
    to_model=router_to_model,
)
ROUTE = ResourceSchema(
    title="Route",
    parent_link="routes",
    representation=RouteResource,
    kind=Route,
    media=MediaType("Route", (1,)),
    collection="routes",
    root_keys=(None, "routeTemplate"),
    to_model=route_to_model,
    from_model=route_from_model,
)
