"""The agent's control socket: a small HTTP/1.1 server on a unix socket.

Reachable by whoever may open the socket file (mode 0600: the agent's own user). Requests and
answers are JSON; each connection carries one request.

Everything has a bound, so that a broken client costs the agent nothing and others are answered:
the size of a request, the time it takes to arrive and its answer to be taken, and the number of
clients. When all places are taken, whoever has been sending its request for longest loses its
place; when all requests are complete and being answered, a new client is told to come again.

    PUT    /binding/PORT_ID   {"interfaceName": NAME}   bind a port to an interface here
    DELETE /binding/PORT_ID                             unbind it
    and the routes of `midonet.agent.operator.control`
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec
import structlog

from midonet.errors import (
    ConflictError,
    DatapathError,
    DecodeError,
    MidoNetError,
    NotFoundError,
    UnavailableError,
    UserError,
)
from midonet.runtime.clock import SystemClock
from midonet.runtime.logging import Throttle
from midonet.runtime.private_files import (
    check_not_writable_by_all,
    check_owner,
    make_directories,
)
from midonet.runtime.supervisor import contained

_log = structlog.get_logger("control_socket")

_MAX_HEADER_SIZE = 16 * 1024
_MAX_HEADERS = 64
_MAX_BODY_SIZE = 256 * 1024
"""A frame of 64 KiB in hexadecimal, with room to spare."""

_READ_TIMEOUT_S = 10.0
_WRITE_TIMEOUT_S = 10.0
_MAX_CLIENTS = 64


@dataclass(frozen=True, slots=True)
class Request:
    """One request. path: without the query. query: the last value of each name."""

    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    body: bytes


Respond = Callable[[Request], Awaitable[object]]
"""Returns what is sent as JSON; None sends an empty 204."""


class ControlSocket:
    """Listens and hands requests to `respond`."""

    def __init__(self, path: Path, respond: Respond, *, max_clients: int = _MAX_CLIENTS) -> None:
        self._path = path
        self._respond = respond
        self._max_clients = max_clients
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._sending: dict[asyncio.StreamWriter, None] = {}
        self._throttle = Throttle(SystemClock())
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. A socket file left by an agent that is gone is replaced.

        The state directory's lock has made sure that there is no other agent.
        Raises UserError when the socket cannot be made.
        """
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, sock=_bind(self._path), limit=_MAX_HEADER_SIZE
            )
        except OSError as error:
            raise UserError(f"cannot listen on {self._path}: {error.strerror or error}") from None

    async def close(self) -> None:
        """Stop listening, remove the socket file and leave the clients that are still there."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with contextlib.suppress(OSError):
            self._path.unlink()
        tasks = {task for task in self._clients.values() if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_WRITE_TIMEOUT_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        has_place = self._make_place()
        self._clients[writer] = asyncio.current_task()
        try:
            if has_place:
                answer = await self._exchange(reader, writer)
            else:
                answer = HTTPStatus.SERVICE_UNAVAILABLE, _problem("too many clients; try again")
            writer.write(_serialise(*answer))
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            # The client went, or does not take its answer.
            self._complain("control_connection_lost")
        except asyncio.CancelledError:
            if self._server is not None:
                raise
        finally:
            self._sending.pop(writer, None)
            self._clients.pop(writer, None)
            writer.transport.abort()

    def _make_place(self) -> bool:
        """Take the place of whoever has been sending for longest when there is none left."""
        if len(self._clients) < self._max_clients:
            return True
        if not self._sending:
            return False
        slowest = next(iter(self._sending))
        del self._sending[slowest]
        self._clients.pop(slowest, None)
        slowest.transport.abort()
        self._complain("control_client_displaced")
        return True

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[HTTPStatus, bytes]:
        self._sending[writer] = None
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                request = await _read_request(reader)
        except (DecodeError, TimeoutError, asyncio.IncompleteReadError) as error:
            return HTTPStatus.BAD_REQUEST, _problem(str(error) or "incomplete request")
        finally:
            self._sending.pop(writer, None)
        return await self._answer(request)

    async def _answer(self, request: Request) -> tuple[HTTPStatus, bytes]:
        answer = HTTPStatus.INTERNAL_SERVER_ERROR, _problem("the agent failed; see its log")
        with contained(self._failed):
            try:
                result = await self._respond(request)
            except MidoNetError as error:
                return _status_of(error), _problem(str(error))
            if result is None:
                return HTTPStatus.NO_CONTENT, b""
            return HTTPStatus.OK, msgspec.json.encode(result)
        return answer

    def _failed(self, error: Exception) -> None:
        # Our own bug.
        if self._throttle.allow("control_request_failed") is not None:
            _log.error("control_request_failed", error=repr(error), exc_info=error)

    def _complain(self, event: str) -> None:
        held_back = self._throttle.allow(event)
        if held_back is not None:
            _log.info(event, held_back=held_back)


def _bind(path: Path) -> socket.socket:
    """Return a listening socket that only this user may open, from its first moment on."""
    directory = path.parent
    make_directories(directory)
    status = directory.stat()
    check_owner(directory, status)
    check_not_writable_by_all(directory, status)
    if os.path.lexists(path):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UserError(f"{path} is in the way: it is not a socket")
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # What bind(2) makes has the mode of the socket, less the umask.
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(str(path))
        return listening
    except BaseException:
        listening.close()
        raise


def _status_of(error: MidoNetError) -> HTTPStatus:
    match error:
        case NotFoundError():
            return HTTPStatus.NOT_FOUND
        case UserError() | DecodeError():
            return HTTPStatus.BAD_REQUEST
        case ConflictError() | DatapathError():
            return HTTPStatus.CONFLICT
        case UnavailableError():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


def _problem(message: str) -> bytes:
    return msgspec.json.encode({"message": message})


def _serialise(status: HTTPStatus, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


async def _read_request(reader: asyncio.StreamReader) -> Request:
    """Read one request (RFC 9112). Raises DecodeError when it is not one."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        raise DecodeError("request header is too long") from None
    request_line, *lines = head[:-4].split("\r\n")
    if len(lines) > _MAX_HEADERS:
        raise DecodeError(f"there are more than {_MAX_HEADERS} header fields")
    parts = request_line.split(" ")
    if len(parts) != 3:
        raise DecodeError("not an HTTP request")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    length = headers.get("content-length", "0")
    # Digits of other scripts are digits too, and no number; one of many digits takes its time.
    if not (length.isascii() and length.isdigit()) or len(length) > 10:
        raise DecodeError("bad Content-Length")
    if int(length) > _MAX_BODY_SIZE:
        raise DecodeError(f"the body is longer than {_MAX_BODY_SIZE} bytes")
    body = await reader.readexactly(int(length))
    try:
        target = urlsplit(parts[1])
    except ValueError as error:
        raise DecodeError(f"bad request target: {error}") from None
    path = tuple(part for part in target.path.split("/") if part)
    return Request(parts[0], path, dict(parse_qsl(target.query)), body)
