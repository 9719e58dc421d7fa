"""The connections that an operator asks for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from midonet.agent.flow_state.connection import Connection, ConnectionKey, Direction
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flow_state.zone import Zone
from midonet.agent.operator.connection_list import list_connections
from midonet.errors import UserError
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple

A, B, C = (PortId(UUID(int=number)) for number in (1, 2, 3))


def connection(number: int, protocol: int, source: PortId, target: PortId) -> Connection:
    begun = FiveTuple(IpVersion.V4, protocol, 0x0A000000 | number, 4000, 0x0A0000FF, 53)
    back = ConnectionKey(Zone(target), begun.inverse())
    return Connection(ConnectionKey(Zone(source), begun), (back,), source)


@pytest.fixture
def table() -> ConnectionTable:
    known = ConnectionTable()
    for number, protocol, source, target in ((1, 17, A, B), (2, 6, A, C), (3, 17, B, C)):
        known.confirm(connection(number, protocol, source, target), 10.0)
    known.advance(connection(1, 17, A, B).returns[0], Direction.RETURN, 0, 30.0)
    return known


async def sources(table: ConnectionTable, **query: str) -> list[str]:
    answer = await list_connections(table, 40.0, query)
    return [one["forward"]["source"] for one in answer["connections"]]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, [1, 2, 3]),
        ({"port": str(A)}, [1, 2]),
        ({"port": str(C).upper()}, [2, 3]),
        ({"protocol": "UDP"}, [1, 3]),
        ({"protocol": "6"}, [2]),
        ({"address": "10.0.0.3"}, [3]),
        ({"address": "10.0.0.255"}, [1, 2, 3]),
        ({"address": "::1"}, []),
        ({"port": str(B), "protocol": "udp", "address": "10.0.0.1"}, [1]),
    ],
)
async def test_filters(table: ConnectionTable, query: dict[str, str], wanted: list[int]) -> None:
    assert await sources(table, **query) == [f"10.0.0.{number}" for number in wanted]


async def test_a_row_tells_how_far_it_is_and_how_long_it_lives(table: ConnectionTable) -> None:
    answer: dict[str, Any] = await list_connections(table, 40.0, {"address": "10.0.0.1"})
    (row,) = answer["connections"]
    assert (row["answered"], row["idleSeconds"], row["remainingSeconds"]) == (True, 10.0, 290.0)
    assert (row["forward"]["zone"], row["returns"][0]["zone"]) == (str(A), str(B))
    assert answer["known"] == 3


async def test_the_number_of_rows_is_bounded_and_said_to_be(table: ConnectionTable) -> None:
    answer = await list_connections(table, 40.0, {"limit": "2"})
    assert (len(answer["connections"]), answer["more"]) == (2, True)
    assert not (await list_connections(table, 40.0, {"limit": "3"}))["more"]


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "-1"}, {"limit": "x"}, {"address": "10.0.0"}, {"colour": "red"}],
)
async def test_queries_that_make_no_sense_are_refused(
    table: ConnectionTable, query: dict[str, str]
) -> None:
    with pytest.raises(UserError):
        await list_connections(table, 40.0, query)
