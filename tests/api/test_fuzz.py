"""The whole surface under generated requests: schemathesis from the OpenAPI document, in process.

No request may end in a server error, and every reply must be one that the document describes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis.core.parameters import ParameterLocation

from midonet.api.app import PREFIX, build_app
from midonet.api.call import Endpoint
from midonet.api.openapi import openapi_document
from midonet.api.registry import ENDPOINTS
from midonet.model import validation
from midonet.nsdb.memory import MemoryStore
from tests.api.conftest import ROOT, Api
from tests.api.samples import World, body_for, build_world, with_unknown_ids

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


def arguments_of(case: Any) -> dict[str, Any]:
    """Return what httpx is to send for a generated case."""
    given_arguments = case.as_transport_kwargs(base_url=BASE)
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
    return arguments


def path_of(case: Any) -> str:
    """Return the path of a generated case, as it is sent."""
    path: str = case.as_transport_kwargs(base_url=BASE)["url"].removeprefix(BASE)
    return path


FORM = (
    *(
        text_format.rule
        for text_format in vars(validation).values()
        if isinstance(text_format, validation.TextFormat)
    ),
    "expected ",
    "invalid ",
    "may not be null",
    "is not supported",
    "is not valid JSON",
    "must be Bridge or Router",
    "This type of route",
)
"""How the rules begin that are about one value alone; the document must say them all."""

WITH_BODY = [each for each in OPERATIONS if "requestBody" in each.definition.raw]


def is_of_several_values(rule: str) -> bool:
    return not rule.startswith(FORM) and "supported types are" not in rule


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: each.label)
def test_what_the_document_allows_has_the_right_form(operation: Any, served: Served) -> None:
    """Only rules between values, and between a value and what is stored, may refuse it."""

    @_FUZZ
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    def run(case: Any) -> None:
        path = _at_existing(path_of(case), served.world)
        reply = served.request(case.method, path, arguments_of(case))
        hypothesis.note(f"{case.method} {path} -> {reply.status_code} {reply.text}")
        if reply.status_code == 400 and case.meta.generation.mode.is_positive:
            for violation in reply.json().get("violations", []):
                assert is_of_several_values(violation["message"])

    run()


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: each.label)
def test_body_that_the_document_excludes_is_refused(operation: Any, served: Served) -> None:
    @_FUZZ
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def run(case: Any) -> None:
        body = case.meta.components.get(ParameterLocation.BODY)
        hypothesis.assume(body is not None and body.mode.is_negative)
        arguments = arguments_of(case)
        path = _at_existing(path_of(case), served.world)
        reply = served.request(case.method, path, arguments)
        hypothesis.note(f"{case.method} {path} {arguments} -> {reply.status_code}")
        assert 400 <= reply.status_code < 500

    run()


def schemas(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema below a part of the document."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from schemas(value)
    elif isinstance(part, list):
        for value in part:
            yield from schemas(value)


def test_each_default_in_the_document_keeps_its_own_rules() -> None:
    components = DOCUMENT["components"]["schemas"]
    for schema in schemas(components):
        if "default" in schema and not isinstance(schema["default"], dict):
            resolved = {key: value for key, value in schema.items() if key != "default"}
            resolver = {"components": {"schemas": components}} | resolved
            jsonschema_rs.Draft202012Validator(resolver).validate(schema["default"])


@pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if each.method == "POST"], ids=lambda each: each.path
)
def test_sample_and_reply_follow_the_document(endpoint: Endpoint, served: Served) -> None:
    body = body_for(endpoint, served.world)
    validate(body, f"{endpoint.schema.title}Body")
    path = with_unknown_ids(served.world.path(endpoint))
    created = served.request("POST", PREFIX + path, {"json": body})
    assert created.status_code == 201
    shown = served.request("GET", httpx.URL(created.headers["location"]).path, {})
    title = "PortResource" if endpoint.schema.title == "PortLink" else None
    validate(shown.json(), title or endpoint.schema.representation.__name__)


def validate(value: Any, component: str) -> None:
    """Check a value against a component of the document."""
    schema = {"$ref": f"#/components/schemas/{component}", "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.label)
def test_no_request_ends_in_a_server_error(operation: Any, served: Served) -> None:
    modes = list(schemathesis.GenerationMode)
    cases = strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

    @_FUZZ
    @given(case=cases, choice=strategies.integers(0, 1))
    def run(case: Any, choice: int) -> None:
        path, arguments = path_of(case), arguments_of(case)
        sent_path = _at_existing(path, served.world) if choice else path
        reply = served.request(case.method, sent_path, arguments)
        hypothesis.note(f"{case.method} {sent_path} {arguments} -> {reply.status_code}")
        assert reply.status_code < 500
        described = operation.definition.raw["responses"]
        if sent_path.count("/") == operation.path.count("/"):
            assert str(reply.status_code) in {*described, "405", "404"}, reply.text

    run()
