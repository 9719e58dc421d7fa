"""Leases of blocks: the lasting right of one owner to allocate from a block.

A lease ends when its owner gives it up or is declared dead, not when a session ends: what was
allocated from the block is still in use. After that the block rests until whatever was allocated
from it has surely lapsed, and then changes hands with a higher epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from midonet.errors import ConflictError, NotFoundError
from midonet.model.coordination import Lease, lease_id
from midonet.model.ids import ObjectId
from midonet.nsdb.store import Create, Operation, Store, Update


@dataclass(frozen=True, slots=True)
class Leases:
    """Leases in a store.

    rest_s: how long a released block is given to nobody but its last owner (s).
    now_s: returns Unix seconds.
    """

    store: Store
    rest_s: float
    now_s: Callable[[], float]

    async def acquire(self, block: str, owner: ObjectId) -> Lease | None:
        """Return the lease of `block` for `owner`; None when it is another's, or rests.

        An owner that holds the block gets its lease as it is; one that gave it up and comes back
        gets it with a new epoch. Raises UnavailableError.
        """
        found = await self.store.get(Lease, lease_id(block))
        operation: Operation
        if found is None:
            lease = Lease(id=lease_id(block), block=block, owner=owner, epoch=1)
            operation = Create(lease)
        elif found.value.released_at_s is None:
            return found.value if found.value.owner == owner else None
        elif found.value.owner != owner and not self._is_rested(found.value):
            return None
        else:
            lease = msgspec.structs.replace(
                found.value, owner=owner, epoch=found.value.epoch + 1, released_at_s=None
            )
            operation = Update(lease, found.version)
        try:
            await self.store.transact([operation])
        except (ConflictError, NotFoundError):
            return None
        return lease

    async def release(self, lease: Lease) -> bool:
        """End a lease, also on behalf of a dead owner; False when it is no longer this one."""
        found = await self.store.get(Lease, lease.id)
        if found is None or found.value != lease:
            return False
        released = msgspec.structs.replace(lease, released_at_s=int(self.now_s()))
        try:
            await self.store.transact([Update(released, found.version)])
        except (ConflictError, NotFoundError):
            return False
        return True

    def _is_rested(self, lease: Lease) -> bool:
        released_at_s = lease.released_at_s
        return released_at_s is not None and self.now_s() - released_at_s >= self.rest_s
