"""`mm-ctl`: bind a port to an interface of this host, or unbind it, through the local agent.

Exit codes: 0 done, 1 bad command line, 3 the agent refused, 4 no agent answers.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import httpx

DEFAULT_SOCKET = "/var/lib/midonet/agent.sock"
SOCKET_VARIABLE = "MM_CTL_SOCKET"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as stop:
        return 1 if stop.code else 0
    if args.bind_port is not None:
        port_id, interface_name = args.bind_port
        method, body = "PUT", {"interfaceName": interface_name}
    else:
        port_id, method, body = args.unbind_port, "DELETE", None
    try:
        UUID(port_id)
    except ValueError:
        print(f"mm-ctl: {port_id!r} is not a port UUID", file=sys.stderr)
        return 1
    return _call(args.socket, method, port_id, body)


def _call(socket: str, method: str, port_id: str, body: dict[str, str] | None) -> int:
    try:
        Path(socket).stat()
    except PermissionError:
        print(f"mm-ctl: {socket} is not open to this user: try again with sudo", file=sys.stderr)
        return 4
    except (OSError, ValueError):
        print(f"mm-ctl: no agent answers at {socket}: there is no such socket", file=sys.stderr)
        return 4
    transport = httpx.HTTPTransport(uds=socket)
    try:
        with httpx.Client(transport=transport, timeout=30) as client:
            response = client.request(method, f"http://agent/binding/{port_id}", json=body)
    except httpx.HTTPError as error:
        print(f"mm-ctl: no agent answers at {socket}: {error}", file=sys.stderr)
        return 4
    if response.is_error:
        print(f"mm-ctl: {_message(response)}", file=sys.stderr)
        return 3
    return 0


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"the agent answered {response.status_code}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mm-ctl", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--socket",
        default=os.environ.get(SOCKET_VARIABLE, DEFAULT_SOCKET),
        metavar="PATH",
        help=f"control socket of the agent (default: {SOCKET_VARIABLE}, else {DEFAULT_SOCKET})",
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--bind-port", nargs=2, metavar=("PORT_UUID", "INTERFACE"), help="bind a port"
    )
    action.add_argument("--unbind-port", metavar="PORT_UUID", help="unbind a port")
    return parser


if __name__ == "__main__":
    sys.exit(main())
