"""Representation of ports, of bridges and of routers alike.

The `type` of a port tells its device. `portSubnet` and the triple `portAddress`,
`networkAddress`, `networkLength` are two views of the same addresses: the triple shows the
first IPv4 address, and is read only when `portSubnet` is empty.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, field

from midonet.errors import DecodeError, ValidationError, Violation
from midonet.model.address_rules import unusable_interface
from midonet.model.devices import AddressPair, Port
from midonet.model.ids import BridgeId, ChainId, HostId, PortId, RouterId
from midonet.model.schema import (
    CREATE_ONLY,
    READ_ONLY,
    REQUIRED,
    MediaType,
    ResourceSchema,
    link_to,
    one_of,
    text,
)
from midonet.model.schema_advertising import (
    advertising_from_model,
    advertising_to_model,
)
from midonet.model.schema_dhcp import DOMAIN, NameServers, Texts
from midonet.model.validation import (
    HOST_IPV6,
    INTERFACE_NAME,
    INTERFACE_PREFIX,
    IPV4,
    PRINTABLE,
    UNICAST_MAC,
    broken,
    canonical_group_member,
    canonical_unicast_mac,
    invalid,
)
from midonet.packets.addresses import (
    IpPrefix,
    IpVersion,
    format_ip,
    parse_ip,
    parse_prefix,
)

BRIDGE_PORT_TYPES = ("Bridge", "ExteriorBridge", "InteriorBridge")
ROUTER_PORT_TYPES = ("Router", "ExteriorRouter", "InteriorRouter")


PAIRS_MAX = 256
"""Most allowed address pairs of a port."""


class AddressPairResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """What may be sent from a port: a MAC, and an address or prefix that it may use."""

    mac_address: str
    ip_address: str | None = None


class PortResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """An attachment on a bridge or a router.

    kind: Bridge or Router; Exterior and Interior forms of both are accepted.
    tunnel_key: 24-bit key assigned by the server.
    vif_id: free text of the system that made the port.
    host_id: host to which the port is bound; a body counts only while the port is not bound.
    interface_name: interface on that host.
    peer_port_id: port this one is linked to; a body counts only while the port is not linked.
    inbound_mirror_ids: mirrors of what enters, before the inbound filter.
    post_in_filter_mirror_ids: mirrors of what the inbound filter lets in.
    pre_out_filter_mirror_ids: mirrors of what leaves, before the outbound filter.
    outbound_mirror_ids: mirrors of what the outbound filter lets out.
    qos_policy_id: policy of what enters; null is that of the bridge. Router ports ignore it.
    active: the interface is up at a host whose agent is alive.
    vlan_id: VLAN of a bridge port, where frames have no tag (an access port when bound); 0: none,
        a trunk when other ports of the bridge have one.
    port_security_enabled: bridge ports; only what `allowedAddressPairs` has may be sent from the
        port, and no answers of DHCP servers or routers. Null in a PUT keeps what is stored.
    allowed_address_pairs: bridge ports; macAddress is unicast, ipAddress an address or prefix, or
        null for a MAC without addresses. At most 256. Null in a PUT keeps what is stored.
    network_address: router ports; must be the network of `portAddress`, and needs it. Like
        `networkLength` and `portAddress`, read only while `portSubnet` is empty.
    network_length: router ports; needs `portAddress`, and above 0 with it.
    port_address: router ports; unicast address, as in `portSubnet`.
    addresses: router ports; address/length, at most one IPv4 and one IPv6. Unicast and not
        loopback, IPv4-mapped or 0.0.0.0/8; not the network or broadcast address of an IPv4
        subnet; length above 0.
    mac: router ports; unicast and not zero; the server chooses one when null.
    vni: router ports.
    off_ramp_vxlan: router ports.
    ra_enabled: router ports; advertise the router and its IPv6 subnet to the machines on the link.
    ra_managed: router ports; machines get addresses by DHCPv6.
    ra_other_config: router ports; machines get other configuration by DHCPv6.
    ra_autonomous: router ports; machines make addresses of the port's IPv6 subnet, a /64.
    ra_lifetime_s: router ports; how long in seconds the router is a default router: 0 for not at
        all, else at least `raIntervalSeconds`.
    ra_interval_s: router ports; longest time in seconds between advertisements nobody asked for.
    ra_dns_addresses: router ports; name servers that machines are told.
    ra_domains: router ports; search list that machines are told.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/ports/{id}")] = None
    kind: Annotated[str, REQUIRED, one_of(*BRIDGE_PORT_TYPES, *ROUTER_PORT_TYPES)] = field(
        default="", name="type"
    )
    device_id: Annotated[UUID | None, READ_ONLY] = None
    admin_state_up: bool = True
    inbound_filter_id: UUID | None = None
    outbound_filter_id: UUID | None = None
    tunnel_key: Annotated[int, READ_ONLY] = 0
    vif_id: Annotated[str, Meta(max_length=255, pattern=PRINTABLE)] | None = None
    host_id: UUID | None = None
    interface_name: Annotated[str | None, text(INTERFACE_NAME)] = None
    peer_port_id: UUID | None = field(default=None, name="peerId")
    inbound_mirror_ids: tuple[UUID, ...] = ()
    outbound_mirror_ids: tuple[UUID, ...] = ()
    post_in_filter_mirror_ids: tuple[UUID, ...] = ()
    pre_out_filter_mirror_ids: tuple[UUID, ...] = ()
    insertion_ids: Annotated[tuple[UUID, ...], READ_ONLY] = ()
    qos_policy_id: UUID | None = None
    active: Annotated[bool, READ_ONLY] = False
    vlan_id: Annotated[int, Meta(ge=0, le=4094)] = 0
    network_address: Annotated[str | None, text(IPV4)] = None
    network_length: Annotated[int, Meta(ge=0, le=32)] = 0
    port_address: Annotated[str | None, text(IPV4)] = None
    addresses: Annotated[tuple[str, ...], text(INTERFACE_PREFIX)] = field(
        default=(), name="portSubnet"
    )
    mac: Annotated[str | None, text(UNICAST_MAC)] = field(default=None, name="portMac")
    vni: Annotated[int, Meta(ge=0, le=0xFFFFFF)] = field(default=0, name="rtrPortVni")
    off_ramp_vxlan: bool = False
    ra_enabled: bool = False
    ra_managed: bool = False
    ra_other_config: bool = False
    ra_autonomous: bool = True
    ra_lifetime_s: Annotated[int, Meta(ge=0, le=9000)] = field(
        default=1800, name="raLifetimeSeconds"
    )
    ra_interval_s: Annotated[int, Meta(ge=4, le=1800)] = field(
        default=600, name="raIntervalSeconds"
    )
    ra_dns_addresses: Annotated[NameServers, text(HOST_IPV6)] = field(
        default=(), name="raDnsServerAddrs"
    )
    ra_domains: Annotated[Texts, text(DOMAIN)] = field(default=(), name="raDomainSearch")
    port_security_enabled: bool | None = None
    allowed_address_pairs: tuple[AddressPairResource, ...] | None = None
    service_container_id: Annotated[UUID | None, READ_ONLY] = None
    bgp_status: Annotated[str | None, READ_ONLY] = None
    device: Annotated[str | None, link_to("")] = None
    host: Annotated[str | None, link_to("/hosts/{host_id}")] = None
    peer: Annotated[str | None, link_to("/ports/{peer_port_id}")] = None
    link: Annotated[str | None, link_to("/ports/{id}/link")] = None
    port_groups: Annotated[str | None, link_to("/ports/{id}/port_groups")] = None
    host_interface_port: Annotated[str | None, link_to("/hosts/{host_id}/ports/{id}")] = None
    inbound_filter: Annotated[str | None, link_to("/chains/{inbound_filter_id}")] = None
    outbound_filter: Annotated[str | None, link_to("/chains/{outbound_filter_id}")] = None
    peering_table: Annotated[
        str | None, link_to("/routers/{device_id}/ports/{id}/peering_table")
    ] = None
    service_container: Annotated[
        str | None, link_to("/service_containers/{service_container_id}")
    ] = None


class PortLinkResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """Which port to link with. A whole port may be posted; only `peerId` is read."""

    peer_port_id: Annotated[UUID | None, REQUIRED] = field(default=None, name="peerId")


_ALIKE = (
    "inbound_mirror_ids",
    "post_in_filter_mirror_ids",
    "pre_out_filter_mirror_ids",
    "outbound_mirror_ids",
    "qos_policy_id",
)
"""Fields that the stored port and the representation hold in the same form."""


def port_to_model(resource: PortResource, current: Port | None) -> Port:
    """Return the stored form. On creation, `device_id` names the device.

    A missing MAC stays None and a missing tunnel key 0: the caller allocates both. Raises
    ValidationError.
    """
    is_router_port = _is_router_port(resource, current)
    violations = _misplaced(resource, is_router_port=is_router_port)
    if (resource.host_id is None) != (resource.interface_name is None):
        violations.append(Violation("interfaceName", "hostId and interfaceName go together"))
    addresses = _addresses(resource, violations) if is_router_port else ()
    advertising = advertising_to_model(resource, violations)
    pairs = _pairs(resource, current, violations)
    is_secured = resource.port_security_enabled
    if is_secured is None:
        is_secured = current.port_security_enabled if current else False
    if violations:
        raise ValidationError(violations)
    bound = _binding(resource, current)
    peer_id = resource.peer_port_id
    if current is not None and current.peer_port_id is not None:
        peer_id = current.peer_port_id
    assert resource.id is not None
    device_id = resource.device_id
    if current is not None:
        device_id = current.router_id or current.bridge_id
    return Port(
        id=PortId(resource.id),
        bridge_id=BridgeId(device_id) if device_id and not is_router_port else None,
        router_id=RouterId(device_id) if device_id and is_router_port else None,
        admin_state_up=resource.admin_state_up,
        inbound_filter_id=_chain(resource.inbound_filter_id),
        outbound_filter_id=_chain(resource.outbound_filter_id),
        tunnel_key=current.tunnel_key if current else 0,
        vif_id=resource.vif_id,
        host_id=bound[0],
        interface_name=bound[1],
        previous_host_id=current.previous_host_id if current else None,
        peer_port_id=PortId(peer_id) if peer_id is not None else None,
        vlan_id=resource.vlan_id,
        addresses=addresses,
        mac=_mac(resource, current),
        vni=resource.vni,
        off_ramp_vxlan=resource.off_ramp_vxlan,
        **{name: getattr(resource, name) for name in _ALIKE},
        port_group_ids=current.port_group_ids if current else (),
        advertising=advertising if is_router_port else None,
        insertion_inbound_filter_id=current.insertion_inbound_filter_id if current else None,
        insertion_outbound_filter_id=current.insertion_outbound_filter_id if current else None,
        is_service=current.is_service if current else False,
        port_security_enabled=is_secured,
        allowed_address_pairs=pairs,
    )


def _pairs(
    resource: PortResource, current: Port | None, violations: list[Violation]
) -> tuple[AddressPair, ...]:
    """Return the pairs in canonical form, each once; those that are stored when none are given."""
    given = resource.allowed_address_pairs
    if given is None:
        return current.allowed_address_pairs if current else ()
    if len(given) > PAIRS_MAX:
        violations.append(Violation("allowedAddressPairs", f"must have at most {PAIRS_MAX} pairs"))
        return ()
    pairs: dict[AddressPair, None] = {}
    for one in given:
        try:
            address = None if one.ip_address is None else canonical_group_member(one.ip_address)
            pairs[AddressPair(canonical_unicast_mac(one.mac_address), address)] = None
        except DecodeError as error:
            violations.append(Violation("allowedAddressPairs", str(error)))
    return tuple(pairs)


def _is_router_port(resource: PortResource, current: Port | None) -> bool:
    if resource.kind not in BRIDGE_PORT_TYPES + ROUTER_PORT_TYPES:
        raise invalid("type", "must be Bridge or Router, or an Exterior or Interior form of one")
    is_router_port = resource.kind in ROUTER_PORT_TYPES
    if current is not None and is_router_port != (current.router_id is not None):
        raise invalid("type", "a port keeps the type it was created with")
    return is_router_port


def _binding(resource: PortResource, current: Port | None) -> tuple[HostId | None, str | None]:
    if current is not None and current.host_id is not None:
        return current.host_id, current.interface_name
    if resource.host_id is None:
        return None, None
    return HostId(resource.host_id), resource.interface_name


def _chain(chain_id: UUID | None) -> ChainId | None:
    return None if chain_id is None else ChainId(chain_id)


def _mac(resource: PortResource, current: Port | None) -> str | None:
    if resource.mac is None and current is not None:
        return current.mac
    return resource.mac


def _addresses(resource: PortResource, violations: list[Violation]) -> tuple[str, ...]:
    """Return the addresses a router port stands for, whichever view the caller filled in."""
    addresses = resource.addresses
    if not addresses:
        return _single_address(resource, violations)
    versions = [parse_prefix(address).version for address in addresses]
    if len(set(versions)) != len(versions):
        rule = "at most one IPv4 and one IPv6 address"
        violations.append(broken("portSubnet", rule, addresses))
    return addresses


def _single_address(resource: PortResource, violations: list[Violation]) -> tuple[str, ...]:
    """Return the address of `portAddress`, `networkAddress` and `networkLength`."""
    network, length = resource.network_address, resource.network_length
    if resource.port_address is None:
        if network is not None:
            violations.append(broken("networkAddress", "needs portAddress", network))
        if length:
            violations.append(broken("networkLength", "needs portAddress", length))
        return ()
    address = parse_ip(resource.port_address)
    prefix = IpPrefix(address.version, address.value, length)
    rule = unusable_interface(prefix)
    if rule is not None:
        name = "portAddress" if length else "networkLength"
        violations.append(broken(name, rule, str(prefix)))
    elif network is not None and not prefix.contains(parse_ip(network)):
        rule = f"must be the network of portAddress {prefix}"
        violations.append(broken("networkAddress", rule, network))
    return (str(prefix),)


_ROUTER_ONLY = (
    ("networkAddress", "network_address"),
    ("networkLength", "network_length"),
    ("portAddress", "port_address"),
    ("portSubnet", "addresses"),
    ("portMac", "mac"),
    ("rtrPortVni", "vni"),
    ("offRampVxlan", "off_ramp_vxlan"),
    ("raEnabled", "ra_enabled"),
    ("raManaged", "ra_managed"),
    ("raOtherConfig", "ra_other_config"),
    ("raAutonomous", "ra_autonomous"),
    ("raLifetimeSeconds", "ra_lifetime_s"),
    ("raIntervalSeconds", "ra_interval_s"),
    ("raDnsServerAddrs", "ra_dns_addresses"),
    ("raDomainSearch", "ra_domains"),
)
_BRIDGE_ONLY = (
    ("vlanId", "vlan_id"),
    ("portSecurityEnabled", "port_security_enabled"),
    ("allowedAddressPairs", "allowed_address_pairs"),
)


def _misplaced(resource: PortResource, *, is_router_port: bool) -> list[Violation]:
    """Return what only a port of the other kind of device can have."""
    names, owner = (_BRIDGE_ONLY, "bridge") if is_router_port else (_ROUTER_ONLY, "router")
    plain = PortResource()
    return [
        broken(external, f"is for {owner} ports only", value)
        for external, name in names
        # What says nothing may stand in every body, whatever stands for it.
        if ((value := getattr(resource, name)) or getattr(plain, name))
        and value != getattr(plain, name)
    ]


def port_from_model(port: Port) -> PortResource:
    """Return the representation of a stored port, `active` false."""
    first_v4 = None
    for address in port.addresses:
        prefix = parse_prefix(address)
        if prefix.version is IpVersion.V4:
            first_v4 = prefix
            break
    is_router_port = port.router_id is not None
    device_id = port.router_id if port.router_id is not None else port.bridge_id
    resource = PortResource(
        id=port.id,
        kind="Router" if is_router_port else "Bridge",
        device_id=device_id,
        device=f"/{'routers' if is_router_port else 'bridges'}/{device_id}",
        admin_state_up=port.admin_state_up,
        inbound_filter_id=port.inbound_filter_id,
        outbound_filter_id=port.outbound_filter_id,
        tunnel_key=port.tunnel_key,
        vif_id=port.vif_id,
        host_id=port.host_id,
        interface_name=port.interface_name,
        peer_port_id=port.peer_port_id,
        vlan_id=port.vlan_id,
        network_address=format_ip(first_v4.version, first_v4.network) if first_v4 else None,
        network_length=first_v4.length if first_v4 else 0,
        port_address=str(first_v4.address) if first_v4 else None,
        addresses=port.addresses,
        mac=port.mac,
        vni=port.vni,
        off_ramp_vxlan=port.off_ramp_vxlan,
        **{name: getattr(port, name) for name in _ALIKE},
        port_security_enabled=port.port_security_enabled,
        allowed_address_pairs=tuple(map(_pair_resource, port.allowed_address_pairs)),
    )
    return msgspec.structs.replace(resource, **advertising_from_model(port.advertising))


def _pair_resource(pair: AddressPair) -> AddressPairResource:
    shown = None
    if pair.address is not None:
        prefix = parse_prefix(pair.address)
        is_host = prefix.length == prefix.version.bits
        shown = str(prefix.address if is_host else prefix)
    return AddressPairResource(mac_address=pair.mac, ip_address=shown)


PORT = ResourceSchema(
    title="Port",
    parent_link="ports",
    representation=PortResource,
    kind=Port,
    media=MediaType("Port", (4, 3, 2)),
    collection="ports",
    root_keys=("ports", "portTemplate"),
    to_model=port_to_model,
    from_model=port_from_model,
)
PORT_LINK = ResourceSchema(
    title="PortLink",
    parent_link="link",
    representation=PortLinkResource,
    media=MediaType("PortLink", (1,)),
)
