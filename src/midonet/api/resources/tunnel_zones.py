"""Tunnel zones and the hosts in them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from midonet.api.call import NO_CONTENT, Call, Endpoint, Reply
from midonet.api.crud import StoredResource, commit, endpoints_of, require
from midonet.errors import ConflictError, NotFoundError
from midonet.model.hosts import Host, TunnelZone, TunnelZoneHost, tunnel_zone_host_id
from midonet.model.ids import HostId, TunnelZoneId
from midonet.model.schema import checked
from midonet.model.schema_hosts import (
    TUNNEL_ZONE,
    TUNNEL_ZONE_HOST,
    TunnelZoneHostResource,
    TunnelZoneResource,
)
from midonet.model.validation import invalid
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
    is_exclusive=True,
)


async def _zone_id(call: Call) -> TunnelZoneId:
    zone_id = TunnelZoneId(call.object_id("id", "TunnelZone"))
    await require(call.store, TUNNEL_ZONE, zone_id)
    return zone_id


async def _members(store: Store, zone_id: TunnelZoneId) -> list[TunnelZoneHost]:
    ids = await store.referrers(TunnelZoneHost, "tunnel_zone_id", zone_id)
    return [each.value for each in (await store.get_many(TunnelZoneHost, ids)).values()]


async def _list(call: Call) -> Reply:
    zone_id = await _zone_id(call)
    members = await _members(call.store, zone_id)
    return Reply(200, [TUNNEL_ZONE_HOST.represented(each) for each in members])


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
        zone = await require(call.store, TUNNEL_ZONE, zone_id)
        if await call.store.get(Host, membership.host_id) is None:
            raise invalid("hostId", f"There is no Host with ID {membership.host_id}.")
        for member in await _members(call.store, zone_id):
            if member.host_id == membership.host_id:
                raise ConflictError(f"Host {member.host_id} is already in tunnel zone {zone_id}.")
            if member.address == membership.address:
                raise ConflictError(
                    f"ipAddress {member.address} is that of host {member.host_id} in tunnel zone"
                    f" {zone_id}."
                )
        # The zone is rewritten as it is, so that of two members with one address at the same
        # time the second is planned anew.
        return [Create(membership), Update(zone.value, zone.version)]

    await commit(call.services, plan)
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
