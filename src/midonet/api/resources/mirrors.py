"""Mirrors."""

from __future__ import annotations

from midonet.api.call import Call, Endpoint
from midonet.api.crud import StoredResource, endpoints_of
from midonet.api.resources.chains import require_referents
from midonet.model.mirrors import Mirror
from midonet.model.schema_mirrors import MIRROR, MirrorResource
from midonet.nsdb.store import Create, Operation, Update, Versioned


async def _plan_create(call: Call, _: MirrorResource, mirror: Mirror) -> list[Operation]:
    await _require_referents(call, mirror)
    return [Create(mirror)]


async def _plan_update(call: Call, current: Versioned[Mirror], mirror: Mirror) -> list[Operation]:
    await _require_referents(call, mirror)
    return [Update(mirror, current.version)]


async def _require_referents(call: Call, mirror: Mirror) -> None:
    for index, condition in enumerate(mirror.conditions):
        await require_referents(call.store, condition, f"conditions[{index}].")


MIRRORS = StoredResource(
    schema=MIRROR,
    verbs=frozenset(("LIST", "GET", "POST", "PUT", "DELETE")),
    plan_create=_plan_create,
    plan_update=_plan_update,
)


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return endpoints_of(MIRRORS)
