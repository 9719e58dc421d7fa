"""Binding ports to interfaces of hosts: `/hosts/{id}/ports`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from midonet.api.call import NO_CONTENT, Call, Endpoint, Reply
from midonet.api.crud import commit, require
from midonet.errors import ConflictError, NotFoundError
from midonet.model.devices import Port
from midonet.model.hosts import Host, TunnelZoneHost
from midonet.model.ids import HostId, PortId
from midonet.model.schema import checked
from midonet.model.schema_hosts import BINDING, HOST, BindingResource
from midonet.model.validation import invalid
from midonet.nsdb.store import Operation, Store, Update

_PATH = "/hosts/{id}/ports"
_ITEM = "/hosts/{id}/ports/{port_id}"


async def plan_binding(
    store: Store, port: Port, host_id: HostId, interface_name: str | None
) -> list[Operation]:
    """Check that `port` may be bound, and return what a transaction that does it must contain.

    The host is rewritten as it is, so that of two bindings of one interface at the same time
    the second is planned anew. Raises ConflictError, NotFoundError (no such host).
    """
    host = await store.get(Host, host_id)
    if host is None:
        raise NotFoundError("Host", host_id)
    if not await store.referrers(TunnelZoneHost, "host_id", host_id):
        raise ConflictError(f"Host {host_id} is not in any tunnel zone.")
    if port.peer_port_id is not None:
        raise ConflictError(f"Port {port.id} is linked to port {port.peer_port_id}.")
    bound = await store.get_many(Port, await store.referrers(Port, "host_id", host_id))
    for other in bound.values():
        if other.value.interface_name == interface_name and other.value.id != port.id:
            raise ConflictError(
                f"Interface {interface_name} of host {host_id} is bound to port {other.value.id}."
            )
    return [Update(host.value, host.version)]


async def _bound(call: Call, host_id: HostId, port_id: PortId) -> Port | None:
    found = await call.store.get(Port, port_id)
    return found.value if found is not None and found.value.host_id == host_id else None


def _represented(port: Port) -> BindingResource:
    return BindingResource(
        host_id=port.host_id, port_id=port.id, interface_name=port.interface_name or ""
    )


async def _list(call: Call) -> Reply:
    host_id = HostId(call.object_id("id", "Host"))
    await require(call.store, HOST, host_id)
    port_ids = await call.store.referrers(Port, "host_id", host_id)
    ports = await call.store.get_many(Port, port_ids)
    return Reply(200, [_represented(port.value) for port in ports.values()])


async def _read(call: Call) -> Reply:
    host_id = HostId(call.object_id("id", "Host"))
    await require(call.store, HOST, host_id)
    port_id = PortId(call.object_id("port_id", "HostInterfacePort"))
    port = await _bound(call, host_id, port_id)
    if port is None:
        raise NotFoundError("HostInterfacePort", port_id)
    return Reply(200, _represented(port))


async def _bind(call: Call) -> Reply:
    host_id = HostId(call.object_id("id", "Host"))
    binding = checked(BindingResource, call.body)
    assert binding.port_id is not None
    port_id = PortId(binding.port_id)

    async def plan() -> Sequence[Operation]:
        await require(call.store, HOST, host_id)
        current = await call.store.get(Port, port_id)
        if current is None:
            raise invalid("portId", f"There is no Port with ID {port_id}.")
        if current.value.host_id is not None:
            raise ConflictError(f"Port {port_id} is already bound to host {current.value.host_id}.")
        port = msgspec.structs.replace(
            current.value, host_id=host_id, interface_name=binding.interface_name
        )
        checks = await plan_binding(call.store, port, host_id, binding.interface_name)
        return [Update(port, current.version), *checks]

    await commit(call.services, plan)
    return Reply(201, location=f"/hosts/{host_id}/ports/{port_id}")


async def _unbind(call: Call) -> Reply:
    host_id = HostId(call.object_id("id", "Host"))
    port_id = PortId(call.object_id("port_id", "HostInterfacePort"))

    async def plan() -> Sequence[Operation]:
        await require(call.store, HOST, host_id)
        current = await call.store.get(Port, port_id)
        if current is None or current.value.host_id != host_id:
            return []
        port = msgspec.structs.replace(
            current.value, host_id=None, interface_name=None, previous_host_id=host_id
        )
        return [Update(port, current.version)]

    await commit(call.services, plan)
    return NO_CONTENT


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        Endpoint(
            "GET", _PATH, BINDING, _list, "List the ports bound to a host", 200, is_collection=True
        ),
        Endpoint(
            "POST",
            _PATH,
            BINDING,
            _bind,
            "Bind a port to an interface of a host",
            201,
            takes_body=True,
        ),
        Endpoint("GET", _ITEM, BINDING, _read, "Read a binding", 200),
        Endpoint("DELETE", _ITEM, BINDING, _unbind, "Unbind a port", 204),
    ]
