"""Talking to an agent of this machine through its control socket."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import httpx

from midonet.agent.host.settings import CONTROL_SOCKET_NAME, AgentSettings
from midonet.errors import (
    ConflictError,
    MidoNetError,
    UnavailableError,
    UserError,
)

_DEFAULT_DIR = AgentSettings(nsdb="memory:").state_dir


def add_agent_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that tells which agent is meant."""
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path(_DEFAULT_DIR),
        metavar="DIR",
        help="state directory (or run directory) of the agent (default: %(default)s)",
    )


def call(state_dir: Path, method: str, path: str, *, timeout_s: float = 30.0, **body: Any) -> Any:
    """Send a request to the agent and return the decoded answer, None when it is empty.

    Raises UnavailableError when no agent listens there, and the error that the agent answers.
    """
    socket = state_dir / CONTROL_SOCKET_NAME
    try:
        socket.stat()
    except PermissionError:
        raise UnavailableError(f"{socket} is not open to this user: try again with sudo") from None
    except (OSError, ValueError):
        raise UnavailableError(f"no agent answers at {socket}: there is no such socket") from None
    transport = httpx.HTTPTransport(uds=str(socket))
    try:
        with httpx.Client(transport=transport, timeout=timeout_s) as client:
            response = client.request(method, f"http://agent{path}", json=body or None)
    except httpx.HTTPError as error:
        if isinstance(error, httpx.ConnectError) and "Permission denied" in str(error):
            raise UnavailableError(
                f"{socket} is not open to this user: try again with sudo"
            ) from None
        raise UnavailableError(f"no agent answers at {socket}: {error}") from None
    if response.is_error:
        raise _error(response)
    return response.json() if response.content else None


def _error(response: httpx.Response) -> MidoNetError:
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the agent answered {response.status_code}"
    match response.status_code:
        case 400 | 404 | 405:
            return UserError(message)
        case 409:
            return ConflictError(message)
        case _:
            return UnavailableError(message)
