"""The REST reference page, generated: `python -m midonet.api.reference_doc [FILE]`.

Without FILE the page goes to standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from midonet.api.call import Endpoint
from midonet.api.registry import ENDPOINTS
from midonet.api.root_document import KEYS, served_segments
from midonet.model.schema import Access, FieldSchema, ResourceSchema

_INTRODUCTION = """\
# REST API reference

Generated from the resource definitions by `python -m midonet.api.reference_doc`; do not edit.

The API is served below `/midonet-api`. Clients start at the root document and follow the URIs
and templates they find there. The same definitions are served as OpenAPI 3.1 at
`/midonet-api/openapi.json`.

## Rules for every resource

- POST answers 201 with an absolute `Location` and an empty body; PUT answers 204 (hosts: 200).
  PUT replaces every writable field; a field that is left out or null gets its default.
- Nulls are emitted, never left out. Properties that are unknown, read only or links are ignored
  in a body. Numbers may be sent as strings.
- A field marked *not supported* is emitted with its default; another value is refused with 400,
  so that nothing is silently lost.
- Errors are `application/vnd.org.midonet.Error-v1+json`: `message`, `code`, and for broken rules
  `violations` with `property` and `message`; the message shows the value. 400 the request is
  wrong, 404 no such object, 405 method, 406 media type, 409 conflict, 412 `If-Match`, 413 body over
  4 MiB, 415 media type of nested resources and links, 503 the network state database is away.
- Each part of a request has a bound: 8 KiB of target (414), 100 headers and 32 KiB of them (431),
  10 s for the headers and 60 s for the body (408). When `max_connections` are open, a new one
  takes the place of the oldest whose request is not complete; when all are complete, it is
  answered 503. A client that leaves a reply unread for 60 s is cut off.
- A request has one `Host`, else 400. Names other than `localhost`, the machine's own, IP
  addresses and `allowed_hosts` are 421, so that no page can reach the API under a name of its own
  (DNS rebinding). Web pages of other origins cannot read replies, and their writes and preflight
  requests are 403, unless `cors_origins` names their origin.
- HEAD is answered as GET, without the content.
- Each write and each login leaves one line `event=write` in the log: `user`, `client`, `method`,
  `path`, `status`, and `location` or `reason`. Reads leave `event=read` at level debug.
- Media types: vendor types as listed, and `application/json`. A missing `Accept` or
  `Content-Type` means the first type listed; a list of types is searched by quality.
- Links honour `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-Port`. Bodies may be
  gzip, and replies are when the caller accepts it. A body that is cut short is 400.
- Writes are transactions on versions of the stored objects. When something moved meanwhile, a
  write is planned anew, for up to 10 s; writers of one object wait for each other's turn. A 409
  says what is in the way, or what would not stop changing. Rules of one chain are added and
  deleted without touching each other.
- A GET has an `ETag`. With `If-None-Match` it is 304 when nothing changed, runtime state
  included. A PUT or DELETE with `If-Match` is 412 when the stored object was changed since; where
  no version is kept (table entries, links, bindings) any tag but `*` is 412.
- A list of more than 250 objects is sent while it is read, in chunks and without
  `Content-Length`. It has what was there when it began, less what was deleted meanwhile. Should
  the database fail in the middle, the connection ends without the last chunk.

## Where this server differs from the original

- IPv6 wherever there is an address: ports, routes, gateways, conditions, underlay addresses,
  `arp_table`. Lengths go to 128; the two prefixes of a route or a rule are of one version.
- Creating a router port creates a Local route for its IPv4 and for its IPv6 address, and
  changing the addresses of a port replaces them.
- A router port has at most one IPv4 and one IPv6 address.
- A PUT of a tunnel zone that keeps its name is accepted.
- Lists of media types and missing headers are accepted where the original answers 406;
  `application/json` is accepted everywhere.
- A PUT that changes the type of a port is 400, not 500. An empty body is 400.
- Pages of other origins are let in only when they are configured (the original: all).
- What is well formed and means nothing is 400: see the rules of each field.
- References in a body to what does not exist are 400 and name the property, also for
  `hostId` of tunnel zone members and `inPorts`, `outPorts` of rules.
- The root document names only what this server serves, and a link to what it does not serve is
  null. Keys that clients know and that are absent now: {absent}.
- A PUT with a null `portMac` keeps the MAC address that the port has.
"""


def reference_page() -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    segments = served_segments(ENDPOINTS)
    absent = [
        key for segment, *keys in KEYS if segment not in segments for key in keys if key is not None
    ]
    yield _INTRODUCTION.replace("{absent}", ", ".join(f"`{key}`" for key in absent))
    schemas = dict.fromkeys(endpoint.schema.title for endpoint in ENDPOINTS)
    for title in schemas:
        endpoints = [endpoint for endpoint in ENDPOINTS if endpoint.schema.title == title]
        yield from _resource(endpoints[0].schema, endpoints)


def _resource(schema: ResourceSchema[Any], endpoints: list[Endpoint]) -> Iterator[str]:
    yield f"## {schema.title}"
    yield ""
    yield (schema.representation.__doc__ or "").split("\n\n", maxsplit=1)[0].strip()
    yield ""
    yield "Media types: " + ", ".join(f"`{each}`" for each in schema.media.items) + "."
    yield ""
    yield "| Method | Path | Success | |"
    yield "|---|---|---|---|"
    for endpoint in endpoints:
        query = f" Query: {', '.join(endpoint.query)}." if endpoint.query else ""
        yield (
            f"| {endpoint.method} | `{endpoint.path}` | {endpoint.success} |"
            f" {endpoint.summary}.{query} |"
        )
    yield ""
    yield "| Field | Type | Default | Written by | |"
    yield "|---|---|---|---|---|"
    for field in schema.fields:
        if field.facts.access is not Access.LINK:
            yield _field(field, any(endpoint.method == "PUT" for endpoint in endpoints))
    links = [field for field in schema.fields if field.facts.access is Access.LINK]
    if links:
        yield ""
        yield "Links: " + ", ".join(f"`{field.external}`" for field in links) + "."
    yield ""


def _field(field: FieldSchema, is_updated: bool) -> str:
    default = "" if field.facts.is_required else _json(field.default)
    access = {
        Access.WRITABLE: "POST, PUT" if is_updated else "POST",
        Access.CREATE_ONLY: "POST",
        Access.READ_ONLY: "server",
        Access.UNSUPPORTED: "*not supported*",
        Access.LINK: "server",
    }[field.facts.access]
    required = "Required. " if field.facts.is_required else ""
    text = required + (field.description[:1].upper() + field.description[1:])
    return f"| `{field.external}` | {_type(field)} | {default} | {access} | {text.strip()} |"


def _json(value: object) -> str:
    return f"`{msgspec.json.encode(value).decode()}`"


def _type(field: FieldSchema) -> str:
    """Return the type in words, with its range."""
    if field.facts.choices:
        return ", ".join(f"`{each}`" for each in field.facts.choices)
    if field.facts.text_format is not None:
        is_list = isinstance(field.default, tuple)
        return f"[{field.facts.text_format.name}]" if is_list else field.facts.text_format.name
    schema = msgspec.json.schema(field.annotation)
    return _words(schema, schema.get("$defs", {}))


def _words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = definitions[name]
        return _words(target, definitions) if "enum" in target else name.removesuffix("Resource")
    if "anyOf" in schema:
        some = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(_words(each, definitions) for each in some)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"[{_words(schema['items'], definitions)}]"
    word = str(schema.get("format") or schema.get("type") or "any")
    if "minimum" in schema or "maximum" in schema:
        return f"{word} {schema.get('minimum', '')}..{schema.get('maximum', '')}"
    if "maxLength" in schema:
        return f"{word} of {schema.get('minLength', 0)}..{schema['maxLength']} characters"
    return word


def main(arguments: list[str]) -> int:
    """Write the page to a file, or to standard output."""
    if arguments:
        Path(arguments[0]).write_text(reference_page(), encoding="utf-8")
    else:
        sys.stdout.write(reference_page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
