"""Watchers: a set of marked keys, and the state of those keys when the consumer asks.

A change only marks keys; their state is read when `changes` is called. So any number of writes
between two calls costs one entry a key, what is reported is never older than what was reported
before, and after a gap in the history it is enough to mark everything: what did not change is
recognised by the fingerprint of what was last reported and is not reported again.

A watcher that was told how to `follow` reads ahead: one visit to the store brings the marked
keys and what hangs on them, level by level. What was read ahead waits here, marked like any
watched key, until the consumer adds its key or stops asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from midonet.errors import InternalError
from midonet.model.ids import ObjectId
from midonet.nsdb.store import (
    AllOf,
    Change,
    Follow,
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

MAX_READ_AHEAD = 20_000
"""Most keys that one visit to the store reads beyond those that were asked for."""


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


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """How to go on from what was read. is_known: the keys that need not be read again."""

    follow: Follow
    is_known: Callable[[WatchKey], bool]


def read_levels(
    marked: Sequence[Marked],
    ahead: ReadAhead | None,
    read: Callable[[Sequence[Marked], WatchState], None],
) -> tuple[WatchState, list[WatchKey]]:
    """Read marked keys and, level by level, what follows from them.

    read: puts the state of keys into the given state. Returns the state of all, and the keys
    that were read ahead, at most MAX_READ_AHEAD.
    """
    state = WatchState()
    found: dict[WatchKey, None] = {}
    level = marked
    while level:
        read(level, state)
        if ahead is None:
            break
        following: dict[WatchKey, None] = {}
        for one in level:
            if not isinstance(one, ObjectKey | Referrers | AllOf):
                continue
            for key in ahead.follow(_present(one, state)):
                if key not in found and not ahead.is_known(key):
                    following[key] = None
        if len(found) + len(following) > MAX_READ_AHEAD:
            break
        found |= following
        level = tuple(following)
    return state, list(found)


def _present(key: ObjectKey | Referrers | AllOf, state: WatchState) -> Change:
    if isinstance(key, ObjectKey):
        return ObjectChange(key, state.objects.get(key, (0, None))[1])
    return IdsChange(key, state.ids[key])


class WatchSource(Protocol):
    """What a watcher needs of its store."""

    @property
    def watch_index(self) -> WatchIndex:
        """Return where watchers register for marks."""
        ...

    async def watch_state(
        self, marked: Sequence[Marked], ahead: ReadAhead | None
    ) -> tuple[WatchState, list[WatchKey]]:
        """Read the present state of marked keys, all in one moment, and what `read_levels`
        finds ahead of them. Raises UnavailableError."""
        ...


class WatchIndex:
    """Which watchers watch which key. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: dict[WatchKey, set[StoreWatcher]] = {}
        self._members: set[StoreWatcher] = set()
        self._readers: set[StoreWatcher] = set()

    def join(self, watcher: StoreWatcher) -> None:
        """Let `close` end a watcher, whatever it watches."""
        self._members.add(watcher)

    def leave(self, watcher: StoreWatcher) -> None:
        """Undo `join`."""
        self._members.discard(watcher)
        self._readers.discard(watcher)

    def begin_read(self, watcher: StoreWatcher) -> None:
        """Tell a watcher of every mark, since it is reading keys that it does not watch yet."""
        self._readers.add(watcher)

    def end_read(self, watcher: StoreWatcher) -> None:
        """Undo `begin_read`."""
        self._readers.discard(watcher)

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
            for watcher in tuple(self._watchers.get(key, ())):
                watcher.stale(mark)
            for reader in self._readers:
                reader.overhear(key)

    def dispatch_all(self) -> None:
        """Mark every watched key: the history since the last marks is gone."""
        for key, watchers in list(self._watchers.items()):
            for watcher in tuple(watchers):
                watcher.stale(key)
        for reader in self._readers:
            reader.overhear(None)

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


class _Ahead:
    """What one watcher has read of keys that nobody has added yet, or not taken yet.

    The index marks these keys like watched ones: a change in between makes them unknown again.
    overheard: keys that changed while they were being read, before the index knew of them.
    """

    def __init__(self, index: WatchIndex, watcher: StoreWatcher) -> None:
        self._index = index
        self._watcher = watcher
        self._claimed: dict[WatchKey, bool] = {}
        self.state = WatchState()
        self.overheard: set[WatchKey | None] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._claimed

    def begin(self) -> None:
        """Take note of all changes from now on."""
        self.overheard.clear()
        self._index.begin_read(self._watcher)

    def end(self) -> None:
        """Undo `begin`."""
        self._index.end_read(self._watcher)

    def keep(
        self,
        found: Iterable[WatchKey],
        state: WatchState,
        registrations: dict[WatchKey, _Registration],
    ) -> None:
        """Hold what was read ahead, unless it is watched or changed meanwhile."""
        if None in self.overheard:
            return
        for key in found:
            if key in registrations or key in self.overheard or key in self._claimed:
                continue
            self._claimed[key] = False
            self._index.add(key, self._watcher)
            if isinstance(key, ObjectKey):
                if key in state.objects:
                    self.state.objects[key] = state.objects[key]
            elif isinstance(key, Referrers | AllOf):
                self.state.ids[key] = state.ids[key]
            elif isinstance(key, Table):
                self.state.tables[key] = state.tables[key]

    def claim(self, key: WatchKey) -> bool:
        """Tell whether a key that is added now is marked by the index already."""
        if key not in self._claimed:
            return False
        self._claimed[key] = True
        return True

    def delivered(self, key: Marked) -> None:
        """Let go of what was reported."""
        self._drop(_watch_key(key))

    def forget(self, key: WatchKey) -> None:
        """Let go of a key that changed, or that is not wanted any more."""
        if key in self._claimed and not self._drop(key):
            self._index.remove(key, self._watcher)

    def clear(self) -> None:
        """Let go of everything."""
        for key in list(self._claimed):
            self.forget(key)

    def _drop(self, key: WatchKey) -> bool:
        if isinstance(key, ObjectKey):
            self.state.objects.pop(key, None)
        elif isinstance(key, Referrers | AllOf):
            self.state.ids.pop(key, None)
        elif isinstance(key, Table):
            self.state.tables.pop(key, None)
        return self._claimed.pop(key)


class StoreWatcher:
    """The `Watcher` of every store that marks keys. One consumer may call `changes`."""

    def __init__(self, source: WatchSource, follow: Follow | None = None) -> None:
        self._source = source
        self._registrations: dict[WatchKey, _Registration] = {}
        self._marked: dict[Marked, None] = {}
        self._ahead = _Ahead(source.watch_index, self)
        self._read_ahead = None if follow is None else ReadAhead(follow, self._is_known)
        self._wake = asyncio.Event()
        self._is_closed = False
        source.watch_index.join(self)

    def add(self, keys: Sequence[WatchKey]) -> None:
        """Start watching; a key that is watched already is left as it is."""
        for key in keys:
            if self._is_closed or key in self._registrations:
                continue
            self._registrations[key] = _Registration()
            if not self._ahead.claim(key):
                self._source.watch_index.add(key, self)
            self.mark(key)

    def remove(self, keys: Sequence[WatchKey]) -> None:
        """Stop watching and forget what is pending for the keys."""
        for key in keys:
            if self._registrations.pop(key, None) is None:
                continue
            self._source.watch_index.remove(key, self)
            self._ahead.forget(key)
            self._marked.pop(key, None)
            if isinstance(key, Table):
                for marked in [one for one in self._marked if _watch_key(one) == key]:
                    del self._marked[marked]

    def mark(self, marked: Marked) -> None:
        """Note that the state of a key may have changed."""
        if _watch_key(marked) in self._registrations:
            self._marked[marked] = None
            self._wake.set()

    def stale(self, marked: Marked) -> None:
        """Do what `mark` does for a change in the store: what was read ahead holds no more."""
        self._ahead.forget(_watch_key(marked))
        self.mark(marked)

    def overhear(self, key: WatchKey | None) -> None:
        """Note that a key, or any (None), changed while keys not watched yet are being read."""
        self._ahead.overheard.add(key)

    async def changes(self) -> list[Change]:
        """Wait for changes; an empty list when the watcher is closed."""
        while not self._is_closed:
            if not self._marked:
                self._ahead.clear()
                self._wake.clear()
                await self._wake.wait()
                continue
            if any(one in self._ahead for one in self._marked):
                await asyncio.sleep(0)  # others run between the levels of what was read ahead
                changes = self._take_ahead()
            else:
                changes = await self._read()
            if changes and not self._is_closed:
                return changes
        return []

    def _take_ahead(self) -> list[Change]:
        known = [one for one in self._marked if one in self._ahead]
        changes = self._report(known, self._registrations, self._ahead.state)
        for one in known:
            del self._marked[one]
            self._ahead.delivered(one)
        return changes

    async def _read(self) -> list[Change]:
        marked = self._take_marked()
        registrations = dict(self._registrations)
        is_read = False
        self._ahead.begin()
        try:
            state, found = await self._source.watch_state(marked, self._read_ahead)
            is_read = True
        finally:
            self._ahead.end()
            if not is_read:
                self._restore(marked)
        if not self._is_closed:
            self._ahead.keep(found, state, self._registrations)
        return self._report(marked, registrations, state)

    async def close(self) -> None:
        """Stop all watches and wake a waiting `changes`."""
        self.end()

    def end(self) -> None:
        """Do what `close` does; for the store, which ends all its watchers."""
        self._is_closed = True
        self._source.watch_index.leave(self)
        self._ahead.clear()
        for key in self._registrations:
            self._source.watch_index.remove(key, self)
        self._registrations.clear()
        self._marked.clear()
        self._wake.set()

    def _is_known(self, key: WatchKey) -> bool:
        # From another thread: a key that comes or goes meanwhile is read once too often.
        return key in self._registrations or key in self._ahead

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
