"""Representations of hosts, interfaces, bindings, tunnel zones and state tables."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct, field

from midonet.model.hosts import (
    Host,
    Interface,
    TunnelKind,
    TunnelZone,
    TunnelZoneHost,
    tunnel_zone_host_id,
)
from midonet.model.ids import HostId, TunnelZoneId
from midonet.model.schema import (
    CREATE_ONLY,
    READ_ONLY,
    REQUIRED,
    MediaType,
    ResourceSchema,
    link_to,
    text,
)
from midonet.model.validation import (
    HOST_IP,
    INTERFACE_NAME,
    PRINTABLE,
    UNDERLAY_IP,
    UNICAST_MAC,
)

_STATUS_UP = 1
_STATUS_LINK = 2


class InterfaceResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A network interface as the agent of its host reports it.

    status: bit 0 is administratively up, bit 1 is carrier.
    """

    uri: Annotated[str | None, link_to("/hosts/{host_id}/interfaces/{name}")] = None
    host_id: Annotated[UUID | None, READ_ONLY] = None
    name: Annotated[str, READ_ONLY] = ""
    mac: Annotated[str | None, READ_ONLY] = None
    mtu_bytes: Annotated[int, READ_ONLY] = field(default=0, name="mtu")
    kind: Annotated[str, READ_ONLY] = field(default="Unknown", name="type")
    endpoint: Annotated[str, READ_ONLY] = "UNKNOWN"
    port_type: Annotated[str | None, READ_ONLY] = None
    addresses: Annotated[tuple[str, ...], READ_ONLY] = ()
    status: Annotated[int, READ_ONLY] = 0
    host: Annotated[str | None, link_to("/hosts/{host_id}")] = None


def interface_from_model(host_id: HostId, interface: Interface) -> InterfaceResource:
    """Return the representation of an interface of a host."""
    return InterfaceResource(
        host_id=host_id,
        name=interface.name,
        mac=interface.mac,
        mtu_bytes=interface.mtu_bytes,
        kind=interface.kind,
        endpoint=interface.endpoint,
        port_type=interface.port_type,
        addresses=interface.addresses,
        status=_STATUS_UP * interface.is_up | _STATUS_LINK * interface.has_link,
    )


class HostResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A machine that runs an agent. Its agent creates it; PUT takes the four tunables.

    alive: the agent's session is live.
    flooding_proxy_weight: chance of being chosen to flood for VTEPs; 0 never.
    container_weight: share of service containers.
    container_limit: most service containers; -1 means no limit.
    """

    id: Annotated[UUID | None, READ_ONLY] = None
    uri: Annotated[str | None, link_to("/hosts/{id}")] = None
    name: Annotated[str, READ_ONLY] = ""
    addresses: Annotated[tuple[str, ...], READ_ONLY] = ()
    host_interfaces: Annotated[tuple[InterfaceResource, ...], READ_ONLY] = ()
    alive: Annotated[bool, READ_ONLY] = False
    flooding_proxy_weight: Annotated[int, Meta(ge=0, le=0xFFFF), REQUIRED] = 1
    container_weight: Annotated[int, Meta(ge=0, le=0x7FFF_FFFF), REQUIRED] = 1
    container_limit: Annotated[int, Meta(ge=-1, le=0x7FFF_FFFF), REQUIRED] = -1
    enforce_container_limit: Annotated[bool, REQUIRED] = False
    interfaces: Annotated[str | None, link_to("/hosts/{id}/interfaces")] = None
    ports: Annotated[str | None, link_to("/hosts/{id}/ports")] = None


class BindingResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A port bound to an interface of a host."""

    uri: Annotated[str | None, link_to("/hosts/{host_id}/ports/{port_id}")] = None
    host_id: Annotated[UUID | None, READ_ONLY] = None
    port_id: Annotated[UUID | None, REQUIRED] = None
    interface_name: Annotated[str, REQUIRED, text(INTERFACE_NAME)] = ""
    host: Annotated[str | None, link_to("/hosts/{host_id}")] = None
    port: Annotated[str | None, link_to("/ports/{port_id}")] = None


class TunnelZoneResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A set of hosts that tunnel to each other.

    name: unique among all tunnel zones.
    kind: gre, vxlan or vtep.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/tunnel_zones/{id}")] = None
    name: Annotated[str, Meta(min_length=1, max_length=255, pattern=PRINTABLE), REQUIRED] = ""
    kind: Annotated[TunnelKind, REQUIRED] = field(default=TunnelKind.VXLAN, name="type")
    hosts: Annotated[str | None, link_to("/tunnel_zones/{id}/hosts")] = None


class TunnelZoneHostResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """Membership of a host in a tunnel zone, with its underlay address.

    address: unicast address of this host, not link-local; no two members of a zone have the
        same.
    """

    uri: Annotated[str | None, link_to("/tunnel_zones/{tunnel_zone_id}/hosts/{host_id}")] = None
    tunnel_zone_id: Annotated[UUID | None, READ_ONLY] = None
    host_id: Annotated[UUID | None, REQUIRED] = None
    address: Annotated[str, REQUIRED, text(UNDERLAY_IP)] = field(default="", name="ipAddress")
    tunnel_zone: Annotated[str | None, link_to("/tunnel_zones/{tunnel_zone_id}")] = None
    host: Annotated[str | None, link_to("/hosts/{host_id}")] = None


def tunnel_zone_host_to_model(
    resource: TunnelZoneHostResource, current: TunnelZoneHost | None
) -> TunnelZoneHost:
    """Return the stored form; the caller has set `tunnel_zone_id`."""
    assert resource.tunnel_zone_id is not None
    assert resource.host_id is not None
    zone_id, host_id = TunnelZoneId(resource.tunnel_zone_id), HostId(resource.host_id)
    return TunnelZoneHost(
        id=tunnel_zone_host_id(zone_id, host_id),
        tunnel_zone_id=zone_id,
        host_id=host_id,
        address=resource.address,
    )


class MacEntryResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A MAC address and the bridge port behind which it is, learned or posted.

    mac: of one interface, neither a group address nor zero.
    port_id: port of this bridge, untagged or in the table's VLAN.
    vlan_id: VLAN of the table; the one in the URI wins over the one in a body.
    """

    uri: Annotated[str | None, link_to("")] = None
    mac: Annotated[str, REQUIRED, text(UNICAST_MAC)] = field(default="", name="macAddr")
    port_id: Annotated[UUID | None, REQUIRED] = None
    vlan_id: Annotated[int, Meta(ge=0, le=4094)] = 0
    bridge_id: Annotated[UUID | None, READ_ONLY] = None
    bridge: Annotated[str | None, link_to("/bridges/{bridge_id}")] = None
    port: Annotated[str | None, link_to("/ports/{port_id}")] = None


class ArpEntryResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A neighbour that a bridge answers for. IPv4 (ARP) or IPv6 (neighbour discovery).

    ip: unicast address of one host; not unspecified, loopback or IPv4-mapped.
    mac: of one interface, neither a group address nor zero.
    """

    uri: Annotated[str | None, link_to("")] = None
    ip: Annotated[str, REQUIRED, text(HOST_IP)] = ""
    mac: Annotated[str, REQUIRED, text(UNICAST_MAC)] = ""
    bridge_id: Annotated[UUID | None, READ_ONLY] = None
    bridge: Annotated[str | None, link_to("/bridges/{bridge_id}")] = None


HOST = ResourceSchema(
    title="Host",
    representation=HostResource,
    kind=Host,
    media=MediaType("Host", (3, 2)),
    collection="hosts",
    root_keys=("hosts", "hostTemplate"),
)
INTERFACE = ResourceSchema(
    title="Interface",
    parent_link="interfaces",
    representation=InterfaceResource,
    media=MediaType("Interface", (1,)),
)
BINDING = ResourceSchema(
    title="HostInterfacePort",
    parent_link="ports",
    representation=BindingResource,
    media=MediaType("HostInterfacePort", (1,)),
)
TUNNEL_ZONE = ResourceSchema(
    title="TunnelZone",
    representation=TunnelZoneResource,
    kind=TunnelZone,
    media=MediaType("TunnelZone", (1,)),
    collection="tunnel_zones",
    root_keys=("tunnelZones", "tunnelZoneTemplate"),
)
TUNNEL_ZONE_HOST = ResourceSchema(
    title="TunnelZoneHost",
    parent_link="hosts",
    representation=TunnelZoneHostResource,
    kind=TunnelZoneHost,
    media=MediaType("TunnelZoneHost", (1,), aliases=("GreTunnelZoneHost",)),
    to_model=tunnel_zone_host_to_model,
)
MAC_ENTRY = ResourceSchema(
    title="MacPort",
    parent_link="mac_table",
    representation=MacEntryResource,
    media=MediaType("MacPort", (2, 1)),
)
ARP_ENTRY = ResourceSchema(
    title="IP4Mac",
    parent_link="arp_table",
    representation=ArpEntryResource,
    media=MediaType("IP4Mac", (1,)),
)
