"""Which sequences of a sender are new. Pure."""

from __future__ import annotations

WINDOW = 1024
"""How far behind the highest sequence one may be that has not been seen yet."""


class ReplayWindow:
    """Tells new sequences from repeated and very old ones (RFC 4303 section 3.4.3).

    A new epoch of the sender, which it begins with each start, begins anew; an earlier one than
    the present is over.
    """

    __slots__ = ("_epoch", "_highest", "_seen")

    def __init__(self) -> None:
        self._epoch = -1
        self._highest = 0
        self._seen = 0  # bit n: the sequence `_highest - n` was there

    def take(self, epoch: int, sequence: int) -> bool:
        """Note a sequence; tell whether it is new."""
        if epoch < self._epoch:
            return False
        if epoch > self._epoch:
            self._epoch, self._highest, self._seen = epoch, sequence, 1
            return True
        ahead = sequence - self._highest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
            self._highest = sequence
            return True
        if ahead <= -WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True
