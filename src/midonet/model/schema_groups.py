"""Representations of port groups and IP address groups, and of what is in them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct, field

from midonet.model.groups import IpAddressGroup, PortGroup
from midonet.model.schema import (
    CREATE_ONLY,
    READ_ONLY,
    REQUIRED,
    UNSUPPORTED,
    MediaType,
    ResourceSchema,
    link_to,
    text,
)
from midonet.model.schema_devices import Name, ProjectName
from midonet.model.validation import GROUP_MEMBER, PRINTABLE


class PortGroupResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A set of ports that rules match together.

    stateful: connections that leave by one member may come back by another. Its members are on
        one device, and in no other stateful group.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/port_groups/{id}")] = None
    project_id: ProjectName | None = field(default=None, name="tenantId")
    name: Name | None = None
    stateful: bool = False
    ports: Annotated[str | None, link_to("/port_groups/{id}/ports")] = None


class PortGroupPortResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A port in a port group."""

    uri: Annotated[str | None, link_to("/port_groups/{port_group_id}/ports/{port_id}")] = None
    port_group_id: Annotated[UUID | None, READ_ONLY] = None
    port_id: Annotated[UUID | None, REQUIRED] = None
    port: Annotated[str | None, link_to("/ports/{port_id}")] = None
    port_group: Annotated[str | None, link_to("/port_groups/{port_group_id}")] = None


class IpAddressGroupResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A set of IPv4 and IPv6 addresses and prefixes that rules match together.

    rule_ids: rules that name the group; while there are any it cannot be deleted.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/ip_addr_groups/{id}")] = None
    name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255, pattern=PRINTABLE)] | None, REQUIRED
    ] = None
    ip_addr_ports: Annotated[tuple[UUID, ...], UNSUPPORTED] = ()
    inbound_chain_id: Annotated[UUID | None, UNSUPPORTED] = None
    outbound_chain_id: Annotated[UUID | None, UNSUPPORTED] = None
    rule_ids: Annotated[tuple[UUID, ...], READ_ONLY] = ()
    addrs: Annotated[str | None, link_to("/ip_addr_groups/{id}/ip_addrs")] = None


class IpAddressGroupAddressResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A member of an IP address group.

    version: 4 or 6; must be that of `addr`, and may be left out.
    addr: address, or prefix as network/length; the host bits of a prefix are cleared.
    """

    uri: Annotated[str | None, link_to("")] = None
    version: Annotated[int, Meta(ge=4, le=6)] | None = None
    addr: Annotated[str, REQUIRED, text(GROUP_MEMBER)] = ""
    ip_addr_group_id: Annotated[UUID | None, READ_ONLY] = None
    ip_addr_group: Annotated[str | None, link_to("/ip_addr_groups/{ip_addr_group_id}")] = None


PORT_GROUP = ResourceSchema(
    title="PortGroup",
    representation=PortGroupResource,
    kind=PortGroup,
    media=MediaType("PortGroup", (1,)),
    collection="port_groups",
    root_keys=("portGroups", "portGroupTemplate"),
)
PORT_GROUP_PORT = ResourceSchema(
    title="PortGroupPort",
    parent_link="ports",
    representation=PortGroupPortResource,
    media=MediaType("PortGroupPort", (1,)),
)
IP_ADDRESS_GROUP = ResourceSchema(
    title="IpAddrGroup",
    representation=IpAddressGroupResource,
    kind=IpAddressGroup,
    media=MediaType("IpAddrGroup", (1,)),
    collection="ip_addr_groups",
    root_keys=("ipAddrGroups", "ipAddrGroupTemplate"),
)
IP_ADDRESS_GROUP_ADDRESS = ResourceSchema(
    title="IpAddrGroupAddr",
    parent_link="addrs",
    representation=IpAddressGroupAddressResource,
    media=MediaType("IpAddrGroupAddr", (1,)),
)
