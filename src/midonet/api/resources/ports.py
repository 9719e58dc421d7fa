"""Ports: tunnel keys, Local routes, runtime state, bindings and links."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import msgspec

from midonet.api.call import NO_CONTENT, Call, Endpoint, Reply
from midonet.api.crud import (
    StoredResource,
    commit,
    dangling,
    endpoints_of,
    nested_endpoints,
    require,
)
from midonet.api.resources.bindings import plan_binding
from midonet.errors import ConflictError, NotFoundError, ValidationError
from midonet.model.address_rules import unusable_gateway
from midonet.model.devices import NextHopKind, Port, Route
from midonet.model.hosts import PortLocation
from midonet.model.ids import ObjectId, PortId, RouteId
from midonet.model.insertions import L2Insertion
from midonet.model.schema import ResourceSchema, checked
from midonet.model.schema_devices import BRIDGE, ROUTER
from midonet.model.schema_ports import (
    BRIDGE_PORT_TYPES,
    PORT,
    PORT_LINK,
    ROUTER_PORT_TYPES,
    PortLinkResource,
    PortResource,
)
from midonet.model.validation import broken, invalid
from midonet.nsdb.store import Create, Delete, Operation, Store, Update, Versioned
from midonet.packets.addresses import IpVersion, format_mac, parse_ip, parse_prefix

_OUI = 0xACCABA << 24


def random_mac() -> str:
    """Return a MAC address in the range of virtual ports, `ac:ca:ba:xx:xx:xx`."""
    return format_mac(_OUI | random.getrandbits(24))


def local_route(port: Port, address: str) -> Route:
    """Return the route that delivers packets for a port's own address to the router."""
    prefix = parse_prefix(address)
    is_v4 = prefix.version is IpVersion.V4
    assert port.router_id is not None
    return Route(
        id=RouteId(uuid4()),
        router_id=port.router_id,
        kind=NextHopKind.LOCAL,
        source="0.0.0.0/0" if is_v4 else "::/0",
        destination=f"{prefix.address}/{prefix.version.bits}",
        next_hop_port_id=port.id,
    )


async def _plan_create(call: Call, resource: PortResource, port: Port) -> list[Operation]:
    is_router_port = port.router_id is not None
    port = msgspec.structs.replace(
        port,
        tunnel_key=await call.services.tunnel_keys.allocate(),
        mac=random_mac() if is_router_port and port.mac is None else port.mac,
    )
    operations: list[Operation] = [Create(port)]
    operations += [Create(local_route(port, address)) for address in port.addresses]
    if port.host_id is not None:
        operations += await plan_binding(call.store, port, port.host_id, port.interface_name)
    if port.peer_port_id is not None:
        operations.append(await _plan_peer(call.store, port))
    return operations


async def _plan_update(call: Call, current: Versioned[Port], port: Port) -> list[Operation]:
    before = current.value
    operations: list[Operation] = [Update(port, current.version)]
    if port.peer_port_id != before.peer_port_id:
        operations.append(await _plan_peer(call.store, port))
    if port.host_id is not None and port.host_id != before.host_id:
        operations += await plan_binding(call.store, port, port.host_id, port.interface_name)
    if port.addresses != before.addresses:
        operations += await _plan_local_routes(call.store, before, port)
    return operations


async def _plan_local_routes(store: Store, before: Port, port: Port) -> list[Operation]:
    """Let the Local routes follow the addresses of a port.

    Raises ValidationError when the next hop of a route would become the port itself.
    """
    gone = {local_route(before, each).destination for each in before.addresses}
    route_ids = await store.referrers(Route, "next_hop_port_id", port.id)
    found = await store.get_many(Route, route_ids)
    own = [parse_prefix(each) for each in port.addresses]
    for route_id, route in found.items():
        if route.value.gateway is None:
            continue
        rule = unusable_gateway(parse_ip(route.value.gateway), own)
        if rule is not None:
            rule = f"the next hop {route.value.gateway} of route {route_id} {rule}"
            raise ValidationError([broken("portSubnet", rule, port.addresses)])
    operations: list[Operation] = [
        Delete(Route, route_id, route.version)
        for route_id, route in found.items()
        if route.value.kind is NextHopKind.LOCAL and route.value.destination in gone
    ]
    operations += [Create(local_route(port, address)) for address in port.addresses]
    return operations


async def _plan_peer(store: Store, port: Port) -> Operation:
    """Return the update that points the peer of `port`, newly set there, back at it.

    Raises ConflictError when the two cannot be linked, NotFoundError when there is no peer.
    """
    peer_id = port.peer_port_id
    assert peer_id is not None
    if peer_id == port.id:
        raise ConflictError("Ports are not linkable: a port cannot be linked to itself.")
    peer = await store.get(Port, peer_id)
    if peer is None:
        raise NotFoundError("Port", peer_id)
    if peer.value.peer_port_id is not None:
        raise ConflictError("Ports are not linkable: one of them is linked already.")
    if port.host_id is not None or peer.value.host_id is not None:
        raise ConflictError("Ports are not linkable: one of them is bound to an interface.")
    if _device(port) == _device(peer.value):
        raise ConflictError("Ports are not linkable: both are on the same device.")
    return Update(msgspec.structs.replace(peer.value, peer_port_id=port.id), peer.version)


def _device(port: Port) -> object:
    return port.bridge_id or port.router_id


async def _link(call: Call) -> Reply:
    port_id = PortId(call.object_id("id", "Port"))
    resource = checked(PortLinkResource, call.body)
    linked: Port | None = None

    async def plan() -> Sequence[Operation]:
        nonlocal linked
        current = await require(call.store, PORT, port_id)
        if current.value.peer_port_id is not None:
            raise ConflictError("Ports are not linkable: one of them is linked already.")
        linked = msgspec.structs.replace(current.value, peer_port_id=resource.peer_port_id)
        return [Update(linked, current.version), await _plan_peer(call.store, linked)]

    try:
        await commit(call.services, plan)
    except NotFoundError as error:
        if error.object_id == port_id or linked is None:
            raise
        raise dangling(PORT, linked, error) from None
    return Reply(201, location=f"/ports/{port_id}")


async def _unlink(call: Call) -> Reply:
    port_id = call.object_id("id", "Port")

    async def plan() -> Sequence[Operation]:
        current = await require(call.store, PORT, port_id)
        port: Port = current.value
        if port.peer_port_id is None:
            return []
        operations: list[Operation] = [
            Update(msgspec.structs.replace(port, peer_port_id=None), current.version)
        ]
        peer = await call.store.get(Port, port.peer_port_id)
        if peer is not None:
            cleared = msgspec.structs.replace(peer.value, peer_port_id=None)
            operations.append(Update(cleared, peer.version))
        return operations

    await commit(call.services, plan)
    return NO_CONTENT


async def _insertion_ids(
    store: Store, ports: Sequence[Port]
) -> dict[ObjectId, tuple[ObjectId, ...]]:
    """Return the ids of the L2 insertions of protected ports."""
    protected = [port.id for port in ports if port.insertion_outbound_filter_id is not None]
    if not protected:
        return {}
    found = await store.referrers_many(L2Insertion, "port_id", protected)
    return {port_id: tuple(sorted(ids)) for port_id, ids in found.items()}


async def _present(call: Call, ports: Sequence[Port]) -> list[PortResource]:
    """A port is active when its interface is up at a host whose agent is alive."""
    bound = [port.id for port in ports if port.host_id is not None]
    locations = await call.store.get_many(PortLocation, bound) if bound else {}
    live = await call.store.live_sessions() if locations else frozenset()
    insertion_ids = await _insertion_ids(call.store, ports)
    presented = []
    for port in ports:
        resource = PORT.represented(port)
        if port.id in insertion_ids:
            resource = msgspec.structs.replace(resource, insertion_ids=insertion_ids[port.id])
        location = locations.get(port.id)
        if (
            location is not None
            and location.value.active
            and location.value.host_id == port.host_id
            and port.host_id in live
        ):
            resource = msgspec.structs.replace(resource, active=True)
        presented.append(resource)
    return presented


PORTS = StoredResource(
    schema=PORT,
    verbs=frozenset(("LIST", "GET", "PUT", "DELETE")),
    missing_delete=404,
    plan_create=_plan_create,
    plan_update=_plan_update,
    present=_present,
)


def _only(types: tuple[str, ...], message: str) -> StoredResource:
    """Return the resource as created below a device that takes these types of port only."""

    async def plan(call: Call, resource: PortResource, port: Port) -> list[Operation]:
        if resource.kind not in types:
            raise invalid("type", message)
        return await _plan_create(call, resource, port)

    return replace(PORTS, plan_create=plan)


def _peer_ports(device: ResourceSchema[Any], reference: str) -> Endpoint:
    async def handle(call: Call) -> Reply:
        device_id = call.object_id("id", device.title)
        await require(call.store, device, device_id)
        port_ids = await call.store.referrers(Port, reference, device_id)
        ports = await call.store.get_many(Port, port_ids)
        peer_ids = [port.value.peer_port_id for port in ports.values() if port.value.peer_port_id]
        peers = await call.store.get_many(Port, sorted(peer_ids))
        return Reply(200, list(await _present(call, [peer.value for peer in peers.values()])))

    return Endpoint(
        "GET",
        f"/{device.collection}/{{id}}/peer_ports",
        PORT,
        handle,
        f"List the ports of other devices that are linked to a {device.title}",
        200,
        is_collection=True,
    )


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    on_bridges = _only(BRIDGE_PORT_TYPES, "Not a bridge port.")
    on_routers = _only(ROUTER_PORT_TYPES, "Not a router port.")
    return [
        *endpoints_of(PORTS),
        *nested_endpoints(BRIDGE, "ports", on_bridges, "bridge_id", "device_id"),
        *nested_endpoints(ROUTER, "ports", on_routers, "router_id", "device_id"),
        _peer_ports(BRIDGE, "bridge_id"),
        _peer_ports(ROUTER, "router_id"),
        Endpoint(
            "POST",
            "/ports/{id}/link",
            PORT_LINK,
            _link,
            "Link two ports of different devices",
            201,
            takes_body=True,
            media_error=415,
        ),
        Endpoint("DELETE", "/ports/{id}/link", PORT_LINK, _unlink, "Unlink a port", 204),
    ]
