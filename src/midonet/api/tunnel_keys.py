"""Tunnel keys for new ports: numbers from the store's counter, leased in blocks.

A block costs one write for many ports. What is left of a block when the process ends is lost,
at most `BLOCK` of 2^20 keys a process.
"""

from __future__ import annotations

from collections import deque

from midonet.errors import ConflictError
from midonet.nsdb.store import Store

KEY_BITS = 20
"""Keys that the server assigns have type 0 in the upper four of 24 bits."""

BLOCK = 32
FIRST_KEY = 2


class TunnelKeys:
    """Hands out keys, each once among all processes that share the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._leased: deque[int] = deque()

    async def allocate(self) -> int:
        """Return a key nobody has had. Raises ConflictError when all have been used."""
        if not self._leased:
            block = await self._store.sequence("tunnel_key_block") - 1
            first = FIRST_KEY + block * BLOCK
            self._leased.extend(range(first, min(first + BLOCK, 1 << KEY_BITS)))
        if not self._leased:
            raise ConflictError("All tunnel keys have been used.")
        return self._leased.popleft()
