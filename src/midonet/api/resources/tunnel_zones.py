"""Tunnel zones and the hosts in them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from midonet.api.call import NO_CONTENT, Call, Endpoint, Reply
from midonet.api.crud import StoredResource, commit, dangling, endpoints_of, require
from midonet.errors import ConflictError, NotFoundError
from midonet.model.hosts import TunnelZone, TunnelZoneHost, tunnel_zone_host_id
from midonet.model.ids import HostId, TunnelZoneId
from midonet.model.schema import checked
from midonet.model.schema_hosts import (
    TUNNEL_ZONE,
    TUNNEL_ZONE_HOST,
    TunnelZoneHostResource,
    TunnelZoneResource,
)
from midonet.nsdb import deletion
from midonet.nsdb.store import Create, Operation, Store, Update, Versioned

_PATH = "/tunnel_zones/{id}/hosts"
_ITEM = "/tunnel_zones/{id}/hosts/{host_id}"


async def _require_free_name(store: Store, zone: TunnelZone) -> None:
    for other in await store.list_all(TunnelZone):
        if other.value.name == zone.name and other.value.id != zone.id:
            raise ConflictError(f"A tunnel zone with name {zone.name!r} already exists.")


async def _plan_create(
    call: Call, resource: TunnelZoneResource, zone: TunnelZone
) -> list[Operation]:
    await _require_free_name(call.store, zone)
    return [Create(zone)]


async def _plan_update(
    call: Call, current: Versioned[TunnelZone], zone: TunnelZone
) -> list[Operation]:
    await _require_free_name(call.store, zone)
    return [Update(zone, current.version)]


TUNNEL_ZONES = StoredResource(
    schema=TUNNEL_ZONE,
    verbs=frozenset(("LIST", "GET", "POST", "PUT", "DELETE")),
    plan_create=_plan_create,
    plan_update=_plan_update,
)


async def _zone_id(call: Call) -> TunnelZoneId:
    zone_id = TunnelZoneId(call.object_id("id", "TunnelZone"))
    await require(call.store, TUNNEL_ZONE, zone_id)
    return zone_id


async def _list(call: Call) -> Reply:
    zone_id = await _zone_id(call)
    ids = await call.store.referrers(TunnelZoneHost, "tunnel_zone_id", zone_id)
    found = await call.store.get_many(TunnelZoneHost, ids)
    return Reply(200, [TUNNEL_ZONE_HOST.represented(each.value) for each in found.values()])


async def _read(call: Call) -> Reply:
    zone_id = await _zone_id(call)
    host_id = HostId(call.object_id("host_id", "TunnelZoneHost"))
    found = await call.store.get(TunnelZoneHost, tunnel_zone_host_id(zone_id, host_id))
    if found is None:
        raise NotFoundError("TunnelZoneHost", host_id)
    return Reply(200, TUNNEL_ZONE_HOST.represented(found.value))


async def _add(call: Call) -> Reply:
    zone_id = await _zone_id(call)
    resource = checked(TunnelZoneHostResource, call.body)
    membership: TunnelZoneHost = TUNNEL_ZONE_HOST.stored(
        msgspec.structs.replace(resource, tunnel_zone_id=zone_id), None
    )

    async def plan() -> Sequence[Operation]:
        if await call.store.get(TunnelZoneHost, membership.id) is not None:
            raise ConflictError(f"Host {membership.host_id} is already in tunnel zone {zone_id}.")
        return [Create(membership)]

    try:
        await commit(call.store, plan)
    except NotFoundError as error:
        if error.object_id == zone_id:
            raise
        raise dangling(TUNNEL_ZONE_HOST, membership, error) from None
    return Reply(201, location=f"/tunnel_zones/{zone_id}/hosts/{membership.host_id}")


async def _remove(call: Call) -> Reply:
    zone_id = await _zone_id(call)
    host_id = HostId(call.object_id("host_id", "TunnelZoneHost"))
    membership_id = tunnel_zone_host_id(zone_id, host_id)
    if not await deletion.delete(call.store, TunnelZoneHost, membership_id):
        raise NotFoundError("TunnelZoneHost", host_id)
    return NO_CONTENT


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    schema = TUNNEL_ZONE_HOST
    return [
        *endpoints_of(TUNNEL_ZONES),
        Endpoint(
            "GET", _PATH, schema, _list, "List the hosts of a tunnel zone", 200, is_collection=True
        ),
        Endpoint(
            "POST",
            _PATH,
            schema,
            _add,
            "Add a host to a tunnel zone",
            201,
            takes_body=True,
            media_error=415,
        ),
        Endpoint("GET", _ITEM, schema, _read, "Read a host's membership of a tunnel zone", 200),
        Endpoint("DELETE", _ITEM, schema, _remove, "Take a host out of a tunnel zone", 204),
    ]
