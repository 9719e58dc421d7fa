"""Binding a port to an interface of this host, on behalf of an operator at this host."""

from __future__ import annotations

from uuid import UUID

import msgspec

from midonet.errors import ConflictError, NotFoundError, UserError
from midonet.model.devices import Port
from midonet.model.ids import HostId, PortId
from midonet.nsdb.store import Store, Update, Versioned

_ATTEMPTS = 5
_MAX_NAME_LENGTH = 15
"""Longest interface name in characters: IFNAMSIZ less the final zero, include/uapi/linux/if.h."""


async def bind_port(store: Store, host_id: HostId, port_id: PortId, interface_name: str) -> None:
    """Bind a port to an interface here; a port bound elsewhere moves.

    Raises NotFoundError (no such port), UserError (a bad name), ConflictError (the port is
    linked, the interface has another port, or others keep changing the port).
    """
    if not 0 < len(interface_name) <= _MAX_NAME_LENGTH or "/" in interface_name:
        raise UserError(f"{interface_name!r} is not an interface name", field="interfaceName")
    for _ in range(_ATTEMPTS):
        found = await _port(store, port_id)
        port = found.value
        if port.peer_port_id is not None:
            raise ConflictError(f"Port {port_id} is linked to port {port.peer_port_id}.")
        await _require_free(store, host_id, port_id, interface_name)
        previous = port.host_id if port.host_id != host_id else port.previous_host_id
        bound = msgspec.structs.replace(
            port, host_id=host_id, interface_name=interface_name, previous_host_id=previous
        )
        if await _update(store, bound, found.version):
            return
    raise ConflictError(f"Port {port_id} keeps changing; try again.")


async def unbind_port(store: Store, host_id: HostId, port_id: PortId) -> None:
    """Unbind a port, unless it is bound to another host. Raises as `bind_port`."""
    for _ in range(_ATTEMPTS):
        found = await _port(store, port_id)
        if found.value.host_id != host_id:
            return
        unbound = msgspec.structs.replace(found.value, host_id=None, interface_name=None)
        if await _update(store, unbound, found.version):
            return
    raise ConflictError(f"Port {port_id} keeps changing; try again.")


def parse_port_id(text: str) -> PortId:
    """Return the identifier in `text`. Raises UserError when it is not a UUID."""
    try:
        return PortId(UUID(text))
    except ValueError:
        raise UserError(f"{text!r} is not a port UUID", field="portId") from None


async def _port(store: Store, port_id: PortId) -> Versioned[Port]:
    found = await store.get(Port, port_id)
    if found is None:
        raise NotFoundError("port", port_id)
    return found


async def _require_free(
    store: Store, host_id: HostId, port_id: PortId, interface_name: str
) -> None:
    ids = await store.referrers(Port, "host_id", host_id)
    for other in (await store.get_many(Port, ids)).values():
        if other.value.interface_name == interface_name and other.value.id != port_id:
            raise ConflictError(f"Interface {interface_name} is bound to port {other.value.id}.")


async def _update(store: Store, port: Port, version: int) -> bool:
    try:
        await store.transact([Update(port, version)])
    except ConflictError:
        return False
    return True
