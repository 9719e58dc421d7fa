"""Connections as JSON and in the words that people read."""

from __future__ import annotations

from typing import Any

from midonet.agent.flow_state.connection import Binding, Connection, ConnectionKey, Endpoint
from midonet.agent.flow_state.sight import Sight
from midonet.packets.addresses import IpVersion, format_ip
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.protocols import IpProtocol

Json = dict[str, Any]

_ICMP = frozenset((int(IpProtocol.ICMP), int(IpProtocol.ICMPV6)))


def protocol_name(protocol: int) -> str:
    """Return the name of a protocol in small letters, or its number."""
    try:
        return IpProtocol(protocol).name.lower()
    except ValueError:
        return str(protocol)


def format_endpoint(version: IpVersion, address: int, port: int) -> str:
    """Return an address and a port as in a URL."""
    text = format_ip(version, address)
    return f"[{text}]:{port}" if version is IpVersion.V6 else f"{text}:{port}"


def describe_tuple(key: FiveTuple) -> str:
    """Return a five-tuple in one line."""
    name = protocol_name(key.protocol)
    if key.protocol in _ICMP:
        source, destination = (
            format_ip(key.version, key.source),
            format_ip(key.version, key.destination),
        )
        return f"{name} {source} -> {destination} id {key.source_port}"
    source = format_endpoint(key.version, key.source, key.source_port)
    destination = format_endpoint(key.version, key.destination, key.destination_port)
    return f"{name} {source} -> {destination}"


def describe_key(key: ConnectionKey) -> Json:
    """Return a key as JSON: `zone`, `vlan`, and the parts of its tuple."""
    return {
        "zone": str(key.zone.scope),
        "vlan": key.zone.vlan,
        "protocol": protocol_name(key.tuple.protocol),
        "source": format_ip(key.tuple.version, key.tuple.source),
        "sourcePort": key.tuple.source_port,
        "destination": format_ip(key.tuple.version, key.tuple.destination),
        "destinationPort": key.tuple.destination_port,
    }


def describe_sight(sight: Sight) -> Json:
    """Return a sight as JSON: `standing`, `direction`, and the connection if there is one."""
    return {
        "standing": sight.standing.name,
        "direction": sight.direction.name,
        "connection": None if sight.connection is None else describe_connection(sight.connection),
    }


def describe_connection(connection: Connection) -> Json:
    """Return a connection as JSON."""
    return {
        "forward": describe_key(connection.forward),
        "returns": [describe_key(key) for key in connection.returns],
        "initiator": str(connection.initiator),
        "bindings": [_describe_binding(binding) for binding in connection.bindings],
        "tcpState": connection.tcp.name,
        "answered": connection.is_answered,
        "serial": connection.serial,
    }


def _describe_binding(binding: Binding) -> Json:
    return {
        "owner": str(binding.owner),
        "side": binding.side.value,
        "before": _describe_endpoint(binding.before),
        "after": _describe_endpoint(binding.after),
    }


def _describe_endpoint(endpoint: Endpoint) -> str:
    return format_endpoint(endpoint.version, endpoint.address, endpoint.port)
