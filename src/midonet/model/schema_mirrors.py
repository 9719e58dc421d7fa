"""Representation of mirrors."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from midonet.errors import ValidationError, Violation
from midonet.model.chains import Condition
from midonet.model.ids import MirrorId, PortId
from midonet.model.mirrors import Mirror
from midonet.model.schema import (
    CREATE_ONLY,
    REQUIRED,
    MediaType,
    ResourceSchema,
    link_to,
)
from midonet.model.schema_chains import condition_fields, condition_to_model
from midonet.model.schema_rules import ConditionResource

MAX_CONDITIONS = 1000


class MirrorResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """Copies of packets that leave by a port, for who watches the network.

    What is looked at is said by the mirror ids of ports, bridges and routers. A copy is as the
    packet is at that point, passes what the port lets out, and never changes what becomes of the
    packet. A mirror goes with its port.

    to_port_id: port that copies leave by, at whatever host it is bound.
    conditions: a packet is copied when it meets one of them; an empty object is met by every
        packet, an empty list by none.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/mirrors/{id}")] = None
    to_port_id: Annotated[UUID | None, REQUIRED] = None
    conditions: Annotated[tuple[ConditionResource, ...], Meta(max_length=MAX_CONDITIONS)] = ()
    to_port: Annotated[str | None, link_to("/ports/{to_port_id}")] = None


def mirror_to_model(resource: MirrorResource, current: Mirror | None) -> Mirror:
    """Return the stored form. Raises ValidationError."""
    assert resource.id is not None
    assert resource.to_port_id is not None
    return Mirror(
        id=MirrorId(resource.id),
        to_port_id=PortId(resource.to_port_id),
        conditions=_conditions(resource.conditions),
    )


def _conditions(given: tuple[ConditionResource, ...]) -> tuple[Condition, ...]:
    conditions: list[Condition] = []
    violations: list[Violation] = []
    for index, one in enumerate(given):
        try:
            conditions.append(condition_to_model(one))
        except ValidationError as error:
            violations.extend(
                Violation(f"conditions[{index}].{each.field}", each.rule)
                for each in error.violations
            )
    if violations:
        raise ValidationError(violations)
    return tuple(conditions)


def mirror_from_model(mirror: Mirror) -> MirrorResource:
    """Return the representation of a stored mirror."""
    return MirrorResource(
        id=mirror.id,
        to_port_id=mirror.to_port_id,
        conditions=tuple(ConditionResource(**condition_fields(one)) for one in mirror.conditions),
    )


MIRROR = ResourceSchema(
    title="Mirror",
    representation=MirrorResource,
    kind=Mirror,
    media=MediaType("Mirror", (1,)),
    collection="mirrors",
    root_keys=("mirrors", "mirrorTemplate"),
    to_model=mirror_to_model,
    from_model=mirror_from_model,
)
