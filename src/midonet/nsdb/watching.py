"""Watchers: a set of marked keys, and the state of those keys when the consumer asks.

A change only marks keys; their state is read when `changes` is called. So any number of writes
between two calls costs one entry a key, what is reported is never older than what was reported
before, and after a gap in the history it is enough to mark everything: what did not change is
recognised by the fingerprint of what was last reported and is not reported again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from midonet.errors import InternalError
from midonet.model.ids import ObjectId
from midonet.nsdb.store import (
    AllOf,
    Change,
    IdsChange,
    ObjectChange,
    ObjectKey,
    Referrers,
    StateEntry,
    Table,
    TableChange,
    Versioned,
    WatchKey,
)
from midonet.nsdb.transaction import Mark, TableKey

Marked = WatchKey | TableKey
"""A watch key, or one key of a watched table."""


@dataclass(slots=True)
class WatchState:
    """The present state of marked keys, read from the store in one moment.

    objects: by key, the object and the store revision of its last write; absent ones missing.
    tables: winning entries of whole tables. table_keys: of single keys, None when gone.
    """

    objects: dict[ObjectKey, tuple[int, Versioned[msgspec.Struct]]] = field(default_factory=dict)
    ids: dict[Referrers | AllOf, frozenset[ObjectId]] = field(default_factory=dict)
    tables: dict[Table, dict[str, StateEntry]] = field(default_factory=dict)
    table_keys: dict[TableKey, StateEntry | None] = field(default_factory=dict)


class WatchSource(Protocol):
    """What a watcher needs of its store."""

    @property
    def watch_index(self) -> WatchIndex:
        """Return where watchers register for marks."""
        ...

    async def watch_state(self, marked: Sequence[Marked]) -> WatchState:
        """Read the present state of marked keys. Raises UnavailableError."""
        ...


class WatchIndex:
    """Which watchers watch which key. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: dict[WatchKey, set[StoreWatcher]] = {}
        self._members: set[StoreWatcher] = set()

    def join(self, watcher: StoreWatcher) -> None:
        """Let `close` end a watcher, whatever it watches."""
        self._members.add(watcher)

    def leave(self, watcher: StoreWatcher) -> None:
        """Undo `join`."""
        self._members.discard(watcher)

    def add(self, key: WatchKey, watcher: StoreWatcher) -> None:
        """Register a watcher for a key."""
        self._watchers.setdefault(key, set()).add(watcher)

    def remove(self, key: WatchKey, watcher: StoreWatcher) -> None:
        """Undo `add`; nothing happens when it was not registered."""
        watchers = self._watchers.get(key)
        if watchers is None:
            return
        watchers.discard(watcher)
        if not watchers:
            del self._watchers[key]

    def dispatch(self, marks: Iterable[Mark]) -> None:
        """Mark keys at the watchers concerned."""
        for mark in marks:
            key = Table(mark.table) if isinstance(mark, TableKey) else mark
            for watcher in self._watchers.get(key, ()):
                watcher.mark(mark)

    def dispatch_all(self) -> None:
        """Mark every watched key: the history since the last marks is gone."""
        for key, watchers in self._watchers.items():
            for watcher in watchers:
                watcher.mark(key)

    def close(self) -> None:
        """End every watcher."""
        for watcher in list(self._members):
            watcher.end()


_NOTHING_REPORTED = object()


@dataclass(slots=True, eq=False)
class _Registration:
    """One stay of a key in a watcher, with the fingerprint of what was last reported."""

    reported: object = _NOTHING_REPORTED
    sequences: dict[str, int] = field(default_factory=dict)


class StoreWatcher:
    """The `Watcher` of every store that marks keys. One consumer may call `changes`."""

    def __init__(self, source: WatchSource) -> None:
        self._source = source
        self._registrations: dict[WatchKey, _Registration] = {}
        self._marked: dict[Marked, None] = {}
        self._wake = asyncio.Event()
        self._is_closed = False
        source.watch_index.join(self)

    def add(self, keys: Sequence[WatchKey]) -> None:
        """Start watching; a key that is watched already is left as it is."""
        for key in keys:
            if self._is_closed or key in self._registrations:
                continue
            self._registrations[key] = _Registration()
            self._source.watch_index.add(key, self)
            self.mark(key)

    def remove(self, keys: Sequence[WatchKey]) -> None:
        """Stop watching and forget what is pending for the keys."""
        for key in keys:
            if self._registrations.pop(key, None) is None:
                continue
            self._source.watch_index.remove(key, self)
            self._marked.pop(key, None)
            if isinstance(key, Table):
                for marked in [one for one in self._marked if _watch_key(one) == key]:
                    del self._marked[marked]

    def mark(self, marked: Marked) -> None:
        """Note that the state of a key may have changed."""
        self._marked[marked] = None
        self._wake.set()

    async def changes(self) -> list[Change]:
        """Wait for changes; an empty list when the watcher is closed."""
        while not self._is_closed:
            if not self._marked:
                self._wake.clear()
                await self._wake.wait()
                continue
            marked = self._take_marked()
            registrations = dict(self._registrations)
            is_read = False
            try:
                state = await self._source.watch_state(marked)
                is_read = True
            finally:
                if not is_read:
                    self._restore(marked)
            changes = self._report(marked, registrations, state)
            if changes and not self._is_closed:
                return changes
        return []

    async def close(self) -> None:
        """Stop all watches and wake a waiting `changes`."""
        self.end()

    def end(self) -> None:
        """Do what `close` does; for the store, which ends all its watchers."""
        self._is_closed = True
        self._source.watch_index.leave(self)
        for key in self._registrations:
            self._source.watch_index.remove(key, self)
        self._registrations.clear()
        self._marked.clear()
        self._wake.set()

    def _take_marked(self) -> list[Marked]:
        marked = [
            one
            for one in self._marked
            if not (isinstance(one, TableKey) and Table(one.table) in self._marked)
        ]
        self._marked.clear()
        return marked

    def _restore(self, marked: Sequence[Marked]) -> None:
        for one in marked:
            if _watch_key(one) in self._registrations:
                self.mark(one)

    def _report(
        self,
        marked: Sequence[Marked],
        registrations: dict[WatchKey, _Registration],
        state: WatchState,
    ) -> list[Change]:
        changes: list[Change] = []
        table_entries: dict[Table, list[tuple[str, StateEntry | None]]] = {}
        for one in marked:
            key = _watch_key(one)
            registration = self._registrations.get(key)
            if registration is None or registration is not registrations.get(key):
                continue
            match one:
                case ObjectKey():
                    revision, current = state.objects.get(one, (None, None))
                    if registration.reported != revision:
                        registration.reported = revision
                        changes.append(ObjectChange(one, current))
                case Referrers() | AllOf():
                    ids = state.ids[one]
                    if registration.reported != ids:
                        registration.reported = ids
                        changes.append(IdsChange(one, ids))
                case Table():
                    entries = _changed_entries(registration, state.tables[one])
                    if entries or registration.reported is _NOTHING_REPORTED:
                        registration.reported = None
                        changes.append(TableChange(one, tuple(entries)))
                case TableKey():
                    entry = state.table_keys[one]
                    if _is_news(registration, one.key, entry):
                        assert isinstance(key, Table)
                        table_entries.setdefault(key, []).append((one.key, entry))
                case _:
                    raise InternalError(f"{one!r} cannot be watched")
        changes.extend(TableChange(key, tuple(news)) for key, news in table_entries.items())
        return changes


def _watch_key(marked: Marked) -> WatchKey:
    return Table(marked.table) if isinstance(marked, TableKey) else marked


def _changed_entries(
    registration: _Registration, present: dict[str, StateEntry]
) -> list[tuple[str, StateEntry | None]]:
    gone = [key for key in registration.sequences if key not in present]
    news: list[tuple[str, StateEntry | None]] = [
        (key, None) for key in gone if _is_news(registration, key, None)
    ]
    news.extend(
        (key, entry) for key, entry in present.items() if _is_news(registration, key, entry)
    )
    return news


def _is_news(registration: _Registration, key: str, entry: StateEntry | None) -> bool:
    sequence = None if entry is None else entry.sequence
    if registration.sequences.get(key) == sequence:
        return False
    if sequence is None:
        del registration.sequences[key]
    else:
        registration.sequences[key] = sequence
    return True
