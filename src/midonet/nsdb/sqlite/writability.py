"""Since when a store takes writes without a break, as one process sees it.

An owner cannot extend its session while nobody can write, so what ends sessions has to know of
such times: they prove nothing about the owner.
"""

from __future__ import annotations

from collections.abc import Callable

from midonet.nsdb.transaction import BootTime

LONGEST_WAIT_S = 1.0
"""A write that waits longer than this for its turn counts as an interruption."""


class Writability:
    """Notes interruptions. Written by the writing thread, read by any."""

    def __init__(self, now: Callable[[], BootTime]) -> None:
        """The time before this process opened the store counts as one: it saw nothing of it."""
        self._now = now
        self._since_s = now().seconds

    @property
    def since_s(self) -> float:
        """Return the boot time (s) at which the last interruption was over, or last noticed."""
        return self._since_s

    def note_refusal(self) -> None:
        """Note that a write has just failed for want of the store."""
        self._since_s = self._now().seconds

    def note_wait(self, begun_s: float) -> None:
        """Note that a write that began to wait at boot time `begun_s` (s) has its turn."""
        now_s = self._now().seconds
        if now_s - begun_s > LONGEST_WAIT_S:
            self._since_s = now_s
