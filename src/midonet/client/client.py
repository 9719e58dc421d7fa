"""The client. It knows one URI, the root's; every other it takes from replies.

with MidoNetClient("http://127.0.0.1:8181/midonet-api") as api:
    bridge = api.create(BridgeResource(name="blue"))
    port = api.create(PortResource(kind="Bridge"), parent=bridge)
    api.update(msgspec.structs.replace(bridge, name="green"))
    api.delete(bridge)
"""

from __future__ import annotations

import base64
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

import httpx
import msgspec

from midonet.client.api_error import read_error
from midonet.errors import DecodeError, UnavailableError, UserError
from midonet.model.schema import VENDOR, Access, ResourceSchema
from midonet.model.schema_ports import PortLinkResource, PortResource
from midonet.model.schema_registry import schema_of
from midonet.model.schema_system import TokenResource

R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")

_APPLICATION = f"{VENDOR}Application-v5+json"


class MidoNetClient:
    """A connection to one API. Not to be shared between threads.

    All methods raise ApiError (the server refused), UnavailableError (it cannot be reached),
    DecodeError (what it sent is malformed).
    """

    def __init__(
        self,
        root: str,
        *,
        user: str | None = None,
        password: str = "",
        project: str | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare a client of the API at `root`, for example `http://host:8181/midonet-api`.

        user: log in with Basic credentials before the first request, and once more when the
            token is refused; None sends no token.
        """
        self._root = root.rstrip("/")
        self._credentials = None if user is None else (user, password, project)
        self._token: str | None = None
        self._document: dict[str, str] | None = None
        self._http = httpx.Client(timeout=timeout_s, transport=transport)

    def __enter__(self) -> MidoNetClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def root(self) -> dict[str, str]:
        """Return the application document; it is read once."""
        if self._document is None:
            reply = self._request("GET", self._root, accept=_APPLICATION)
            self._document = _decode(reply.content, dict[str, str])
        return self._document

    def get(self, kind: type[R], object_id: UUID | str) -> R:
        """Return one object by its id."""
        schema = schema_of(kind)
        template = self._root_uri(schema, is_item=True)
        return self.follow(kind, template.replace("{id}", str(object_id)))

    def follow(self, kind: type[R], uri: str) -> R:
        """Return the object at a URI that a reply contained."""
        media_type = schema_of(kind).media.items[0]
        return _decode(self._request("GET", uri, accept=media_type).content, kind)

    def list_all(
        self, kind: type[R], *, parent: msgspec.Struct | None = None, **query: str
    ) -> list[R]:
        """Return all objects of a kind, or those below `parent`. query: as `tenant_id="x"`."""
        schema = schema_of(kind)
        uri = self._collection(schema, parent)
        return self.list_at(kind, uri, **query)

    def list_at(self, kind: type[R], uri: str, **query: str) -> list[R]:
        """Return the objects in the collection at a URI that a reply contained."""
        media_type = schema_of(kind).media.collections[0]
        reply = self._request("GET", uri, accept=media_type, query=query)
        return [_decode(each, kind) for each in _decode(reply.content, list[msgspec.Raw])]

    def create(self, resource: R, *, parent: msgspec.Struct | None = None) -> R:
        """Create an object, below `parent` where the kind asks for one; return what it became."""
        schema = schema_of(type(resource))
        reply = self._request(
            "POST", self._collection(schema, parent), resource=resource, schema=schema
        )
        location = reply.headers.get("location")
        if location is None:
            raise DecodeError(f"the reply to the creation of a {schema.title} has no Location")
        return self.follow(type(resource), location)

    def update(self, resource: R) -> R:
        """Replace what may be written of an object that was read before; return it as it is."""
        schema = schema_of(type(resource))
        uri = _uri(resource)
        self._request("PUT", uri, resource=resource, schema=schema)
        return self.follow(type(resource), uri)

    def delete(self, resource: msgspec.Struct) -> None:
        """Delete an object that was read before."""
        self._request("DELETE", _uri(resource))

    def link(self, port: PortResource, peer: PortResource) -> PortResource:
        """Link two ports; return the first as it is then."""
        self._request(
            "POST",
            _link_of(port, "link"),
            resource=PortLinkResource(peer_port_id=peer.id),
            schema=schema_of(PortLinkResource),
        )
        return self.follow(PortResource, _uri(port))

    def unlink(self, port: PortResource) -> PortResource:
        """Unlink a port; return it as it is then."""
        self._request("DELETE", _link_of(port, "link"))
        return self.follow(PortResource, _uri(port))

    def _collection(self, schema: ResourceSchema[Any], parent: msgspec.Struct | None) -> str:
        if parent is None:
            return self._root_uri(schema, is_item=False)
        if schema.parent_link is None:
            raise UserError(f"a {schema.title} has no parent")
        return _link_of(parent, schema.parent_link)

    def _root_uri(self, schema: ResourceSchema[Any], *, is_item: bool) -> str:
        key = schema.root_keys[1 if is_item else 0]
        uri = None if key is None else self.root().get(key)
        if uri is None:
            raise UserError(f"this server has no collection of {schema.title} at its root")
        return uri

    def _request(
        self,
        method: str,
        uri: str,
        *,
        accept: str | None = None,
        query: dict[str, str] | None = None,
        resource: msgspec.Struct | None = None,
        schema: ResourceSchema[Any] | None = None,
    ) -> httpx.Response:
        headers = {} if accept is None else {"Accept": accept}
        content = None
        if resource is not None and schema is not None:
            headers["Content-Type"] = schema.media.items[0]
            content = msgspec.json.encode(writable(resource, schema))
        if self._credentials is not None and self._token is None:
            self._login()
        reply = self._send(method, uri, headers, query, content)
        if reply.status_code == 401 and self._credentials is not None:
            self._login()
            reply = self._send(method, uri, headers, query, content)
        if reply.status_code >= 300:
            raise read_error(reply.status_code, reply.reason_phrase, reply.content)
        return reply

    def _send(
        self,
        method: str,
        uri: str,
        headers: dict[str, str],
        query: dict[str, str] | None,
        content: bytes | None,
    ) -> httpx.Response:
        if self._token is not None:
            headers = headers | {"X-Auth-Token": self._token}
        try:
            return self._http.request(
                method, uri, headers=headers, params=query or None, content=content
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise UnavailableError(f"{method} {uri}: {error}") from None

    def _login(self) -> None:
        assert self._credentials is not None
        user, password, project = self._credentials
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {encoded}"}
        if project is not None:
            headers["X-Auth-Project"] = project
        self._token = None
        reply = self._send("POST", f"{self._root}/login", headers, None, b"{}")
        if reply.status_code >= 300:
            raise read_error(reply.status_code, reply.reason_phrase, reply.content)
        self._token = _decode(reply.content, TokenResource).key


def writable(resource: msgspec.Struct, schema: ResourceSchema[Any]) -> dict[str, Any]:
    """Return the properties of a representation that a body may carry, as JSON values."""
    return {
        field.external: msgspec.to_builtins(getattr(resource, field.name))
        for field in schema.fields
        if field.is_writable and field.facts.access is not Access.UNSUPPORTED
    }


def _decode(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"the server's reply is malformed: {error}") from None


def _uri(resource: msgspec.Struct) -> str:
    return _link_of(resource, "uri")


def _link_of(resource: msgspec.Struct, attribute: str) -> str:
    """Return a link of a representation. UserError when it has none (or was never read)."""
    uri = getattr(resource, attribute, None)
    if not isinstance(uri, str):
        raise UserError(f"{type(resource).__name__} has no link {attribute!r}")
    return uri
