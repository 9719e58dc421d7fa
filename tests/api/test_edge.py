"""Who is let in, from where: hosts, origins, HEAD, encodings, and the lines written of it."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from midonet.api.app import build_app
from midonet.api.auth import Identity, MockAuthProvider
from midonet.api.edge import EdgePolicy
from midonet.nsdb.memory import MemoryStore
from tests.api.conftest import ROOT, Api, log_lines

pytestmark = pytest.mark.parametrize("store", ["memory"], indirect=True)
BASE = "http://127.0.0.1:8181/midonet-api"


def client(store: MemoryStore, **policy: Any) -> httpx.AsyncClient:
    sets = {name: frozenset(values) for name, values in policy.items()}
    app = build_app(store, policy=EdgePolicy(**{"allowed_hosts": frozenset()} | sets))
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url=BASE)


@pytest.fixture
async def strict(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    async with client(store) as opened:
        yield opened


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost.:8181", 200),
        ("127.0.0.1:8181", 200),
        ("192.0.2.1", 200),
        ("[::1]:8181", 200),
        ("rebound.example:8181", 421),
        ("127.0.0.1.rebound.example", 421),
        ("localhost.rebound.example", 421),
        ('evil"/><script>', 400),
        ("", 400),
        ("a b", 400),
    ],
)
async def test_host_that_a_caller_names_is_checked(
    strict: httpx.AsyncClient, host: str, status: int
) -> None:
    for method in ("GET", "POST"):
        reply = await strict.request(method, "/bridges", headers={"Host": host}, json={})
        assert reply.status_code == (201 if (method, status) == ("POST", 200) else status)


async def test_further_hosts_are_configured(store: MemoryStore) -> None:
    async with client(store, allowed_hosts={"Api.example", ".cloud.example"}) as configured:
        for host, status in (
            ("api.EXAMPLE:8181", 200),
            ("a.cloud.example", 200),
            ("cloud.example", 421),
            ("xcloud.example", 421),
        ):
            reply = await configured.get("/bridges", headers={"Host": host})
            assert reply.status_code == status, host
    async with client(store, allowed_hosts={"*"}) as anyone:
        assert (await anyone.get("/bridges", headers={"Host": "x.y"})).status_code == 200


async def test_two_hosts_or_none_are_refused(strict: httpx.AsyncClient) -> None:
    both = [("Host", "127.0.0.1"), ("Host", "localhost")]
    assert (await strict.get("/bridges", headers=both)).status_code == 400
    request = strict.build_request("GET", "/bridges")
    del request.headers["host"]
    assert (await strict.send(request)).status_code == 400


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_page_of_another_origin_writes_nothing_and_reads_nothing(
    strict: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for method, path in (("POST", "/bridges"), ("POST", "/login"), ("DELETE", "/bridges/x")):
        reply = await strict.request(method, path, json={"name": "b"}, headers=headers)
        assert reply.status_code == 403
    listed = await strict.get("/bridges", headers=headers)
    assert listed.json() == []
    assert not [name for name in listed.headers if name.startswith("access-control")]
    preflight = await strict.options("/bridges", headers={"Origin": "http://evil.example"})
    assert preflight.status_code == 403
    assert not [name for name in preflight.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_body_that_a_form_can_send_is_refused(strict: httpx.AsyncClient, kind: str) -> None:
    content = b'{"name": "b"}'
    reply = await strict.post("/bridges", content=content, headers={"Content-Type": kind})
    assert reply.status_code == 406
    assert (await strict.get("/bridges")).json() == []


async def test_own_pages_and_configured_origins_may_call(store: MemoryStore) -> None:
    own = {"Origin": "http://127.0.0.1:8181", "Sec-Fetch-Site": "same-origin"}
    gui = {"Origin": "https://gui.example", "Sec-Fetch-Site": "cross-site"}
    async with client(store, cors_origins={"https://gui.example"}) as configured:
        for headers in (own, gui):
            reply = await configured.post("/bridges", json={}, headers=headers)
            assert reply.status_code == 201
        assert reply.headers["access-control-allow-origin"] == "https://gui.example"
        assert "Location" in reply.headers["access-control-expose-headers"]
        preflight = await configured.options("/bridges", headers=gui)
        assert preflight.status_code == 200
        assert "PUT" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-origin"] == "https://gui.example"
        assert (await configured.post("/bridges", json={}, headers=FOREIGN[0])).status_code == 403
    async with client(store, cors_origins={"*"}) as open_to_all:
        reply = await open_to_all.post("/bridges", json={}, headers=FOREIGN[0])
        assert reply.headers["access-control-allow-origin"] == "*"


async def test_options_of_a_program_lists_the_methods(strict: httpx.AsyncClient) -> None:
    reply = await strict.options("/bridges")
    assert reply.status_code == 200
    assert "DELETE" in reply.headers["allow"]


async def test_head_is_get_without_the_content(api: Api) -> None:
    bridge = await api.create("/bridges", name="b")
    for path in (bridge["uri"], "/bridges", ROOT, "/openapi.json", "/nonsense"):
        got = await api.http.get(path)
        head = await api.http.head(path)
        assert head.content == b""
        assert head.status_code == got.status_code
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("gzip;q=0.1, identity", "gzip"),
        ("deflate, *", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.000, *;q=1", None),
        ("*;q=0", None),
        ("deflate, br", None),
        ("notgzip", None),
        ("", None),
    ],
)
async def test_reply_has_an_encoding_that_the_caller_accepts(
    api: Api, accepted: str, encoding: str | None
) -> None:
    await api.create("/bridges", name="x" * 200)
    reply = await api.http.get("/bridges", headers={"Accept-Encoding": accepted})
    assert reply.headers.get("content-encoding") == encoding
    assert reply.headers["vary"] == "accept-encoding"
    assert len(reply.json()) == 1


async def test_gzip_body_is_whole_and_bounded(api: Api) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    body = gzip.compress(b'{"name": "zipped"}')
    half = gzip.compress(b'{"name": ') + gzip.compress(b'"two members"}')
    bomb = gzip.compress(b" " * (5 * 1024 * 1024))
    for content, status in (
        (half, 201),
        (body[:-9], 400),
        (body[:-1], 400),
        (body[: len(body) // 2], 400),
        (body[:5], 400),
        (body + b"rubbish", 400),
        (gzip.compress(b"") * 40, 400),
        (bomb, 413),
        (gzip.compress(b" " * (3 * 1024 * 1024)) * 2, 413),
        (b"", 400),
    ):
        reply = await api.http.post("/bridges", content=content, headers=headers)
        assert reply.status_code == status, content[:20]
    assert [bridge["name"] for bridge in await api.get("/bridges")] == ["two members"]


class Named(MockAuthProvider):
    async def validate(self, token: str | None) -> Identity | None:
        return None if token is None else Identity(token, is_admin=token == "root")


async def test_each_write_leaves_one_line(store: MemoryStore) -> None:
    transport = httpx.ASGITransport(app=build_app(store, Named()))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=ROOT) as http:
        with log_lines() as lines:
            root = {b"X-Auth-Token": b"root", b"X-Forwarded-For": b"192.0.2.7\x85"}
            created = await http.post("/bridges", json={"name": "b"}, headers=root)
            await http.put(created.headers["location"], json={"vlan": 1}, headers=root)
            await http.put(created.headers["location"], content=b"", headers=root)
            await http.delete(created.headers["location"] + "%0aevent=write", headers=root)
            await http.post("/bridges", json={}, headers={"X-Auth-Token": "guest"})
            await http.post("/login", auth=("eve", "guess"))
            await http.get("/bridges", headers=root)
    written = [line for line in lines if line["event"] == "write"]
    first, _, empty, missing, guest, login = written
    assert first["log_level"] == "info"
    assert {name: first[name] for name in ("user", "method", "path", "status", "location")} == {
        "user": "root",
        "method": "POST",
        "path": "/midonet-api/bridges",
        "status": 201,
        "location": created.headers["location"],
    }
    assert first["forwarded_for"] == "192.0.2.7?"
    assert [line["status"] for line in written] == [201, 204, 400, 404, 401, 200]
    assert "must not be empty" in empty["reason"]
    assert missing["path"].endswith("%0aevent=write")
    assert "user" not in guest
    assert login["user"] == "eve"
    assert [line["log_level"] for line in lines if line["event"] == "read"] == ["debug"]
