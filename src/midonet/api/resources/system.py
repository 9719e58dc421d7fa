"""System state, tenants and login."""

from __future__ import annotations

from midonet.api.auth import Tenant
from midonet.api.call import Call, Endpoint, Reply
from midonet.errors import NotFoundError
from midonet.model.schema_system import (
    SYSTEM_STATE,
    TENANT,
    SystemStateResource,
    TenantResource,
)


async def _read_state(call: Call) -> Reply:
    return Reply(200, SystemStateResource())


def _represented(tenant: Tenant) -> TenantResource:
    return TenantResource(
        id=tenant.id,
        name=tenant.name,
        description=tenant.description,
        enabled=tenant.is_enabled,
    )


async def _list_tenants(call: Call) -> Reply:
    """Return tenants behind `marker`, at most `limit` of them; bad values count as absent."""
    tenants = await call.services.auth.tenants()
    marker, limit = call.query.get("marker"), call.query.get("limit", "")
    ids = [tenant.id for tenant in tenants]
    if marker in ids:
        tenants = tenants[ids.index(marker) + 1 :]
    if limit.isascii() and limit.isdigit() and len(limit) < 10:
        tenants = tenants[: int(limit)]
    return Reply(200, [_represented(tenant) for tenant in tenants])


async def _read_tenant(call: Call) -> Reply:
    tenant = await call.services.auth.tenant(call.path["id"])
    if tenant is None:
        raise NotFoundError("Tenant", call.path["id"])
    return Reply(200, _represented(tenant))


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        Endpoint(
            "GET", "/system_state", SYSTEM_STATE, _read_state, "Read the state of the API", 200
        ),
        Endpoint(
            "GET",
            "/tenants",
            TENANT,
            _list_tenants,
            "List the projects of the authentication provider",
            200,
            is_collection=True,
            query=("marker", "limit"),
        ),
        Endpoint("GET", "/tenants/{id}", TENANT, _read_tenant, "Read a project", 200),
    ]
