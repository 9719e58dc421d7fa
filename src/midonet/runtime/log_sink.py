"""Where log lines go: a descriptor that may be full, slow or gone, and never stops who logs.

A line that cannot be written at once is lost and counted. The next line that can be written is
preceded by one that says how many were lost, so that a reader knows that the log has a hole.
"""

from __future__ import annotations

import io
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable
from typing import TextIO

_AT_ONCE_BYTES = select.PIPE_BUF
"""A pipe that is ready takes this much without waiting (pipe(7))."""

_END_OF_LINE = ord("\n")

_NOT_PRINTED = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0), 0x2028, 0x2029)}
"""Control characters that a name or message may bring: they would move a terminal's cursor or
begin a new line."""


class LogSink:
    """Writes lines to a stream.

    stream: one that has a descriptor is written past its buffer, without waiting for a reader;
    None stands for a process without standard error, where every line is lost.
    """

    def __init__(self, stream: TextIO | None, lost_line: Callable[[int], str]) -> None:
        """`lost_line` returns the line that tells of a number of lost lines."""
        self.lost = 0
        self._stream = stream
        self._lost_line = lost_line
        self._unreported = 0
        self._is_mid_line = False
        self._lock = threading.Lock()
        self._send = self._sender(stream)

    def msg(self, line: str) -> None:
        """Write a line, without its end; never raises and never waits."""
        with self._lock:
            if self._unreported and self._write(self._lost_line(self._unreported)):
                self._unreported = 0
            if not self._write(line):
                self.lost += 1
                self._unreported += 1

    # The names by which structlog's bound loggers call.
    debug = info = warning = error = critical = msg

    def _write(self, line: str) -> bool:
        data = (line.translate(_NOT_PRINTED) + "\n").encode("utf-8", "backslashreplace")
        if self._is_mid_line:
            data = b"\n" + data
        view = memoryview(data)
        try:
            while view:
                sent = self._send(view[:_AT_ONCE_BYTES])
                if not sent:
                    break
                self._is_mid_line = view[sent - 1] != _END_OF_LINE
                view = view[sent:]
        except (OSError, ValueError):
            # ValueError: the stream was closed under us.
            return False
        return not view

    def _sender(self, stream: TextIO | None) -> Callable[[memoryview], int]:
        """Return a function that writes what it can at once and returns how much, 0 for nothing."""
        if stream is None:
            return lambda _: 0
        try:
            descriptor = stream.fileno()
            mode = os.fstat(descriptor).st_mode
        except (OSError, ValueError, io.UnsupportedOperation):
            return lambda data: _write_text(stream, data)
        if stat.S_ISSOCK(mode):
            return lambda data: _send_to_socket(descriptor, data)
        if stat.S_ISREG(mode):
            return lambda data: os.write(descriptor, data)
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return lambda data: os.write(descriptor, data) if poll.poll(0) else 0


def _write_text(stream: TextIO, data: memoryview) -> int:
    stream.write(bytes(data).decode("utf-8"))
    stream.flush()
    return len(data)


def _send_to_socket(descriptor: int, data: memoryview) -> int:
    # The journal gives its services a stream socket.
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        return connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def open_standard_streams() -> None:
    """Give a process that was started without some of descriptors 0 to 2 `/dev/null` there.

    The next file opened would take the number, and whatever a library prints would go into it.
    """
    descriptor = os.open("/dev/null", os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open("/dev/null", os.O_RDWR)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", errors="backslashreplace", closefd=False))
