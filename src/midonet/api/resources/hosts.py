"""Hosts and their interfaces: created by agents, tuned and removed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from midonet.api.call import Call, Endpoint, Reply
from midonet.api.crud import StoredResource, endpoints_of, require
from midonet.api.error_bodies import HttpError
from midonet.errors import NotFoundError
from midonet.model.devices import Port
from midonet.model.hosts import Host, HostState
from midonet.model.ids import HostId, ObjectId
from midonet.model.schema_hosts import (
    HOST,
    INTERFACE,
    HostResource,
    InterfaceResource,
    interface_from_model,
)
from midonet.nsdb import deletion
from midonet.nsdb.store import StateTables, Store, Versioned

log = structlog.get_logger()
_STATE = msgspec.json.Decoder(HostState)


async def _interfaces(store: Store, host_id: HostId) -> tuple[InterfaceResource, ...]:
    """Return the interfaces that a host's agent reports; empty while it is away.

    Malformed state of one host counts as none, so that it cannot hide the other hosts.
    """
    entries = await store.entries(StateTables.host_state(), str(host_id))
    if not entries:
        return ()
    try:
        state = _STATE.decode(entries[-1].value)
    except msgspec.DecodeError as error:
        log.warning("host_state_malformed", host_id=str(host_id), reason=str(error))
        return ()
    return tuple(interface_from_model(host_id, each) for each in state.interfaces)


async def _present(call: Call, hosts: Sequence[Host]) -> list[HostResource]:
    live = await call.store.live_sessions()
    presented = []
    for host in hosts:
        interfaces = await _interfaces(call.store, host.id) if host.id in live else ()
        presented.append(
            msgspec.structs.replace(
                HOST.represented(host),
                alive=host.id in live,
                host_interfaces=interfaces,
                addresses=tuple(
                    address.partition("/")[0] for each in interfaces for address in each.addresses
                ),
            )
        )
    return presented


async def _delete(call: Call, host_id: ObjectId, check: Callable[[Versioned[Any]], None]) -> bool:
    if await call.store.get(Host, host_id) is None:
        return False
    if host_id in await call.store.live_sessions():
        raise HttpError(403, f"Host {host_id} is alive and cannot be deleted.")
    if await call.store.referrers(Port, "host_id", host_id):
        raise HttpError(403, f"Host {host_id} has ports bound to it and cannot be deleted.")
    return await deletion.delete(call.store, Host, host_id, check)


HOSTS = StoredResource(
    schema=HOST,
    verbs=frozenset(("LIST", "GET", "PUT", "DELETE")),
    missing_delete=404,
    update_status=200,
    delete_status=200,
    delete=_delete,
    present=_present,
)


async def _host_interfaces(call: Call) -> tuple[InterfaceResource, ...]:
    host_id = HostId(call.object_id("id", "Host"))
    await require(call.store, HOST, host_id)
    if host_id not in await call.store.live_sessions():
        return ()
    return await _interfaces(call.store, host_id)


async def _list_interfaces(call: Call) -> Reply:
    return Reply(200, list(await _host_interfaces(call)))


async def _read_interface(call: Call) -> Reply:
    name = call.path["name"]
    for interface in await _host_interfaces(call):
        if interface.name == name:
            return Reply(200, interface)
    raise NotFoundError("Interface", name)


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        *endpoints_of(HOSTS),
        Endpoint(
            "GET",
            "/hosts/{id}/interfaces",
            INTERFACE,
            _list_interfaces,
            "List the interfaces of a host",
            200,
            is_collection=True,
        ),
        Endpoint(
            "GET",
            "/hosts/{id}/interfaces/{name}",
            INTERFACE,
            _read_interface,
            "Read an interface of a host",
            200,
        ),
    ]
