"""Stores of earlier schemas are brought to the present one when they are opened."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from midonet.errors import DecodeError
from midonet.model.chains import Chain, Rule, RuleAction, evaluation_order
from midonet.model.ids import ChainId, RuleId
from midonet.nsdb.codec import SCHEMA_VERSION
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create, Update


def put(path: Path, schema: int, kind: str, **fields: Any) -> None:
    """Store an object as a process of an earlier schema did."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (schema,))
        connection.execute(
            "INSERT INTO object VALUES (?, ?, 7, ?, 0, ?)",
            (kind, UUID(fields["id"]).bytes, schema, json.dumps(fields).encode()),
        )
        if kind == "Rule":
            connection.execute(
                "INSERT INTO reference VALUES ('Chain', ?, 'Rule', 'chain_id', ?)",
                (UUID(fields["chain_id"]).bytes, UUID(fields["id"]).bytes),
            )


@pytest.mark.parametrize("schema", [1, 2])
async def test_rules_keep_the_order_that_their_chain_listed(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "nsdb.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    chain_id, empty_id, unlisted = str(uuid4()), str(uuid4()), str(uuid4())
    rule_ids = [str(uuid4()) for _ in range(40)]
    put(path, schema, "Chain", id=chain_id, name="kept", rule_ids=rule_ids)
    put(path, schema, "Chain", id=empty_id)
    for rule_id in (*reversed(rule_ids), unlisted):
        fields = {"id": rule_id, "chain_id": chain_id, "action": "drop", "condition": {"vlan": 9}}
        put(path, schema, "Rule", **fields)
    for _ in range(2):
        await store.open()
        found = [each.value for each in await store.list_all(Rule)]
        ordered = sorted(found, key=evaluation_order)
        assert [str(rule.id) for rule in ordered] == rule_ids
        assert {rule.condition.vlan for rule in found} == {9}
        assert all(
            str(each) in rule_ids
            for each in await store.referrers(Rule, "chain_id", UUID(chain_id))
        )
        chains = {str(each.value.id): each for each in await store.list_all(Chain)}
        assert chains[chain_id].value.name == "kept"
        assert chains[empty_id].version == 7
        await store.transact([Update(chains[chain_id].value, chains[chain_id].version)])
        await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() == (
            SCHEMA_VERSION,
        )


async def test_chain_that_an_earlier_process_wrote_later_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "nsdb.db"
    store = SqliteStore(path)
    await store.open()
    chain_id = ChainId(uuid4())
    put(path, 2, "Chain", id=str(chain_id), rule_ids=[str(uuid4())])
    with pytest.raises(DecodeError):
        await store.get(Chain, chain_id)
    rule = Rule(id=RuleId(uuid4()), chain_id=chain_id, action=RuleAction.DROP)
    await store.transact([Create(rule)])
    await store.close()
