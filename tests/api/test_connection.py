"""A real server over sockets, and clients that begin much and finish nothing."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from midonet.api.app import build_app
from midonet.api.connection import ConnectionLimits
from midonet.api.server import ApiServer, bind
from midonet.model.devices import Bridge
from midonet.nsdb.memory import MemoryStore
from tests.api.conftest import log_lines

LIMITS = ConnectionLimits(
    connections=8, head_timeout_s=30.0, body_timeout_s=30.0, send_timeout_s=30.0, linger_s=0.3
)
PATIENCE_S = 30.0
GET = b"GET /midonet-api/system_state HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = (
    b"POST /midonet-api/bridges HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """A server in this event loop, and the connections opened to it."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.listening = bind("127.0.0.1:0")
        self.port = self.listening.getsockname()[1]
        self.store = MemoryStore()
        self.ready = asyncio.Event()
        self.server = ApiServer(build_app(self.store), self.ready.set, limits)
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, data: bytes = b"") -> Streams:
        """Open a connection and send something."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**26)
        self._writers.append(writer)
        writer.write(data)
        await writer.drain()
        return reader, writer

    async def ask(self, data: bytes) -> Reply:
        """Send bytes on a new connection and read one reply."""
        return await read_reply((await self.connect(data))[0])

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self.server.stop()


@asynccontextmanager
async def serving(limits: ConnectionLimits = LIMITS, **changes: Any) -> AsyncIterator[Served]:
    served = Served(replace(limits, **changes))
    await served.store.open()
    task = asyncio.create_task(served.server.serve([served.listening]))
    await asyncio.wait_for(served.ready.wait(), PATIENCE_S)
    try:
        yield served
    finally:
        await served.close()
        await asyncio.wait_for(task, PATIENCE_S)
        await served.store.close()


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Read one reply with a Content-Length."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    if head.startswith(b"HTTP/1.1 100 "):
        head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return Reply(int(status_line.split()[1]), headers, body)


async def read_end(reader: asyncio.StreamReader) -> bytes:
    """Read until the server closes."""
    return await asyncio.wait_for(reader.read(), PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing tells when it comes true
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET, 200),
        (b"GET / HTTP/1.0\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"rubbish\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"y" * 40_000 + b": z\r\n\r\n", 431),
        (b"GET /" + b"y" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 99999999999\r\n\r\n{", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 201),
        (HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}", 201),
        (HEAD + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", 400),
    ],
)
async def test_request_has_the_answer_that_http_asks_for(request_bytes: bytes, status: int) -> None:
    async with serving() as served:
        reply = await served.ask(request_bytes)
        assert reply.status == status
        if status >= 400:
            assert reply.headers["content-type"] == "application/vnd.org.midonet.error-v1+json"
            assert json.loads(reply.body)["code"] == status
        assert (await served.ask(GET)).status == 200


async def test_endless_headers_cost_no_memory() -> None:
    async with serving() as served:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        connections = [await served.connect(GET[:-4]) for _ in range(4)]
        for reader, writer in connections:
            writer.write(b"\r\nX: " + b"x" * 100_000)
            assert (await read_reply(reader)).status == 431
            await send_until_cut_off(writer, b"x" * 65536)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 32 * 1024


async def send_until_cut_off(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    """Send without end; return when the server has had enough."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                writer.write(chunk)
                await writer.drain()
    except ConnectionError:
        return


@pytest.mark.parametrize("chunk", [b"10000\r\n" + b" " * 65536 + b"\r\n", b"1;" + b"x" * 65536])
async def test_endless_body_is_cut_off(chunk: bytes) -> None:
    async with serving() as served:
        _, writer = await served.connect(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        await send_until_cut_off(writer, chunk)
        assert (await served.ask(GET)).status == 200
        assert await served.store.list_all(Bridge) == []


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /midonet-api/brid",
        GET[:-2],
        GET + GET[:-2],
        HEAD + b"Content-Length: 10\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{",
        HEAD + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
    ],
)
async def test_request_that_is_never_finished_ends_in_time(begun: bytes) -> None:
    async with serving(head_timeout_s=0.3, body_timeout_s=0.3) as served:
        reader, _ = await served.connect(begun)
        answered = await read_end(reader)
        assert b"HTTP/1.1 408 Request Timeout\r\n" in answered
        assert answered.count(b"HTTP/1.1 200") == begun.count(GET)
        await until(lambda: not served.server.server_state.connections)
        assert not served.server.server_state.tasks


async def test_drip_of_bytes_does_not_extend_the_time() -> None:
    async with serving(head_timeout_s=0.5) as served:
        reader, writer = await served.connect(GET[:-2])

        async def drip() -> None:
            while True:
                writer.write(b"X: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert b" 408 " in await read_end(reader)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_clients_that_only_begin_shut_nobody_out() -> None:
    with log_lines() as lines:
        async with serving() as served:
            begun = [GET[:-2], b"", HEAD + b"Content-Length: 9\r\n\r\n{"]
            held = [await served.connect(begun[number % 3]) for number in range(40)]
            for _ in range(12):
                assert (await served.ask(GET)).status == 200
            assert len(served.server.server_state.connections) <= LIMITS.connections
            assert b" 503 " in await read_end(held[0][0])
    full = [line for line in lines if line["event"] == "connections_full"]
    assert len(full) == 1
    assert (full[0]["limit"], full[0]["log_level"]) == (LIMITS.connections, "warning")


async def test_request_in_progress_is_not_given_up_for_another() -> None:
    async with serving(connections=2) as served:
        gate = asyncio.Event()
        list_ids = served.store.list_ids

        async def slow(kind: Any) -> Any:
            await gate.wait()
            return await list_ids(kind)

        served.store.list_ids = slow  # type: ignore[method-assign]
        listing = GET.replace(b"system_state", b"bridges")
        waiting = [(await served.connect(listing))[0] for _ in range(2)]
        await until(lambda: len(served.server.server_state.tasks) == 2)
        refused = await served.ask(GET)
        assert refused.status == 503
        gate.set()
        assert [(await read_reply(reader)).status for reader in waiting] == [200, 200]


async def test_reply_that_is_not_read_ends_in_time() -> None:
    async with serving(send_timeout_s=0.3) as served:
        name = b'{"name": "' + b"x" * 255 + b'"}'
        post = HEAD + b"Content-Length: " + str(len(name)).encode() + b"\r\n\r\n" + name
        reader, _ = await served.connect(post * 200)
        for _ in range(200):
            assert (await read_reply(reader)).status == 201
        with socket.create_connection(("127.0.0.1", served.port)) as lazy:
            lazy.setblocking(False)
            listing = GET.replace(b"system_state", b"bridges") * 300
            await asyncio.get_running_loop().sock_sendall(lazy, listing)
            await until(lambda: len(served.server.server_state.connections) == 2)
            await until(lambda: len(served.server.server_state.connections) < 2)


async def test_aborted_upload_is_a_line_and_no_error() -> None:
    with log_lines() as lines:
        async with serving() as served:
            _, writer = await served.connect(HEAD + b"Content-Length: 1000\r\n\r\n{")
            await until(lambda: len(served.server.server_state.tasks) == 1)
            writer.close()
            await until(lambda: not served.server.server_state.tasks)
            assert (await served.ask(GET)).status == 200
    assert [line["event"] for line in lines if line["log_level"] == "error"] == []
    (write,) = [line for line in lines if line["event"] == "write"]
    assert (write["method"], write["status"]) == ("POST", 400)
    assert "ended before" in write["reason"]


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as served:
        head = GET.replace(b"GET", b"HEAD")
        reader, _ = await served.connect(GET + head + GET.replace(b"system_state", b"x") + GET)
        first = await read_reply(reader)
        headers = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        assert f"content-length: {len(first.body)}".encode() in headers
        assert [(await read_reply(reader)).status for _ in range(2)] == [404, 200]
