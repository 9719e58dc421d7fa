"""L2 insertions. The rules that they come to are written with them."""

from __future__ import annotations

from midonet.api.call import Call, Endpoint
from midonet.api.crud import StoredResource, endpoints_of
from midonet.errors import ConflictError, NotFoundError, ValidationError
from midonet.model.devices import Port
from midonet.model.ids import PortId
from midonet.model.insertions import L2Insertion
from midonet.model.schema_insertions import L2_INSERTION, L2InsertionResource
from midonet.model.validation import broken
from midonet.nsdb import insertions
from midonet.nsdb.store import Create, Operation, Store, Update, Versioned


async def _plan_create(
    call: Call, _: L2InsertionResource, insertion: L2Insertion
) -> list[Operation]:
    await _check_ports(call.store, insertion)
    await _check_vlan(call.store, insertion)
    return [Create(insertion), *await _plan_ports(call.store, insertion)]


async def _plan_update(
    call: Call, current: Versioned[L2Insertion], insertion: L2Insertion
) -> list[Operation]:
    await _check_vlan(call.store, insertion)
    return [Update(insertion, current.version), *await _plan_ports(call.store, insertion)]


async def _plan_ports(store: Store, insertion: L2Insertion) -> list[Operation]:
    ports = (insertion.port_id, insertion.service_port_id)
    return await insertions.plan_ports(store, ports, {insertion.id: insertion})


async def _check_ports(store: Store, insertion: L2Insertion) -> None:
    """Raise when a port cannot have the part that it is to have."""
    port_id, service_id = insertion.port_id, insertion.service_port_id
    await _port(store, port_id)
    service = await _port(store, service_id)
    if service.bridge_id is None:
        raise ValidationError([broken("srvPortId", "must be a port of a bridge", service_id)])
    if port_id == service_id:
        raise ValidationError([broken("srvPortId", "must be another port than portId", service_id)])
    if await insertions.of_port(store, "service_port_id", port_id):
        raise ConflictError(f"Port {port_id} is a service port: it cannot be protected.")
    if await insertions.of_port(store, "port_id", service_id):
        raise ConflictError(f"Port {service_id} is protected: it cannot be a service port.")
    if any(
        one.service_port_id == service_id
        for one in await insertions.of_port(store, "port_id", port_id)
    ):
        raise ConflictError(f"Port {port_id} passes the service of port {service_id} already.")


async def _check_vlan(store: Store, insertion: L2Insertion) -> None:
    """Raise when a service could not tell whose frames it gets."""
    for other in await insertions.of_port(store, "service_port_id", insertion.service_port_id):
        if other.id != insertion.id and 0 in (insertion.vlan, other.vlan):
            raise ConflictError(
                f"Port {insertion.service_port_id} serves port {other.port_id} too: both"
                " insertions need a VLAN."
            )


async def _port(store: Store, port_id: PortId) -> Port:
    found = await store.get(Port, port_id)
    if found is None:
        raise NotFoundError("Port", port_id)
    return found.value


L2_INSERTIONS = StoredResource(
    schema=L2_INSERTION,
    verbs=frozenset(("LIST", "GET", "POST", "PUT", "DELETE")),
    filters={"port": "port_id", "srv_port": "service_port_id"},
    plan_create=_plan_create,
    plan_update=_plan_update,
)


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return endpoints_of(L2_INSERTIONS)
