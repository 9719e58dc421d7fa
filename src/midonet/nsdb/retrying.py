"""Trying again what failed because others were faster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.1


async def attempts(patience_s: float) -> AsyncIterator[int]:
    """Yield 0, 1, 2, ... with a random pause before each but the first, for a time.

    The pauses grow, so that many who try the same get out of each other's way. The first two
    attempts do not depend on the time.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + patience_s
    number = 0
    while number < 2 or loop.time() < deadline_s:
        yield number
        number += 1
        longest_s = min(_FIRST_PAUSE_S * 2 ** min(number, 10), _LONGEST_PAUSE_S)
        await asyncio.sleep(random.uniform(0, longest_s))
