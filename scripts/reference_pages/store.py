"""`docs/reference/store.md`: stored kinds, state tables and SQL tables, from their definitions."""

from __future__ import annotations

import inspect
import sqlite3

import msgspec

from midonet.model.references import KINDS, OnTargetDelete, references_from
from midonet.nsdb.sqlite.schema import MIGRATIONS
from midonet.nsdb.store import StateTables
from scripts.reference_pages.tables import code, table

_DELETE = {
    OnTargetDelete.CASCADE: "goes with it",
    OnTargetDelete.CLEAR: "is cleared",
    OnTargetDelete.REFUSE: "prevents it",
}


def kinds() -> str:
    """Return the stored kinds."""
    rows = []
    for kind in KINDS:
        references = "; ".join(
            f"{code(each.field)} to {each.target.__name__}: {_DELETE[each.on_target_delete]}"
            for each in references_from(kind)
        )
        fields = ", ".join(code(field.name) for field in msgspec.structs.fields(kind))
        rows.append((code(kind.__name__), first_line(kind), fields, references))
    header = ("kind", "what", "fields", "references, and what deleting the target does")
    return table(header, rows)


def state_tables() -> str:
    """Return the patterns of state table names."""
    rows = [
        (code(_pattern(name)), first_line(getattr(StateTables, name))) for name in table_names()
    ]
    return table(("name", "what"), rows)


def table_names() -> list[str]:
    """Return the names of the functions of `StateTables` that make the name of a table."""
    return [
        name
        for name, function in vars(StateTables).items()
        if isinstance(function, staticmethod) and name != "of_object"
    ]


def sql_tables() -> str:
    """Return the tables of the embedded store with their columns."""
    connection = sqlite3.connect(":memory:")
    try:
        for statements in MIGRATIONS:
            for statement in statements:
                connection.execute(statement)
        names = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        rows = [
            (
                code(name),
                ", ".join(code(row[1]) for row in connection.execute(f"PRAGMA table_info({name})")),
            )
            for name in names
        ]
    finally:
        connection.close()
    return table(("table", "columns"), rows)


def first_line(documented: object) -> str:
    """Return the first sentence or line of a docstring, on one line."""
    text = inspect.getdoc(documented) or ""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def _pattern(name: str) -> str:
    function = getattr(StateTables, name)
    parameters = inspect.signature(function).parameters
    return str(function(*(parameter.upper() for parameter in parameters)))
