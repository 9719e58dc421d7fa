"""The whole application in process, over each store, and a small world to act on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import structlog

from midonet.api.app import build_app
from midonet.model.hosts import Host, HostState, Interface
from midonet.model.ids import HostId
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create, PutState, StateTables, Store

ROOT = "http://api.example:8181/midonet-api"


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = (
        MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "nsdb.db")
    )
    await opened.open()
    yield opened
    await opened.close()


@dataclass
class Api:
    """A client of the application with shorthands for the common steps."""

    http: httpx.AsyncClient
    store: Store

    async def create(self, path: str, **body: Any) -> dict[str, Any]:
        """POST, then GET what was created."""
        created = await self.http.post(path, json=body)
        assert created.status_code == 201, created.text
        assert created.content == b""
        return await self.get(created.headers["location"])

    async def get(self, path: str) -> Any:
        """GET something that is there."""
        reply = await self.http.get(path)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def refused(self, status: int, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Expect an error and return its body."""
        reply = await self.http.request(method, path, json=body)
        assert reply.status_code == status, reply.text
        assert reply.headers["content-type"] == "application/vnd.org.midonet.Error-v1+json"
        error: dict[str, Any] = reply.json()
        assert error["code"] == status
        return error

    async def host(self, name: str = "host", *, in_zone: bool = True) -> UUID:
        """Add a host as its agent does, and a tunnel zone that it is in."""
        host_id = HostId(uuid4())
        await self.store.transact([Create(Host(id=host_id, name=name))])
        if in_zone:
            zone = await self.create("/tunnel_zones", name=f"zone of {host_id}", type="vxlan")
            await self.create(zone["hosts"], hostId=str(host_id), ipAddress="192.0.2.1")
        return host_id

    async def start_agent(self, host_id: UUID) -> None:
        """Open a session of the host and report one interface."""
        await self.store.open_session(host_id)
        interface = Interface(
            name="eth0",
            mac="02:00:00:00:00:01",
            mtu_bytes=1500,
            addresses=("192.0.2.1/24", "2001:db8::1/64"),
            is_up=True,
            has_link=True,
        )
        state = HostState(id=HostId(host_id), interfaces=(interface,))
        text = msgspec.json.encode(state).decode()
        await self.store.transact([PutState(StateTables.host_state(), str(host_id), text, host_id)])


@contextmanager
def log_lines() -> Iterator[list[MutableMapping[str, Any]]]:
    """Collect what is logged at any level, however other tests have configured logging."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    try:
        with structlog.testing.capture_logs() as lines:
            yield lines
    finally:
        structlog.configure(**before)


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Api]:
    transport = httpx.ASGITransport(app=build_app(store))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=ROOT) as client:
        yield Api(client, store)
