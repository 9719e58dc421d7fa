"""REST creates a second, one server process, one keep-alive connection after another.

The server is the real command on an SQLite store in a temporary directory; the client sends
prepared bytes on raw sockets, so that what is measured is the server. Prints one JSON row a
line: {"name", "value", "unit"}. Run: python -m bench.bench_rest
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from midonet.demo.processes import free_port

SECONDS = 4.0
CONNECTIONS = 8


def wait_until_served(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server accepts; RuntimeError when it ended instead."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("the server ended")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server does not answer")


def post(path: str, body: dict[str, Any]) -> bytes:
    """Return the bytes of a request."""
    content = json.dumps(body).encode()
    return (
        f"POST /midonet-api{path} HTTP/1.1\r\nHost: bench\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


def read_reply(connection: socket.socket) -> bytes:
    """Return the head of a reply without a body."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        chunk = connection.recv(65536)
        if not chunk:
            raise RuntimeError("the server closed the connection")
        received += chunk
    return received


def create_one(port: int, path: str, body: dict[str, Any]) -> str:
    """Create an object and return its path below the root."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(post(path, body))
        head = read_reply(connection).decode()
    location = next(x for x in head.split("\r\n") if x.lower().startswith("location: "))
    return location.partition("/midonet-api")[2]


def rate(port: int, request: bytes) -> float:
    """Return replies a second with CONNECTIONS requests in flight."""
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        connection.sendall(request)
    count = 0
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for key, _ in selector.select(1.0):
            connection = key.fileobj  # type: ignore[assignment]  # only sockets are registered
            head = read_reply(connection)
            if b" 201 " not in head[:20]:
                raise RuntimeError(head.decode())
            count += 1
            connection.sendall(request)
    elapsed = time.perf_counter() - start
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]  # only sockets are registered
    return count / elapsed


def main() -> int:
    """Start a server, measure, print the rows."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "midonet.commands.main", "cluster"]
        command += ["--nsdb", f"sqlite://{Path(directory) / 'nsdb.db'}"]
        command += ["--listen", f"127.0.0.1:{port}", "--log-level", "warning"]
        with subprocess.Popen(command) as process:
            try:
                wait_until_served(port, process)
                router = create_one(port, "/routers", {"name": "r"})
                cases = {
                    "rest_bridge_creates": post("/bridges", {"name": "b", "tenantId": "t"}),
                    "rest_router_port_creates": post(
                        f"{router}/ports", {"type": "Router", "portSubnet": ["10.0.0.1/24"]}
                    ),
                }
                for name, request in cases.items():
                    row = {"name": name, "value": round(rate(port, request), 1), "unit": "1/s"}
                    print(json.dumps(row), flush=True)
            finally:
                process.send_signal(signal.SIGTERM)
    return 0


if __name__ == "__main__":
    sys.exit(main())
