"""Bridges, routers and routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from midonet.api.call import Call, Endpoint
from midonet.api.crud import StoredResource, endpoints_of, nested_endpoints, require
from midonet.api.resources.tables import forget_tables
from midonet.errors import ConflictError, NotFoundError, ValidationError
from midonet.model.address_rules import unusable_gateway
from midonet.model.devices import Bridge, Port, Route, Router
from midonet.model.ids import ObjectId
from midonet.model.schema_devices import BRIDGE, ROUTE, ROUTER, RouteResource
from midonet.model.validation import broken, invalid
from midonet.nsdb import deletion
from midonet.nsdb.store import Check, Create, Operation, Versioned
from midonet.packets.addresses import parse_ip, parse_prefix

_ALL = frozenset(("LIST", "GET", "POST", "PUT", "DELETE"))


async def _delete_bridge(
    call: Call, bridge_id: ObjectId, check: Callable[[Versioned[Any]], None]
) -> bool:
    existed = await deletion.delete(call.store, Bridge, bridge_id, check)
    await forget_tables(call.store, bridge_id)
    return existed


async def _plan_route(call: Call, resource: RouteResource, route: Route) -> list[Operation]:
    """A next-hop port must be on the router; its version is checked with the write."""
    if route.next_hop_port_id is None:
        return [Create(route)]
    port = await call.store.get(Port, route.next_hop_port_id)
    if port is None:
        raise NotFoundError("Port", route.next_hop_port_id)
    if port.value.router_id != route.router_id:
        await require(call.store, ROUTER, route.router_id)
        raise invalid("nextHopPort", "must be a port of this router")
    if route.gateway is not None:
        _require_neighbour(route.gateway, port.value)
    return [Check(Port, route.next_hop_port_id, port.version), Create(route)]


def _require_neighbour(gateway: str, port: Port) -> None:
    """Raise ValidationError for a next hop that no neighbour behind the port can be."""
    rule = unusable_gateway(parse_ip(gateway), map(parse_prefix, port.addresses))
    if rule is not None:
        raise ValidationError([broken("nextHopGateway", rule, gateway)])


async def _delete_router(
    call: Call, router_id: ObjectId, check: Callable[[Versioned[Any]], None]
) -> bool:
    def check_balancer(found: Versioned[Any]) -> None:
        check(found)
        if found.value.load_balancer_id is not None:
            raise ConflictError(
                f"Router {router_id} is in use: it answers for the VIPs of load balancer"
                f" {found.value.load_balancer_id}."
            )

    return await deletion.delete(call.store, Router, router_id, check_balancer)


BRIDGES = StoredResource(
    schema=BRIDGE,
    verbs=_ALL,
    missing_delete=404,
    filters={"tenant_id": "project_id"},
    delete=_delete_bridge,
)
ROUTERS = StoredResource(
    schema=ROUTER, verbs=_ALL, filters={"tenant_id": "project_id"}, delete=_delete_router
)
ROUTES = StoredResource(schema=ROUTE, verbs=frozenset(("GET", "DELETE")), plan_create=_plan_route)


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        *endpoints_of(BRIDGES),
        *endpoints_of(ROUTERS),
        *endpoints_of(ROUTES),
        *nested_endpoints(ROUTER, "routes", ROUTES, "router_id", "router_id"),
    ]
