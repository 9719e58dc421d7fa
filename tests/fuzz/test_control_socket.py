"""Hostile clients of the control socket: nothing is left open, and others are answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from uuid import uuid4

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from midonet.agent.operator import control_socket
from midonet.agent.operator.control_socket import ControlSocket
from tests.fuzz.soaking import FACTOR, SEED
from tests.multiagent.hosts import Deployment, eventually

CLIENTS = 400
PLACES = 16
DEADLINE_S = 60.0


@asynccontextmanager
async def listening(tmp_path: Path, **options: int) -> AsyncIterator[ControlSocket]:
    """An agent's control socket, with few places."""
    deployment = Deployment(tmp_path)
    await deployment.open()
    async with deployment.agent("h1", "192.0.2.1") as h1:
        bridge = await deployment.bridge()
        await deployment.bridge_port(bridge, h1.id, "tap1")
        opened = ControlSocket(
            tmp_path / "agent.sock", h1.agent.control.respond, max_clients=PLACES, **options
        )
        await opened.open()
        try:
            yield opened
        finally:
            await opened.close()


async def ask(tmp_path: Path, path: str = "/state") -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "agent.sock"))
    async with httpx.AsyncClient(transport=transport, timeout=DEADLINE_S) as client:
        return await client.get(f"http://agent{path}")


async def talk(tmp_path: Path, data: bytes, *, end: bool = True) -> bytes:
    """Send bytes and return the whole answer."""
    reader, writer = await asyncio.open_unix_connection(tmp_path / "agent.sock")
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            if end:
                writer.write_eof()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE_S):
                return await reader.read()
        return b""
    finally:
        writer.close()


def post(path: str, body: bytes, **headers: str) -> bytes:
    fields = {"Content-Length": str(len(body))} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace") + body


PORT = str(uuid4())
DEEP = b"[" * 100_000
BAD: dict[str, bytes] = {
    "nothing": b"",
    "no HTTP": b"\x00\xff" * 100 + b"\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 2_000 + b"\r\n",
    "endless line": b"GET /" + b"a" * 1_000_000,
    "negative length": post("/inject", b"{}", Content_Length="-1"),
    "length of other digits": post("/inject", b"{}", Content_Length="\u00b2"),
    "huge length": post("/inject", b"{}", Content_Length="9" * 5000),
    "body too long": post("/inject", b"x" * 300_000),
    "body too short": post("/inject", b"{}", Content_Length="1000"),
    "open bracket": b"GET http://[ HTTP/1.1\r\n\r\n",
    "no JSON": post("/inject", b"{"),
    "no UTF-8": post("/inject", b'{"portId": "\xff\xfe", "frame": "00"}'),
    "deep JSON": post("/inject", DEEP),
    "deep JSON in a field": post("/inject", b'{"frame": ' + DEEP),
    "huge number": post("/inject", b'{"portId": "x", "frame": "", "waitSeconds": 1e999999}'),
    "many digits": post("/inject", b'{"waitSeconds": ' + b"9" * 100_000 + b"}"),
    "not a number": post("/inject", b'{"portId": "x", "frame": "", "waitSeconds": NaN}'),
    "unknown field": post("/inject", b'{"portId": "x", "frame": "", "nope": 1}'),
    "no port": post("/inject", b'{"portId": "' + b"a" * 10_000 + b'", "frame": ""}'),
    "no hexadecimal": post("/inject", f'{{"portId": "{PORT}", "frame": "zz"}}'.encode()),
    "watch: huge": f"GET /watch/{PORT}?after={'9' * 9000}&wait=0 HTTP/1.1\r\n\r\n".encode(),
    "watch: nan": f"GET /watch/{PORT}?wait=nan HTTP/1.1\r\n\r\n".encode(),
    "watch: for ever": f"GET /watch/{PORT}?wait=inf HTTP/1.1\r\n\r\n".encode(),
    "no route": b"DELETE /" + b"a/" * 5_000 + b" HTTP/1.1\r\n\r\n",
    "trace: no frame": post("/trace", f'{{"portId": "{PORT}", "frame": "00"}}'.encode()),
}


@pytest.mark.parametrize("request_bytes", BAD.values(), ids=BAD)
async def test_bad_request_is_answered_as_one(tmp_path: Path, request_bytes: bytes) -> None:
    async with listening(tmp_path):
        answer = await talk(tmp_path, request_bytes)
        if answer:  # whoever sends on after a refusal may lose the answer
            status = int(answer.split()[1])
            assert 400 <= status <= 503
            assert b'"message"' in answer
        assert (await ask(tmp_path)).status_code == 200


async def test_clients_that_only_send_slowly_lose_their_places(tmp_path: Path) -> None:
    async with listening(tmp_path):
        slow = [
            await asyncio.open_unix_connection(tmp_path / "agent.sock") for _ in range(3 * PLACES)
        ]
        for _, writer in slow:
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET /state HTTP/1.1\r\nX: ")
        for _ in range(3):
            assert (await ask(tmp_path)).status_code == 200
        for _, writer in slow:
            writer.close()


async def test_when_all_are_being_answered_a_client_is_told_to_come_again(tmp_path: Path) -> None:
    async with listening(tmp_path) as opened:
        wait = f"GET /watch/{PORT}?after=9&wait=60 HTTP/1.1\r\n\r\n".encode()
        waiting = [asyncio.ensure_future(talk(tmp_path, wait, end=False)) for _ in range(PLACES)]
        await eventually(lambda: len(opened._clients) == PLACES and not opened._sending, DEADLINE_S)
        refused = await ask(tmp_path)
        assert refused.status_code == 503
        assert b"too many clients" in refused.content
        await opened.close()  # and it does not wait for them
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*waiting)


async def test_client_that_does_not_take_its_answer_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "_WRITE_TIMEOUT_S", 0.2)

    async def respond(_: control_socket.Request) -> object:
        return "x" * 10_000_000

    opened = ControlSocket(tmp_path / "agent.sock", respond)
    await opened.open()
    _, writer = await asyncio.open_unix_connection(tmp_path / "agent.sock")
    writer.write(b"GET /flows HTTP/1.1\r\n\r\n")
    await eventually(lambda: opened._clients, DEADLINE_S)
    await eventually(lambda: not opened._clients, DEADLINE_S)
    writer.close()
    await opened.close()


async def test_many_hostile_clients_leave_nothing_behind(tmp_path: Path) -> None:
    """Each behaves badly in its own way; meanwhile others get answers, and no failure is ours."""
    random = Random(f"control socket {SEED}")
    requests = list(BAD.values())

    async def cut(data: bytes) -> None:
        _, writer = await asyncio.open_unix_connection(tmp_path / "agent.sock")
        with contextlib.suppress(ConnectionError):
            writer.write(data[: random.randrange(len(data) + 1)])
            await writer.drain()
        if random.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()

    async def whole(data: bytes) -> None:
        await talk(tmp_path, data)

    async def changed(data: bytes) -> None:
        bytes_ = bytearray(data or b"GET /state HTTP/1.1\r\n\r\n")
        for _ in range(random.randrange(1, 8)):
            bytes_[random.randrange(len(bytes_))] = random.randrange(256)
        await talk(tmp_path, bytes(bytes_))

    ways: list[Callable[[bytes], Awaitable[None]]] = [cut, whole, changed]
    structlog.reset_defaults()
    async with listening(tmp_path) as opened:
        with capture_logs() as logs:
            for _ in range(CLIENTS * FACTOR // 40):
                clients = [random.choice(ways)(random.choice(requests)) for _ in range(40)]
                answers = [ask(tmp_path) for _ in range(4)]
                await asyncio.gather(*clients, return_exceptions=True)
                for answer in await asyncio.gather(*answers, return_exceptions=True):
                    if isinstance(answer, httpx.Response):
                        assert answer.status_code in (200, 503)
                assert (await ask(tmp_path)).status_code == 200
            await eventually(lambda: not opened._clients, DEADLINE_S)
        assert not opened._sending
        assert [log for log in logs if log["event"] == "control_request_failed"] == []
