"""One REST call and its reply, free of any web framework.

An `Endpoint` is a row of the table that everything is made from: routes, OpenAPI, the reference
page, and the tests that visit each of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import msgspec

from midonet.api.auth import AuthProvider
from midonet.api.tunnel_keys import TunnelKeys
from midonet.errors import NotFoundError
from midonet.model.schema import ResourceSchema
from midonet.nsdb.store import Store

Method = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True, slots=True)
class Services:
    """What endpoints work with."""

    store: Store
    auth: AuthProvider
    tunnel_keys: TunnelKeys


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as far as an endpoint sees it.

    base: absolute URI of the API root as the caller wrote it, no slash at the end.
    path: parameters of the path, still text.
    body: decoded body (of the endpoint's body type), or None.
    """

    services: Services
    base: str
    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def store(self) -> Store:
        """Return the network state database."""
        return self.services.store

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

    location: path below the API root.
    """

    status: int
    content: msgspec.Struct | list[Any] | None = None
    location: str | None = None


NO_CONTENT = Reply(204)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method on a path.

    path: template below the API root, `{name}` for a parameter.
    schema: the resource whose representation is read or written.
    is_collection: the reply is a list.
    takes_body: the request body is decoded by `schema`; its media types are checked.
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
