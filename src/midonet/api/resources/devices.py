"""Bridges, routers and routes."""

from __future__ import annotations

from midonet.api.call import Call, Endpoint
from midonet.api.crud import StoredResource, endpoints_of, nested_endpoints, require
from midonet.api.resources.tables import forget_tables
from midonet.errors import NotFoundError
from midonet.model.devices import Bridge, Port, Route
from midonet.model.ids import ObjectId
from midonet.model.schema_devices import BRIDGE, ROUTE, ROUTER, RouteResource
from midonet.model.validation import invalid
from midonet.nsdb import deletion
from midonet.nsdb.store import Check, Create, Operation

_ALL = frozenset(("LIST", "GET", "POST", "PUT", "DELETE"))


async def _delete_bridge(call: Call, bridge_id: ObjectId) -> bool:
    existed = await deletion.delete(call.store, Bridge, bridge_id)
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
    return [Check(Port, route.next_hop_port_id), Create(route)]


BRIDGES = StoredResource(
    schema=BRIDGE,
    verbs=_ALL,
    missing_delete=404,
    filters={"tenant_id": "project_id"},
    delete=_delete_bridge,
)
ROUTERS = StoredResource(schema=ROUTER, verbs=_ALL, filters={"tenant_id": "project_id"})
ROUTES = StoredResource(schema=ROUTE, verbs=frozenset(("GET", "DELETE")), plan_create=_plan_route)


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        *endpoints_of(BRIDGES),
        *endpoints_of(ROUTERS),
        *endpoints_of(ROUTES),
        *nested_endpoints(ROUTER, "routes", ROUTES, "router_id", "router_id"),
    ]
