"""Supervision of the long-running tasks of a process.

Every task belongs to one TaskGroup. A task that fails is logged, counted and started again
after a growing pause; one whose failure cannot be survived ends the process. Where the items of
a queue come from outside, `contained` keeps the failure of one from ending the task. This is the
only place that catches arbitrary exceptions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

import structlog

from midonet.errors import UnavailableError
from midonet.runtime.clock import Clock, SystemClock

_log = structlog.get_logger("supervisor")

_GRACE_S = 10.0

Factory = Callable[[], Awaitable[None]]


@contextmanager
def contained(on_failure: Callable[[Exception], None]) -> Iterator[None]:
    """Keep a failure of the body inside: `on_failure` is told of it, and the caller goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - one bad item must not end the task for the others
        on_failure(error)


class OnFailure(Enum):
    """What happens when a task raises."""

    RESTART = "restart"
    STOP_ALL = "stop_all"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between restarts: doubling from `first_s` to `most_s`; back to the first after the
    task has run `reset_after_s` without failing."""

    first_s: float = 0.1
    most_s: float = 10.0
    reset_after_s: float = 30.0


class Supervisor:
    """Owns tasks; use as an asynchronous context manager and `await wait()` inside.

    Leaving the context cancels what still runs and waits for it.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        *,
        grace_s: float = _GRACE_S,
    ) -> None:
        """grace_s: how long tasks may clean up before they are cancelled once more."""
        self.failures: Counter[str] = Counter()
        self.fatal: BaseException | None = None
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._grace_s = grace_s
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Supervisor:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        try:
            await self._end_tasks()
        finally:
            # All tasks are cancelled already, so that the group has nothing to do with the error
            # of the body; told of it, it would wrap it in an exception group.
            await self._group.__aexit__(None, None, None)

    async def _end_tasks(self) -> None:
        """Cancel all tasks and wait; cancel again those that lost the cancellation."""
        waiting = set(self._tasks)
        while waiting:
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=self._grace_s)
            if waiting:
                names = sorted(task.get_name() for task in waiting)
                _log.warning("tasks_end_slowly", tasks=names, after_s=self._grace_s)

    def start(
        self, name: str, factory: Factory, on_failure: OnFailure = OnFailure.RESTART
    ) -> asyncio.Task[None]:
        """Run `factory()` as a task. A task that returns is done and not started again."""
        task = self._group.create_task(self._supervise(name, factory, on_failure), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self) -> None:
        """Wake `wait`. Safe to call from a signal handler of the event loop."""
        self._stopping.set()

    async def wait(self) -> None:
        """Wait for `stop` or for a failure that ends the process."""
        await self._stopping.wait()

    async def _supervise(self, name: str, factory: Factory, on_failure: OnFailure) -> None:
        pause_s = self._backoff.first_s
        while True:
            started_s = self._clock.now_s()
            try:
                await factory()
                return
            except Exception as error:  # noqa: BLE001 - the one place that supervises
                self.failures[name] += 1
                if _is_told_to_end():
                    # The failure of a clean-up has taken the place of the cancellation.
                    _log.warning("task_ended_badly", task=name, error=_text(error))
                    return
                if on_failure is OnFailure.STOP_ALL:
                    is_ours = not isinstance(error, UnavailableError)
                    _log.error("task_failed", task=name, error=_text(error), exc_info=is_ours)
                    self.fatal = error
                    self.stop()
                    return
                if self._clock.now_s() - started_s >= self._backoff.reset_after_s:
                    pause_s = self._backoff.first_s
                _log.warning(
                    "task_restarts",
                    task=name,
                    error=_text(error),
                    failures=self.failures[name],
                    pause_s=pause_s,
                    # Where a dependency is away there is nothing to be seen in our own code.
                    exc_info=not isinstance(error, UnavailableError),
                )
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, self._backoff.most_s)


def _is_told_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
