"""Serving the application over HTTP: uvicorn with httptools, on a socket bound beforehand,
within the limits of `midonet.api.connection`."""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import uvicorn
from litestar.types import ASGIApp

from midonet.api.connection import ApiConnection, ConnectionLimits, new_throttle
from midonet.errors import UnavailableError
from midonet.runtime.listen_address import listeners, parse_listen

_BACKLOG = 1024
_OTHER_DESCRIPTORS = 256
_FEWEST_CONNECTIONS = 16


def bind(listen: str) -> socket.socket:
    """Return a listening socket for `ADDRESS:PORT` or `[ADDRESS]:PORT`.

    Raises UserError (not such a text), UnavailableError (the address cannot be had).
    """
    wanted = parse_listen(listen)
    family = socket.AF_INET6 if wanted.is_ipv6 else socket.AF_INET
    try:
        return socket.create_server((wanted.host, wanted.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror
        if number == errno.EADDRINUSE:
            holders = ", ".join(listeners(wanted.port)) or "a process that root can see"
            reason = f"port {wanted.port} is in use by {holders}"
        raise UnavailableError(f"cannot listen on {listen}: {reason}") from None


def is_loopback(listening: socket.socket) -> bool:
    """Tell whether a listening socket can be reached from this machine only."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _within_descriptors(limits: ConnectionLimits) -> ConnectionLimits:
    """Let the process have a descriptor for each connection, or fewer connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _OTHER_DESCRIPTORS
    if soft < wanted <= hard or hard == resource.RLIM_INFINITY:
        soft = max(soft, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    connections = min(limits.connections, max(soft - _OTHER_DESCRIPTORS, _FEWEST_CONNECTIONS))
    return replace(limits, connections=connections)


class ApiServer(uvicorn.Server):
    """A server that leaves signals to the process and tells when it is ready."""

    def __init__(
        self,
        app: ASGIApp,
        on_ready: Callable[[], None],
        limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - immutable
    ) -> None:
        connection = partial(ApiConnection, _within_descriptors(limits), new_throttle())
        super().__init__(
            uvicorn.Config(
                cast(Any, app),
                http=cast(Any, connection),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=5,
            )
        )
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's own signal handlers in place."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, then tell."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def stop(self) -> None:
        """Finish the requests in progress and return from `serve`."""
        self.should_exit = True
