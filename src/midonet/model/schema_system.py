"""Representations of what is not stored: system state, tenants, tokens."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from midonet.model.schema import READ_ONLY, MediaType, ResourceSchema, link_to


class SystemStateResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """State of the API as stock clients ask for it at their start; constant."""

    uri: Annotated[str | None, link_to("/system_state")] = None
    state: Annotated[str, READ_ONLY] = "ACTIVE"
    availability: Annotated[str, READ_ONLY] = "READWRITE"
    version: Annotated[str, READ_ONLY] = "5.0.0"
    information: Annotated[str | None, READ_ONLY] = None


class TenantResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A project, as the authentication provider knows it."""

    id: Annotated[str, READ_ONLY] = ""
    uri: Annotated[str | None, link_to("/tenants/{id}")] = None
    name: Annotated[str | None, READ_ONLY] = None
    description: Annotated[str | None, READ_ONLY] = None
    enabled: Annotated[bool, READ_ONLY] = True
    routers: Annotated[str | None, link_to("/routers?tenant_id={id}")] = None
    bridges: Annotated[str | None, link_to("/bridges?tenant_id={id}")] = None
    chains: Annotated[str | None, link_to("/chains?tenant_id={id}")] = None
    port_groups: Annotated[str | None, link_to("/port_groups?tenant_id={id}")] = None


class TokenResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A token to send as `X-Auth-Token`. `expires` is null when it does not."""

    key: Annotated[str, READ_ONLY] = ""
    expires: Annotated[str | None, READ_ONLY] = None


SYSTEM_STATE = ResourceSchema(
    title="SystemState", representation=SystemStateResource, media=MediaType("SystemState", (2,))
)
TENANT = ResourceSchema(
    title="Tenant", representation=TenantResource, media=MediaType("Tenant", (2, 1))
)
TOKEN = ResourceSchema(title="Token", representation=TokenResource, media=MediaType("Token", (1,)))
