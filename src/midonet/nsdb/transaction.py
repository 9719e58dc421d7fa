"""The rules of a transaction, once, for every store that keeps its tables itself.

A store offers `Tables`, single-step access to its content inside one atomic unit. `Transaction`
applies operations to them and records marks: the watch keys whose state may have changed. When
it raises, the store undoes the unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import msgspec

from midonet.errors import (
    ConflictError,
    MovedError,
    NoSessionError,
    NotFoundError,
    ReferencedError,
    SchemaTooNewError,
    UserError,
)
from midonet.model.ids import ObjectId
from midonet.model.references import Reference, references_from
from midonet.nsdb import codec
from midonet.nsdb.store import (
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    AllOf,
    Check,
    Create,
    Delete,
    DropState,
    ObjectKey,
    Operation,
    PutState,
    Referrers,
    StateEntry,
    StateTables,
    Update,
)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a table keeps it. `revision` is the store's at the last write."""

    version: int
    schema: int
    revision: int
    body: bytes


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One reference of one object: `field` of the `kind` object `source_id` names the target."""

    target_kind: str
    target_id: ObjectId
    kind: str
    field: str
    source_id: ObjectId


@dataclass(frozen=True, slots=True)
class BootTime:
    """A moment on one machine: `seconds` since the boot that `boot_id` names."""

    boot_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as a table keeps it; it is dead past `deadline`, and after another boot."""

    owner: ObjectId
    secret: str
    timeout_s: float
    deadline: BootTime

    def is_live(self, now: BootTime) -> bool:
        """Return whether the session has neither expired nor outlived its machine's boot."""
        return self.deadline.boot_id == now.boot_id and self.deadline.seconds > now.seconds


@dataclass(frozen=True, slots=True)
class TableKey:
    """One key of a state table."""

    table: str
    key: str


Mark = ObjectKey | Referrers | AllOf | TableKey
"""What a transaction may have changed, in the grain of watch keys."""


class Tables(Protocol):
    """The content of a store inside one atomic unit. Kinds go by their stored names."""

    def object(self, kind: str, object_id: ObjectId) -> StoredObject | None:
        """Return a stored object."""
        ...

    def put_object(self, kind: str, object_id: ObjectId, stored: StoredObject) -> None:
        """Create or replace an object."""
        ...

    def remove_object(self, kind: str, object_id: ObjectId) -> None:
        """Remove an object that exists."""
        ...

    def index_entries_of(self, kind: str, source_id: ObjectId) -> frozenset[IndexEntry]:
        """Return the index entries of the references that an object holds."""
        ...

    def change_index(self, removed: Iterable[IndexEntry], added: Iterable[IndexEntry]) -> None:
        """Remove and add index entries."""
        ...

    def referrer(self, target_kind: str, target_id: ObjectId) -> IndexEntry | None:
        """Return any one reference to an object."""
        ...

    def count_referrers(self, entry: IndexEntry) -> int:
        """Return how many objects of the entry's kind name its target in its field."""
        ...

    def state_entry(self, table: str, key: str, owner: ObjectId) -> StateEntry | None:
        """Return an owner's entry."""
        ...

    def put_state(self, entry: StateEntry) -> None:
        """Write an owner's entry."""
        ...

    def remove_state(self, table: str, key: str, owner: ObjectId) -> None:
        """Remove an owner's entry that exists."""
        ...

    def entries_below(self, name: str) -> list[StateEntry]:
        """Return all entries of the table `name` and of those whose names go on after `/`."""
        ...

    def ephemeral_keys(self, owner: ObjectId) -> list[TableKey]:
        """Return where an owner has entries that end with its session."""
        ...

    def session(self, owner: ObjectId) -> SessionRecord | None:
        """Return an owner's session, live or not."""
        ...

    def sessions(self) -> list[SessionRecord]:
        """Return all sessions, live or not."""
        ...

    def put_session(self, record: SessionRecord) -> None:
        """Create or replace an owner's session."""
        ...

    def remove_session(self, owner: ObjectId) -> None:
        """Remove an owner's session that exists."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked and encoded operation. `body` is the encoded object of a Create or Update."""

    operation: Operation
    body: bytes = b""


def prepare(operations: Sequence[Operation]) -> list[Prepared]:
    """Encode operations. Raises UserError over the limits of a transaction."""
    if len(operations) > MAX_OPERATIONS:
        raise UserError(
            f"A transaction has at most {MAX_OPERATIONS} operations, not {len(operations)}."
        )
    prepared = []
    size = 0
    for operation in operations:
        body = b""
        if isinstance(operation, Create | Update):
            body = codec.encode(operation.value)
            size += len(body)
        elif isinstance(operation, PutState):
            size += len(operation.table) + len(operation.key) + len(operation.value)
        prepared.append(Prepared(operation, body))
    if size > MAX_TRANSACTION_BYTES:
        raise UserError(f"A transaction has at most {MAX_TRANSACTION_BYTES} bytes, not {size}.")
    return prepared


def object_id_of(value: msgspec.Struct) -> ObjectId:
    """Return the identifier of an object; every stored kind has the field `id`."""
    object_id: ObjectId = value.id  # type: ignore[attr-defined]
    return object_id


def targets_of(value: msgspec.Struct, reference: Reference) -> tuple[ObjectId, ...]:
    """Return the identifiers that `value` holds in the field of `reference`."""
    held = reference.held_by(value)
    if held is None:
        return ()
    if isinstance(held, tuple):
        return held
    assert isinstance(held, ObjectId)
    return (held,)


def index_entries(value: msgspec.Struct) -> frozenset[IndexEntry]:
    """Return the index entries that the references of `value` call for."""
    kind = type(value)
    source_id = object_id_of(value)
    return frozenset(
        IndexEntry(reference.target.__name__, target_id, kind.__name__, reference.field, source_id)
        for reference in references_from(kind)
        for target_id in targets_of(value, reference)
    )


_EXCLUSIVE = frozenset(
    (kind.__name__, reference.field)
    for kind in codec.kinds()
    for reference in references_from(kind)
    if reference.is_exclusive
)

_SEQUENCES_PER_REVISION = 2 * MAX_OPERATIONS
"""A revision writes fewer state entries than this, so `sequence` is derived from it."""


class Transaction:
    """One atomic change of `tables`, which becomes the store's `revision` when it has marks."""

    def __init__(self, tables: Tables, revision: int, now: BootTime) -> None:
        self.marks: set[Mark] = set()
        self._tables = tables
        self._revision = revision
        self._now = now
        self._state_writes = 0
        self._removed: dict[tuple[str, ObjectId], None] = {}
        self._referred: dict[IndexEntry, None] = {}

    def apply(self, prepared: Sequence[Prepared]) -> None:
        """Apply operations in order, then check references against the result.

        Raises ConflictError, ReferencedError, NotFoundError, SchemaTooNewError.
        """
        for item in prepared:
            operation = item.operation
            match operation:
                case Create():
                    self._create(operation, item.body)
                case Update():
                    self._update(operation, item.body)
                case Delete():
                    self._delete(operation)
                case Check():
                    self._expect(operation.kind, operation.object_id, operation.version)
                case PutState():
                    self._put_state(operation)
                case DropState():
                    self._drop_state(operation)
                case _:
                    assert_never(operation)
        self._check_references()

    def put_session(self, record: SessionRecord) -> None:
        """Open or extend a session."""
        self._tables.put_session(record)

    def write_state(self, entry: PutState) -> None:
        """Write a state entry without asking for a session."""
        self._state_writes += 1
        sequence = self._revision * _SEQUENCES_PER_REVISION + self._state_writes
        self._tables.put_state(
            StateEntry(
                entry.table,
                entry.key,
                entry.value,
                entry.owner,
                entry.epoch,
                sequence,
                entry.is_persistent,
            )
        )
        self.marks.add(TableKey(entry.table, entry.key))

    def end_session(self, owner: ObjectId) -> None:
        """Remove a session and every entry that lived by it."""
        for place in self._tables.ephemeral_keys(owner):
            self._tables.remove_state(place.table, place.key, owner)
            self.marks.add(place)
        self._tables.remove_session(owner)

    def _create(self, operation: Create, body: bytes) -> None:
        kind = type(operation.value)
        object_id = object_id_of(operation.value)
        name = codec.kind_name(kind)
        if self._tables.object(name, object_id) is not None:
            raise ConflictError(f"There is already a {name} with ID {object_id}.")
        self._put(operation.value, body, version=0)
        self._removed.pop((name, object_id), None)
        self.marks.add(AllOf(kind))

    def _update(self, operation: Update, body: bytes) -> None:
        kind = type(operation.value)
        object_id = object_id_of(operation.value)
        stored = self._expect(kind, object_id, operation.version)
        if stored.schema > codec.SCHEMA_VERSION:
            raise SchemaTooNewError(
                f"{kind.__name__} {object_id} was written by schema {stored.schema}; this"
                f" process knows schema {codec.SCHEMA_VERSION} and must not rewrite it."
            )
        self._put(operation.value, body, version=stored.version + 1)

    def _delete(self, operation: Delete) -> None:
        self._expect(operation.kind, operation.object_id, operation.version)
        name = codec.kind_name(operation.kind)
        held = self._tables.index_entries_of(name, operation.object_id)
        self._change_index(held, frozenset())
        self._tables.remove_object(name, operation.object_id)
        self._removed[name, operation.object_id] = None
        for table in StateTables.of_object(operation.kind, operation.object_id):
            for entry in self._tables.entries_below(table):
                self._tables.remove_state(entry.table, entry.key, entry.owner)
                self.marks.add(TableKey(entry.table, entry.key))
        self.marks.add(AllOf(operation.kind))
        self.marks.add(ObjectKey(operation.kind, operation.object_id))

    def _expect(
        self, kind: type[msgspec.Struct], object_id: ObjectId, version: int | None
    ) -> StoredObject:
        name = codec.kind_name(kind)
        stored = self._tables.object(name, object_id)
        if stored is None:
            raise NotFoundError(name, object_id)
        if version is not None and version != stored.version:
            raise MovedError(name, object_id, stored.version, version)
        return stored

    def _put(self, value: msgspec.Struct, body: bytes, version: int) -> None:
        kind = type(value)
        object_id = object_id_of(value)
        self._tables.put_object(
            kind.__name__,
            object_id,
            StoredObject(version, codec.SCHEMA_VERSION, self._revision, body),
        )
        wanted = index_entries(value)
        held: frozenset[IndexEntry] = frozenset()
        if version > 0:
            held = self._tables.index_entries_of(kind.__name__, object_id)
        self._change_index(held - wanted, wanted - held)
        self.marks.add(ObjectKey(kind, object_id))

    def _change_index(self, removed: frozenset[IndexEntry], added: frozenset[IndexEntry]) -> None:
        if not removed and not added:
            return
        self._tables.change_index(removed, added)
        for entry in removed:
            self._referred.pop(entry, None)
        self._referred.update(dict.fromkeys(added))
        for entry in removed | added:
            kind = codec.kind_named(entry.kind)
            if kind is not None:
                self.marks.add(Referrers(kind, entry.field, entry.target_id))

    def _check_references(self) -> None:
        for entry in self._referred:
            if self._tables.object(entry.target_kind, entry.target_id) is None:
                raise NotFoundError(entry.target_kind, entry.target_id)
            if (entry.kind, entry.field) in _EXCLUSIVE and self._tables.count_referrers(entry) > 1:
                raise ConflictError(
                    f"{entry.target_kind} {entry.target_id} is already the {entry.field} of"
                    f" another {entry.kind}."
                )
        for kind, object_id in self._removed:
            entry_left = self._tables.referrer(kind, object_id)
            if entry_left is not None:
                raise ReferencedError(
                    f"{kind} {object_id} is the {entry_left.field} of {entry_left.kind}"
                    f" {entry_left.source_id}."
                )

    def _put_state(self, operation: PutState) -> None:
        held = self._tables.state_entry(operation.table, operation.key, operation.owner)
        if held is not None and held.epoch > operation.epoch:
            raise ConflictError(
                f"{operation.table} {operation.key} of {operation.owner} is at epoch"
                f" {held.epoch}, later than {operation.epoch}."
            )
        if not operation.is_persistent:
            session = self._tables.session(operation.owner)
            if session is None or not session.is_live(self._now):
                raise NoSessionError(f"{operation.owner} has no live session.")
        self.write_state(operation)

    def _drop_state(self, operation: DropState) -> None:
        held = self._tables.state_entry(operation.table, operation.key, operation.owner)
        if held is None or operation.value not in (None, held.value):
            return
        self._tables.remove_state(operation.table, operation.key, operation.owner)
        self.marks.add(TableKey(operation.table, operation.key))


def winner(entries: Iterable[StateEntry]) -> StateEntry | None:
    """Return the entry of one key that counts: learnt before persistent, then the newest."""
    return max(entries, key=lambda entry: (not entry.is_persistent, entry.sequence), default=None)
