"""One HTTP connection: what a client may cost before its request is understood.

The server's own protocol (uvicorn on httptools) bounds neither headers nor time. Here each part
of a request has a bound in bytes and in time, and each way to exceed it a status. Connections
are bounded too: a new one takes the place of the oldest whose request is not complete, so that
clients which only begin requests shut nobody out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import Any, cast

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from midonet.api.decoding import MAX_BODY_BYTES
from midonet.api.error_bodies import ERROR_MEDIA_TYPE, HttpError, encode_error
from midonet.runtime.clock import SystemClock
from midonet.runtime.logging import Throttle

_log = structlog.get_logger("api")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one server.

    connections: open at once. headers: count in one request.
    target_bytes: of the request target. head_bytes: of the target and all headers.
    request_bytes: of a whole request as sent, framing included.
    head_timeout_s: from a connection (or the first byte of a further request) to the end of
        the headers. body_timeout_s: from there to the end of the body.
    send_timeout_s: how long a client may leave the send buffer full.
    linger_s: how long a client that was cut off may take to read why.
    """

    connections: int = 512
    headers: int = 100
    target_bytes: int = 8 * 1024
    head_bytes: int = 32 * 1024
    request_bytes: int = MAX_BODY_BYTES + 1024 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    send_timeout_s: float = 60.0
    linger_s: float = 2.0


class _Phase(IntEnum):
    """How far a connection is, in the order in which it is given up for another."""

    LINGERING = -1  # answered for the last time; what still arrives is dropped
    IDLE = 0
    HEAD = 1
    BODY = 2
    RECEIVED = 3


class ApiConnection(HttpToolsProtocol):
    """A connection within limits."""

    def __init__(self, limits: ConnectionLimits, throttle: Throttle, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._throttle = throttle
        self._phase = _Phase.HEAD
        self._since = self.loop.time()
        self._received_bytes = 0
        self._head_bytes = 0
        self._refusal: HttpError | None = None
        self._is_cut = False
        self._read_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, in place of another when there are too many."""
        is_full = len(self.connections) >= self._limits.connections
        victim = self._least_deserving() if is_full else None
        super().connection_made(cast(asyncio.Transport, transport))
        if is_full:
            self._warn("connections_full", limit=self._limits.connections)
            chosen = self if victim is None else victim
            chosen._evict()
        if not self._is_cut:
            self._await_read(self._limits.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, as far as the limits allow."""
        if self._is_cut:
            return
        self._unset_keepalive_if_required()
        if self._phase is _Phase.IDLE:
            self._enter(_Phase.HEAD, self._limits.head_timeout_s)
        self._received_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._cut(self._refusal or HttpError(400, "This is not a valid HTTP request."))
            return
        if self._phase is _Phase.HEAD and self._received_bytes > self._limits.head_bytes:
            self._cut(self._too_large_head())
        elif self._received_bytes > self._limits.request_bytes:
            self._cut(HttpError(413))

    def pause_writing(self) -> None:
        """Wait for a client that does not read its reply, for a time."""
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self._limits.send_timeout_s, self._give_up)

    def resume_writing(self) -> None:
        """Go on with a reply."""
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    # What the parser tells. An exception ends parsing; `_refusal` tells why.

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head_bytes = self._received_bytes = 0
        if self._phase is not _Phase.HEAD:
            self._enter(_Phase.HEAD, self._limits.head_timeout_s)

    def on_url(self, url: bytes) -> None:
        """Take a part of the request target."""
        super().on_url(url)
        self._count(len(url))
        if len(self.url) > self._limits.target_bytes:
            self._refuse(HttpError(414, f"A target has at most {self._limits.target_bytes} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer behind a chunked body."""
        super().on_header(name, value)
        self._count(len(name) + len(value))
        if len(self.headers) > self._limits.headers:
            self._refuse(HttpError(431, f"A request has at most {self._limits.headers} headers."))

    def on_headers_complete(self) -> None:
        """Start to serve a request."""
        super().on_headers_complete()
        self._enter(_Phase.BODY, self._limits.body_timeout_s)

    def on_message_complete(self) -> None:
        """Note that a request is complete."""
        super().on_message_complete()
        self._enter(_Phase.RECEIVED, None)
        if self.cycle.response_complete:
            self._phase = _Phase.IDLE

    def on_response_complete(self) -> None:
        """Note that a reply is complete; what is left of a body is still read and dropped."""
        super().on_response_complete()
        if self._phase is _Phase.RECEIVED and not self.pipeline and not self._is_cut:
            self._enter(_Phase.IDLE, None)

    # Ends.

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed."""
        self._cut(HttpError(400, msg))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            self._refuse(self._too_large_head())

    def _too_large_head(self) -> HttpError:
        return HttpError(431, f"Headers have at most {self._limits.head_bytes} bytes.")

    def _refuse(self, error: HttpError) -> None:
        self._refusal = error
        raise ValueError(error.message)

    def _enter(self, phase: _Phase, timeout_s: float | None) -> None:
        self._phase = phase
        self._since = self.loop.time()
        self._await_read(timeout_s)

    def _await_read(self, timeout_s: float | None) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        if timeout_s is not None:
            self._read_timer = self.loop.call_later(timeout_s, self._read_timed_out)

    def _read_timed_out(self) -> None:
        part = "headers" if self._phase is _Phase.HEAD else "body"
        self._cut(HttpError(408, f"The {part} took too long."))

    def _give_up(self) -> None:
        self._warn("reply_not_read", timeout_s=self._limits.send_timeout_s)
        self.transport.abort()

    def _least_deserving(self) -> ApiConnection | None:
        """Return the connection that has done least for longest, of those without a complete
        request."""
        others = [
            each
            for each in cast("set[ApiConnection]", self.connections)
            if each._phase is not _Phase.RECEIVED
        ]
        return min(others, key=lambda each: (each._phase, each._since), default=None)

    def _evict(self) -> None:
        """End the connection for the sake of another."""
        self._cut(HttpError(503, "There are too many connections."))
        # It counts no longer and is not waited for.
        self.connections.discard(self)
        self.transport.close()

    def _cut(self, error: HttpError) -> None:
        """End the connection, with an error when the request has no reply yet.

        What the client still sends is dropped for a while, so that it gets to read the error
        before the connection is reset (RFC 9112 section 9.6).
        """
        if self._is_cut:
            return
        self._is_cut = True
        phase, self._phase = self._phase, _Phase.LINGERING
        self._cancel_timers()
        self._unset_keepalive_if_required()
        if phase is not _Phase.IDLE:
            self._warn("request_cut_off", status=error.status, reason=error.message)
        self.pipeline.clear()
        cycle = self.cycle
        is_free = cycle is None or cycle.response_complete
        if phase is _Phase.HEAD and not is_free:
            cycle.keep_alive = False  # an earlier request; the connection ends with its reply
            return
        if phase is _Phase.HEAD or (phase is _Phase.BODY and not cycle.response_started):
            self.transport.write(_encoded(error))
        if not is_free:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
            self._send_timer = self.loop.call_later(self._limits.linger_s, self.transport.abort)
        else:
            self.transport.close()

    def _cancel_timers(self) -> None:
        for timer in (self._read_timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        self._read_timer = self._send_timer = None

    def _warn(self, event: str, **facts: object) -> None:
        held_back = self._throttle.allow(event)
        if held_back is not None:
            client = None if self.client is None else self.client[0]
            _log.warning(event, client=client, held_back=held_back, **facts)


def new_throttle() -> Throttle:
    """Return the throttle that the connections of a server share."""
    return Throttle(SystemClock())


def _encoded(error: HttpError) -> bytes:
    body = encode_error(error)
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"content-type: {ERROR_MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
