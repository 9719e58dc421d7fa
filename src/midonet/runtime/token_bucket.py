"""A token bucket: so many events a second, with a burst."""

from __future__ import annotations

_NS_PER_S = 1_000_000_000


class TokenBucket:
    """Starts full. Times are in nanoseconds of any clock that does not go back."""

    def __init__(self, rate_per_s: int, burst: int, now_ns: int) -> None:
        self._rate = rate_per_s
        self._burst_ns = burst * _NS_PER_S
        self._level_ns = self._burst_ns
        self._updated_ns = now_ns

    def take(self, now_ns: int, count: int = 1) -> bool:
        """Take so many tokens. Returns False, and takes none, when there are fewer."""
        elapsed_ns = max(0, now_ns - self._updated_ns)
        self._updated_ns = now_ns
        # The level counts tokens times 10^9, so that no fraction of a token is ever lost.
        self._level_ns = min(self._burst_ns, self._level_ns + elapsed_ns * self._rate)
        if self._level_ns < count * _NS_PER_S:
            return False
        self._level_ns -= count * _NS_PER_S
        return True
