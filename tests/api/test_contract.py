"""What stock clients rely on, beside what holds for every endpoint."""

from __future__ import annotations

import base64
import gzip
from uuid import uuid4

import httpx
import msgspec
import pytest

from midonet.api.app import build_app
from midonet.api.auth import Identity, MockAuthProvider, Token
from midonet.api.root_document import KEYS
from midonet.model.devices import Port
from midonet.model.hosts import PortLocation
from midonet.model.ids import HostId, PortId
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.store import Create, PutState, StateTables
from tests.api.conftest import ROOT, Api

IN_MEMORY = pytest.mark.parametrize("store", ["memory"], indirect=True)


@IN_MEMORY
async def test_root_document_advertises_exactly_what_is_served(api: Api) -> None:
    for path in ("", "/"):
        document = await api.get(ROOT + path)
        assert list(document)[:2] == ["uri", "version"]
        assert document["uri"] == ROOT
        assert document["version"] == "v5.0"
    for segment, collection_key, template_key in KEYS:
        if collection_key in document:
            assert document[collection_key] == f"{ROOT}/{segment}"
            assert (await api.http.get(document[collection_key])).status_code == 200
        if template_key in document:
            assert document[template_key] == f"{ROOT}/{segment}/{{id}}"
    needed = {"bridges", "routers", "ports", "chains", "ruleTemplate", "routeTemplate", "hosts"}
    assert needed | {"tunnelZones", "tenants", "systemState"} <= set(document)


@IN_MEMORY
async def test_system_state_has_the_key_that_the_stock_shell_needs(api: Api) -> None:
    state = await api.get("/system_state")
    assert state["information"] is None
    assert (state["state"], state["availability"]) == ("ACTIVE", "READWRITE")


@IN_MEMORY
async def test_unknown_root_resource_is_named(api: Api) -> None:
    error = await api.refused(404, "GET", "/nonsense/x")
    assert error["message"] == "Root resource nonsense not found"


@IN_MEMORY
async def test_links_follow_the_forwarding_headers(api: Api) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "cloud.example:444, inner"}
    reply = await api.http.get("/system_state", headers=headers)
    assert reply.json()["uri"] == "https://cloud.example:444/midonet-api/system_state"
    reply = await api.http.get("/system_state", headers={"Host": 'evil"/><script>'})
    assert reply.status_code == 400
    reply = await api.http.get("/system_state", headers={"X-Forwarded-Host": 'evil"/><script>'})
    assert reply.json()["uri"] == f"{ROOT}/system_state"
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"}
    reply = await api.http.get("/system_state", headers=headers)
    assert reply.json()["uri"] == "https://api.example/midonet-api/system_state"


@IN_MEMORY
async def test_gzip_is_read_and_written(api: Api) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    body = gzip.compress(b'{"name": "zipped"}')
    assert (await api.http.post("/bridges", content=body, headers=headers)).status_code == 201
    listed = await api.http.get("/bridges", headers={"Accept-Encoding": "gzip"})
    assert listed.headers["content-encoding"] == "gzip"
    assert listed.json()[0]["name"] == "zipped"
    bomb = gzip.compress(b" " * (5 * 1024 * 1024))
    assert (await api.http.post("/bridges", content=bomb, headers=headers)).status_code == 413
    broken = await api.http.post("/bridges", content=b"nonsense", headers=headers)
    assert broken.status_code == 400
    headers["Content-Encoding"] = "br"
    assert (await api.http.post("/bridges", content=body, headers=headers)).status_code == 415


@IN_MEMORY
async def test_numbers_may_come_as_strings(api: Api) -> None:
    router = await api.create("/routers", asNumber="65000")
    assert router["asNumber"] == 65000
    port = await api.create(
        router["ports"], type="InteriorRouter", portAddress="10.0.0.1", networkLength="24"
    )
    assert (port["type"], port["portSubnet"]) == ("Router", ["10.0.0.1/24"])
    assert (port["networkAddress"], port["networkLength"]) == ("10.0.0.0", 24)


@IN_MEMORY
async def test_of_duplicated_keys_the_last_counts(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    reply = await api.http.post("/bridges", content=b'{"name":"a","name":"b"}', headers=headers)
    assert (await api.get(reply.headers["location"]))["name"] == "b"


async def test_id_in_use_is_a_conflict(api: Api) -> None:
    bridge = await api.create("/bridges", id=str(uuid4()))
    error = await api.refused(409, "POST", "/bridges", id=bridge["id"])
    assert error["message"] == f"A(n) Bridge with ID {bridge['id']} already exists."


@IN_MEMORY
async def test_field_left_out_of_a_put_is_reset(api: Api) -> None:
    chain = await api.create("/chains")
    bridge = await api.create("/bridges", name="b", adminStateUp=False, inboundFilterId=chain["id"])
    assert bridge["inboundFilter"] == chain["uri"]
    assert (await api.http.put(bridge["uri"], json={})).status_code == 204
    after = await api.get(bridge["uri"])
    assert (after["name"], after["adminStateUp"], after["inboundFilterId"]) == (None, True, None)


async def test_dangling_reference_names_the_property(api: Api) -> None:
    nothing = str(uuid4())
    for path, name in (("/bridges", "inboundFilterId"), ("/routers", "outboundFilterId")):
        error = await api.refused(400, "POST", path, **{name: nothing})
        assert error["violations"][0]["property"] == name
        assert nothing in error["message"]
    assert await api.get("/bridges") == []


@IN_MEMORY
async def test_what_is_not_supported_is_refused_and_its_default_is_not(api: Api) -> None:
    chain = await api.create("/chains")
    cases = (
        ("/bridges", {}, "vxLanPortIds", [str(uuid4())], []),
        ("/routers", {}, "localRedirectChainId", str(uuid4()), None),
        (chain["uri"] + "/rules", {"type": "drop"}, "meterName", "m", None),
        ("/ip_addr_groups", {"name": "g"}, "inboundChainId", str(uuid4()), None),
    )
    for path, body, name, bad, good in cases:
        error = await api.refused(400, "POST", path, **body, **{name: bad})
        assert error["violations"] == [{"property": name, "message": "is not supported"}]
        await api.create(path, **body, **{name: good})


async def test_a_rule_may_ask_for_the_direction_of_a_connection(api: Api) -> None:
    chain = await api.create("/chains")
    for name in ("matchForwardFlow", "matchReturnFlow"):
        rule = await api.create(chain["uri"] + "/rules", type="accept", **{name: True})
        found = await api.get(rule["uri"])
        other = {"matchForwardFlow": "matchReturnFlow", "matchReturnFlow": "matchForwardFlow"}[name]
        assert (found[name], found[other]) == (True, False)


async def test_filter_by_tenant(api: Api) -> None:
    for path in ("/bridges", "/routers", "/chains"):
        mine = await api.create(path, tenantId="mine")
        await api.create(path, tenantId="other")
        assert await api.get(f"{path}?tenant_id=mine") == [mine]
        assert len(await api.get(f"{path}?nonsense=1")) == 2
    assert await api.get("/ports?tenant_id=mine") == []


class Doorkeeper(MockAuthProvider):
    async def login(self, user: str, password: str, project: str | None) -> Token | None:
        expires = "Sat, 21-11-2026 10:00:00 UTC"
        return Token("t1", expires) if password == "pass" else None

    async def validate(self, token: str | None) -> Identity | None:
        if token == "t1":
            return Identity("a", is_admin=True)
        return Identity("u", is_admin=False) if token == "user" else None


@pytest.fixture
async def guarded() -> httpx.AsyncClient:
    store = MemoryStore()
    await store.open()
    transport = httpx.ASGITransport(app=build_app(store, Doorkeeper()))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url=ROOT)


async def test_login_gives_a_token_in_cookie_and_body(guarded: httpx.AsyncClient) -> None:
    encoded = base64.encodebytes(b"user:pass").decode().strip()
    headers = {"Authorization": f"Basic {encoded}", "X-Auth-Project": "admin"}
    reply = await guarded.post("/login", content=b"{}", headers=headers)
    assert reply.status_code == 200
    assert reply.json() == {"key": "t1", "expires": "Sat, 21-11-2026 10:00:00 UTC"}
    cookie = reply.headers["set-cookie"]
    assert cookie == "sessionId=t1; Expires=Sat, 21-11-2026 10:00:00 UTC"
    assert reply.headers["content-type"] == "application/vnd.org.midonet.Token-v1+json"


@pytest.mark.parametrize("credentials", ["user:wrong", "user:", ":pass", "a:b:c", "user", None])
async def test_bad_credentials_are_refused(
    guarded: httpx.AsyncClient, credentials: str | None
) -> None:
    headers = {"Authorization": "Basic !!!"}
    if credentials is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    reply = await guarded.post("/login", headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == 'Basic realm="BASIC_AUTH_REALM"'


async def test_only_an_administrators_token_is_let_through(guarded: httpx.AsyncClient) -> None:
    assert (await guarded.get("/bridges", headers={"X-Auth-Token": "t1"})).status_code == 200
    for headers in ({}, {"X-Auth-Token": "other"}, {"X-Auth-Token": "user"}):
        reply = await guarded.get("/bridges", headers=headers)
        assert reply.status_code == 401
        assert reply.json()["code"] == 401
    assert (await guarded.options("/bridges")).status_code == 200


async def test_port_is_active_while_its_host_is_alive(api: Api) -> None:
    bridge = await api.create("/bridges")
    host_id = HostId(await api.host())
    port = await api.create(bridge["ports"], type="ExteriorBridge")
    await api.http.post(
        f"/hosts/{host_id}/ports", json={"portId": port["id"], "interfaceName": "tap0"}
    )
    location = PortLocation(
        id=PortId(msgspec.convert(port["id"], PortId.__supertype__)),
        host_id=host_id,
        tunnel_key=7,
        epoch=1,
        active=True,
    )
    await api.store.transact([Create(location)])
    assert (await api.get(port["uri"]))["active"] is False
    session = await api.store.open_session(host_id)
    assert (await api.get(port["uri"]))["active"] is True
    assert [each["active"] for each in await api.get(bridge["ports"])] == [True]
    await session.close()
    assert (await api.get(port["uri"]))["active"] is False


async def test_deleting_a_router_takes_ports_and_routes_along_and_unlinks_peers(api: Api) -> None:
    router = await api.create("/routers")
    bridge = await api.create("/bridges")
    router_port = await api.create(router["ports"], type="Router", portSubnet=["10.0.0.1/24"])
    bridge_port = await api.create(bridge["ports"], type="Bridge")
    await api.http.post(bridge_port["link"], json=bridge_port | {"peerId": router_port["id"]})
    route = (await api.get(router["routes"]))[0]
    assert (await api.http.delete(router["uri"])).status_code == 204
    for gone in (router, router_port, route):
        await api.refused(404, "GET", gone["uri"])
    assert (await api.get(bridge_port["uri"]))["peerId"] is None


async def test_learned_mac_is_shown_and_beats_the_posted_one(api: Api) -> None:
    bridge = await api.create("/bridges")
    posted = await api.create(bridge["ports"], type="Bridge")
    learned = await api.create(bridge["ports"], type="Bridge")
    mac = "02:00:00:00:00:07"
    await api.http.post(bridge["macTable"], json={"macAddr": mac, "portId": posted["id"]})
    host_id = HostId(uuid4())
    session = await api.store.open_session(host_id)
    table = StateTables.mac(msgspec.convert(bridge["id"], PortId.__supertype__))
    await api.store.transact([PutState(table, mac, learned["id"], host_id)])
    assert [each["portId"] for each in await api.get(bridge["macTable"])] == [learned["id"]]
    await session.close()
    assert [each["portId"] for each in await api.get(bridge["macTable"])] == [posted["id"]]


async def test_stored_port_has_mac_and_key(api: Api) -> None:
    router = await api.create("/routers")
    ports = [await api.create(router["ports"], type="Router") for _ in range(3)]
    assert len({port["tunnelKey"] for port in ports}) == 3
    assert ports[0]["tunnelKey"] == 2
    assert all(port["portMac"].startswith("ac:ca:ba:") for port in ports)
    found = await api.store.list_all(Port)
    assert {each.value.mac for each in found} == {port["portMac"] for port in ports}
