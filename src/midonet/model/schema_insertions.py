"""Representation of L2 insertions."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct, field

from midonet.model.ids import L2InsertionId, PortId
from midonet.model.insertions import L2Insertion
from midonet.model.schema import (
    CREATE_ONLY,
    REQUIRED,
    MediaType,
    ResourceSchema,
    link_to,
    text,
)
from midonet.model.validation import UNICAST_MAC


class L2InsertionResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """A service that frames of a port pass before they enter or leave it.

    Frames go out by the service port, with a tag when the insertion has a VLAN, and on when they
    come back by it as they were. The rules that do it are in the chains `InboundRedirect` and
    `OutboundRedirect` of the ports.

    port_id: protected port; it cannot be a service port. Kept by a PUT.
    service_port_id: port of a bridge behind which the service is; it cannot be a protected port.
        It sends out nothing but what is redirected to it. Kept by a PUT.
    mac: of the machine at the protected port: frames from it that enter, and frames to it that
        leave, pass the service.
    vlan: VLAN of the tag by which the service tells frames, whose priority says in which direction
        they go: 1 from the machine, 2 to it. 0 is no tag; the service port then serves no other
        port.
    position: a port's services are passed in ascending order.
    fail_open: frames pass the service by while its port is down or inactive, else they are dropped.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/l2insertions/{id}")] = None
    port_id: Annotated[UUID | None, CREATE_ONLY, REQUIRED] = None
    service_port_id: Annotated[UUID | None, CREATE_ONLY, REQUIRED] = field(
        default=None, name="srvPortId"
    )
    mac: Annotated[str | None, REQUIRED, text(UNICAST_MAC)] = None
    vlan: Annotated[int, Meta(ge=0, le=4094)] = 0
    position: Annotated[int, Meta(ge=0, le=0x7FFF_FFFF)] = 0
    fail_open: bool = False
    port: Annotated[str | None, link_to("/ports/{port_id}")] = None
    service_port: Annotated[str | None, link_to("/ports/{service_port_id}")] = field(
        default=None, name="srvPort"
    )


def insertion_to_model(resource: L2InsertionResource, current: L2Insertion | None) -> L2Insertion:
    """Return the stored form."""
    assert resource.id is not None
    assert resource.port_id is not None
    assert resource.service_port_id is not None
    assert resource.mac is not None
    return L2Insertion(
        id=L2InsertionId(resource.id),
        port_id=current.port_id if current else PortId(resource.port_id),
        service_port_id=current.service_port_id if current else PortId(resource.service_port_id),
        mac=resource.mac,
        vlan=resource.vlan,
        position=resource.position,
        fail_open=resource.fail_open,
    )


L2_INSERTION = ResourceSchema(
    title="L2Insertion",
    representation=L2InsertionResource,
    kind=L2Insertion,
    media=MediaType("L2Insertion", (1,)),
    collection="l2insertions",
    root_keys=("l2insertions", "l2InsertionTemplate"),
    to_model=insertion_to_model,
)
