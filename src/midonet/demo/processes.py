"""Long-running children: started, watched, ended by pid, never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from midonet.errors import UnavailableError


def wait_until(
    condition: Callable[[], bool], *, what: str, timeout_s: float, interval_s: float = 0.02
) -> float:
    """Wait for a condition and return the seconds it took. Raises UnavailableError."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise UnavailableError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(interval_s)
    return time.monotonic() - started


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """Return a port of 127.0.0.1 that no socket of this kind (`SOCK_*`) has just now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """One child process with a log file and a record by which a later run can end it.

    environment: may be changed before a start.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_path = directory / f"{name}.log"
        self._record = directory / f"{name}.pid"
        self.environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; output is appended to the log."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        self._record.write_text(f"{self._process.pid} {_start_time(self._process.pid)}\n")

    @property
    def pid(self) -> int:
        """Return the process id of the running child."""
        if self._process is None:
            raise UnavailableError(f"{self.name} was not started")
        return self._process.pid

    def is_running(self) -> bool:
        """Tell whether it is alive."""
        return self._process is not None and self._process.poll() is None

    def require_running(self) -> None:
        """Raise UnavailableError with the end of the log when it has died."""
        if not self.is_running():
            raise UnavailableError(f"{self.name} ended: {self.log_tail()}")

    def log_tail(self, lines: int = 5) -> str:
        """Return the last lines of the log."""
        if not self.log_path.exists():
            return ""
        return " | ".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """End it the hard way (SIGKILL) and reap it."""
        self._end(signal.SIGKILL, timeout_s=10)

    def stop(self, timeout_s: float = 15) -> int | None:
        """End it the clean way (SIGTERM; SIGKILL after the timeout); return its exit status."""
        return self._end(signal.SIGTERM, timeout_s=timeout_s)

    def _end(self, number: signal.Signals, timeout_s: float) -> int | None:
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._record.unlink(missing_ok=True)
        return process.returncode


def end_recorded(directory: Path) -> list[str]:
    """End the children that an earlier run recorded in `directory` and left running.

    A record names pid and start time, so that a reused pid is never touched.
    """
    ended = []
    for record in sorted(directory.glob("*.pid")):
        try:
            pid_text, start_text = record.read_text().split()
            pid, start = int(pid_text), int(start_text)
        except ValueError:
            record.unlink(missing_ok=True)
            continue
        if start and _start_time(pid) == start:
            os.kill(pid, signal.SIGKILL)
            gone = f"{record.stem} of an earlier run"
            wait_until(lambda p=pid, s=start: _start_time(p) != s, what=gone, timeout_s=10)  # type: ignore[misc]
            ended.append(record.stem)
        record.unlink(missing_ok=True)
    return ended


def _start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks after boot (proc(5)), 0 when gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])
