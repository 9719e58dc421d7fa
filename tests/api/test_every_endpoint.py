"""What holds for each endpoint of the table, so for each resource the day it is registered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midonet.api.call import Endpoint
from midonet.api.decoding import MAX_BODY_BYTES
from midonet.api.registry import ENDPOINTS
from midonet.model.schema import Access
from tests.api.conftest import ROOT, Api
from tests.api.samples import BODIES, body_for, build_world, with_unknown_ids

HOSTILE = {
    "truncated": b'{"name": "x',
    "array": b"[]",
    "number": b"7",
    "text": b'"x"',
    "nan": b'{"id": NaN}',
    "not UTF-8": b'{"id": "\xff\xfe"}',
    "lone surrogate": b'{"id": "\\ud800"}',
    "deep": b'{"id": ' + b"[" * 200_000,
    "deep in unknown": b'{"unknown": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two documents": b"{}{}",
    "huge number": b'{"id": ' + b"9" * 10_000 + b"}",
}
"""Bodies that no endpoint can read."""

IN_MEMORY = pytest.mark.parametrize("store", ["memory"], indirect=True)
"""For what is decided before a store is asked."""


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def only(*methods: str) -> Any:
    chosen = [endpoint for endpoint in ENDPOINTS if endpoint.method in methods]
    return pytest.mark.parametrize("endpoint", chosen, ids=named)


WITH_BODY = pytest.mark.parametrize(
    "endpoint", [endpoint for endpoint in ENDPOINTS if endpoint.takes_body], ids=named
)


def is_served(method: str, path: str) -> bool:
    segments = path.removeprefix(ROOT).split("/")
    for endpoint in ENDPOINTS:
        template = endpoint.path.split("/")
        if endpoint.method == method and len(template) == len(segments):
            pairs = zip(template, segments, strict=True)
            if all(part.startswith("{") or part == given for part, given in pairs):
                return True
    return False


def test_each_method_and_path_is_registered_once() -> None:
    rows = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS]
    assert len(rows) == len(set(rows))


def test_each_resource_with_a_body_has_a_sample() -> None:
    assert {each.schema.title for each in ENDPOINTS if each.takes_body} == set(BODIES)


def test_each_integer_in_a_body_has_bounds() -> None:
    """A number without bounds would reach the store whatever its size."""
    for endpoint in ENDPOINTS:
        for field in endpoint.schema.fields:
            if field.is_writable and field.facts.access is not Access.UNSUPPORTED:
                assert field.annotation not in (int, int | None), field


@only("POST")
async def test_created_object_can_be_read_where_the_location_says(
    api: Api, endpoint: Endpoint
) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    body = body_for(endpoint, world)
    item_type = endpoint.schema.media.items[0]
    content_type = {"Content-Type": item_type}
    created = await api.http.post(path, content=json.dumps(body), headers=content_type)
    assert created.status_code == endpoint.success == 201
    assert created.content == b""
    location = created.headers["location"]
    assert location.startswith(f"{ROOT}/")
    if endpoint.schema.title == "PortLink":
        return
    headers = {"Accept": item_type, "Content-Type": item_type}
    read = await api.http.request("GET", location, json={}, headers=headers)
    assert read.status_code == 200
    assert read.headers["content-type"] == item_type
    shown = read.json()
    assert list(shown) == [field.external for field in endpoint.schema.fields]
    assert {name: shown[name] for name in body} == body
    assert shown["uri"].lower() == location.lower()


@only("POST")
async def test_links_lead_to_what_is_served(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    created = await api.http.post(path, json=body_for(endpoint, world))
    shown = await api.get(created.headers["location"])
    for field in endpoint.schema.fields:
        target = shown.get(field.external)
        if field.facts.access is Access.LINK and target is not None and "{" not in target:
            assert target.startswith(f"{ROOT}/")
            if is_served("GET", target):
                assert (await api.http.get(target)).status_code == 200, target


@only("POST")
async def test_deleting_twice_is_answered_as_the_resource_says(
    api: Api, endpoint: Endpoint
) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    created = await api.http.post(path, json=body_for(endpoint, world))
    location = created.headers["location"]
    if endpoint.schema.title == "PortLink":
        location += "/link"
    first = await api.http.request("DELETE", location, json={})
    assert first.status_code == 204
    assert first.content == b""
    second = await api.http.delete(location)
    assert second.status_code in (204, 404)
    if is_served("GET", location):
        assert (await api.http.get(location)).status_code == 404


@only("PUT")
async def test_putting_back_what_was_read_changes_nothing(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = world.path(endpoint)
    before = await api.get(path)
    replaced = await api.http.put(path, json=before)
    assert replaced.status_code == endpoint.success
    assert replaced.content == b""
    assert await api.get(path) == before


@only("PUT")
async def test_put_replaces_what_may_be_written(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = world.path(endpoint)
    body = body_for(endpoint, world)
    before = await api.get(path)
    replaced = await api.http.put(path, json=body)
    assert replaced.status_code == endpoint.success, replaced.text
    shown = await api.get(path)
    for field in endpoint.schema.fields:
        if field.facts.access is Access.CREATE_ONLY:
            assert shown[field.external] == before[field.external]
        elif field.external in body:
            assert shown[field.external] == body[field.external]


@only("GET")
async def test_lists_are_arrays_and_items_are_objects(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    reply = await api.http.get(with_unknown_ids(world.path(endpoint)))
    if endpoint.is_collection:
        assert reply.status_code == 200
        assert isinstance(reply.json(), list)
        assert reply.headers["content-type"] == endpoint.schema.media.collections[0]
    else:
        assert reply.status_code in (200, 404)


@pytest.mark.parametrize(
    "endpoint",
    [each for each in ENDPOINTS if "{id}" in each.path and not each.path.startswith("/tenants")],
    ids=named,
)
@IN_MEMORY
async def test_unknown_id_in_the_path_is_not_found(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    body = body_for(endpoint, world) if endpoint.takes_body else {}
    unknown = "6a1f3d5e-0000-4000-8000-000000000009"
    for bad in (unknown, "nonsense", "%00", "%7Bid%7D", unknown.replace("-", "")):
        path = with_unknown_ids(endpoint.path.replace("{id}", bad, 1))
        reply = await api.http.request(endpoint.method, path, json=body)
        is_idempotent = endpoint.method == "DELETE" and bad == unknown
        assert reply.status_code == 404 or (is_idempotent and reply.status_code == 204), bad


@only("GET")
@IN_MEMORY
async def test_media_type_that_is_not_offered_is_not_acceptable(
    api: Api, endpoint: Endpoint
) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    assert (await api.http.get(path, headers={"Accept": "text/html"})).status_code == 406
    for offered in endpoint.produces:
        reply = await api.http.get(path, headers={"Accept": f"text/html, {offered};q=0.5"})
        assert reply.status_code in (200, 404)
        if reply.status_code == 200:
            assert reply.headers["content-type"] == offered


@WITH_BODY
@IN_MEMORY
async def test_body_of_another_media_type_is_refused(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    reply = await api.http.request(
        endpoint.method, path, content=b"{}", headers={"Content-Type": "text/plain"}
    )
    assert reply.status_code == endpoint.media_error


@WITH_BODY
@IN_MEMORY
async def test_hostile_body_is_a_bad_request(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    headers = {"Content-Type": "application/json"}
    for name, content in HOSTILE.items():
        reply = await api.http.request(endpoint.method, path, content=content, headers=headers)
        assert reply.status_code == 400, name
        assert reply.json()["violations"], name


@WITH_BODY
@IN_MEMORY
async def test_body_over_the_limit_is_too_large(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    content = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    headers = {"Content-Type": "application/json"}
    reply = await api.http.request(endpoint.method, path, content=content, headers=headers)
    assert reply.status_code == 413


@WITH_BODY
@IN_MEMORY
async def test_wrong_type_names_the_property(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    good = body_for(endpoint, world)
    for field in endpoint.schema.fields:
        if field.is_writable:
            body = good | {field.external: {"an": ["object"]}}
            reply = await api.http.request(endpoint.method, path, json=body)
            assert reply.status_code == 400, field
            assert reply.json()["violations"][0]["property"].startswith(field.external)
            assert field.external in reply.json()["message"]


@WITH_BODY
@IN_MEMORY
async def test_required_property_may_not_be_null(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    required = [field.external for field in endpoint.schema.fields if field.facts.is_required]
    for name in required:
        body = body_for(endpoint, world) | {name: None}
        reply = await api.http.request(endpoint.method, path, json=body)
        assert reply.status_code == 400
        assert {"property": name, "message": "may not be null"} in reply.json()["violations"]


@only("POST")
async def test_unknown_and_read_only_properties_are_ignored(api: Api, endpoint: Endpoint) -> None:
    world = await build_world(api)
    path = with_unknown_ids(world.path(endpoint))
    ignored = {
        field.external: {"not": "even the right type"}
        for field in endpoint.schema.fields
        if not field.is_writable
    }
    body = ignored | {"noSuchProperty": [1, {"a": None}]} | body_for(endpoint, world)
    assert (await api.http.post(path, json=body)).status_code == 201
