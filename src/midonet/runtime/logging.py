"""Structured logs to standard error, one event a line, as key=value text or as JSON.

Events are snake_case names with facts as keys. What libraries, the interpreter and its warnings
say comes in the same form, as `library_message`. A line that cannot be written is lost and
counted; logging never stops a daemon (`midonet.runtime.log_sink`). A repeated event can be
throttled with `Throttle`, which counts what it held back.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

from midonet.errors import UserError
from midonet.runtime.clock import Clock
from midonet.runtime.log_sink import LogSink


class LogFormat(StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


LevelName = Literal["debug", "info", "warning", "error"]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_FOREIGN_LEVEL = logging.WARNING
"""Least level of what libraries say, unless ours is `debug`: below it they tell of themselves."""

_UNPRINTABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What rendering a line may raise, from a value that cannot be shown."""

_log = structlog.get_logger("process")
_sinks: list[LogSink] = []


def configure_logging(
    level: str = "info", style: LogFormat = LogFormat.TEXT, stream: TextIO | None = None
) -> None:
    """Set up logging of the whole process, once, at its start.

    level: a key of LEVELS; UserError for anything else. stream: standard error when None.
    """
    if level not in LEVELS:
        raise UserError(f"log level must be one of {', '.join(LEVELS)}, not {level!r}")
    render = _Renderer(style)
    sink = LogSink(stream or sys.stderr, render.lost_lines)
    _sinks[:] = [sink]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )


def capture_foreign_messages(level: str = "info") -> None:
    """Have what libraries say, warnings, and exceptions that nobody catches logged in our form.

    For a daemon as a whole, after `configure_logging` with the same level.
    """
    root = logging.getLogger()
    root.handlers[:] = [_ForeignMessages()]
    root.setLevel(LEVELS[level] if level == "debug" else max(LEVELS[level], _FOREIGN_LEVEL))
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread_crash
    sys.unraisablehook = _log_unraisable


def lost_log_lines() -> int:
    """Return how many lines could not be written since logging was configured."""
    return sum(sink.lost for sink in _sinks)


class _Renderer:
    """The last processor: makes a line of an event, whatever its values are."""

    def __init__(self, style: LogFormat) -> None:
        render: structlog.typing.Processor
        if style is LogFormat.JSON:
            render = structlog.processors.JSONRenderer(default=str)
        else:
            render = structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], bool_as_flag=False
            )
        self._processors: tuple[structlog.typing.Processor, ...] = (
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        )

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        try:
            return self._render(logger, method, dict(event))
        except _UNPRINTABLE as error:
            name = str(event.get("event"))
            return self._render(logger, method, {"event": name, "unprintable": repr(error)})

    def lost_lines(self, count: int) -> str:
        """Return the line that tells of lost lines."""
        return self._render(None, "warning", {"event": "log_lines_lost", "count": count})

    def _render(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        value: Any = event
        for process in self._processors:
            value = process(logger, method, value)
        return str(value)


class _ForeignMessages(logging.Handler):
    """Takes what is said through the standard library's logging into ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of a library. Never raises."""
        try:
            message = record.getMessage()
        except _UNPRINTABLE:
            message = str(record.msg)
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(
            level,
            "library_message",
            logger=record.name,
            message=message.rstrip(),
            **_with_exception(record.exc_info),
        )


def _with_exception(exc_info: Any) -> Mapping[str, Any]:
    return {"exc_info": exc_info} if exc_info else {}


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    _log.critical("crashed", error=repr(error), exc_info=(kind, error, trace))


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    name = crash.thread.name if crash.thread is not None else "?"
    _log.error("thread_crashed", thread=name, error=repr(crash.exc_value), **_crash_info(crash))


def _log_unraisable(crash: sys.UnraisableHookArgs) -> None:
    _log.error("exception_ignored", error=repr(crash.exc_value), **_crash_info(crash))


def _crash_info(crash: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> Mapping[str, Any]:
    if crash.exc_value is None:
        return {}
    return {"exc_info": (crash.exc_type, crash.exc_value, crash.exc_traceback)}


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
