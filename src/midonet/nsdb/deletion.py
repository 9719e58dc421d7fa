"""Deletion of an object with everything its deletion rules ask for.

The rules are those of `midonet.model.references`: referrers are deleted too, or let go of the
object, or forbid the deletion. Normally all of it is one transaction with the version of each
object as a precondition, planned anew when something moved.

A deletion that is too big for one transaction is recorded first (table `deletions`), then the
root is cut off (referrers that may let go of it do, so no chain is in force half deleted), then
objects go in slices, referrers before what they refer to, and the root last together with the
record. The store checks references in each slice, so nothing ever refers to a deleted object.
When the process dies in between, `resume` (or deleting the root again) carries on; an object
created below the root meanwhile is deleted with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from midonet.errors import ConflictError, NotFoundError, ReferencedError
from midonet.model.ids import ObjectId
from midonet.model.insertions import L2Insertion
from midonet.model.references import OnTargetDelete, Reference, references_to
from midonet.nsdb import codec, insertions
from midonet.nsdb.retrying import attempts
from midonet.nsdb.store import (
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    Delete,
    DropState,
    Operation,
    PutState,
    Store,
    Update,
    Versioned,
)

PATIENCE_S = 5.0
"""How long a deletion is planned anew before the state counts as moving too fast."""

DELETIONS_TABLE = "deletions"
"""State table of deletions in progress: `kind/id` of the root to the empty text."""

_RECORDER: ObjectId = UUID("6d69646f-6e65-5400-8000-64656c657465")
_SLICE_OPERATIONS = MAX_OPERATIONS // 2
_BATCH = 100
_SLICE_BYTES = MAX_TRANSACTION_BYTES // 2

_Key = tuple[type[msgspec.Struct], ObjectId]


async def delete(
    store: Store,
    kind: type[msgspec.Struct],
    object_id: ObjectId,
    check: Callable[[Versioned[msgspec.Struct]], None] | None = None,
) -> bool:
    """Delete an object and carry out the deletion rules; False when there is none.

    check: called with the object that is to go, each time anew; raises to keep it.

    Raises ReferencedError, naming the referrer, when a rule forbids it; ConflictError when the
    objects concerned went on changing for `PATIENCE_S`; SchemaTooNewError when a referrer that
    must let go was written by a newer schema; UnavailableError.
    """
    moved: ConflictError | NotFoundError | None = None
    async for _ in attempts(PATIENCE_S):
        plan = _Plan(store)
        root = await store.get(kind, object_id)
        if root is None:
            return False
        if check is not None:
            check(root)
        await plan.add(kind, {object_id: root})
        plan.check_refusals()
        inserted = [one for each, one in plan.deletions if each is L2Insertion]
        if inserted:
            # What remains of their ports, chains and rules is put right before anything goes.
            await insertions.remove(store, inserted)
            if kind is L2Insertion:
                return True
            continue
        operations = list(plan.operations())
        try:
            if _fits(operations):
                await store.transact(operations)
            else:
                await _delete_in_slices(store, kind, object_id)
        except (ConflictError, NotFoundError) as error:
            moved = error
            continue
        return True
    raise ConflictError(
        f"{kind.__name__} {object_id} could not be deleted: what it concerns keeps changing."
    ) from moved


async def resume(store: Store) -> int:
    """Finish the deletions that a process began and left; return how many.

    Raises what `delete` raises; a deletion that has become forbidden is given up.
    """
    finished = 0
    for entry in await store.table(DELETIONS_TABLE):
        name, _, id_text = entry.key.partition("/")
        kind = codec.kind_named(name)
        if kind is None:
            continue
        with suppress(ReferencedError):
            await delete(store, kind, UUID(id_text))
            finished += 1
        await store.transact([_drop_record(kind, UUID(id_text))])
    return finished


@dataclass(slots=True)
class _Edit:
    """An object to update: its state before, and its state after the edits so far."""

    before: Versioned[msgspec.Struct]
    value: msgspec.Struct


class _SliceFullError(Exception):
    """A plan reached the size that it was limited to."""


@dataclass(slots=True)
class _Plan:
    """What goes and what is edited. `deletions` has referrers before what they refer to."""

    store: Store
    max_operations: int | None = None
    deletions: dict[_Key, Versioned[msgspec.Struct]] = field(default_factory=dict)
    edits: dict[_Key, _Edit] = field(default_factory=dict)
    refusals: list[tuple[Reference, ObjectId, _Key]] = field(default_factory=list)
    _seen: set[_Key] = field(default_factory=set)
    _edited_bytes: int = 0

    async def add(
        self, kind: type[msgspec.Struct], found: Mapping[ObjectId, Versioned[msgspec.Struct]]
    ) -> None:
        """Plan the deletion of objects of a kind, their cascade first."""
        self._seen.update((kind, object_id) for object_id in found)
        object_ids = list(found)
        for start in range(0, len(object_ids), _BATCH):
            batch = object_ids[start : start + _BATCH]
            # Last declared first: a jump to a chain goes before the chain's own rules, so that
            # the chain is never in force with some of its rules gone.
            for reference in reversed(references_to(kind)):
                await self._add_referrers(reference, kind, batch)
            for object_id in batch:
                self.deletions[kind, object_id] = found[object_id]
                self._check_size()

    async def let_go_of(self, kind: type[msgspec.Struct], object_id: ObjectId) -> None:
        """Plan only that referrers which may let go of an object do so."""
        for reference in references_to(kind):
            if reference.on_target_delete is OnTargetDelete.CLEAR:
                await self._add_referrers(reference, kind, [object_id])

    def check_refusals(self) -> None:
        """Raise ReferencedError when a referrer that is not to go itself forbids the plan."""
        for reference, source_id, target in self.refusals:
            if (reference.source, source_id) not in self.deletions:
                raise ReferencedError(
                    f"{target[0].__name__} {target[1]} is in use: it is the {reference.field} of"
                    f" {reference.source.__name__} {source_id}."
                )

    def operations(self) -> Iterator[Operation]:
        """Yield the plan's operations."""
        for key, edit in self.edits.items():
            if key not in self.deletions:
                yield Update(edit.value, edit.before.version)
        for (kind, object_id), found in self.deletions.items():
            yield Delete(kind, object_id, found.version)

    async def _add_referrers(
        self, reference: Reference, kind: type[msgspec.Struct], target_ids: Sequence[ObjectId]
    ) -> None:
        found = await self.store.referrers_many(reference.source, reference.field, target_ids)
        targets = {source_id: one for one, source_ids in found.items() for source_id in source_ids}
        if reference.on_target_delete is OnTargetDelete.REFUSE:
            self.refusals.extend(
                (reference, source_id, (kind, target_id))
                for source_id, target_id in targets.items()
            )
            return
        wanted = [one for one in targets if (reference.source, one) not in self._seen]
        if reference.on_target_delete is OnTargetDelete.CLEAR:
            wanted = list(targets)
        for start in range(0, len(wanted), _SLICE_OPERATIONS):
            chunk = wanted[start : start + _SLICE_OPERATIONS]
            sources = await self.store.get_many(reference.source, chunk)
            if reference.on_target_delete is OnTargetDelete.CASCADE:
                await self.add(reference.source, sources)
                continue
            for source_id, source in sources.items():
                self._let_go(reference, source_id, source, frozenset(target_ids))

    def _let_go(
        self,
        reference: Reference,
        source_id: ObjectId,
        source: Versioned[msgspec.Struct],
        target_ids: frozenset[ObjectId],
    ) -> None:
        edit = self._edit((reference.source, source_id), source)
        held: object = getattr(edit.value, reference.field)
        cleared: dict[str, object] = {
            name: _default(reference.source, name) for name in reference.cleared_with
        }
        if isinstance(held, tuple):
            cleared[reference.field] = tuple(one for one in held if one not in target_ids)
        elif held in target_ids:
            cleared[reference.field] = None
        else:
            return  # changed since the index was read; the version precondition will tell
        edit.value = msgspec.structs.replace(edit.value, **cleared)
        self._check_size()

    def _edit(self, key: _Key, found: Versioned[msgspec.Struct]) -> _Edit:
        edit = self.edits.get(key)
        if edit is None:
            edit = self.edits[key] = _Edit(found, found.value)
            self._edited_bytes += len(codec.encode(found.value))
        return edit

    def _check_size(self) -> None:
        if self.max_operations is None:
            return
        count = len(self.deletions) + len(self.edits)
        if count >= self.max_operations or self._edited_bytes >= _SLICE_BYTES:
            raise _SliceFullError


async def _delete_in_slices(store: Store, kind: type[msgspec.Struct], object_id: ObjectId) -> None:
    owner = _RECORDER
    await store.transact(
        [PutState(DELETIONS_TABLE, _record_key(kind, object_id), "", owner, is_persistent=True)]
    )
    while not await _run_slice(store, kind, object_id, is_cut_off=False):
        pass
    while not await _run_slice(store, kind, object_id, is_cut_off=True):
        pass


async def _run_slice(
    store: Store, kind: type[msgspec.Struct], object_id: ObjectId, *, is_cut_off: bool
) -> bool:
    """Carry out one slice; True when it was the last of its phase."""
    plan = _Plan(store, _SLICE_OPERATIONS)
    is_last = True
    try:
        if is_cut_off:
            root = await store.get(kind, object_id)
            if root is not None:
                await plan.add(kind, {object_id: root})
        else:
            await plan.let_go_of(kind, object_id)
    except _SliceFullError:
        is_last = False
    operations = list(plan.operations())
    if is_cut_off and is_last:
        plan.check_refusals()
        operations.append(_drop_record(kind, object_id))
    if operations:
        await store.transact(operations)
    return is_last


def _record_key(kind: type[msgspec.Struct], object_id: ObjectId) -> str:
    return f"{kind.__name__}/{object_id}"


def _drop_record(kind: type[msgspec.Struct], object_id: ObjectId) -> DropState:
    return DropState(DELETIONS_TABLE, _record_key(kind, object_id), _RECORDER)


def _default(kind: type[msgspec.Struct], name: str) -> object:
    for described in msgspec.structs.fields(kind):
        if described.name == name:
            return described.default
    raise AssertionError(f"{kind.__name__} has no field {name}")


def _fits(operations: list[Operation]) -> bool:
    size = sum(len(codec.encode(one.value)) for one in operations if isinstance(one, Update))
    return len(operations) <= MAX_OPERATIONS and size <= MAX_TRANSACTION_BYTES
