"""Serving the application over HTTP: uvicorn with httptools, on a socket bound beforehand."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from litestar.types import ASGIApp

from midonet.errors import UnavailableError, UserError

_LISTEN = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_BACKLOG = 1024


def bind(listen: str) -> socket.socket:
    """Return a listening socket for `ADDRESS:PORT` or `[ADDRESS]:PORT`.

    Raises UserError (not such a text), UnavailableError (the address cannot be had).
    """
    match = _LISTEN.fullmatch(listen)
    if match is None or int(match["port"]) > 0xFFFF:
        raise UserError(f"{listen!r} is not ADDRESS:PORT.", field="listen")
    family = socket.AF_INET6 if match["v6"] else socket.AF_INET
    address = match["v6"] or match["name"] or ""
    try:
        return socket.create_server((address, int(match["port"])), family=family, backlog=_BACKLOG)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror
        raise UnavailableError(f"cannot listen on {listen}: {reason}") from None


class ApiServer(uvicorn.Server):
    """A server that leaves signals to the process and tells when it is ready."""

    def __init__(self, app: ASGIApp, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                cast(Any, app),
                http="httptools",
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
