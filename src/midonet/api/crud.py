"""The generic engine: create, read, update, delete of stored resources and sub-collections.

A resource that needs more than its schema plugs in functions: which operations a write takes
beside the obvious one, and which runtime state is shown with the stored object. A write is
planned from what is stored, applied with versions as preconditions, and planned anew when
something moved, for `PATIENCE_S`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import msgspec

from midonet.api.call import NO_CONTENT, Call, Endpoint, Pages, Reply, Services
from midonet.api.error_bodies import HttpError
from midonet.errors import (
    ConflictError,
    MovedError,
    NotFoundError,
    ReferencedError,
    ValidationError,
    Violation,
)
from midonet.model.ids import ObjectId
from midonet.model.references import references_from
from midonet.model.schema import ResourceSchema, checked
from midonet.nsdb import deletion
from midonet.nsdb.retrying import attempts
from midonet.nsdb.store import Create, Operation, Store, Update, Versioned

PATIENCE_S = 10.0
"""How long a write is planned anew before the state counts as moving too fast."""

_ATTEMPTS = 3
"""How often a write is planned that the store refuses for another reason."""

PAGE = 250
"""Objects of a list that are read and encoded in one go."""

PlanCreate = Callable[[Call, Any, Any], Awaitable[list[Operation]]]
"""(call, representation, object to store) to the whole transaction."""

PlanUpdate = Callable[[Call, Versioned[Any], Any], Awaitable[list[Operation]]]
"""(call, what is stored, what shall be) to the whole transaction."""

DeleteObject = Callable[[Call, ObjectId, Callable[[Versioned[Any]], None]], Awaitable[bool]]
"""Delete with all consequences; False when there was nothing. The function given is called with
what is to go, and raises to keep it."""

Order = Callable[[Call, ObjectId, list[ObjectId]], Awaitable[list[ObjectId]]]
"""(call, parent, ids of its children) to the order in which the children are listed."""

Present = Callable[[Call, Sequence[Any]], Awaitable[list[Any]]]
"""(call, stored objects) to representations with runtime state, without links."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResource:
    """A resource backed by stored objects.

    missing_delete: status of deleting what does not exist.
    filters: query parameter to stored attribute; an object passes when its text equals.
    ids_to_list: returns the ids that are listed, None for all. further_queries: parameters that
        it reads.
    is_exclusive: writes of any such object go one after the other, because they depend on all.
    """

    schema: ResourceSchema[Any]
    verbs: frozenset[str]
    missing_delete: int = 204
    update_status: int = 204
    delete_status: int = 204
    filters: Mapping[str, str] = field(default_factory=dict)
    plan_create: PlanCreate | None = None
    plan_update: PlanUpdate | None = None
    delete: DeleteObject | None = None
    present: Present | None = None
    order: Order | None = None
    ids_to_list: Callable[[Call], Awaitable[list[ObjectId]]] | None = None
    further_queries: tuple[str, ...] = ()
    is_exclusive: bool = False

    @property
    def kind(self) -> type[msgspec.Struct]:
        """Return the stored type."""
        assert self.schema.kind is not None
        return self.schema.kind

    async def presented(self, call: Call, values: Sequence[Any]) -> list[Any]:
        """Return representations of stored objects."""
        if self.present is not None:
            return await self.present(call, values)
        return [self.schema.represented(value) for value in values]


def endpoints_of(resource: StoredResource) -> list[Endpoint]:
    """Return the endpoints of a resource under its own collection."""
    schema = resource.schema
    collection, item = f"/{schema.collection}", f"/{schema.collection}/{{id}}"
    title = schema.title
    offered = {
        "LIST": Endpoint(
            "GET",
            collection,
            schema,
            lambda call: _list_all(resource, call),
            f"List every {title}",
            200,
            is_collection=True,
            query=(*resource.filters, *resource.further_queries),
        ),
        "POST": Endpoint(
            "POST",
            collection,
            schema,
            lambda call: _create(resource, call, None, None),
            f"Create a {title}",
            201,
            takes_body=True,
        ),
        "GET": Endpoint(
            "GET", item, schema, lambda call: _read(resource, call), f"Read a {title}", 200
        ),
        "PUT": Endpoint(
            "PUT",
            item,
            schema,
            lambda call: _update(resource, call),
            f"Replace what may be written of a {title}",
            resource.update_status,
            takes_body=True,
            heeds_if_match=True,
        ),
        "DELETE": Endpoint(
            "DELETE",
            item,
            schema,
            lambda call: _delete(resource, call, "id"),
            f"Delete a {title}",
            resource.delete_status,
            heeds_if_match=True,
        ),
    }
    return [endpoint for verb, endpoint in offered.items() if verb in resource.verbs]


def nested_endpoints(
    parent: ResourceSchema[Any],
    segment: str,
    resource: StoredResource,
    reference: str,
    parent_attribute: str,
) -> list[Endpoint]:
    """Return list, create and delete of the children of one parent.

    reference: attribute of the stored child that holds the parent's id.
    parent_attribute: attribute of the child's representation that names the parent.
    """
    path = f"/{parent.collection}/{{id}}/{segment}"
    schema = resource.schema
    title, of_parent = schema.title, f"of a {parent.title}"
    return [
        Endpoint(
            "GET",
            path,
            schema,
            lambda call: _list_children(resource, call, parent, reference),
            f"List each {title} {of_parent}",
            200,
            is_collection=True,
        ),
        Endpoint(
            "POST",
            path,
            schema,
            lambda call: _create(resource, call, parent, parent_attribute),
            f"Create a {title} {of_parent}",
            201,
            takes_body=True,
        ),
        Endpoint(
            "DELETE",
            path + "/{child_id}",
            schema,
            lambda call: _delete_child(resource, call, parent, reference),
            f"Delete a {title} {of_parent}",
            resource.delete_status,
            heeds_if_match=True,
        ),
    ]


async def commit(services: Services, plan: Callable[[], Awaitable[Sequence[Operation]]]) -> None:
    """Plan and apply a transaction, again when something moved. Raises ConflictError in the end.

    Who was too late waits for a turn at the object that moved, so that many writers of one
    object need one attempt more each, not one for each of the others.
    """
    async with AsyncExitStack() as turn:
        held: Hashable = None
        async for attempt in attempts(PATIENCE_S):
            operations = await plan()
            if not operations:
                return
            try:
                await services.store.transact(operations)
            except ReferencedError:
                raise
            except MovedError as error:
                moved = error
                if held != (error.kind, error.object_id):
                    await turn.aclose()
                    held = (error.kind, error.object_id)
                    await turn.enter_async_context(services.turns.of(held))
                continue
            except ConflictError:
                if attempt + 1 >= _ATTEMPTS:
                    raise
                continue
            return
    raise ConflictError(
        f"Nothing was written: {moved.kind} {moved.object_id}, on which it depends, was changed by"
        f" others again and again for {PATIENCE_S:g} s."
    ) from moved


async def _commit(
    resource: StoredResource, call: Call, plan: Callable[[], Awaitable[Sequence[Operation]]]
) -> None:
    if not resource.is_exclusive:
        await commit(call.services, plan)
        return
    async with call.services.turns.of(resource.schema.title):
        await commit(call.services, plan)


async def require(store: Store, schema: ResourceSchema[Any], object_id: ObjectId) -> Versioned[Any]:
    """Return a stored object. Raises NotFoundError."""
    assert schema.kind is not None
    found = await store.get(schema.kind, object_id)
    if found is None:
        raise NotFoundError(schema.title, object_id)
    return found


async def _list_all(resource: StoredResource, call: Call) -> Reply:
    if resource.ids_to_list is not None:
        ids = await resource.ids_to_list(call)
    else:
        ids = await call.store.list_ids(resource.kind)
    return Reply(200, _pages(resource, call, ids))


async def _list_children(
    resource: StoredResource, call: Call, parent: ResourceSchema[Any], reference: str
) -> Reply:
    parent_id = call.object_id("id", parent.title)
    await require(call.store, parent, parent_id)
    child_ids = await call.store.referrers(resource.kind, reference, parent_id)
    if resource.order is not None:
        child_ids = await resource.order(call, parent_id, child_ids)
    return Reply(200, _pages(resource, call, child_ids))


async def _pages(resource: StoredResource, call: Call, ids: list[ObjectId]) -> Pages:
    """Yield the representations of those of the objects that exist and pass the filters."""
    for start in range(0, len(ids), PAGE):
        page_ids = ids[start : start + PAGE]
        found = await call.store.get_many(resource.kind, page_ids)
        values = [found[one].value for one in page_ids if one in found]
        for parameter, attribute in resource.filters.items():
            wanted = call.query.get(parameter)
            if wanted is not None:
                values = [value for value in values if str(getattr(value, attribute)) == wanted]
        yield await resource.presented(call, values)


async def _read(resource: StoredResource, call: Call) -> Reply:
    found = await require(call.store, resource.schema, call.object_id("id", resource.schema.title))
    shown = (await resource.presented(call, [found.value]))[0]
    return Reply(200, shown, version=found.version)


async def _create(
    resource: StoredResource,
    call: Call,
    parent: ResourceSchema[Any] | None,
    parent_attribute: str | None,
) -> Reply:
    schema = resource.schema
    parent_id = None if parent is None else call.object_id("id", parent.title)
    given: UUID | None = call.body.id
    object_id = uuid4() if given is None else given
    representation = checked(schema.representation, call.body, object_id)
    if parent_attribute is not None:
        representation = msgspec.structs.replace(representation, **{parent_attribute: parent_id})
    value = schema.stored(representation, None)
    is_first = True

    async def plan() -> Sequence[Operation]:
        nonlocal is_first
        if not is_first and await call.store.get(resource.kind, object_id) is not None:
            raise ConflictError(f"A(n) {schema.title} with ID {object_id} already exists.")
        is_first = False
        if resource.plan_create is None:
            return [Create(value)]
        return await resource.plan_create(call, representation, value)

    try:
        await _commit(resource, call, plan)
    except NotFoundError as error:
        if error.object_id == parent_id:
            raise
        raise dangling(schema, value, error) from None
    return Reply(201, location=f"/{schema.collection}/{object_id}")


async def _update(resource: StoredResource, call: Call) -> Reply:
    schema = resource.schema
    object_id = call.object_id("id", schema.title)
    value: Any = None

    async def plan() -> Sequence[Operation]:
        nonlocal value
        current = await require(call.store, schema, object_id)
        call.require_expected(schema.title, current)
        representation = checked(schema.representation, call.body, object_id)
        value = schema.stored(representation, current.value)
        if resource.plan_update is None:
            return [Update(value, current.version)]
        return await resource.plan_update(call, current, value)

    try:
        await _commit(resource, call, plan)
    except NotFoundError as error:
        if error.object_id == object_id:
            raise NotFoundError(schema.title, object_id) from None
        raise dangling(schema, value, error) from None
    return Reply(resource.update_status)


async def _delete(resource: StoredResource, call: Call, parameter: str) -> Reply:
    title = resource.schema.title
    object_id = call.object_id(parameter, title)

    def check(found: Versioned[Any]) -> None:
        call.require_expected(title, found)

    if resource.delete is not None:
        existed = await resource.delete(call, object_id, check)
    else:
        existed = await deletion.delete(call.store, resource.kind, object_id, check)
    if not existed and call.expected is not None:
        raise HttpError(412, f"There is no {title} with ID {object_id}.")
    if not existed and resource.missing_delete == 404:
        raise NotFoundError(title, object_id)
    return NO_CONTENT if not existed else Reply(resource.delete_status)


async def _delete_child(
    resource: StoredResource, call: Call, parent: ResourceSchema[Any], reference: str
) -> Reply:
    parent_id = call.object_id("id", parent.title)
    child_id = call.object_id("child_id", resource.schema.title)
    found = await call.store.get(resource.kind, child_id)
    if found is not None and getattr(found.value, reference) != parent_id:
        raise NotFoundError(resource.schema.title, child_id)
    return await _delete(resource, call, "child_id")


def dangling(
    schema: ResourceSchema[Any], value: msgspec.Struct, error: NotFoundError
) -> ValidationError:
    """Return the error for a body that refers to what does not exist."""
    external = {each.name: each.external for each in schema.fields}
    for reference in references_from(type(value)):
        held = reference.held_by(value)
        is_held = held == error.object_id or (isinstance(held, tuple) and error.object_id in held)
        if is_held and reference.target.__name__ == error.kind:
            name = external.get(reference.attribute, reference.attribute)
            return ValidationError((Violation(name, error.message),))
    return ValidationError((Violation("body", error.message),))
