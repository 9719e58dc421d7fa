# ruff: noqa: ASYNC240 - nothing else runs on the loop meanwhile

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from midonet.agent.operator.control_socket import ControlSocket, Request
from midonet.errors import ConflictError, NotFoundError, UnavailableError, UserError


class Recorder:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: object = {"fine": True}
        self.error: Exception | None = None

    async def respond(self, request: Request) -> object:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def path(tmp_path: Path, recorder: Recorder) -> AsyncIterator[Path]:
    listening = ControlSocket(tmp_path / "run" / "agent.sock", recorder.respond)
    await listening.open()
    yield tmp_path / "run" / "agent.sock"
    await listening.close()
    assert not (tmp_path / "run" / "agent.sock").exists()


async def request(path: Path, method: str, url: str, content: bytes = b"") -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport) as client:
        return await client.request(method, f"http://agent{url}", content=content)


async def test_request_is_taken_apart_and_answered_in_json(path: Path, recorder: Recorder) -> None:
    response = await request(path, "PUT", "/binding/x?after=3", b'{"a": 1}')
    assert response.status_code == 200
    assert response.json() == {"fine": True}
    [got] = recorder.requests
    assert (got.method, got.path, got.query, got.body) == (
        "PUT", ("binding", "x"), {"after": "3"}, b'{"a": 1}',
    )  # fmt: skip


async def test_nothing_to_say_is_204(path: Path, recorder: Recorder) -> None:
    recorder.answer = None
    assert (await request(path, "DELETE", "/binding/x")).status_code == 204


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("bad"), 400),
        (NotFoundError("port", "x"), 404),
        (ConflictError("taken"), 409),
        (UnavailableError("away"), 503),
    ],
)
async def test_errors_become_statuses_with_their_message(
    path: Path, recorder: Recorder, error: Exception, status: int
) -> None:
    recorder.error = error
    response = await request(path, "GET", "/state")
    assert response.status_code == status
    assert response.json() == {"message": str(error)}


@pytest.mark.parametrize(
    "garbage",
    [
        b"nonsense\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        b"",
    ],
)
async def test_garbage_gets_a_400(path: Path, recorder: Recorder, garbage: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(garbage)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400")
    assert recorder.requests == []


async def test_socket_is_for_its_owner_only(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_stale_socket_file_is_replaced(tmp_path: Path, recorder: Recorder) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "agent.sock"))
    listening = ControlSocket(tmp_path / "agent.sock", recorder.respond)
    await listening.open()
    assert (await request(tmp_path / "agent.sock", "GET", "/x")).status_code == 200
    await listening.close()


async def test_socket_is_private_whatever_the_umask(tmp_path: Path, recorder: Recorder) -> None:
    path = tmp_path / "run" / "agent.sock"
    before = os.umask(0)
    try:
        listening = ControlSocket(path, recorder.respond)
        await listening.open()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        await listening.close()
    finally:
        os.umask(before)


async def test_file_that_is_no_socket_is_not_removed(tmp_path: Path, recorder: Recorder) -> None:
    (tmp_path / "agent.sock").write_text("precious")
    with pytest.raises(UserError, match="not a socket"):
        await ControlSocket(tmp_path / "agent.sock", recorder.respond).open()
    assert (tmp_path / "agent.sock").read_text() == "precious"


async def test_run_directory_that_everybody_may_write_to_is_refused(
    tmp_path: Path, recorder: Recorder
) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UserError, match="everybody"):
        await ControlSocket(tmp_path / "agent.sock", recorder.respond).open()
    tmp_path.chmod(0o700)
