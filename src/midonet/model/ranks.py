"""Ranks: texts that order the rules of a chain, so that a rule is put between two others
without rewriting either.

A rank is a fraction between 0 and 1 in hexadecimal digits; ranks compare as texts do. It never
changes while its rule lives. Two clients that insert at one place at the same time get different
ranks by chance (`entropy`); should they not, the rules' ids decide.

Ranks have 16 digits in a chain that grows at its ends. Between two neighbours digits are added,
eight at a time, only when the gap is used up. A new rank lies close to the neighbour with more
digits, the one that was put there later, so that a series of insertions at one place uses a gap
65,536 times before it needs more digits.
"""

from __future__ import annotations

from midonet.errors import UserError

MAX_DIGITS = 8192
_TOP_DIGITS = 16
_STEP_DIGITS = 8
_TOP = 1 << 4 * _TOP_DIGITS
_SPACING = 1 << 32
_SMALLEST_GAP = 1 << 32
_NEAR_SHIFT = 16


def spread(count: int) -> list[str]:
    """Return ranks for a whole chain, in order."""
    first = _TOP // 2
    return [_digits(first + place * _SPACING, _TOP_DIGITS) for place in range(count)]


def between(low: str | None, high: str | None, entropy: int) -> str:
    """Return a rank above `low` and below `high`; None stands for an end of the chain.

    entropy: any non-negative number, random, 64 bits wide. When the two are equal or out of
    order (their rules were put there at the same time), the rank is just above `low`. Raises
    UserError when it would have more than MAX_DIGITS digits.
    """
    jitter = entropy % (_SPACING // 2)
    if low is None and high is None:
        return _digits(_TOP // 2 + jitter, _TOP_DIGITS)
    if high is None:
        assert low is not None
        value = int(low[:_TOP_DIGITS].ljust(_TOP_DIGITS, "0"), 16) + _SPACING + jitter
        if value < _TOP:
            return _digits(value, _TOP_DIGITS)
    elif low is None:
        value = int(high[:_TOP_DIGITS].ljust(_TOP_DIGITS, "0"), 16) - _SPACING - jitter
        if value > 0:
            return _digits(value, _TOP_DIGITS)
    return _inside(low or "", "" if high is None else high, entropy)


def _inside(low: str, high: str, entropy: int) -> str:
    """Return a rank between two; an empty `high` is the end."""
    width = max(_rounded(len(low)), _rounded(len(high)), _TOP_DIGITS)
    start = int(low.ljust(width, "0") or "0", 16)
    end = int(high.ljust(width, "0"), 16) if high else 1 << 4 * width
    if end <= start:
        return _bounded(low.ljust(width, "0") + _digits(1 + entropy % 0xFFFF_FFFF, _STEP_DIGITS))
    while end - start < _SMALLEST_GAP:
        width += _STEP_DIGITS
        start, end = start << 4 * _STEP_DIGITS, end << 4 * _STEP_DIGITS
    gap = end - start
    near = gap >> _NEAR_SHIFT
    if len(low) < len(high):
        value = end - near - entropy % near
    elif len(low) > len(high):
        value = start + near + entropy % near
    else:
        value = start + gap // 2 + entropy % near
    return _bounded(_digits(value, width))


def _rounded(length: int) -> int:
    return -(-length // _STEP_DIGITS) * _STEP_DIGITS


def _digits(value: int, width: int) -> str:
    return f"{value:0{width}x}"


def _bounded(rank: str) -> str:
    if len(rank) > MAX_DIGITS:
        raise UserError(
            "There is no room left at this place of the chain: delete the rules around it and"
            " add them again.",
            field="position",
        )
    return rank
