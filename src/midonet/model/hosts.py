"""Hosts, their interfaces, tunnel zones, and where ports are."""

from __future__ import annotations

from enum import StrEnum
from uuid import uuid5

import msgspec

from midonet.model.ids import BridgeId, HostId, ObjectId, PortId, TunnelZoneId


class Interface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network interface as the agent of its host reports it."""

    name: str
    mac: str | None = None
    mtu_bytes: int = 0
    kind: str = "Unknown"
    endpoint: str = "UNKNOWN"
    port_type: str | None = None
    addresses: tuple[str, ...] = ()
    is_up: bool = False
    has_link: bool = False


class Host(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A machine (or network namespace) that runs an agent. Created by the agent itself."""

    id: HostId
    name: str
    flooding_proxy_weight: int = 1
    container_weight: int = 1
    container_limit: int = -1
    enforce_container_limit: bool = False


class HostState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent reports of its host. Ephemeral: gone with the agent's session.

    epoch: grows by one at each start of the agent.
    overlay_mtu_bytes: largest inner frame payload (IP packet) that every known peer path takes;
        0 when not probed yet.
    """

    id: HostId
    interfaces: tuple[Interface, ...] = ()
    epoch: int = 0
    overlay_mtu_bytes: int = 0
    capabilities: tuple[str, ...] = ()


class TunnelKind(StrEnum):
    """Encapsulation of a tunnel zone. The words are those of the REST `type` field."""

    GRE = "gre"
    VXLAN = "vxlan"
    VTEP = "vtep"


class TunnelZone(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set of hosts that tunnel to each other."""

    id: TunnelZoneId
    name: str
    kind: TunnelKind


class TunnelZoneHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Membership of a host in a zone, with its underlay address (IPv4 or IPv6 text).

    id: derived from (zone, host) by `midonet.model.hosts.tunnel_zone_host_id`.
    """

    id: ObjectId
    tunnel_zone_id: TunnelZoneId
    host_id: HostId
    address: str


class PortLocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a bound port really is. Persistent; replaced only by compare-and-set on `epoch`.

    id: the port's id.
    tunnel_key: 24-bit key by which `host_id` delivers to the port; persists with the binding.
    active: the interface is up and attached to the datapath of `host_id`.
    """

    id: PortId
    host_id: HostId
    tunnel_key: int
    epoch: int
    active: bool = False


class FloodGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The key by which `host_id` delivers one frame to all of a bridge's unfiltered ports there.

    id: derived from (host, bridge) by `midonet.model.hosts.flood_group_id`.
    """

    id: ObjectId
    host_id: HostId
    bridge_id: BridgeId
    tunnel_key: int


def tunnel_zone_host_id(tunnel_zone_id: TunnelZoneId, host_id: HostId) -> ObjectId:
    """Return the identifier of the membership of `host_id` in `tunnel_zone_id`."""
    return uuid5(tunnel_zone_id, f"host:{host_id}")


def flood_group_id(host_id: HostId, bridge_id: BridgeId) -> ObjectId:
    """Return the identifier of the flood group of `bridge_id` at `host_id`."""
    return uuid5(host_id, f"flood:{bridge_id}")
