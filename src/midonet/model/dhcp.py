"""What a bridge gives its machines by DHCP (RFC 2131) and DHCPv6 (RFC 8415).

Stored form. A host entry refers to its subnet and a subnet to its bridge, so that a new entry
rewrites neither; text is in canonical form, as validation at the edge leaves it.
"""

from __future__ import annotations

from uuid import uuid5

import msgspec

from midonet.model.ids import BridgeId, ObjectId

MAX_NAME_SERVERS = 16
"""Most IPv6 name servers that machines are told, so that what tells them fits in every packet."""


class DhcpRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A route that clients are told. destination: `address/length`, gateway: its next hop."""

    destination: str
    gateway: str


class DhcpExtraOption(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A further option of one client, as it was written (`midonet.model.dhcp_options`)."""

    name: str
    value: str


class DhcpSubnet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An IPv4 subnet of a bridge with what all of its DHCP clients are told.

    prefix: network/length, on its bridge only once.
    server_address: by which the server calls itself. gateway: of the default route.
    mtu_bytes: 0 for the usual 1500.
    """

    id: ObjectId
    bridge_id: BridgeId
    prefix: str
    server_address: str | None = None
    gateway: str | None = None
    dns_addresses: tuple[str, ...] = ()
    mtu_bytes: int = 0
    routes: tuple[DhcpRoute, ...] = ()
    is_enabled: bool = True


class DhcpHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A DHCP client: the machine with this MAC has this address.

    id: derived from (subnet, MAC) by `dhcp_host_id`. address: None gives it nothing.
    """

    id: ObjectId
    subnet_id: ObjectId
    mac: str
    address: str | None = None
    name: str | None = None
    options: tuple[DhcpExtraOption, ...] = ()


class DhcpV6Subnet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An IPv6 subnet of a bridge with what all of its DHCPv6 clients are told.

    prefix: network/length, on its bridge only once.
    """

    id: ObjectId
    bridge_id: BridgeId
    prefix: str
    dns_addresses: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    is_enabled: bool = True


class DhcpV6Host(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A DHCPv6 client and its address.

    id: derived from (subnet, client) by `dhcp_v6_host_id`.
    client_id: octets joined by `:`, of a DUID, or six of a MAC.
    """

    id: ObjectId
    subnet_id: ObjectId
    client_id: str
    address: str | None = None
    name: str | None = None


def dhcp_host_id(subnet_id: ObjectId, mac: str) -> ObjectId:
    """Return the identifier of the entry of a canonical MAC in a subnet."""
    return uuid5(subnet_id, f"mac:{mac}")


def dhcp_v6_host_id(subnet_id: ObjectId, client_id: str) -> ObjectId:
    """Return the identifier of the entry of a canonical client id in a subnet."""
    return uuid5(subnet_id, f"client:{client_id}")
