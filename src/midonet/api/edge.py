"""Who may reach the API from where, and what is written down of it.

A browser on an operator's machine can be made to send requests to a loopback address: from
another origin, or under a host name that an attacker points there (DNS rebinding). So the host
that a caller names is checked, pages of other origins may not write, and may read only when
they are configured.
"""

from __future__ import annotations

import ipaddress
import re
import time
from dataclasses import dataclass, field

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from midonet.api.base_uri import AUTHORITY
from midonet.api.error_bodies import ErrorBody, HttpError
from midonet.api.layers import Headers, header, send_error

_log = structlog.get_logger("api")

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"
_SHOWN_CHARACTERS = 200
_ANY = "*"


@dataclass(frozen=True, slots=True)
class EdgePolicy:
    """Which names and origins are let in.

    allowed_hosts: names under which callers may reach the server, beside `localhost` and IP
        addresses; `.example.org` stands for what ends so, `*` for any. None checks nothing.
    cors_origins: origins (`https://gui.example.org`) whose pages may call; `*` for any.
    """

    allowed_hosts: frozenset[str] | None = None
    cors_origins: frozenset[str] = field(default_factory=frozenset)

    def is_host_allowed(self, authority: str) -> bool:
        """Tell whether the server may be called by the name in `authority`."""
        if self.allowed_hosts is None or _ANY in self.allowed_hosts:
            return True
        name = re.sub(r":[0-9]*$", "", authority).strip("[]").rstrip(".").lower()
        if name == "localhost" or _is_address(name):
            return True
        return any(
            name.endswith(each) if each.startswith(".") else name == each
            for each in (allowed.lower() for allowed in self.allowed_hosts)
        )

    def is_origin_allowed(self, origin: str) -> bool:
        """Tell whether pages of an origin may call and read the replies."""
        return _ANY in self.cors_origins or origin in self.cors_origins


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class HostLayer:
    """Requires one Host that is well formed and allowed (RFC 9112 section 3.2)."""

    def __init__(self, inner: ASGIApp, policy: EdgePolicy) -> None:
        self._inner = inner
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == ScopeType.HTTP:
            error = self._error(scope)
            if error is not None:
                await send_error(send, error)
                return
        await self._inner(scope, receive, send)

    def _error(self, scope: Scope) -> HttpError | None:
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if not hosts:
            is_old = scope["http_version"] == "1.0"
            return None if is_old else HttpError(400, "A request needs a Host header.")
        if len(hosts) > 1:
            return HttpError(400, "A request has one Host header.")
        if not AUTHORITY.fullmatch(hosts[0]):
            return HttpError(400, "The Host header is malformed.")
        if not self._policy.is_host_allowed(hosts[0]):
            return HttpError(
                421, f"Host {hosts[0]!r} is not one of this server's; allowed_hosts names them."
            )
        return None


class CorsLayer:
    """Lets pages of the configured origins call; refuses writes by pages of others."""

    def __init__(self, inner: ASGIApp, policy: EdgePolicy) -> None:
        self._inner = inner
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        origin = header(scope, b"origin")
        is_allowed = origin is not None and self._policy.is_origin_allowed(origin)
        granted = self._granted(origin) if is_allowed and origin is not None else []
        if scope["method"] == "OPTIONS":
            await self._preflight(scope, send, granted, is_foreign=origin is not None)
        elif scope["method"] not in SAFE_METHODS and not is_allowed and _is_foreign(scope, origin):
            await send_error(send, HttpError(403, _FOREIGN))
        elif not granted:
            await self._inner(scope, receive, send)
        else:

            async def send_with_cors(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], *granted]
                await send(message)

            await self._inner(scope, receive, send_with_cors)

    def _granted(self, origin: str) -> Headers:
        shown = _ANY if _ANY in self._policy.cors_origins else origin
        return [
            (b"access-control-allow-origin", shown.encode("latin-1")),
            (b"access-control-expose-headers", b"Location, ETag"),
            (b"vary", b"origin"),
        ]

    async def _preflight(
        self, scope: Scope, send: Send, granted: Headers, *, is_foreign: bool
    ) -> None:
        if is_foreign and not granted:
            await send_error(send, HttpError(403, _FOREIGN))
            return
        headers: Headers = [(b"allow", _METHODS), (b"content-length", b"0")]
        if granted:
            headers += [*granted, *_PREFLIGHT]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


_FOREIGN = "Pages of other origins may not call this API; cors_origins names those that may."
_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", _METHODS),
    (
        b"access-control-allow-headers",
        b"Origin, X-Auth-Token, X-Auth-Project, Content-Type, Accept, Authorization,"
        b" If-Match, If-None-Match",
    ),
]


def _is_foreign(scope: Scope, origin: str | None) -> bool:
    """Tell whether a browser sends this for a page that does not come from here."""
    if header(scope, b"sec-fetch-site") in ("cross-site", "same-site"):
        return True
    return origin is not None and origin.partition("://")[2] != header(scope, b"host")


class HeadLayer:
    """Answers HEAD as GET without the content."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP or scope["method"] != "HEAD":
            await self._inner(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        scope.setdefault("state", {})["is_head"] = True
        as_get: Scope = {**scope, "method": "GET"}
        await self._inner(as_get, receive, send_head)


class AuditLayer:
    """Writes a line for each request: writes and logins always, reads at debug level.

    user: who the authentication provider says it is, or who tried to log in; absent for whoever
        was refused before. status: 0 when the connection ended without a reply.
    """

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        started_s = time.monotonic()
        status = 0
        location: str | None = None
        reason: str | None = None

        async def send_and_note(message: Message) -> None:
            nonlocal status, location, reason
            if message["type"] == "http.response.start":
                status = message["status"]
                found = [value for key, value in message["headers"] if key == b"location"]
                location = found[0].decode("latin-1") if found else None
            elif message["type"] == "http.response.body" and status >= 400:
                reason = reason or _reason(message["body"])
            await send(message)

        audit: dict[str, object] = {}
        scope.setdefault("state", {})["audit"] = audit
        try:
            await self._inner(scope, receive, send_and_note)
        finally:
            client = scope.get("client")
            facts = {
                "user": _shown(audit.get("user")),
                "client": None if client is None else client[0],
                "forwarded_for": _shown(header(scope, b"x-forwarded-for")),
                "method": scope["method"],
                "path": _shown(scope["raw_path"].decode("latin-1")),
                "status": status,
                "location": _shown(location),
                "reason": _shown(reason),
                "duration_ms": round((time.monotonic() - started_s) * 1000, 1),
            }
            facts = {name: value for name, value in facts.items() if value is not None}
            if scope["method"] in SAFE_METHODS:
                _log.debug("read", **facts)
            else:
                _log.info("write", **facts)


def _reason(body: bytes) -> str | None:
    """Return the message of an error's body."""
    try:
        return msgspec.json.decode(body, type=ErrorBody).message
    except msgspec.DecodeError:
        return None


def _shown(text: object) -> str | None:
    """Return text of a caller as a log line may carry it."""
    if text is None:
        return None
    return re.sub(r"[^\x20-\x7e]", "?", str(text)[:_SHOWN_CHARACTERS])
