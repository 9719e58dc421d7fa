"""The ASGI application: routes made from the endpoint table, and what all of them share.

audit -> host -> origin -> HEAD -> login -> authentication -> route -> (media types, body) ->
endpoint -> (links, encode)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import structlog
from litestar import Litestar, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from midonet.api.auth import AuthProvider, MockAuthProvider
from midonet.api.base_uri import base_uri
from midonet.api.call import Call, Endpoint, Pages, Reply, Services
from midonet.api.chain_orders import ChainOrders
from midonet.api.crud import PAGE
from midonet.api.decoding import MAX_BODY_BYTES, decode_body, gunzip
from midonet.api.edge import AuditLayer, CorsLayer, EdgePolicy, HeadLayer, HostLayer
from midonet.api.error_bodies import ERROR_MEDIA_TYPE, HttpError, encode_error, status_of
from midonet.api.layers import AuthLayer, LoginLayer
from midonet.api.links import Links
from midonet.api.negotiation import choose, is_accepted
from midonet.api.openapi import openapi_document
from midonet.api.registry import ENDPOINTS
from midonet.api.responses import AnyRequest, expected_versions, respond, respond_list
from midonet.api.root_document import APPLICATION_MEDIA_TYPES, root_document, served_segments
from midonet.api.tunnel_keys import TunnelKeys
from midonet.api.turns import Turns
from midonet.errors import InternalError, MidoNetError, UnavailableError
from midonet.nsdb.store import Store

PREFIX = "/midonet-api"
_encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


def build_app(
    store: Store, auth: AuthProvider | None = None, policy: EdgePolicy | None = None
) -> ASGIApp:
    """Return the application over an open store.

    auth: everyone is admin when None. policy: None checks no host names and allows no origins.
    """
    provider = MockAuthProvider() if auth is None else auth
    policy = EdgePolicy() if policy is None else policy
    server = _Server(Services(store, provider, TunnelKeys(store), ChainOrders(store), Turns()))
    inner = Litestar(
        route_handlers=server.routes(),
        openapi_config=None,
        request_max_body_size=MAX_BODY_BYTES,
        exception_handlers={HTTPException: _framework_error, 500: _internal_error},
        logging_config=None,
    )
    known = LoginLayer(AuthLayer(inner, provider), provider, PREFIX)
    return AuditLayer(HostLayer(CorsLayer(HeadLayer(known), policy), policy))


class _Server:
    """Turns requests into calls and replies into responses."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._links = Links(endpoint.path for endpoint in ENDPOINTS)
        self._segments = served_segments(ENDPOINTS)
        self._openapi = _encode(openapi_document(PREFIX))

    def routes(self) -> list[HTTPRouteHandler]:
        """Return a route for each endpoint, and those of the two documents."""
        routes = [self._route(endpoint) for endpoint in ENDPOINTS]

        async def root(request: AnyRequest) -> Response[bytes]:
            return self._root(request)

        async def openapi(request: AnyRequest) -> Response[bytes]:
            return respond(request, self._openapi, "application/json")

        routes.append(HTTPRouteHandler(PREFIX, http_method="GET")(root))
        routes.append(HTTPRouteHandler(f"{PREFIX}/openapi.json", http_method="GET")(openapi))
        return routes

    def _route(self, endpoint: Endpoint) -> HTTPRouteHandler:
        async def handle(request: AnyRequest) -> Response[Any]:
            try:
                return await self._serve(endpoint, request)
            except MidoNetError as error:
                return _error_response(error)

        path = PREFIX + endpoint.path.replace("}", ":str}")
        return HTTPRouteHandler(path, http_method=endpoint.method, status_code=200)(handle)

    async def _serve(self, endpoint: Endpoint, request: AnyRequest) -> Response[Any]:
        headers = request.headers
        media_type = None
        if endpoint.produces:
            media_type = choose(headers.get("accept"), endpoint.produces)
            if media_type is None:
                raise HttpError(406, f"Available as {', '.join(endpoint.produces)}.")
        body = None
        if endpoint.takes_body:
            if not is_accepted(headers.get("content-type"), endpoint.consumes):
                raise HttpError(
                    endpoint.media_error, f"Accepted are {', '.join(endpoint.consumes)}."
                )
            body = decode_body(endpoint.schema, await _body(request))
        base = _base(request)
        expected = expected_versions(headers.get("if-match"))
        if expected is not None and not endpoint.heeds_if_match and endpoint.method != "GET":
            raise HttpError(412, "If-Match is for objects with an ETag that has a version.")
        reply = await endpoint.handle(
            Call(
                services=self._services,
                base=base,
                path=request.path_params,
                query=dict(request.query_params) if endpoint.query else {},
                body=body,
                expected=expected,
            )
        )
        return await self._response(request, base, reply, media_type)

    async def _response(
        self, request: AnyRequest, base: str, reply: Reply, media_type: str | None
    ) -> Response[Any]:
        content = reply.content
        if content is None:
            headers = {} if reply.location is None else {"location": base + reply.location}
            return Response(b"", status_code=reply.status, headers=headers)
        assert media_type is not None
        if isinstance(content, msgspec.Struct):
            body = _encode(self._links.fill(content, base))
            return respond(request, body, media_type, version=reply.version)
        pages = _sliced(content) if isinstance(content, list) else content
        return await respond_list(request, self._chunks(pages, base), media_type)

    async def _chunks(self, pages: Pages, base: str) -> AsyncIterator[bytes]:
        """Encode a list page by page, letting other requests run in between."""
        async for page in pages:
            if page:
                yield _encode([self._links.fill(each, base) for each in page])[1:-1]
            await asyncio.sleep(0)

    def _root(self, request: AnyRequest) -> Response[bytes]:
        media_type = choose(request.headers.get("accept"), APPLICATION_MEDIA_TYPES)
        if media_type is None:
            return _error_response(HttpError(406))
        document = root_document(_base(request), self._segments)
        return respond(request, _encode(document), media_type)


def _base(request: AnyRequest) -> str:
    headers = request.headers
    return base_uri(
        request.scope["scheme"],
        request.scope["server"],
        headers.get("host"),
        (
            headers.get("x-forwarded-proto"),
            headers.get("x-forwarded-host"),
            headers.get("x-forwarded-port"),
        ),
        PREFIX,
    )


async def _body(request: AnyRequest) -> bytes:
    """Read a request body, decompressed. Raises HttpError 413 (too big), 400, 415."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise HttpError(415, f"Content-Encoding {encoding!r} is not supported.")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise HttpError(413)
    received = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise HttpError(400, "The request ended before its body did.")
        received += message["body"]
        if len(received) > MAX_BODY_BYTES:
            raise HttpError(413)
        more = message.get("more_body", False)
    return bytes(received) if encoding == "identity" else gunzip(bytes(received))


async def _sliced(listed: list[Any]) -> Pages:
    for start in range(0, len(listed), PAGE):
        yield listed[start : start + PAGE]


def _error_response(error: MidoNetError) -> Response[bytes]:
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if isinstance(error, UnavailableError):
        headers["RetryAfter"] = "5"
    status = status_of(error)
    if status == 500:
        log.error("request_failed", reason=str(error), exc_info=error)
    return Response(
        encode_error(error), status_code=status, media_type=ERROR_MEDIA_TYPE, headers=headers
    )


def _framework_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Answer what the framework refused: no route, no such method, a body that is too big."""
    message = None
    if error.status_code == 404:
        segment = request.scope["path"].removeprefix(PREFIX).strip("/").partition("/")[0]
        message = f"Root resource {segment} not found"
        if segment in served_segments(ENDPOINTS):
            message = "There is no such resource."
    headers = {key: value for key, value in (error.headers or {}).items() if key.lower() == "allow"}
    return _error_response(HttpError(error.status_code, message, headers))


def _internal_error(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer our own bug: the log has the details, the caller a general message."""
    log.error("request_crashed", method=request.method, path=request.url.path, exc_info=error)
    return _error_response(InternalError("The server failed to process the request."))
