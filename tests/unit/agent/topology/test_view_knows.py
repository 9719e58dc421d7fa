"""What an awaited object needs to have come, whatever its kind."""

from __future__ import annotations

from dataclasses import fields
from uuid import UUID

import pytest

from midonet.agent.topology.view import TopologyView
from midonet.model.ids import HostId, ObjectId

ONE: ObjectId = UUID(int=7)


@pytest.mark.parametrize(
    "kind", ["ports", "bridges", "routers", "chains", "balancers", "mirrors", "qos_policies"]
)
def test_an_object_of_a_kind_that_is_loaded_is_known(kind: str) -> None:
    empty = TopologyView(1, HostId(UUID(int=1)))
    assert kind in {field.name for field in fields(empty)}
    assert not empty.knows(ONE)
    assert TopologyView(1, HostId(UUID(int=1)), **{kind: {ONE: object()}}).knows(ONE)  # type: ignore[arg-type]


def test_what_does_not_exist_is_known() -> None:
    assert TopologyView(1, HostId(UUID(int=1)), absent=frozenset({ONE})).knows(ONE)
