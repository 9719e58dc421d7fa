"""Which store a URL means."""

from __future__ import annotations

from midonet.errors import UserError
from midonet.nsdb.memory import MemoryStore, shared_backend
from midonet.nsdb.store import Store


def open_store(url: str) -> Store:
    """Return the store that `url` names; the caller opens it.

    `memory:NAME` is shared by all clients of one process that use the same NAME (which may be
    empty). Raises UserError for anything else.
    """
    scheme, separator, rest = url.partition(":")
    if not separator:
        raise UserError(f"{url!r} is not a store URL; try sqlite:///PATH.", field="nsdb")
    match scheme:
        case "memory":
            return MemoryStore(shared_backend(rest))
        case "zk":
            raise UserError(
                "This build has the sqlite and memory stores only, not zk://.", field="nsdb"
            )
        case _:
            raise UserError(f"There is no store of type {scheme!r}.", field="nsdb")
