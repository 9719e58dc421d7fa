"""The typed client against the real server over a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from uuid import UUID

import msgspec
import pytest

from midonet.api.app import build_app
from midonet.api.auth import Identity, MockAuthProvider, Token
from midonet.api.server import ApiServer, bind
from midonet.client import ApiError, MidoNetClient
from midonet.errors import UnavailableError, UserError
from midonet.model.hosts import TunnelKind
from midonet.model.schema_chains import ChainResource
from midonet.model.schema_devices import BridgeResource, RouteResource, RouterResource
from midonet.model.schema_hosts import HostResource, TunnelZoneResource
from midonet.model.schema_ports import PortResource
from midonet.model.schema_rules import RuleResource
from midonet.nsdb.memory import MemoryStore


class PasswordAuth(MockAuthProvider):
    """Knows one user, and forgets each token after one use."""

    def __init__(self) -> None:
        self.logins = 0

    async def login(self, user: str, password: str, project: str | None) -> Token | None:
        if (user, password) != ("admin", "secret"):
            return None
        self.logins += 1
        return Token(f"token-{self.logins}")

    async def validate(self, token: str | None) -> Identity | None:
        if token != f"token-{self.logins}":
            return None
        return Identity("admin", is_admin=True)


class Served:
    """A server in a thread of its own."""

    def __init__(self, auth: MockAuthProvider) -> None:
        self.ready = threading.Event()
        self.socket = bind("127.0.0.1:0")
        self.root = f"http://127.0.0.1:{self.socket.getsockname()[1]}/midonet-api"
        self._auth = auth
        self._server: ApiServer | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        store = MemoryStore()
        await store.open()
        self._server = ApiServer(build_app(store, self._auth), self.ready.set)
        await self._server.serve([self.socket])
        await store.close()

    def __enter__(self) -> Served:
        self._thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.stop()
        self._thread.join(10)
        self.socket.close()


@pytest.fixture
def api() -> Iterator[MidoNetClient]:
    with Served(MockAuthProvider()) as served, MidoNetClient(served.root) as client:
        yield client


def test_topology_is_built_by_following_links(api: MidoNetClient) -> None:
    bridge = api.create(BridgeResource(name="blue", project_id="t"))
    router = api.create(RouterResource(name="edge", as_number=64512))
    bridge_port = api.create(PortResource(kind="Bridge"), parent=bridge)
    router_port = api.create(
        PortResource(kind="Router", addresses=("10.0.0.1/24", "fd00::1/64")), parent=router
    )
    linked = api.link(bridge_port, router_port)
    assert linked.peer_port_id == router_port.id
    assert linked.peer == router_port.uri
    destinations = {
        (route.kind, route.destination_address, route.destination_length)
        for route in api.list_all(RouteResource, parent=router)
    }
    assert destinations == {("Local", "10.0.0.1", 32), ("Local", "fd00::1", 128)}
    assert bridge.peer_ports is not None
    assert [port.id for port in api.list_at(PortResource, bridge.peer_ports)] == [router_port.id]
    assert api.unlink(linked).peer_port_id is None
    assert [each.id for each in api.list_all(BridgeResource, tenant_id="t")] == [bridge.id]
    assert api.list_all(BridgeResource, tenant_id="other") == []
    assert bridge.id is not None
    assert api.get(BridgeResource, bridge.id) == bridge
    renamed = api.update(msgspec.structs.replace(bridge, name="green"))
    assert renamed == msgspec.structs.replace(bridge, name="green")
    api.delete(bridge)
    assert api.list_all(PortResource, parent=router) == [api.get(PortResource, str(router_port.id))]


def test_rules_zones_and_hosts_are_typed(api: MidoNetClient) -> None:
    chain = api.create(ChainResource(name="in"))
    rule = api.create(RuleResource(kind="drop", ip_proto=6, position=1), parent=chain)
    assert (rule.chain_id, rule.ip_proto, rule.kind) == (chain.id, 6, "drop")
    zone = api.create(TunnelZoneResource(name="z", kind=TunnelKind.GRE))
    assert zone.kind is TunnelKind.GRE
    assert api.list_all(HostResource) == []


def test_error_reply_has_status_message_and_violations(api: MidoNetClient) -> None:
    with pytest.raises(ApiError) as refused:
        api.create(TunnelZoneResource(name="", kind=TunnelKind.GRE))
    assert refused.value.status == 400
    assert refused.value.violations[0].field == "name"
    with pytest.raises(ApiError) as missing:
        api.get(BridgeResource, UUID(int=7))
    assert missing.value.status == 404


def test_what_has_no_collection_or_link_is_a_users_error(api: MidoNetClient) -> None:
    with pytest.raises(UserError):
        api.create(RouteResource(kind="Normal"))
    with pytest.raises(UserError):
        api.delete(BridgeResource(name="never read"))
    with pytest.raises(UserError):
        api.create(BridgeResource(), parent=BridgeResource())


def test_token_is_renewed_once_when_it_is_refused() -> None:
    auth = PasswordAuth()
    with Served(auth) as served:
        with MidoNetClient(served.root, user="admin", password="secret", project="p") as client:
            client.create(BridgeResource(name="b"))
            assert auth.logins == 1
            auth.logins = 5
            assert len(client.list_all(BridgeResource)) == 1
            assert auth.logins == 6
        with MidoNetClient(served.root, user="admin", password="wrong") as client:
            with pytest.raises(ApiError) as refused:
                client.root()
            assert refused.value.status == 401
        with MidoNetClient(served.root) as client, pytest.raises(ApiError) as refused:
            client.root()
        assert refused.value.status == 401


def test_server_that_is_away_is_unavailable() -> None:
    with bind("127.0.0.1:0") as closed:
        root = f"http://127.0.0.1:{closed.getsockname()[1]}/midonet-api"
    with MidoNetClient(root) as client, pytest.raises(UnavailableError):
        client.root()


def test_listening_address_is_checked() -> None:
    for bad in ("8181", "host", "127.0.0.1:99999", "::1:80", "127.0.0.1:x"):
        with pytest.raises(UserError):
            bind(bad)
    with bind("127.0.0.1:0") as taken, pytest.raises(UnavailableError):
        bind(f"127.0.0.1:{taken.getsockname()[1]}")
    bind("[::1]:0").close()
