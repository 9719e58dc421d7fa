"""REST: creates a second, a long list and what others wait meanwhile, rules in a long chain.

The server is the real command on an SQLite store in a temporary directory; the client sends
prepared bytes on raw sockets, so that what is measured is the server. Prints one JSON row a
line: {"name", "value", "unit"}. Run: python -m bench.bench_rest
"""

from __future__ import annotations

import asyncio
import json
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from midonet.demo.processes import free_port
from midonet.model.chains import Chain, Condition, PortRange, Rule, RuleAction
from midonet.model.devices import Bridge, Port
from midonet.model.ids import BridgeId, ChainId, PortId, RuleId
from midonet.model.ranks import spread
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create

SECONDS = 4.0
CONNECTIONS = 8
PORTS = 50_000
RULES = 10_000
BATCH = 400
INSERTIONS = 20
WRITERS = 16
HTTP = {"start": 80, "end": 80}


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
        f"POST /midonet-api{path} HTTP/1.1\r\nHost: localhost\r\n"
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


def get(path: str) -> bytes:
    """Return the bytes of a request."""
    return f"GET /midonet-api{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def populate(path: Path) -> tuple[str, str]:
    """Store a bridge with PORTS ports and a chain with RULES rules; return their paths."""
    store = SqliteStore(path)
    await store.open()
    bridge_id, chain_id = BridgeId(uuid4()), ChainId(uuid4())
    made: list[Any] = [Bridge(id=bridge_id, name="large"), Chain(id=chain_id, name="long")]
    made += [Port(id=PortId(uuid4()), bridge_id=bridge_id, tunnel_key=2) for _ in range(PORTS)]
    condition = Condition(ip_src="10.0.0.0/24", ip_proto=6, l4_dst=PortRange(80, 80))
    made += [
        Rule(
            id=RuleId(uuid4()),
            chain_id=chain_id,
            rank=rank,
            action=RuleAction.ACCEPT,
            condition=condition,
        )
        for rank in spread(RULES)
    ]
    for start in range(0, len(made), BATCH):
        await store.transact([Create(each) for each in made[start : start + BATCH]])
    await store.close()
    return f"/bridges/{bridge_id}", f"/chains/{chain_id}"


def peak_kib(process_id: int) -> int:
    """Return the largest resident size a process has had."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def measure_list(port: int, process_id: int) -> dict[str, tuple[float, str]]:
    """List PORTS ports while another client reads one small object again and again."""
    is_over = threading.Event()
    waits_ms: list[float] = []

    def read_on() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while not is_over.is_set():
                start = time.perf_counter()
                connection.sendall(get("/system_state"))
                received = b""
                while not received.endswith(b"}"):
                    received += connection.recv(65536)
                waits_ms.append((time.perf_counter() - start) * 1000)

    before_kib = peak_kib(process_id)
    reader = threading.Thread(target=read_on)
    reader.start()
    start = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/midonet-api/ports") as reply:
        size = sum(len(chunk) for chunk in iter(lambda: reply.read(1 << 20), b""))
    elapsed_s = time.perf_counter() - start
    is_over.set()
    reader.join()
    waits_ms.sort()
    return {
        f"rest_list_{PORTS}_ports": (elapsed_s, "s"),
        f"rest_list_{PORTS}_ports_size": (size / 1e6, "MB"),
        f"rest_list_{PORTS}_ports_memory": ((peak_kib(process_id) - before_kib) / 1024, "MiB"),
        f"rest_read_during_list_of_{PORTS}_p99": (waits_ms[len(waits_ms) * 99 // 100], "ms"),
        f"rest_read_during_list_of_{PORTS}_max": (waits_ms[-1], "ms"),
    }


def measure_rules(port: int, rules: str) -> dict[str, tuple[float, str]]:
    """Insert rules into a chain of RULES: one client, then WRITERS at once."""
    figures = {}
    for name, position in (("first", 1), ("middle", RULES // 2), ("last", RULES + 1)):
        times_ms = []
        for _ in range(INSERTIONS):
            start = time.perf_counter()
            create_one(port, rules, {"type": "drop", "position": position, "tpDst": HTTP})
            times_ms.append((time.perf_counter() - start) * 1000)
        median = statistics.median(times_ms)
        figures[f"rest_rule_{name}_of_{RULES}"] = (median, "ms")
    with ThreadPoolExecutor(WRITERS) as pool:
        body = {"type": "drop", "position": 1}

        def write(_: int) -> bool:
            try:
                create_one(port, rules, body)
            except StopIteration:
                return False
            return True

        start = time.perf_counter()
        written = list(pool.map(write, range(WRITERS * INSERTIONS)))
        elapsed_s = time.perf_counter() - start
    refused = 100 * (1 - sum(written) / len(written))
    figures[f"rest_rule_creates_by_{WRITERS}_writers"] = (len(written) / elapsed_s, "1/s")
    figures[f"rest_rule_refused_of_{WRITERS}_writers"] = (refused, "%")
    return figures


def show(name: str, value: float, unit: str) -> None:
    """Print a row."""
    print(json.dumps({"name": name, "value": round(value, 2), "unit": unit}), flush=True)


def main() -> int:
    """Start a server, measure, print the rows."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "nsdb.db"
        _, chain = asyncio.run(populate(path))
        command = [sys.executable, "-m", "midonet.commands.main", "cluster"]
        command += ["--nsdb", f"sqlite://{path}"]
        command += ["--listen", f"127.0.0.1:{port}", "--log-level", "warning"]
        with subprocess.Popen(command) as process:
            try:
                wait_until_served(port, process)
                for name, (value, unit) in measure_list(port, process.pid).items():
                    show(name, value, unit)
                for name, (value, unit) in measure_rules(port, f"{chain}/rules").items():
                    show(name, value, unit)
                router = create_one(port, "/routers", {"name": "r"})
                cases = {
                    "rest_bridge_creates": post("/bridges", {"name": "b", "tenantId": "t"}),
                    "rest_router_port_creates": post(
                        f"{router}/ports", {"type": "Router", "portSubnet": ["10.0.0.1/24"]}
                    ),
                }
                for name, request in cases.items():
                    show(name, rate(port, request), "1/s")
            finally:
                process.send_signal(signal.SIGTERM)
    return 0


if __name__ == "__main__":
    sys.exit(main())
