"""OpenAPI 3.1, generated from the endpoint table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from midonet.api.call import Endpoint
from midonet.api.error_bodies import ERROR_MEDIA_TYPE, ErrorBody
from midonet.api.registry import ENDPOINTS
from midonet.model.schema import Access, FieldSchema, ResourceSchema, fields_of

Json = dict[str, Any]
_DESCRIPTION = """\
Beyond what the schemas say: numbers and booleans may be sent as strings, identifiers without
hyphens, and null for the default of a property that is not required. Unknown and read-only
properties are ignored. Every GET can be sent as HEAD. Rules between properties, and between a
property and what is stored, are 400 or 409 and told in the descriptions.
"""
_PARAMETER = re.compile(r"\{(\w+)\}")
_PARAMETER_PATTERNS = {"vlan": "^[0-9]{1,4}$", "entry": "^[^_/]+_[^_/]+$"}
_UUID_PARAMETERS = frozenset(("id", "child_id", "port_id", "host_id"))


def openapi_document(prefix: str) -> Json:
    """Return the document; paths are below `prefix`."""
    schemas = {endpoint.schema.title: endpoint.schema for endpoint in ENDPOINTS}
    representations = [schema.representation for schema in schemas.values()]
    _, components = msgspec.json.schema_components(
        [*representations, ErrorBody], ref_template="#/components/schemas/{name}"
    )
    for schema in schemas.values():
        _describe(components[schema.representation.__name__], schema.representation)
        if any(each.takes_body and each.schema is schema for each in ENDPOINTS):
            components[f"{schema.title}Body"] = _body_schema(schema, components)
    for part in _parts(representations):
        _describe_values(components[part.__name__], part)
    paths: Json = {}
    for endpoint in ENDPOINTS:
        path = paths.setdefault(prefix + endpoint.path, {})
        path[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "MidoNet REST API", "version": "5.0", "description": _DESCRIPTION},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(endpoint: Endpoint) -> Json:
    path_words = _PARAMETER.sub(lambda match: f"by_{match[1]}", endpoint.path).strip("/")
    operation: Json = {
        "operationId": f"{endpoint.method.lower()}_{path_words.replace('/', '_')}",
        "summary": endpoint.summary,
        "tags": [endpoint.schema.title],
        "responses": _responses(endpoint),
    }
    parameters = [_path_parameter(endpoint, name) for name in _PARAMETER.findall(endpoint.path)]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in endpoint.query
    ]
    if endpoint.method == "GET" or endpoint.heeds_if_match:
        name = "If-None-Match" if endpoint.method == "GET" else "If-Match"
        parameters.append(
            {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
        )
    if parameters:
        operation["parameters"] = parameters
    if endpoint.takes_body:
        content = {"$ref": f"#/components/schemas/{endpoint.schema.title}Body"}
        operation["requestBody"] = {
            "required": True,
            "content": {media: {"schema": content} for media in endpoint.consumes},
        }
    return operation


def _path_parameter(endpoint: Endpoint, name: str) -> Json:
    is_uuid = name in _UUID_PARAMETERS and not endpoint.path.startswith("/tenants")
    schema: Json = {"type": "string"} | ({"format": "uuid"} if is_uuid else {"minLength": 1})
    if name in _PARAMETER_PATTERNS:
        schema["pattern"] = _PARAMETER_PATTERNS[name]
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _responses(endpoint: Endpoint) -> Json:
    success: Json = {"description": "Done"}
    if endpoint.produces:
        item: Json = {"$ref": f"#/components/schemas/{endpoint.schema.representation.__name__}"}
        content = {"type": "array", "items": item} if endpoint.is_collection else item
        success = {
            "description": endpoint.schema.title,
            "content": {media: {"schema": content} for media in endpoint.produces},
            "headers": {"ETag": {"description": "Entity tag", "schema": {"type": "string"}}},
        }
    if endpoint.success == 201:
        success = {
            "description": "Created",
            "headers": {
                "Location": {
                    "description": "Absolute URI of the new object",
                    "schema": {"type": "string", "format": "uri"},
                }
            },
        }
    error = {
        "description": "Error",
        "content": {ERROR_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    }
    statuses = ["400", "401", "403", "404", "412", "421", "503"]
    statuses += ["406"] if endpoint.produces or endpoint.takes_body else []
    statuses += ["409", "413", "415"] if endpoint.takes_body else []
    statuses += ["409"] if endpoint.method == "DELETE" else []
    good = {str(endpoint.success): success}
    if endpoint.method == "GET":
        good["304"] = {"description": "What If-None-Match names is current"}
    return good | dict.fromkeys(sorted(set(statuses)), error)


def _describe(component: Json, representation: type[msgspec.Struct]) -> None:
    """Add to a representation's schema what only our facts know."""
    for field in fields_of(representation):
        described = component["properties"][field.external]
        if field.facts.access in (Access.READ_ONLY, Access.LINK):
            described["readOnly"] = True
        if field.facts.is_required or described.get("readOnly"):
            # What is always given has no default; ours may even break the field's own rules.
            described.pop("default", None)
        if field.facts.is_required:
            described = component["properties"][field.external] = _without_null(described)
        _describe_value(described, field)
        if field.description:
            described["description"] = field.description
    # Every property is emitted, null or not.
    component["required"] = [field.external for field in fields_of(representation)]


def _describe_values(component: Json, part: type[msgspec.Struct]) -> None:
    """Add the form of values to the schema of what stands inside representations."""
    for field in fields_of(part):
        _describe_value(component["properties"][field.external], field)


def _describe_value(described: Json, field: FieldSchema) -> None:
    if field.facts.choices:
        described["enum"] = [str(each) for each in field.facts.choices]
    if field.facts.text_format is not None:
        _text(described).update(
            format=field.facts.text_format.name, pattern=field.facts.text_format.pattern
        )


def _parts(representations: Iterable[type[msgspec.Struct]]) -> set[type[msgspec.Struct]]:
    """Return the types of objects inside representations, at any depth."""
    whole = set(representations)
    found: set[type[msgspec.Struct]] = set()
    waiting: list[object] = [field.annotation for each in whole for field in fields_of(each)]
    while waiting:
        annotation = waiting.pop()
        waiting.extend(get_args(annotation))
        if not isinstance(annotation, type) or not issubclass(annotation, msgspec.Struct):
            continue
        if annotation not in whole | found:
            found.add(annotation)
            waiting.extend(field.annotation for field in fields_of(annotation))
    return found


def _text(described: Json) -> Json:
    """Return the part of a property's schema that is about its text, or the texts of its list."""
    options: list[Json] = described.get("anyOf", [described])
    option = next(each for each in options if each.get("type") in ("string", "array"))
    part: Json = option.get("items", option)
    return part


def _without_null(described: Json) -> Json:
    options: list[Json] = [
        each for each in described.get("anyOf", []) if each.get("type") != "null"
    ]
    if len(options) != 1:
        return described
    rest = {key: value for key, value in described.items() if key != "anyOf"}
    return options[0] | rest


def _is_nullable(described: Json) -> bool:
    return any(each.get("type") == "null" for each in described.get("anyOf", []))


def _body_schema(schema: ResourceSchema[Any], components: Json) -> Json:
    full: Json = components[schema.representation.__name__]["properties"]
    properties: Json = {}
    required = []
    for field in schema.fields:
        if not field.is_writable:
            continue
        described: Json = {
            key: value for key, value in full[field.external].items() if key != "default"
        }
        if field.facts.access is Access.UNSUPPORTED:
            described = {"enum": [None, *_unsupported_default(field)]}
        elif field.facts.is_required:
            required.append(field.external)
        elif not _is_nullable(described):
            described = {"anyOf": [described, {"type": "null"}]}
        properties[field.external] = described
    body: Json = {"type": "object", "properties": properties}
    return body | ({"required": required} if required else {})


def _unsupported_default(field: FieldSchema) -> list[object]:
    return [] if field.default is None else [msgspec.to_builtins(field.default)]
