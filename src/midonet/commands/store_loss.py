"""What a daemon does when its state database was taken away: say so, and end."""

from __future__ import annotations

import asyncio

from midonet.errors import StoreLostError
from midonet.nsdb.store import Store

_GRACE_S = 2.0
"""Callers get an answer that says what happened for this long, before they get none."""


async def end_with(store: Store) -> None:
    """Wait for the loss of a store and raise StoreLostError: the task of this ends the process.

    A start opens what has the name then, which a process that goes on cannot do: all that it
    knows is of the store that is gone.
    """
    try:
        await store.wait_lost()
    except StoreLostError:
        await asyncio.sleep(_GRACE_S)
        raise
