"""Port groups with the ports in them, and IP address groups with their members."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from midonet.api.call import NO_CONTENT, Call, Endpoint, Pages, Reply
from midonet.api.crud import PAGE, StoredResource, commit, endpoints_of, require
from midonet.api.resources.tables import POSTED_BY
from midonet.errors import ConflictError, DecodeError, NotFoundError
from midonet.model.chains import Rule
from midonet.model.devices import Port
from midonet.model.groups import IpAddressGroup, PortGroup
from midonet.model.ids import ObjectId, PortGroupId, PortId
from midonet.model.schema import checked
from midonet.model.schema_groups import (
    IP_ADDRESS_GROUP,
    IP_ADDRESS_GROUP_ADDRESS,
    PORT_GROUP,
    PORT_GROUP_PORT,
    IpAddressGroupAddressResource,
    IpAddressGroupResource,
    PortGroupPortResource,
)
from midonet.model.schema_ports import PORT
from midonet.model.validation import canonical_group_member, invalid
from midonet.nsdb.store import (
    Check,
    DropState,
    Operation,
    PutState,
    StateTables,
    Store,
    Update,
    Versioned,
)
from midonet.packets.addresses import IpPrefix, IpVersion, parse_prefix

_PORTS = "/port_groups/{id}/ports"
_PORT = "/port_groups/{id}/ports/{port_id}"
_GROUPS_OF_PORT = "/ports/{id}/port_groups"
_ADDRESSES = "/ip_addr_groups/{id}/ip_addrs"
_ADDRESS = "/ip_addr_groups/{id}/versions/{version}/ip_addrs/{addr}"


# Port groups.


async def _plan_update(
    call: Call, current: Versioned[PortGroup], group: PortGroup
) -> list[Operation]:
    if group.stateful and not current.value.stateful:
        members = await _members(call.store, group.id)
        devices = {port.value.bridge_id or port.value.router_id for port in members}
        if len(devices) > 1:
            raise ConflictError(
                f"PortGroup {group.id} cannot be stateful: its ports are on several devices."
            )
        for port in members:
            await _require_no_other(call.store, port.value, group.id)
    return [Update(group, current.version)]


async def _members(store: Store, group_id: PortGroupId) -> list[Versioned[Port]]:
    ids = await store.referrers(Port, "port_group_ids", group_id)
    return list((await store.get_many(Port, ids)).values())


async def _require_no_other(store: Store, port: Port, group_id: PortGroupId) -> None:
    """Raise ConflictError when a port is in a stateful group beside this one."""
    for other in (await store.get_many(PortGroup, port.port_group_ids)).values():
        if other.value.stateful and other.value.id != group_id:
            raise ConflictError(
                f"Port {port.id} is already in the stateful PortGroup {other.value.id}."
            )


async def _groups_to_list(call: Call) -> list[ObjectId]:
    wanted = call.query.get("port_id")
    if wanted is None:
        return await call.store.list_ids(PortGroup)
    try:
        port = await call.store.get(Port, UUID(wanted))
    except ValueError:
        return []
    return [] if port is None else sorted(port.value.port_group_ids)


PORT_GROUPS = StoredResource(
    schema=PORT_GROUP,
    verbs=frozenset(("LIST", "GET", "POST", "PUT", "DELETE")),
    filters={"tenant_id": "project_id"},
    ids_to_list=_groups_to_list,
    further_queries=("port_id",),
    plan_update=_plan_update,
    is_exclusive=True,
)


async def _group_id(call: Call) -> PortGroupId:
    group_id = PortGroupId(call.object_id("id", PORT_GROUP.title))
    await require(call.store, PORT_GROUP, group_id)
    return group_id


async def _list_ports(call: Call) -> Reply:
    group_id = await _group_id(call)
    port_ids = await call.store.referrers(Port, "port_group_ids", group_id)
    return Reply(
        200, [PortGroupPortResource(port_group_id=group_id, port_id=one) for one in port_ids]
    )


async def _list_groups(call: Call) -> Reply:
    port_id = call.object_id("id", PORT.title)
    port: Port = (await require(call.store, PORT, port_id)).value
    return Reply(
        200,
        [
            PortGroupPortResource(port_group_id=one, port_id=port_id)
            for one in sorted(port.port_group_ids)
        ],
    )


async def _read_port(call: Call) -> Reply:
    group_id = await _group_id(call)
    port_id = call.object_id("port_id", PORT_GROUP_PORT.title)
    port = await call.store.get(Port, port_id)
    if port is None or group_id not in port.value.port_group_ids:
        raise NotFoundError(PORT_GROUP_PORT.title, port_id)
    return Reply(200, PortGroupPortResource(port_group_id=group_id, port_id=port_id))


async def _add_port(call: Call) -> Reply:
    group_id = await _group_id(call)
    resource = checked(PortGroupPortResource, call.body)
    assert resource.port_id is not None
    port_id = PortId(resource.port_id)

    async def plan() -> Sequence[Operation]:
        group: Versioned[PortGroup] = await require(call.store, PORT_GROUP, group_id)
        port = await call.store.get(Port, port_id)
        if port is None:
            raise invalid("portId", f"There is no Port with ID {port_id}.")
        if group_id in port.value.port_group_ids:
            raise ConflictError(f"Port {port_id} is already in PortGroup {group_id}.")
        joined = (*port.value.port_group_ids, group_id)
        entry = Update(msgspec.structs.replace(port.value, port_group_ids=joined), port.version)
        if not group.value.stateful:
            return [entry, Check(PortGroup, group_id, group.version)]
        await _require_no_other(call.store, port.value, group_id)
        return [entry, await _guard_device(call.store, group, port.value)]

    await commit(call.services, plan)
    return Reply(201, location=f"/port_groups/{group_id}/ports/{port_id}")


async def _guard_device(store: Store, group: Versioned[PortGroup], port: Port) -> Operation:
    """Return what keeps the members of a stateful group on one device until this port is in.

    One member that stays is enough; when there is none the group itself is written, so that of
    two first members at the same time the second is planned anew. Raises ConflictError.
    """
    ids = await store.referrers(Port, "port_group_ids", group.value.id)
    member = await store.get(Port, ids[0]) if ids else None
    if member is None:
        return Update(group.value, group.version)
    if (member.value.bridge_id, member.value.router_id) != (port.bridge_id, port.router_id):
        raise ConflictError(
            f"Port {port.id} is on another device than the ports of the stateful PortGroup"
            f" {group.value.id}."
        )
    return Check(Port, member.value.id, member.version)


async def _remove_port(call: Call) -> Reply:
    group_id = await _group_id(call)
    port_id = call.object_id("port_id", PORT_GROUP_PORT.title)

    async def plan() -> Sequence[Operation]:
        port = await call.store.get(Port, port_id)
        if port is None:
            raise NotFoundError(PORT.title, port_id)
        kept = tuple(one for one in port.value.port_group_ids if one != group_id)
        if kept == port.value.port_group_ids:
            return []
        return [Update(msgspec.structs.replace(port.value, port_group_ids=kept), port.version)]

    await commit(call.services, plan)
    return NO_CONTENT


# IP address groups.


async def _present_groups(
    call: Call, groups: Sequence[IpAddressGroup]
) -> list[IpAddressGroupResource]:
    """Show groups with the rules that name them."""
    ids = [group.id for group in groups]
    rules: dict[ObjectId, set[ObjectId]] = {one: set() for one in ids}
    for side in ("src", "dst"):
        field = f"condition.ip_address_group_{side}_id"
        for group_id, found in (await call.store.referrers_many(Rule, field, ids)).items():
            rules[group_id].update(found)
    return [
        msgspec.structs.replace(
            IP_ADDRESS_GROUP.represented(group), rule_ids=tuple(sorted(rules[group.id]))
        )
        for group in groups
    ]


IP_ADDRESS_GROUPS = StoredResource(
    schema=IP_ADDRESS_GROUP,
    verbs=frozenset(("LIST", "GET", "POST", "DELETE")),
    present=_present_groups,
)


def _shown(group_id: UUID, key: str) -> IpAddressGroupAddressResource:
    prefix = parse_prefix(key)
    return IpAddressGroupAddressResource(
        uri=_address_uri(group_id, prefix),
        version=int(prefix.version),
        addr=_address_text(prefix),
        ip_addr_group_id=group_id,
    )


def _address_text(prefix: IpPrefix) -> str:
    return str(prefix.address if prefix.length == prefix.version.bits else prefix)


def _address_uri(group_id: UUID, prefix: IpPrefix) -> str:
    addr = _address_text(prefix).replace("/", "_")
    return f"/ip_addr_groups/{group_id}/versions/{int(prefix.version)}/ip_addrs/{addr}"


async def _address_group_id(call: Call) -> UUID:
    group_id = call.object_id("id", IP_ADDRESS_GROUP.title)
    await require(call.store, IP_ADDRESS_GROUP, group_id)
    return group_id


def _member_of_path(call: Call) -> IpPrefix:
    """Return the member that the path names. `_` stands for the `/` of a prefix."""
    if call.path["version"] not in ("4", "6"):
        raise invalid("version", "must be 4 or 6")
    try:
        prefix = parse_prefix(canonical_group_member(call.path["addr"].replace("_", "/")))
    except DecodeError:
        raise NotFoundError(IP_ADDRESS_GROUP_ADDRESS.title, call.path["addr"]) from None
    if prefix.version is not IpVersion(int(call.path["version"])):
        raise invalid("version", "must be that of addr")
    return prefix


async def _pages(group_id: UUID, keys: Sequence[str]) -> Pages:
    for start in range(0, len(keys), PAGE):
        yield [_shown(group_id, key) for key in keys[start : start + PAGE]]


async def _list_addresses(call: Call) -> Reply:
    group_id = await _address_group_id(call)
    entries = await call.store.table(StateTables.ip_address_group(group_id))
    return Reply(200, _pages(group_id, [entry.key for entry in entries]))


async def _read_address(call: Call) -> Reply:
    group_id = await _address_group_id(call)
    member = _member_of_path(call)
    if not await call.store.entries(StateTables.ip_address_group(group_id), str(member)):
        raise NotFoundError(IP_ADDRESS_GROUP_ADDRESS.title, _address_text(member))
    return Reply(200, _shown(group_id, str(member)))


async def _add_address(call: Call) -> Reply:
    group_id = await _address_group_id(call)
    resource = checked(IpAddressGroupAddressResource, call.body)
    prefix = parse_prefix(canonical_group_member(resource.addr))
    if resource.version not in (None, int(prefix.version)):
        raise invalid("version", f"must be {int(prefix.version)}, that of addr")
    table = StateTables.ip_address_group(group_id)
    if await call.store.entries(table, str(prefix)):
        raise ConflictError(f"{_address_text(prefix)} is already in IpAddrGroup {group_id}.")
    await call.store.transact(
        [
            Check(IpAddressGroup, group_id),
            PutState(table, str(prefix), "", POSTED_BY, is_persistent=True),
        ]
    )
    return Reply(201, location=_address_uri(group_id, prefix))


async def _remove_address(call: Call) -> Reply:
    group_id = await _address_group_id(call)
    table = StateTables.ip_address_group(group_id)
    await call.store.transact([DropState(table, str(_member_of_path(call)), POSTED_BY)])
    return NO_CONTENT


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        *endpoints_of(PORT_GROUPS),
        *_port_endpoints(),
        *endpoints_of(IP_ADDRESS_GROUPS),
        *_address_endpoints(),
    ]


def _port_endpoints() -> list[Endpoint]:
    schema = PORT_GROUP_PORT
    return [
        Endpoint(
            "GET", _PORTS, schema, _list_ports, "List the ports of a group", 200, is_collection=True
        ),
        Endpoint(
            "POST",
            _PORTS,
            schema,
            _add_port,
            "Put a port into a group",
            201,
            takes_body=True,
            media_error=415,
        ),
        Endpoint("GET", _PORT, schema, _read_port, "Tell whether a port is in a group", 200),
        Endpoint("DELETE", _PORT, schema, _remove_port, "Take a port out of a group", 204),
        Endpoint(
            "GET",
            _GROUPS_OF_PORT,
            schema,
            _list_groups,
            "List the groups of a port",
            200,
            is_collection=True,
        ),
    ]


def _address_endpoints() -> list[Endpoint]:
    schema = IP_ADDRESS_GROUP_ADDRESS
    return [
        Endpoint(
            "GET",
            _ADDRESSES,
            schema,
            _list_addresses,
            "List the members of an address group",
            200,
            is_collection=True,
        ),
        Endpoint(
            "POST",
            _ADDRESSES,
            schema,
            _add_address,
            "Put an address or prefix into a group",
            201,
            takes_body=True,
            media_error=415,
        ),
        Endpoint("GET", _ADDRESS, schema, _read_address, "Read a member of a group", 200),
        Endpoint("DELETE", _ADDRESS, schema, _remove_address, "Take a member out of a group", 204),
    ]
