"""The layers around the resources that know users: login and authentication.

Plain ASGI, so that each also covers requests for which there is no route.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from midonet.api.auth import AuthProvider, Token
from midonet.api.error_bodies import ERROR_MEDIA_TYPE, HttpError, encode_error, status_of
from midonet.errors import MidoNetError, UnavailableError
from midonet.model.schema_system import TOKEN, TokenResource

Headers = list[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> str | None:
    """Return a request header (name in lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


def note_user(scope: Scope, user: str) -> None:
    """Tell the audit line who calls, or who tries to log in."""
    scope.setdefault("state", {}).setdefault("audit", {})["user"] = user


async def send_reply(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole response."""
    sized = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(send: Send, error: MidoNetError) -> None:
    """Send an error with its body."""
    headers: Headers = [(b"content-type", ERROR_MEDIA_TYPE.encode())]
    if isinstance(error, HttpError):
        headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    if isinstance(error, UnavailableError):
        headers.append((b"retryafter", b"5"))
    await send_reply(send, status_of(error), headers, encode_error(error))


class LoginLayer:
    """Exchanges a password for a token at `/login`, whatever the method."""

    def __init__(self, inner: ASGIApp, auth: AuthProvider, prefix: str) -> None:
        self._inner = inner
        self._auth = auth
        self._path = f"{prefix}/login"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP or scope["path"].rstrip("/") != self._path:
            await self._inner(scope, receive, send)
            return
        try:
            token = await self._login(scope)
        except (HttpError, UnavailableError) as error:
            await send_error(send, error)
            return
        cookie = f"sessionId={token.key}"
        if token.expires is not None:
            cookie += f"; Expires={token.expires}"
        headers = [
            (b"content-type", TOKEN.media.items[0].encode()),
            (b"set-cookie", cookie.encode()),
        ]
        body = msgspec.json.encode(TokenResource(key=token.key, expires=token.expires))
        await send_reply(send, 200, headers, body)

    async def _login(self, scope: Scope) -> Token:
        credentials = _basic_credentials(header(scope, b"authorization"))
        if credentials is None:
            raise _unauthorised("A login needs an Authorization header with Basic credentials.")
        user, password = credentials
        note_user(scope, user)
        project = header(scope, b"x-auth-project")
        token = await self._auth.login(user, password, project)
        if token is None:
            raise _unauthorised("Wrong user name or password.")
        return token


def _unauthorised(message: str) -> HttpError:
    return HttpError(401, message, {"WWW-Authenticate": 'Basic realm="BASIC_AUTH_REALM"'})


def _basic_credentials(value: str | None) -> tuple[str, str] | None:
    """Return user and password: two non-empty parts around exactly one colon, or None."""
    scheme, _, encoded = (value or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode("".join(encoded.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    parts = decoded.split(":")
    if len(parts) != 2 or not all(parts):
        return None
    return parts[0], parts[1]


class AuthLayer:
    """Lets administrators through. Anyone else is refused with 401, never 403."""

    def __init__(self, inner: ASGIApp, auth: AuthProvider) -> None:
        self._inner = inner
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        try:
            identity = await self._auth.validate(header(scope, b"x-auth-token"))
        except UnavailableError as error:
            await send_error(send, error)
            return
        if identity is None or not identity.is_admin:
            await send_error(send, _unauthorised("A valid administrator's token is required."))
            return
        note_user(scope, identity.user)
        await self._inner(scope, receive, send)
