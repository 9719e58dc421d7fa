"""The schema machinery, and what must hold for each registered resource."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
import pytest

from midonet.errors import DecodeError, ValidationError
from midonet.model import validation
from midonet.model.devices import Bridge, Router
from midonet.model.ids import BridgeId, RouterId
from midonet.model.references import KINDS, OnTargetDelete, references_from
from midonet.model.schema import Access, ResourceSchema, checked, copy_fields, represent
from midonet.model.schema_devices import BridgeResource, RouterResource
from midonet.model.schema_registry import RESOURCES, schema_of

EVERY = pytest.mark.parametrize("schema", RESOURCES, ids=lambda schema: schema.title)

INTERNAL = {
    "Port": {
        "bridge_id",
        "router_id",
        "previous_host_id",
        "port_group_ids",
        "advertising",
        "insertion_inbound_filter_id",
        "insertion_outbound_filter_id",
        "is_service",
    },
    "Route": {"source", "destination"},
    "Rule": {"action", "condition", "rank", "transform"},
    "Chain": {"order"},
    "TunnelZoneHost": {"id"},
}
"""Stored fields that a representation shows in another form, or not at all."""


@EVERY
def test_each_stored_field_is_represented_or_named_as_internal(
    schema: ResourceSchema[Any],
) -> None:
    if schema.kind is not None:
        stored = set(schema.kind.__struct_fields__)
        shown = {field.name for field in schema.fields}
        assert stored - shown == INTERNAL.get(schema.title, set())


@EVERY
def test_external_names_are_unique_and_every_field_has_a_default(
    schema: ResourceSchema[Any],
) -> None:
    names = [field.external for field in schema.fields]
    assert len(set(names)) == len(names)
    assert all(field.default is not msgspec.NODEFAULT for field in schema.fields)
    assert schema_of(schema.representation) is schema


@EVERY
def test_null_stands_for_the_default(schema: ResourceSchema[Any]) -> None:
    nulls = {field.external: None for field in schema.fields if field.is_writable}
    body = msgspec.convert(nulls, schema.body_type)
    required = {field.external for field in schema.fields if field.facts.is_required}
    required &= set(nulls)
    if not required:
        assert checked(schema.representation, body) == schema.representation()
        return
    with pytest.raises(ValidationError) as refused:
        checked(schema.representation, body)
    assert {violation.field for violation in refused.value.violations} == required


def test_each_reference_to_be_cleared_can_be_empty() -> None:
    for kind in KINDS:
        for reference in references_from(kind):
            if reference.on_target_delete is OnTargetDelete.CLEAR:
                assert getattr(kind, "__struct_fields__", ())
                info = {each.name: each for each in msgspec.structs.fields(kind)}
                assert info[reference.field].default in (None, ())


def test_every_violation_is_listed() -> None:
    schema = next(each for each in RESOURCES if each.title == "Route")
    body = msgspec.convert({"dstNetworkAddr": "x", "nextHopGateway": "y"}, schema.body_type)
    with pytest.raises(ValidationError) as refused:
        checked(schema.representation, body)
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["type", "dstNetworkAddr", "srcNetworkAddr", "nextHopGateway"]
    assert all(field in str(refused.value) for field in fields)


def test_update_keeps_what_a_caller_may_not_write() -> None:
    current = Bridge(id=BridgeId(uuid4()), name="old", admin_state_up=False)
    wanted = BridgeResource(id=uuid4(), name="new")
    assert copy_fields(wanted, Bridge, current) == Bridge(id=current.id, name="new")
    created = copy_fields(wanted, Bridge, None)
    assert created.id == wanted.id


def test_representation_round_trip() -> None:
    router = Router(id=RouterId(uuid4()), name="r", as_number=7, admin_state_up=False)
    shown = represent(router, RouterResource)
    assert copy_fields(shown, Router, None) == router


def test_links_and_read_only_fields_are_not_in_a_body() -> None:
    for schema in RESOURCES:
        carried = set(schema.body_type.__struct_fields__)
        for field in schema.fields:
            is_open = field.facts.access not in (Access.READ_ONLY, Access.LINK)
            assert (field.name in carried) is is_open


@pytest.mark.parametrize(
    ("text_format", "given", "canonical"),
    [
        (validation.IP, "2001:DB8:0:0::1", "2001:db8::1"),
        (validation.IPV4, "10.0.0.1", "10.0.0.1"),
        (validation.INTERFACE_PREFIX, "10.0.0.1/08", "10.0.0.1/8"),
        (validation.MAC, "FF-ff-00-00-00-01", "ff:ff:00:00:00:01"),
        (validation.UNICAST_MAC, "02:00:00:00:00:01", "02:00:00:00:00:01"),
        (validation.MAC_MASK, "FFFF.0000.0001", "ffff.0000.0001"),
        (validation.MAC_MASK, "ff:ff:00:00:00:01", "ffff.0000.0001"),
        (validation.INTERFACE_NAME, "eth0.100", "eth0.100"),
    ],
)
def test_canonical_form(text_format: validation.TextFormat, given: str, canonical: str) -> None:
    assert text_format.canonical(given) == canonical
    assert text_format.canonical(canonical) == canonical


@pytest.mark.parametrize(
    ("text_format", "given"),
    [
        (validation.IP, ""),
        (validation.IP, "fe80::1%eth0"),
        (validation.IP, "10.0.0.256"),
        (validation.IPV4, "::1"),
        (validation.INTERFACE_PREFIX, "10.0.0.1"),
        (validation.INTERFACE_PREFIX, "10.0.0.1/33"),
        (validation.INTERFACE_PREFIX, "10.0.0.1/-1"),
        (validation.MAC, "1:2:3:4:5:6"),
        (validation.UNICAST_MAC, "ff:ff:ff:ff:ff:ff"),
        (validation.UNICAST_MAC, "00:00:00:00:00:00"),
        (validation.MAC_MASK, "ffff.ffff"),
        (validation.INTERFACE_NAME, "a/b"),
        (validation.INTERFACE_NAME, ".."),
        (validation.INTERFACE_NAME, "sixteen-letters-"),
        (validation.INTERFACE_NAME, "ööööööööö"),
        (validation.INTERFACE_NAME, "voilà"),
        (validation.INTERFACE_NAME, "nul\0"),
        (validation.INTERFACE_NAME, "tab\t"),
        (validation.INTERFACE_NAME, ""),
    ],
)
def test_malformed_text_is_a_decode_error(text_format: validation.TextFormat, given: str) -> None:
    with pytest.raises(DecodeError):
        text_format.canonical(given)
