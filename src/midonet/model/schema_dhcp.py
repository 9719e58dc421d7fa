"""Representations of DHCP and DHCPv6 subnets of bridges, and of their clients.

None of them shows an identifier: a subnet is named by its prefix below its bridge, a client by
its MAC or client id below its subnet.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct, field

from midonet.errors import DecodeError, ValidationError, Violation
from midonet.model.address_rules import unusable_in_subnet
from midonet.model.dhcp import (
    MAX_NAME_SERVERS,
    DhcpExtraOption,
    DhcpHost,
    DhcpRoute,
    DhcpSubnet,
    DhcpV6Host,
    DhcpV6Subnet,
    dhcp_host_id,
    dhcp_v6_host_id,
)
from midonet.model.dhcp_options import encode_option
from midonet.model.ids import BridgeId, ObjectId
from midonet.model.schema import REQUIRED, MediaType, ResourceSchema, link_to, text
from midonet.model.schema_devices import Name
from midonet.model.validation import (
    HOST_IPV4,
    HOST_IPV6,
    IPV4,
    IPV6,
    UNICAST_MAC,
    TextFormat,
    broken,
)
from midonet.packets.addresses import IpPrefix, format_ip, parse_ip, parse_prefix
from midonet.packets.dhcpv6 import DUID_MAX_BYTES
from midonet.packets.domain_names import (
    MAX_SEARCH_LIST_BYTES,
    parse_domain,
    parse_search_list,
)

MAX_LISTED = 64
"""Most addresses, names, routes or options in one list: more would not fit in a message."""

Texts = Annotated[tuple[str, ...], Meta(max_length=MAX_LISTED)]
NameServers = Annotated[tuple[str, ...], Meta(max_length=MAX_NAME_SERVERS)]

_OCTETS = re.compile(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){2,129}")


def canonical_client_id(text_form: str) -> str:
    """Return octets in lower case, joined by `:`. Raises DecodeError.

    They are 3 to 130, as in a DUID (RFC 8415 section 11.1).
    """
    if not _OCTETS.fullmatch(text_form):
        raise DecodeError(f"not 3 to {DUID_MAX_BYTES} octets: {text_form!r}")
    return text_form.lower().replace("-", ":")


CLIENT_ID = TextFormat(
    "client-id",
    f"must be 3 to {DUID_MAX_BYTES} hexadecimal octets joined by : (a DUID), or a MAC address",
    canonical_client_id,
    rf"^{_OCTETS.pattern}$(?!\n)",
)
DOMAIN = TextFormat(
    "hostname",
    "must be a domain name",
    parse_domain,
    r"^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.){0,126}"
    r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$(?!\n)",
)


class DhcpRouteResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A route that clients are told (option 121, RFC 3442)."""

    destination_prefix: str = ""
    destination_length: Annotated[int, Meta(ge=0, le=32)] = 0
    gateway: str = field(default="", name="gatewayAddr")


class DhcpOptionResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A further option of one client."""

    name: str = field(default="", name="optName")
    value: Annotated[str, Meta(max_length=4096)] = field(default="", name="optValue")


class DhcpSubnetResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """An IPv4 subnet whose machines a bridge serves by DHCP.

    network: kept without host bits; a bridge has each subnet once.
    gateway: router that clients use; also told as a default route when there are other routes.
    server_address: by which the server calls itself; null is the gateway's.
    dns_addresses: null when there are none.
    mtu_bytes: MTU of clients, 0 for 1500; they are never told more than the overlay carries.
    routes: further routes of clients: `destinationPrefix`, `destinationLength`, `gatewayAddr`.
    is_enabled: the server of a subnet that is not enabled leaves requests to others.
    """

    uri: Annotated[str | None, link_to("")] = None
    network: Annotated[str, REQUIRED, text(IPV4)] = field(default="", name="subnetPrefix")
    length: Annotated[int, Meta(ge=0, le=32)] = field(default=0, name="subnetLength")
    gateway: Annotated[str | None, text(HOST_IPV4)] = field(default=None, name="defaultGateway")
    server_address: Annotated[str | None, text(HOST_IPV4)] = field(default=None, name="serverAddr")
    dns_addresses: Annotated[Texts | None, text(HOST_IPV4)] = field(
        default=None, name="dnsServerAddrs"
    )
    mtu_bytes: Annotated[int, Meta(ge=0, le=65536)] = field(default=0, name="interfaceMTU")
    routes: Annotated[tuple[DhcpRouteResource, ...], Meta(max_length=MAX_LISTED)] = field(
        default=(), name="opt121Routes"
    )
    is_enabled: bool = field(default=True, name="enabled")
    hosts: Annotated[str | None, link_to("")] = None


class DhcpHostResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A DHCP client: the machine with this MAC is given this address.

    mac: names the entry in its subnet.
    address: in the subnet, neither its network nor its broadcast address; null gives nothing.
    name: free text.
    options: further options: `optName`, a number from 1 to 254 or a name as Neutron has it, and
        `optValue`. They take the place of those of the subnet.
    """

    uri: Annotated[str | None, link_to("")] = None
    mac: Annotated[str, REQUIRED, text(UNICAST_MAC)] = field(default="", name="macAddr")
    address: Annotated[str | None, text(HOST_IPV4)] = field(default=None, name="ipAddr")
    name: Name | None = None
    options: Annotated[tuple[DhcpOptionResource, ...], Meta(max_length=MAX_LISTED)] = field(
        default=(), name="extraDhcpOpts"
    )


class DhcpV6SubnetResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """An IPv6 subnet whose machines a bridge serves by DHCPv6.

    network: kept without host bits; a bridge has each subnet once.
    dns_addresses: told to clients with and without an address of their own here.
    domains: search list, told likewise.
    is_enabled: the server of a subnet that is not enabled leaves requests to others.
    """

    uri: Annotated[str | None, link_to("")] = None
    network: Annotated[str, REQUIRED, text(IPV6)] = field(default="", name="prefix")
    length: Annotated[int, Meta(ge=0, le=128)] = field(default=0, name="prefixLength")
    dns_addresses: Annotated[NameServers, text(HOST_IPV6)] = field(
        default=(), name="dnsServerAddrs"
    )
    domains: Annotated[Texts, text(DOMAIN)] = field(default=(), name="domainSearch")
    is_enabled: bool = field(default=True, name="enabled")
    hosts: Annotated[str | None, link_to("")] = None


class DhcpV6HostResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A DHCPv6 client and the address it is given.

    client_id: names the entry in its subnet: the client's DUID, or its MAC.
    address: in the subnet; null gives nothing.
    name: free text.
    """

    uri: Annotated[str | None, link_to("")] = None
    client_id: Annotated[str, REQUIRED, text(CLIENT_ID)] = ""
    address: Annotated[str | None, text(HOST_IPV6)] = field(default=None, name="fixedAddress")
    name: Name | None = None


def subnet_to_model(
    resource: DhcpSubnetResource, subnet_id: ObjectId, bridge_id: BridgeId
) -> DhcpSubnet:
    """Return the stored form. Raises ValidationError."""
    violations: list[Violation] = []
    routes = _routes(resource.routes, violations)
    if violations:
        raise ValidationError(violations)
    return DhcpSubnet(
        id=subnet_id,
        bridge_id=bridge_id,
        prefix=_network(resource.network, resource.length),
        server_address=resource.server_address,
        gateway=resource.gateway,
        dns_addresses=resource.dns_addresses or (),
        mtu_bytes=resource.mtu_bytes,
        routes=routes,
        is_enabled=resource.is_enabled,
    )


def subnet_from_model(subnet: DhcpSubnet) -> DhcpSubnetResource:
    """Return the representation of a stored subnet."""
    prefix = parse_prefix(subnet.prefix)
    uri = subnet_path(subnet)
    return DhcpSubnetResource(
        uri=uri,
        network=str(prefix.address),
        length=prefix.length,
        gateway=subnet.gateway,
        server_address=subnet.server_address,
        dns_addresses=subnet.dns_addresses or None,
        mtu_bytes=subnet.mtu_bytes,
        routes=tuple(map(_shown_route, subnet.routes)),
        is_enabled=subnet.is_enabled,
        hosts=f"{uri}/hosts",
    )


def host_to_model(resource: DhcpHostResource, subnet: DhcpSubnet) -> DhcpHost:
    """Return the stored form. Raises ValidationError."""
    violations = _outside(resource.address, subnet, "ipAddr")
    for index, option in enumerate(resource.options):
        try:
            encode_option(option.name, option.value)
        except DecodeError as error:
            text_form = f"{option.name}={option.value}"
            violations.append(broken(f"extraDhcpOpts[{index}]", str(error), text_form))
    if violations:
        raise ValidationError(violations)
    return DhcpHost(
        id=dhcp_host_id(subnet.id, resource.mac),
        subnet_id=subnet.id,
        mac=resource.mac,
        address=resource.address,
        name=resource.name,
        options=tuple(
            DhcpExtraOption(name=option.name, value=option.value) for option in resource.options
        ),
    )


def host_from_model(host: DhcpHost, subnet: DhcpSubnet) -> DhcpHostResource:
    """Return the representation of a stored client."""
    return DhcpHostResource(
        uri=host_path(host, subnet),
        mac=host.mac,
        address=host.address,
        name=host.name,
        options=tuple(
            DhcpOptionResource(name=option.name, value=option.value) for option in host.options
        ),
    )


def subnet_v6_to_model(
    resource: DhcpV6SubnetResource, subnet_id: ObjectId, bridge_id: BridgeId
) -> DhcpV6Subnet:
    """Return the stored form. Raises ValidationError."""
    violations = search_list_violations(resource.domains, "domainSearch")
    if violations:
        raise ValidationError(violations)
    return DhcpV6Subnet(
        id=subnet_id,
        bridge_id=bridge_id,
        prefix=_network(resource.network, resource.length),
        dns_addresses=resource.dns_addresses,
        domains=resource.domains,
        is_enabled=resource.is_enabled,
    )


def subnet_v6_from_model(subnet: DhcpV6Subnet) -> DhcpV6SubnetResource:
    """Return the representation of a stored subnet."""
    prefix = parse_prefix(subnet.prefix)
    uri = subnet_path(subnet)
    return DhcpV6SubnetResource(
        uri=uri,
        network=str(prefix.address),
        length=prefix.length,
        dns_addresses=subnet.dns_addresses,
        domains=subnet.domains,
        is_enabled=subnet.is_enabled,
        hosts=f"{uri}/hostsV6",
    )


def host_v6_to_model(resource: DhcpV6HostResource, subnet: DhcpV6Subnet) -> DhcpV6Host:
    """Return the stored form. Raises ValidationError."""
    violations = _outside(resource.address, subnet, "fixedAddress")
    if violations:
        raise ValidationError(violations)
    return DhcpV6Host(
        id=dhcp_v6_host_id(subnet.id, resource.client_id),
        subnet_id=subnet.id,
        client_id=resource.client_id,
        address=resource.address,
        name=resource.name,
    )


def host_v6_from_model(host: DhcpV6Host, subnet: DhcpV6Subnet) -> DhcpV6HostResource:
    """Return the representation of a stored client."""
    return DhcpV6HostResource(
        uri=host_path(host, subnet),
        client_id=host.client_id,
        address=host.address,
        name=host.name,
    )


def subnet_path(subnet: DhcpSubnet | DhcpV6Subnet) -> str:
    """Return the path of a subnet below the API root; `_` stands for `/`."""
    collection = "dhcp" if isinstance(subnet, DhcpSubnet) else "dhcpV6"
    return f"/bridges/{subnet.bridge_id}/{collection}/{subnet.prefix.replace('/', '_')}"


def host_path(host: DhcpHost | DhcpV6Host, subnet: DhcpSubnet | DhcpV6Subnet) -> str:
    """Return the path of a client below the API root: its MAC with `:`, its client id with `-`."""
    if isinstance(host, DhcpHost):
        return f"{subnet_path(subnet)}/hosts/{host.mac}"
    return f"{subnet_path(subnet)}/hostsV6/{host.client_id.replace(':', '-')}"


def search_list_violations(domains: tuple[str, ...], name: str) -> list[Violation]:
    """Return what is wrong with well-formed names as a search list."""
    try:
        parse_search_list(domains)
    except DecodeError:
        return [Violation(name, f"must have at most {MAX_SEARCH_LIST_BYTES} bytes on the wire")]
    return []


def _network(address: str, length: int) -> str:
    parsed = parse_ip(address)
    prefix = IpPrefix(parsed.version, parsed.value, length)
    return f"{format_ip(prefix.version, prefix.network)}/{length}"


def _routes(
    routes: tuple[DhcpRouteResource, ...], violations: list[Violation]
) -> tuple[DhcpRoute, ...]:
    found = []
    for index, route in enumerate(routes):
        place = f"opt121Routes[{index}]"
        try:
            destination = _network(
                IPV4.canonical(route.destination_prefix), route.destination_length
            )
        except DecodeError:
            violations.append(
                broken(f"{place}.destinationPrefix", IPV4.rule, route.destination_prefix)
            )
            continue
        try:
            gateway = IPV4.canonical(route.gateway)
        except DecodeError:
            violations.append(broken(f"{place}.gatewayAddr", IPV4.rule, route.gateway))
            continue
        found.append(DhcpRoute(destination=destination, gateway=gateway))
    return tuple(found)


def _shown_route(route: DhcpRoute) -> DhcpRouteResource:
    destination = parse_prefix(route.destination)
    return DhcpRouteResource(
        destination_prefix=str(destination.address),
        destination_length=destination.length,
        gateway=route.gateway,
    )


def _outside(address: str | None, subnet: DhcpSubnet | DhcpV6Subnet, name: str) -> list[Violation]:
    """Return what is wrong with the address of a client of a subnet."""
    if address is None:
        return []
    prefix, parsed = parse_prefix(subnet.prefix), parse_ip(address)
    if not prefix.contains(parsed):
        return [broken(name, f"must be in {prefix}", address)]
    rule = unusable_in_subnet(IpPrefix(prefix.version, parsed.value, prefix.length))
    return [] if rule is None else [broken(name, rule, address)]


DHCP_SUBNET = ResourceSchema(
    title="DhcpSubnet",
    parent_link="dhcp_subnets",
    representation=DhcpSubnetResource,
    media=MediaType("DhcpSubnet", (2, 1)),
)
DHCP_HOST = ResourceSchema(
    title="DhcpHost",
    parent_link="hosts",
    representation=DhcpHostResource,
    media=MediaType("DhcpHost", (2, 1)),
)
DHCP_V6_SUBNET = ResourceSchema(
    title="DhcpV6Subnet",
    parent_link="dhcp_subnet6s",
    representation=DhcpV6SubnetResource,
    media=MediaType("DhcpV6Subnet", (1,)),
)
DHCP_V6_HOST = ResourceSchema(
    title="DhcpV6Host",
    parent_link="hosts",
    representation=DhcpV6HostResource,
    media=MediaType("DhcpV6Host", (1,)),
)
