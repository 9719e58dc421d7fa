"""When to try again what was refused: after a pause that doubles, for each thing by itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from midonet.runtime.clock import Clock

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Retries:
    """What failed, by what it is about, with the time of its next attempt in s."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pauses_s: dict[Hashable, float] = {}
        self._due_s: dict[Hashable, float] = {}
        self._begun_s = clock.now_s()

    def __bool__(self) -> bool:
        return bool(self._due_s)

    def may_try(self, key: Hashable) -> bool:
        """Tell whether something has not failed, or its pause is over."""
        return self._due_s.get(key, self._begun_s) <= self._begun_s

    def failed(self, key: Hashable, *, is_away: bool = False) -> None:
        """Note that an attempt failed. is_away: because something outside is away, which says
        nothing about the attempt; the pause does not grow."""
        pause_s = FIRST_PAUSE_S if is_away else self._pauses_s.get(key, FIRST_PAUSE_S)
        self._pauses_s[key] = min(2 * pause_s, LONGEST_PAUSE_S)
        self._due_s[key] = self._clock.now_s() + pause_s

    def succeeded(self, key: Hashable) -> None:
        """Note that an attempt succeeded, or is not to be made any more."""
        self._pauses_s.pop(key, None)
        self._due_s.pop(key, None)

    def begin(self) -> None:
        """Begin a pass, which makes every attempt that is wanted and due."""
        self._begun_s = self._clock.now_s()

    def end(self) -> None:
        """End a pass: what was due and was not attempted is not wanted any more."""
        for key in [key for key, due_s in self._due_s.items() if due_s <= self._begun_s]:
            self.succeeded(key)

    def hurry(self) -> None:
        """Let everything be tried at once: what was in the way may be gone."""
        self._due_s = dict.fromkeys(self._due_s, self._begun_s)

    def due_s(self) -> Iterable[float]:
        """Return when attempts are due, in s."""
        return self._due_s.values()
