"""The whole surface under generated requests: schemathesis from the OpenAPI document, in process.

No request may end in a server error, and every reply must be one that the document describes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies

from midonet.api.app import PREFIX, build_app
from midonet.api.openapi import openapi_document
from midonet.nsdb.memory import MemoryStore
from tests.api.conftest import ROOT, Api
from tests.api.samples import World, build_world

DOCUMENT = openapi_document(PREFIX)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations()]
BASE = ROOT.removesuffix(PREFIX)

_FUZZ = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)


def test_document_is_valid_openapi_and_covers_every_path() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    SCHEMA.validate()
    operation_ids = [
        operation["operationId"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
    ]
    assert len(set(operation_ids)) == len(operation_ids) == len(OPERATIONS)


class Served:
    """An application with a world, on an event loop that lasts for one test."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._store = MemoryStore()
        self._runner.run(self._store.open())
        transport = httpx.ASGITransport(app=build_app(self._store))  # type: ignore[arg-type]
        self._client = httpx.AsyncClient(transport=transport, base_url=ROOT)
        self.world = self._runner.run(build_world(Api(self._client, self._store)))

    def request(self, method: str, path: str, arguments: dict[str, Any]) -> httpx.Response:
        url = httpx.URL(BASE).copy_with(raw_path=path.encode())
        return self._runner.run(self._client.request(method, url, **arguments))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._store.close())
        self._runner.close()


@pytest.fixture
def served() -> Iterator[Served]:
    application = Served()
    yield application
    application.close()


def _at_existing(path: str, world: World) -> str:
    segments = path.removeprefix(PREFIX).split("/")
    if len(segments) > 2 and segments[1] in world.ids:
        segments[2] = world.ids[segments[1]]
    return PREFIX + "/".join(segments)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.label)
def test_no_request_ends_in_a_server_error(operation: Any, served: Served) -> None:
    modes = list(schemathesis.GenerationMode)
    cases = strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

    @_FUZZ
    @given(case=cases, choice=strategies.integers(0, 1))
    def run(case: Any, choice: int) -> None:
        given_arguments = case.as_transport_kwargs(base_url=BASE)
        path = given_arguments["url"].removeprefix(BASE)
        arguments = {
            "headers": {
                name: value
                for name, value in dict(given_arguments.get("headers") or {}).items()
                if value.isascii() and value.isprintable()
            },
            "params": given_arguments.get("params") or None,
        }
        if given_arguments.get("data") is not None:
            arguments["content"] = given_arguments["data"]
        elif given_arguments.get("json") is not None:
            arguments["json"] = given_arguments["json"]
        sent_path = _at_existing(path, served.world) if choice else path
        reply = served.request(case.method, sent_path, arguments)
        hypothesis.note(f"{case.method} {sent_path} {arguments} -> {reply.status_code}")
        assert reply.status_code < 500
        described = operation.definition.raw["responses"]
        if sent_path.count("/") == operation.path.count("/"):
            assert str(reply.status_code) in {*described, "405", "404"}, reply.text

    run()
