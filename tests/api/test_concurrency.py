"""Many writers of one object: each gets its turn, and who has seen an older version is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from midonet.api import crud
from midonet.api.app import build_app
from midonet.nsdb.sqlite import SqliteStore
from tests.api.conftest import ROOT, Api

WRITERS = 24


async def test_rules_that_many_add_to_one_chain_are_all_added(api: Api) -> None:
    chain = await api.create("/chains")
    fixed = [await api.create(chain["rules"], type="return", position=1) for _ in range(2)]
    positions = [1, 2, 3]
    replies = await asyncio.gather(
        *(
            api.http.post(chain["rules"], json={"type": "accept", "position": positions[one % 3]})
            for one in range(WRITERS)
        )
    )
    assert Counter(reply.status_code for reply in replies) == {201: WRITERS}
    rules = await api.get(chain["rules"])
    assert [rule["position"] for rule in rules] == list(range(1, WRITERS + 3))
    order = [rule["id"] for rule in rules]
    assert order.index(fixed[1]["id"]) < order.index(fixed[0]["id"])


async def test_rules_that_many_add_and_delete_leave_the_rest_in_order(api: Api) -> None:
    chain = await api.create("/chains")
    kept = [await api.create(chain["rules"], type="drop", position=one + 1) for one in range(6)]

    async def churn(position: int) -> None:
        for _ in range(4):
            rule = await api.create(chain["rules"], type="accept", position=position)
            assert (await api.http.delete(rule["uri"])).status_code == 204

    await asyncio.gather(*(churn(1 + one % 6) for one in range(8)))
    assert await api.get(chain["rules"]) == kept


@pytest.mark.parametrize("path", ["/bridges", "/routers"])
async def test_updates_of_one_object_all_succeed(api: Api, path: str) -> None:
    made = await api.create(path, name="0")
    names = [str(number) for number in range(WRITERS)]
    replies = await asyncio.gather(
        *(api.http.put(made["uri"], json={"name": name}) for name in names)
    )
    assert Counter(reply.status_code for reply in replies) == {204: WRITERS}
    assert (await api.get(made["uri"]))["name"] in names


async def test_ports_of_one_host_are_bound_at_once(api: Api) -> None:
    bridge = await api.create("/bridges")
    ports = [await api.create(bridge["ports"], type="Bridge") for _ in range(WRITERS)]
    host_id = await api.host()
    replies = await asyncio.gather(
        *(
            api.http.post(
                f"/hosts/{host_id}/ports", json={"portId": port["id"], "interfaceName": f"v{one}"}
            )
            for one, port in enumerate(ports)
        )
    )
    assert Counter(reply.status_code for reply in replies) == {201: WRITERS}


async def test_zones_of_one_name_that_are_made_at_once_are_one(api: Api) -> None:
    replies = await asyncio.gather(
        *(api.http.post("/tunnel_zones", json={"name": "z", "type": "gre"}) for _ in range(6))
    )
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409, 409, 409]


@pytest.fixture
async def two_servers(tmp_path: Path) -> AsyncIterator[list[Api]]:
    """Two applications that share a store and nothing else."""
    async with asyncio.timeout(60):
        stores = [SqliteStore(tmp_path / "shared.db") for _ in range(2)]
        clients = []
        for store in stores:
            await store.open()
            transport = httpx.ASGITransport(app=build_app(store))  # type: ignore[arg-type]
            clients.append(httpx.AsyncClient(transport=transport, base_url=ROOT))
        yield [Api(http, store) for http, store in zip(clients, stores, strict=True)]
        for http, store in zip(clients, stores, strict=True):
            await http.aclose()
            await store.close()


async def test_two_servers_write_one_chain_and_one_bridge(two_servers: list[Api]) -> None:
    one, other = two_servers
    chain, bridge = await one.create("/chains"), await one.create("/bridges")
    fixed = [await other.create(chain["rules"], type="drop", position=each) for each in (1, 2)]
    replies = await asyncio.gather(
        *(
            api.http.post(chain["rules"], json={"type": "accept", "position": 2})
            for api in two_servers * 10
        ),
        *(api.http.put(bridge["uri"], json={"name": "x"}) for api in two_servers * 10),
    )
    assert Counter(reply.status_code for reply in replies) == {201: 20, 204: 20}
    shown = [await api.get(chain["rules"]) for api in two_servers]
    assert shown[0] == shown[1]
    assert [rule["position"] for rule in shown[0]] == list(range(1, 23))
    assert shown[0][0]["id"] == fixed[0]["id"]
    assert shown[0][-1]["id"] == fixed[1]["id"]
    await other.http.delete(shown[0][5]["uri"])
    after = await one.get(chain["rules"])
    assert [rule["id"] for rule in after] == [
        rule["id"] for rule in shown[0] if rule["id"] != shown[0][5]["id"]
    ]


async def test_rule_that_another_server_makes_again_is_where_it_is_now(
    two_servers: list[Api],
) -> None:
    one, other = two_servers
    chain = await one.create("/chains")
    rules = [await one.create(chain["rules"], type="drop", position=each) for each in (1, 2, 3)]
    first = rules[0]["id"]
    for _ in range(2):
        assert (await other.http.delete(rules[0]["uri"])).status_code == 204
        again = await other.create(chain["rules"], id=first, type="drop", position=3)
        assert (await one.get(again["uri"]))["position"] == 3
        last = await one.create(chain["rules"], type="accept", position=4)
        order = [rule["id"] for rule in await one.get(chain["rules"])]
        assert order == [rules[1]["id"], rules[2]["id"], first, last["id"]]
        assert order == [rule["id"] for rule in await other.get(chain["rules"])]
        await other.http.delete(again["uri"])
        await one.http.delete(last["uri"])
        await other.create(chain["rules"], id=first, type="drop", position=1)


@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_object_that_never_rests_is_a_conflict_that_names_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crud, "PATIENCE_S", 0.05)
    bridge = await api.create("/bridges")
    transact = api.store.transact

    async def racing(operations: Any) -> int:
        await transact([msgspec_update(operations[0])])
        return await transact(operations)

    def msgspec_update(operation: Any) -> Any:
        return type(operation)(operation.value)

    monkeypatch.setattr(api.store, "transact", racing)
    error = await api.refused(409, "PUT", bridge["uri"], name="x")
    assert bridge["id"] in error["message"]
    assert "again and again" in error["message"]


async def test_etag_follows_the_object_and_what_is_shown_of_it(api: Api) -> None:
    bridge = await api.create("/bridges", name="b")
    first = await api.http.get(bridge["uri"])
    assert first.headers["etag"] == (await api.http.head(bridge["uri"])).headers["etag"]
    for known in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        reply = await api.http.get(bridge["uri"], headers={"If-None-Match": known})
        assert reply.status_code == 304
        assert reply.content == b""
        assert reply.headers["etag"] == first.headers["etag"]
    await api.http.put(bridge["uri"], json={"name": "c"})
    reply = await api.http.get(bridge["uri"], headers={"If-None-Match": first.headers["etag"]})
    assert reply.status_code == 200
    host_id = await api.host()
    shown = await api.http.get(f"/hosts/{host_id}")
    await api.start_agent(host_id)
    known = {"If-None-Match": shown.headers["etag"]}
    assert (await api.http.get(f"/hosts/{host_id}", headers=known)).status_code == 200


async def test_if_match_writes_only_what_the_caller_has_seen(api: Api) -> None:
    bridge = await api.create("/bridges", name="b")
    seen = {"If-Match": (await api.http.get(bridge["uri"])).headers["etag"]}
    assert (await api.http.put(bridge["uri"], json={"name": "c"}, headers=seen)).status_code == 204
    for method, body in (("PUT", {"name": "d"}), ("DELETE", {})):
        reply = await api.http.request(method, bridge["uri"], json=body, headers=seen)
        assert reply.status_code == 412
        assert "was changed since it was read" in reply.json()["message"]
    for tag in ('"rubbish"', "", '"99-x"', 'W/"x"'):
        reply = await api.http.put(bridge["uri"], json={}, headers={"If-Match": tag})
        assert reply.status_code == 412, tag
    assert (await api.get(bridge["uri"]))["name"] == "c"
    fresh = await api.http.get(bridge["uri"], headers={"Accept-Encoding": "gzip"})
    known = {"If-Match": f'"other", {fresh.headers["etag"]}'}
    assert (await api.http.delete(bridge["uri"], headers=known)).status_code == 204
    assert (await api.http.delete(bridge["uri"], headers=known)).status_code in (404, 412)


async def test_if_match_of_many_lets_one_win(api: Api) -> None:
    bridge = await api.create("/bridges", name="b")
    seen = {"If-Match": (await api.http.get(bridge["uri"])).headers["etag"]}
    replies = await asyncio.gather(
        *(
            api.http.put(bridge["uri"], json={"name": str(one)}, headers=seen)
            for one in range(WRITERS)
        )
    )
    assert Counter(reply.status_code for reply in replies) == {204: 1, 412: WRITERS - 1}


@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_if_match_where_there_is_no_version_writes_nothing(api: Api) -> None:
    bridge = await api.create("/bridges")
    entry = {"ip": "10.0.0.1", "mac": "02:00:00:00:00:01"}
    for tag, status in (('"0-x"', 412), ("*", 201)):
        reply = await api.http.post(bridge["arpTable"], json=entry, headers={"If-Match": tag})
        assert reply.status_code == status


async def test_runtime_state_is_no_conflict(api: Api) -> None:
    host_id = await api.host()
    seen = {"If-Match": (await api.http.get(f"/hosts/{host_id}")).headers["etag"]}
    await api.start_agent(host_id)
    tunables = {
        "floodingProxyWeight": 1,
        "containerWeight": 1,
        "containerLimit": -1,
        "enforceContainerLimit": False,
    }
    reply = await api.http.put(f"/hosts/{host_id}", json=tunables, headers=seen)
    assert reply.status_code == 200


@pytest.mark.parametrize("count", [249, 250, 251, 500, 777])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_list_has_everything_whatever_its_length(api: Api, count: int, encoding: str) -> None:
    ids = sorted(str(uuid4()) for _ in range(count))
    for number, object_id in enumerate(ids):
        body = {"id": object_id, "tenantId": "odd" if number % 2 else "even"}
        assert (await api.http.post("/bridges", json=body)).status_code == 201
    headers = {"Accept-Encoding": encoding}
    reply = await api.http.get("/bridges", headers=headers)
    assert [bridge["id"] for bridge in reply.json()] == ids
    assert reply.headers.get("content-encoding", "identity") == encoding
    odd = await api.http.get("/bridges?tenant_id=odd", headers=headers)
    assert [bridge["id"] for bridge in odd.json()] == ids[1::2]
    assert (await api.http.get("/bridges?tenant_id=x", headers=headers)).json() == []
    head = await api.http.head("/bridges", headers=headers)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_chain_takes_more_rules_than_a_transaction(api: Api) -> None:
    chain = await api.create("/chains")
    body = {"type": "accept", "position": 1}
    for _ in range(30):
        replies = await asyncio.gather(
            *(api.http.post(chain["rules"], json=body) for _ in range(40))
        )
        assert {reply.status_code for reply in replies} == {201}
    last = await api.create(chain["rules"], type="drop", position=1201)
    middle = await api.create(chain["rules"], type="drop", position=600)
    rules = await api.get(chain["rules"])
    assert [rule["position"] for rule in rules] == list(range(1, 1203))
    assert (rules[599]["id"], rules[1201]["id"]) == (middle["id"], last["id"])
    assert (await api.http.delete(chain["uri"])).status_code == 204
    await api.refused(404, "GET", last["uri"])
