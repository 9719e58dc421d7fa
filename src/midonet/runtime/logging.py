"""Structured logs to standard error, one event a line, as key=value text or as JSON.

Events are snake_case names with facts as keys. A repeated event can be throttled with
`Throttle`, which counts what it held back.
"""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import TextIO

import structlog

from midonet.errors import UserError
from midonet.runtime.clock import Clock


class LogFormat(StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_logging(
    level: str = "info", style: LogFormat = LogFormat.TEXT, stream: TextIO | None = None
) -> None:
    """Set up logging of the whole process, once, at its start.

    level: a key of LEVELS; UserError for anything else. stream: standard error when None.
    """
    if level not in LEVELS:
        raise UserError(f"log level must be one of {', '.join(LEVELS)}, not {level!r}")
    renderer: structlog.typing.Processor
    if style is LogFormat.JSON:
        renderer = structlog.processors.JSONRenderer(default=str)
    else:
        renderer = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], bool_as_flag=False
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


class Throttle:
    """Lets one event through an interval and counts the ones in between.

    At most `capacity` distinct keys are remembered; the oldest is forgotten first.
    """

    def __init__(self, clock: Clock, interval_s: float = 10.0, capacity: int = 1024) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._capacity = capacity
        self._seen: dict[str, tuple[float, int]] = {}

    def allow(self, key: str) -> int | None:
        """Return how many were held back since the last one, or None to hold this one back."""
        now = self._clock.now_s()
        last = self._seen.get(key)
        if last is not None and now - last[0] < self._interval_s:
            self._seen[key] = (last[0], last[1] + 1)
            return None
        self._seen.pop(key, None)
        if len(self._seen) >= self._capacity:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (now, 0)
        return last[1] if last is not None else 0
