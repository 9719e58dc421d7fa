"""The known connections, as an operator asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from midonet.agent.flow_state.connection import Connection
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.operator.connection_text import describe_connection, protocol_name
from midonet.errors import DecodeError, UserError
from midonet.packets.addresses import parse_ip

DEFAULT_LIMIT = 1000
_LIMIT_MAX = 100_000
_SLICE = 500

_FILTERS = frozenset(("port", "address", "protocol", "limit"))

Test = Callable[[Connection], bool]


async def list_connections(
    table: ConnectionTable, now_s: float, query: Mapping[str, str]
) -> dict[str, Any]:
    """Return the connections that a query asks for, and how many are known.

    port: id of a port or of a stateful group where they begin or end. address: of either end, as
    it was before or after translation. protocol: by name or number. limit: of rows, 1000 by
    default. `more` tells that there are further ones. Raises UserError for another query.
    """
    unknown = query.keys() - _FILTERS
    if unknown:
        raise UserError(f"connections are not asked for by {', '.join(sorted(unknown))}")
    limit, tests = _limit(query.get("limit")), _tests(query)
    rows: list[dict[str, Any]] = []
    start, has_more = 0, False
    while found := table.slice(start, _SLICE):
        start += _SLICE
        for connection in found:
            if all(test(connection) for test in tests):
                if len(rows) == limit:
                    has_more = True
                    break
                rows.append(_row(table, connection, now_s))
        if has_more:
            break
        await asyncio.sleep(0)  # packets are decided on in between
    return {"known": len(table), "connections": rows, "more": has_more}


def _row(table: ConnectionTable, connection: Connection, now_s: float) -> dict[str, Any]:
    return {
        **describe_connection(connection),
        "idleSeconds": round(table.idle_s(connection, now_s), 1),
        "remainingSeconds": round(table.remaining_s(connection, now_s), 1),
        "isJudgedHere": table.sample(connection) is not None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _LIMIT_MAX:
        raise UserError(f"limit is a number from 1 to {_LIMIT_MAX}", field="limit")
    return int(text)


def _tests(query: Mapping[str, str]) -> list[Test]:
    tests: list[Test] = []
    if port := query.get("port"):
        wanted = port.lower()
        tests.append(lambda one: any(str(key.zone.scope) == wanted for key in one.keys))
    if protocol := query.get("protocol"):
        tests.append(
            lambda one: (
                protocol.lower()
                in (protocol_name(one.forward.tuple.protocol), str(one.forward.tuple.protocol))
            )
        )
    if text := query.get("address"):
        try:
            address = parse_ip(text)
        except DecodeError as error:
            raise UserError(str(error), field="address") from None
        end = (address.version, address.value)
        tests.append(
            lambda one: any(
                end in ((ends.version, ends.source), (ends.version, ends.destination))
                for ends in (key.tuple for key in one.keys)
            )
        )
    return tests
