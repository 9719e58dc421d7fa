"""Which store a URL means."""

from __future__ import annotations

from pathlib import Path

from midonet.errors import UserError
from midonet.nsdb.memory import MemoryStore, shared_backend
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Store


def open_store(url: str) -> Store:
    """Return the store that `url` names; the caller opens it.

    `sqlite:///PATH`: PATH is absolute; all processes of the machine share the file.
    `memory:NAME`: all clients of this process that use the NAME, which may be empty, share it.
    Raises UserError for anything else.
    """
    scheme, separator, rest = url.partition(":")
    if not separator:
        raise UserError(f"{url!r} is not a store URL; try sqlite:///PATH.", field="nsdb")
    match scheme:
        case "sqlite":
            return SqliteStore(_sqlite_path(url, rest))
        case "memory":
            return MemoryStore(shared_backend(rest))
        case "zk":
            raise UserError(
                "This build has the sqlite and memory stores only, not zk://.", field="nsdb"
            )
        case _:
            raise UserError(f"There is no store of type {scheme!r}.", field="nsdb")


def _sqlite_path(url: str, rest: str) -> Path:
    # `sqlite:///PATH` with an absolute PATH put in has four slashes; POSIX leaves the meaning of
    # a double slash at the front open, so only one is kept.
    path = "/" + rest.lstrip("/") if rest.startswith("///") else ""
    if path in ("", "/"):
        raise UserError(f"{url!r} names no absolute path; write sqlite:///PATH.", field="nsdb")
    return Path(path)
