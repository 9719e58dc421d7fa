"""Leadership of a role among control processes, with fencing tokens.

A process leads while its session lives. Each new leader gets a higher token; whatever acts in
the name of the role puts `fence` into its transactions, so that one which lost the role while it
was not looking changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from midonet.errors import ConflictError, NotFoundError
from midonet.model.coordination import Leadership, leadership_id
from midonet.model.ids import ObjectId
from midonet.nsdb.store import Check, Create, Operation, Store, Update


@dataclass(frozen=True, slots=True)
class Term:
    """One stay in office."""

    role: str
    leader: ObjectId
    fencing_token: int
    version: int

    def fence(self) -> Check:
        """Return the operation that fails a transaction when the term is over."""
        return Check(Leadership, leadership_id(self.role), self.version)


async def campaign(store: Store, role: str, candidate: ObjectId) -> Term | None:
    """Begin a term of `candidate` when nobody living leads; None when another does.

    Whoever leads keeps its term and does not campaign again: that would begin a new one, which
    is right only for a process that has restarted, because its former life may still be writing.
    Raises ConflictError when the candidate has no live session, UnavailableError.
    """
    alive = await store.live_sessions()
    if candidate not in alive:
        raise ConflictError(f"{candidate} has no live session.")
    found = await store.get(Leadership, leadership_id(role))
    operation: Operation
    if found is None:
        version = 0
        record = Leadership(id=leadership_id(role), role=role, leader=candidate, fencing_token=1)
        operation = Create(record)
    else:
        leader = found.value.leader
        if leader is not None and leader != candidate and leader in alive:
            return None
        version = found.version + 1
        record = msgspec.structs.replace(
            found.value, leader=candidate, fencing_token=found.value.fencing_token + 1
        )
        operation = Update(record, found.version)
    try:
        await store.transact([operation])
    except (ConflictError, NotFoundError):
        return None
    return Term(role, candidate, record.fencing_token, version)


async def is_leading(store: Store, term: Term) -> bool:
    """Return whether a term still runs."""
    found = await store.get(Leadership, leadership_id(term.role))
    return found is not None and found.version == term.version


async def resign(store: Store, term: Term) -> bool:
    """End a term; False when it is over already."""
    found = await store.get(Leadership, leadership_id(term.role))
    if found is None or found.version != term.version:
        return False
    try:
        await store.transact(
            [Update(msgspec.structs.replace(found.value, leader=None), found.version)]
        )
    except (ConflictError, NotFoundError):
        return False
    return True
