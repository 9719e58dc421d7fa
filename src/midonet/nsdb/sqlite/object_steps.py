"""Steps that rewrite stored objects from one schema to the next.

A step works on the JSON as it was at its time, never on the types of the model, which go on
changing. It leaves versions alone: nobody has seen the objects change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from midonet.model.ranks import spread

Step = Callable[[sqlite3.Connection], None]


def rank_rules(connection: sqlite3.Connection) -> None:
    """To schema 3: rules have ranks, where their chain had the list of their ids.

    A rule that its chain did not list was never evaluated, and goes.
    """
    listed: set[bytes] = set()
    rows = connection.execute("SELECT id, body FROM object WHERE kind = 'Chain'").fetchall()
    for chain_id, body in rows:
        chain: dict[str, Any] = msgspec.json.decode(body)
        rule_ids = chain.get("rule_ids", [])
        if isinstance(rule_ids, str):
            continue
        keys = [UUID(text).bytes for text in rule_ids]
        for key, rank in zip(keys, spread(len(keys)), strict=True):
            _change(connection, "Rule", key, {"rank": rank})
        listed.update(keys)
        _change(connection, "Chain", chain_id, {"rule_ids": "by rank"})
    for (rule_id,) in connection.execute("SELECT id FROM object WHERE kind = 'Rule'").fetchall():
        if rule_id not in listed:
            connection.execute("DELETE FROM object WHERE kind = 'Rule' AND id = ?", (rule_id,))
            connection.execute(
                "DELETE FROM reference WHERE kind = 'Rule' AND source = ?", (rule_id,)
            )


def _change(connection: sqlite3.Connection, kind: str, key: bytes, fields: dict[str, Any]) -> None:
    row = connection.execute(
        "SELECT body FROM object WHERE kind = ? AND id = ?", (kind, key)
    ).fetchone()
    if row is not None:
        body = msgspec.json.encode(msgspec.json.decode(row[0]) | fields)
        connection.execute(
            "UPDATE object SET body = ?, schema = 3 WHERE kind = ? AND id = ?", (body, kind, key)
        )


OBJECT_STEPS: dict[int, Step] = {3: rank_rules}
"""What leads to each schema from the one before; a schema without a step only added fields."""
