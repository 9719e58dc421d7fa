"""One REST call and its reply, free of any web framework.

An `Endpoint` is a row of the table that everything is made from: routes, OpenAPI, the reference
page, and the tests that visit each of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import msgspec

from midonet.api.auth import AuthProvider
from midonet.api.chain_orders import ChainOrders
from midonet.api.error_bodies import HttpError
from midonet.api.tunnel_keys import TunnelKeys
from midonet.api.turns import Turns
from midonet.errors import NotFoundError
from midonet.model.schema import ResourceSchema
from midonet.nsdb.store import Store, Versioned

Method = Literal["GET", "POST", "PUT", "DELETE"]


Pages = AsyncIterator[list[Any]]
"""A list in parts, each of which is made when it is asked for."""


@dataclass(frozen=True, slots=True)
class Services:
    """What endpoints work with."""

    store: Store
    auth: AuthProvider
    tunnel_keys: TunnelKeys
    chain_orders: ChainOrders
    turns: Turns


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as far as an endpoint sees it.

    base: absolute URI of the API root as the caller wrote it, no slash at the end.
    path: parameters of the path, still text.
    body: decoded body (of the endpoint's body type), or None.
    expected: versions of If-Match, one of which the object must have; None for any.
    """

    services: Services
    base: str
    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    expected: frozenset[int] | None = None

    @property
    def store(self) -> Store:
        """Return the network state database."""
        return self.services.store

    def require_expected(self, title: str, found: Versioned[Any]) -> None:
        """Raise HttpError 412 when the object is not at a version that the caller expects."""
        if self.expected is not None and found.version not in self.expected:
            raise HttpError(
                412,
                f"{title} {found.value.id} was changed since it was read: it is at version"
                f" {found.version}, which If-Match does not name.",
            )

    def object_id(self, name: str, title: str) -> UUID:
        """Return a path parameter as an id; what is not a UUID names nothing: NotFoundError."""
        given = self.path[name]
        try:
            parsed = UUID(given)
        except ValueError:
            raise NotFoundError(title, given) from None
        if str(parsed) != given.lower():
            raise NotFoundError(title, given)
        return parsed


@dataclass(frozen=True, slots=True)
class Reply:
    """Status with a representation, a list of them, a location, or nothing.

    content: a list may come in pages. location: path below the API root. version: of the stored
    object that is represented.
    """

    status: int
    content: msgspec.Struct | list[Any] | Pages | None = None
    location: str | None = None
    version: int | None = None


NO_CONTENT = Reply(204)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method on a path.

    path: template below the API root, `{name}` for a parameter.
    schema: the resource whose representation is read or written.
    is_collection: the reply is a list.
    takes_body: the request body is decoded by `schema`; its media types are checked.
    heeds_if_match: writes only when the object is at an expected version.
    media_error: status for a body of another media type.
    success: status of a good reply.
    """

    method: Method
    path: str
    schema: ResourceSchema[Any]
    handle: Callable[[Call], Awaitable[Reply]]
    summary: str
    success: int
    is_collection: bool = False
    takes_body: bool = False
    media_error: int = 406
    heeds_if_match: bool = False
    query: tuple[str, ...] = ()

    @property
    def produces(self) -> tuple[str, ...]:
        """Media types of the reply, preferred first; empty when it has no content."""
        if self.method != "GET":
            return ()
        return self.schema.media.collections if self.is_collection else self.schema.media.items

    @property
    def consumes(self) -> tuple[str, ...]:
        """Media types of the request body, preferred first; empty when none is read."""
        return self.schema.media.items if self.takes_body else ()
