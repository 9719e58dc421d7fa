"""DHCP of bridges: subnets by prefix, their clients by MAC or client id, in both IP versions.

A subnet is named by its prefix and a client by its MAC or client id, so either may be renamed by
a PUT. Of two subnets of one bridge with one prefix the second is refused: whoever names a subnet
rewrites the bridge as it is, so that the later of two at the same time is planned anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from midonet.api.call import NO_CONTENT, Call, Endpoint, Reply
from midonet.api.crud import commit, require
from midonet.errors import ConflictError, DecodeError, NotFoundError
from midonet.model.dhcp import (
    DhcpHost,
    DhcpSubnet,
    DhcpV6Host,
    DhcpV6Subnet,
    dhcp_host_id,
    dhcp_v6_host_id,
)
from midonet.model.ids import BridgeId, ObjectId
from midonet.model.schema import ResourceSchema, checked
from midonet.model.schema_devices import BRIDGE
from midonet.model.schema_dhcp import (
    DHCP_HOST,
    DHCP_SUBNET,
    DHCP_V6_HOST,
    DHCP_V6_SUBNET,
    canonical_client_id,
    host_from_model,
    host_path,
    host_to_model,
    host_v6_from_model,
    host_v6_to_model,
    subnet_from_model,
    subnet_path,
    subnet_to_model,
    subnet_v6_from_model,
    subnet_v6_to_model,
)
from midonet.model.validation import canonical_mac
from midonet.nsdb import deletion
from midonet.nsdb.store import Create, Delete, Operation, Store, Update, Versioned
from midonet.packets.addresses import IpVersion, parse_prefix

_Subnet = DhcpSubnet | DhcpV6Subnet


@dataclass(frozen=True, slots=True)
class _Family:
    """What is different between the two versions.

    to_subnet: (representation, id, bridge) to the stored form; to_host: (representation, subnet).
    host_id: (subnet's id, canonical name in a URI) to the client's id.
    """

    version: IpVersion
    subnets: str
    hosts: str
    subnet_kind: type[Any]
    host_kind: type[Any]
    subnet_schema: ResourceSchema[Any]
    host_schema: ResourceSchema[Any]
    to_subnet: Callable[[Any, ObjectId, BridgeId], Any]
    from_subnet: Callable[[Any], Any]
    to_host: Callable[[Any, Any], Any]
    from_host: Callable[[Any, Any], Any]
    canonical_name: Callable[[str], str]
    host_id: Callable[[ObjectId, str], ObjectId]


_V4 = _Family(
    IpVersion.V4, "dhcp", "hosts", DhcpSubnet, DhcpHost, DHCP_SUBNET, DHCP_HOST,
    subnet_to_model, subnet_from_model, host_to_model, host_from_model,
    canonical_mac, dhcp_host_id,
)  # fmt: skip
_V6 = _Family(
    IpVersion.V6, "dhcpV6", "hostsV6", DhcpV6Subnet, DhcpV6Host, DHCP_V6_SUBNET, DHCP_V6_HOST,
    subnet_v6_to_model, subnet_v6_from_model, host_v6_to_model, host_v6_from_model,
    canonical_client_id, dhcp_v6_host_id,
)  # fmt: skip


async def _subnets_of(store: Store, family: _Family, bridge_id: ObjectId) -> list[Versioned[Any]]:
    """Return the subnets of a bridge in the order of their prefixes."""
    ids = await store.referrers(family.subnet_kind, "bridge_id", bridge_id)
    found = await store.get_many(family.subnet_kind, ids)
    return sorted(found.values(), key=lambda one: parse_prefix(one.value.prefix))


class _Endpoints:
    """The endpoints of one version."""

    def __init__(self, family: _Family) -> None:
        self._family = family

    async def _bridge_id(self, call: Call) -> BridgeId:
        bridge_id = BridgeId(call.object_id("id", "Bridge"))
        await require(call.store, BRIDGE, bridge_id)
        return bridge_id

    async def _subnet(self, call: Call) -> Versioned[Any]:
        """Return the subnet of the path. Raises NotFoundError, also without such a bridge."""
        bridge_id = await self._bridge_id(call)
        given = call.path["subnet"]
        title = self._family.subnet_schema.title
        try:
            prefix = parse_prefix(given.replace("_", "/", 1))
        except DecodeError:
            raise NotFoundError(title, given) from None
        if prefix.version is not self._family.version:
            raise NotFoundError(title, given)
        for one in await _subnets_of(call.store, self._family, bridge_id):
            known = parse_prefix(one.value.prefix)
            if (known.network, known.length) == (prefix.network, prefix.length):
                return one
        raise NotFoundError(title, given)

    async def _host(self, call: Call, subnet: _Subnet) -> Versioned[Any]:
        """Return the client of the path. Raises NotFoundError."""
        family, given = self._family, call.path["host"]
        try:
            host_id = family.host_id(subnet.id, family.canonical_name(given))
        except DecodeError:
            raise NotFoundError(family.host_schema.title, given) from None
        found: Versioned[Any] | None = await call.store.get(family.host_kind, host_id)
        if found is None:
            raise NotFoundError(family.host_schema.title, given)
        return found

    async def _require_free(self, call: Call, subnet: _Subnet) -> Operation:
        """Return the operation that holds the prefix of a subnet. Raises ConflictError."""
        bridge = await require(call.store, BRIDGE, subnet.bridge_id)
        for one in await _subnets_of(call.store, self._family, subnet.bridge_id):
            if one.value.prefix == subnet.prefix and one.value.id != subnet.id:
                raise ConflictError(f"Bridge {subnet.bridge_id} has a subnet {subnet.prefix}.")
        return Update(bridge.value, bridge.version)

    # Subnets.

    async def list_subnets(self, call: Call) -> Reply:
        bridge_id = await self._bridge_id(call)
        found = await _subnets_of(call.store, self._family, bridge_id)
        return Reply(200, [self._family.from_subnet(one.value) for one in found])

    async def create_subnet(self, call: Call) -> Reply:
        family, bridge_id = self._family, await self._bridge_id(call)
        resource = checked(family.subnet_schema.representation, call.body)
        subnet = family.to_subnet(resource, uuid4(), bridge_id)

        async def plan() -> Sequence[Operation]:
            return [Create(subnet), await self._require_free(call, subnet)]

        await commit(call.services, plan)
        return Reply(201, location=subnet_path(subnet))

    async def read_subnet(self, call: Call) -> Reply:
        found = await self._subnet(call)
        return Reply(200, self._family.from_subnet(found.value), version=found.version)

    async def update_subnet(self, call: Call) -> Reply:
        family = self._family
        await self._subnet(call)
        resource = checked(family.subnet_schema.representation, call.body)

        async def plan() -> Sequence[Operation]:
            current = await self._subnet(call)
            call.require_expected(family.subnet_schema.title, current)
            subnet = family.to_subnet(resource, current.value.id, current.value.bridge_id)
            operations: list[Operation] = [Update(subnet, current.version)]
            if subnet.prefix != current.value.prefix:
                operations.append(await self._require_free(call, subnet))
            return operations

        await commit(call.services, plan)
        return NO_CONTENT

    async def delete_subnet(self, call: Call) -> Reply:
        found = await self._subnet(call)

        def check(current: Versioned[Any]) -> None:
            call.require_expected(self._family.subnet_schema.title, current)

        await deletion.delete(call.store, self._family.subnet_kind, found.value.id, check)
        return NO_CONTENT

    # Clients.

    async def list_hosts(self, call: Call) -> Reply:
        family, subnet = self._family, (await self._subnet(call)).value
        ids = await call.store.referrers(family.host_kind, "subnet_id", subnet.id)
        found = await call.store.get_many(family.host_kind, ids)
        return Reply(200, [family.from_host(one.value, subnet) for one in found.values()])

    async def create_host(self, call: Call) -> Reply:
        family, subnet = self._family, (await self._subnet(call)).value
        resource = checked(family.host_schema.representation, call.body)
        host = family.to_host(resource, subnet)

        async def plan() -> Sequence[Operation]:
            await self._require_unknown(call, host)
            return [Create(host)]

        try:
            await commit(call.services, plan)
        except NotFoundError:
            raise NotFoundError(family.subnet_schema.title, call.path["subnet"]) from None
        return Reply(201, location=host_path(host, subnet))

    async def _require_unknown(self, call: Call, host: Any) -> None:
        if await call.store.get(self._family.host_kind, host.id) is not None:
            raise ConflictError("The subnet has an entry for this client.")

    async def read_host(self, call: Call) -> Reply:
        subnet = (await self._subnet(call)).value
        found = await self._host(call, subnet)
        return Reply(200, self._family.from_host(found.value, subnet), version=found.version)

    async def update_host(self, call: Call) -> Reply:
        family, subnet = self._family, (await self._subnet(call)).value
        await self._host(call, subnet)
        host = family.to_host(checked(family.host_schema.representation, call.body), subnet)

        async def plan() -> Sequence[Operation]:
            current = await self._host(call, subnet)
            call.require_expected(family.host_schema.title, current)
            if current.value.id == host.id:
                return [Update(host, current.version)]
            await self._require_unknown(call, host)
            return [Delete(family.host_kind, current.value.id, current.version), Create(host)]

        await commit(call.services, plan)
        return NO_CONTENT

    async def delete_host(self, call: Call) -> Reply:
        found = await self._host(call, (await self._subnet(call)).value)

        def check(current: Versioned[Any]) -> None:
            call.require_expected(self._family.host_schema.title, current)

        await deletion.delete(call.store, self._family.host_kind, found.value.id, check)
        return NO_CONTENT

    def rows(self) -> list[Endpoint]:
        """Return the rows of the endpoint table."""
        family = self._family
        subnets = f"/bridges/{{id}}/{family.subnets}"
        hosts = f"{subnets}/{{subnet}}/{family.hosts}"
        return [
            *_rows(
                subnets, "{subnet}", family.subnet_schema, "of a bridge",
                (self.list_subnets, self.create_subnet, self.read_subnet, self.update_subnet,
                 self.delete_subnet),
            ),
            *_rows(
                hosts, "{host}", family.host_schema, f"of a {family.subnet_schema.title}",
                (self.list_hosts, self.create_host, self.read_host, self.update_host,
                 self.delete_host),
            ),
        ]  # fmt: skip


def _rows(
    path: str,
    name: str,
    schema: ResourceSchema[Any],
    of_parent: str,
    handlers: tuple[Any, Any, Any, Any, Any],
) -> list[Endpoint]:
    list_all, create, read, update, delete = handlers
    item, title = f"{path}/{name}", schema.title
    return [
        Endpoint(
            "GET", path, schema, list_all, f"List each {title} {of_parent}", 200,
            is_collection=True,
        ),
        Endpoint(
            "POST", path, schema, create, f"Create a {title} {of_parent}", 201,
            takes_body=True, media_error=415,
        ),
        Endpoint("GET", item, schema, read, f"Read a {title}", 200),
        Endpoint(
            "PUT", item, schema, update, f"Replace a {title}", 204,
            takes_body=True, media_error=415, heeds_if_match=True,
        ),
        Endpoint("DELETE", item, schema, delete, f"Delete a {title}", 204, heeds_if_match=True),
    ]  # fmt: skip


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [*_Endpoints(_V4).rows(), *_Endpoints(_V6).rows()]
