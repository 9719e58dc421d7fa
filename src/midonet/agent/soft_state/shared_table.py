"""One replicated state table as an agent sees it: the store's entries, and its own writes ahead.

What this agent learns counts here at once, before the store has it: a *pending* value hides the
store's entry of the same key until the store has answered with ours, or with a newer one of
another owner. A pending removal hides it in the same way. Methods return the keys whose
effective value changed, so that each change is reported exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from midonet.errors import DecodeError
from midonet.model.ids import ObjectId
from midonet.nsdb.store import StateEntry

K = TypeVar("K")
V = TypeVar("V")

_SETTLE_S = 2.0
"""Longest time between the store's acceptance of a write and the arrival of its echo."""


@dataclass(slots=True)
class Held(Generic[V]):
    """An entry as the store has it. confirmed_s: when it was last seen to be written."""

    value: V
    owner: ObjectId
    is_persistent: bool
    confirmed_s: float


@dataclass(slots=True)
class _Pending(Generic[V]):
    value: V | None
    since_s: float
    written_s: float | None = None
    is_refused: bool = False


class SharedTable(Generic[K, V]):
    """Entries of one table, by decoded key.

    lost: keys of ours that ended without our doing. found: keys that the store has in our name
    and that are news to us. displaced: keys that another owner's entry took over. The reader
    empties these lists. malformed: how many entries could not be understood.
    """

    def __init__(
        self,
        name: str,
        owner: ObjectId,
        decode: Callable[[str, str], tuple[K, V]],
        decode_key: Callable[[str], K],
    ) -> None:
        """`decode` turns (key, value) text into typed form; both raise DecodeError."""
        self.name = name
        self.lost: list[K] = []
        self.found: list[K] = []
        self.displaced: list[K] = []
        self.malformed = 0
        self._owner = owner
        self._decode = decode
        self._decode_key = decode_key
        self._held: dict[K, Held[V]] = {}
        self._pending: dict[K, _Pending[V]] = {}

    def get(self, key: K) -> V | None:
        """Return the effective value, or None."""
        pending = self._pending.get(key)
        if pending is not None:
            return pending.value
        held = self._held.get(key)
        return held.value if held is not None else None

    def confirmed_s(self, key: K) -> float | None:
        """Return when the effective entry was last written; None when it never ages or is not
        there."""
        pending = self._pending.get(key)
        if pending is not None:
            return pending.since_s if pending.value is not None else None
        held = self._held.get(key)
        return held.confirmed_s if held is not None and not held.is_persistent else None

    def is_mine(self, key: K) -> bool:
        """Tell whether the effective entry is this agent's own."""
        pending = self._pending.get(key)
        if pending is not None:
            return pending.value is not None
        held = self._held.get(key)
        return held is not None and self._is_ours(held)

    def keys(self) -> Iterable[K]:
        """Return the keys with an effective value."""
        hidden = {key for key, pending in self._pending.items() if pending.value is None}
        return (self._held.keys() | self._pending.keys()) - hidden

    def write(self, key: K, value: V, now_s: float) -> bool:
        """Take a value of our own into effect; tell whether the effective value changed."""
        changed = self.get(key) != value
        self._pending[key] = _Pending(value, now_s)
        return changed

    def erase(self, key: K, now_s: float) -> bool:
        """Take our own entry out of effect; no effect on the entry of another owner."""
        if not self.is_mine(key):
            return False
        self._pending[key] = _Pending(None, now_s)
        return True

    def values(self) -> set[V]:
        """Return the effective values."""
        return {value for key in self.keys() if (value := self.get(key)) is not None}

    def has_ours(self, key: K) -> bool:
        """Tell whether the store holds, or may hold, an entry of ours."""
        held = self._held.get(key)
        if held is not None and self._is_ours(held):
            return True
        pending = self._pending.get(key)
        return pending is not None and pending.written_s is not None

    def forget(self, key: K) -> bool:
        """Drop a value of our own that the store never had; tell whether the effective value
        changed."""
        return key in self._pending and self._reveal(key)

    def written(self, key_text: str, now_s: float, *, is_refused: bool = False) -> None:
        """Note that the store has accepted the write of a key, or has refused it for good."""
        pending = self._pending.get(self._decode_key(key_text))
        if pending is not None and pending.written_s is None:
            pending.written_s = now_s
            pending.is_refused = is_refused

    def settle(self, now_s: float) -> list[K]:
        """Trust the store for keys whose accepted write has had no echo; return the changed.

        An accepted value of which the store shows nothing at all went with our session before
        it could be seen; it is `lost`, and stays in effect.
        """
        overdue = [
            key
            for key, pending in self._pending.items()
            if pending.written_s is not None and now_s - pending.written_s > _SETTLE_S
        ]
        for key in overdue:
            pending = self._pending[key]
            if pending.value is not None and not pending.is_refused and key not in self._held:
                pending.written_s = None
                self.lost.append(key)
        return [key for key in overdue if key not in self.lost and self._reveal(key)]

    def apply(self, key_text: str, entry: StateEntry | None, now_s: float) -> K | None:
        """Take the store's entry; return the key when its effective value changed.

        An entry of ours that ends without our doing (the session was lost) stays in effect, as
        a value that the store does not have yet. One whose value is malformed is counted and is
        like none. Raises DecodeError when the key is malformed; no entry can be under it.
        """
        key = self._decode_key(key_text)
        before = self.get(key)
        held = self._held.pop(key, None)
        if entry is None and held is not None and self._is_ours(held) and key not in self._pending:
            self._pending[key] = _Pending(held.value, now_s)
            self.lost.append(key)
        if entry is not None:
            self._hold(key, held, entry, now_s)
        pending = self._pending.get(key)
        if pending is not None and self._is_answered(pending, self._held.get(key)):
            del self._pending[key]
        return key if self.get(key) != before else None

    def _hold(self, key: K, before: Held[V] | None, entry: StateEntry, now_s: float) -> None:
        try:
            value = self._decode(entry.key, entry.value)[1]
        except DecodeError:
            self.malformed += 1
            return
        held = self._held[key] = Held(value, entry.owner, entry.is_persistent, now_s)
        if not self._is_ours(held):
            self.displaced.append(key)
        elif key not in self._pending and (before is None or not self._is_ours(before)):
            self.found.append(key)

    def _is_answered(self, pending: _Pending[V], held: Held[V] | None) -> bool:
        is_ours = held is not None and self._is_ours(held)
        if pending.value is None:
            return not is_ours
        if is_ours:
            return held is not None and held.value == pending.value
        return held is not None and pending.written_s is not None

    def _is_ours(self, held: Held[V]) -> bool:
        return held.owner == self._owner and not held.is_persistent

    def _reveal(self, key: K) -> bool:
        before = self.get(key)
        del self._pending[key]
        return self.get(key) != before
