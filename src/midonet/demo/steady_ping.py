"""Pings that go on beside something else, and none of which may be lost."""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from midonet.demo.namespaces import Namespace
from midonet.demo.processes import wait_until
from midonet.errors import UnavailableError

PATIENCE_S = 30.0
"""How long answers are waited for. Only a failure takes so long."""

_LATE_S = 5.0
_ANSWER = re.compile(r"(?:icmp_)?seq=(\d+) ttl=\d+ time=([\d.]+) ms")


class Source(Protocol):
    """Who pings: a VM, or anything with a name and a namespace."""

    @property
    def name(self) -> str: ...

    @property
    def namespace(self) -> Namespace: ...


class SteadyPing:
    """One run of ping(8) without end.

    A ping is lost when a later one was answered and it was not, not even five seconds afterwards.
    How long an answer takes, and how many fit into what is done meanwhile, is the machine's
    affair: who needs pings during something waits for their answers (`wait_answers`).

    what: source and target, for messages.
    """

    def __init__(self, source: Source, target: str, interval_s: float) -> None:
        self.what = f"{source.name} to {target}"
        self._process = subprocess.Popen(
            source.namespace.enter(["ping", "-n", "-i", str(interval_s), target]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._answered: dict[int, float] = {}
        self._other: list[str] = []
        # Else ping stands still when the pipe is full, and nothing can be lost.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def answered(self) -> int:
        """Return how many pings have been answered so far."""
        return len(self._answered)

    @property
    def average_ms(self) -> float:
        """Return how long answers took on average, 0 when there were none."""
        return statistics.fmean(self._answered.values()) if self._answered else 0.0

    def wait_answers(self, count: int) -> None:
        """Wait until so many more pings have been answered. Raises UnavailableError."""
        wanted = self.answered + count
        try:
            wait_until(
                lambda: self.answered >= wanted,
                what=f"{count} more answers, {self.what}",
                timeout_s=PATIENCE_S,
            )
        except UnavailableError as error:
            raise UnavailableError(f"{error}; ping said: {' | '.join(self._other[-5:])}") from None

    def stop(self, least: int = 20) -> tuple[int, list[int]]:
        """Wait for that many more answers and end.

        Return the number of the last ping that was answered, and those of the lost before it.
        Raises UnavailableError when no answers come any more.
        """
        self.wait_answers(least)
        last = max(self._answered)
        with suppress(UnavailableError):
            wait_until(lambda: not self._missing(last), what="late answers", timeout_s=_LATE_S)
        self.close()
        return last, self._missing(last)

    def close(self) -> None:
        """End it. Doing so twice is harmless."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _missing(self, last: int) -> list[int]:
        return [number for number in range(1, last + 1) if number not in self._answered]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = _ANSWER.search(line)
            if found is not None:
                self._answered[int(found[1])] = float(found[2])
            else:
                self._other.append(line.strip())


@contextmanager
def steady_ping(
    source: Source, target: str, interval_s: float = 0.01, *, least: int = 5
) -> Iterator[SteadyPing]:
    """Ping without end while the block lasts, which begins when some have been answered."""
    pinging = SteadyPing(source, target, interval_s)
    try:
        pinging.wait_answers(least)
        yield pinging
    finally:
        pinging.close()
