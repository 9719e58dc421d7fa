"""Waking the followers of a store when any process commits: inotify on one small file.

The kernel keeps the list of who listens, so a process that dies leaves nothing to clean up.
Where inotify is refused (too many instances) or does not work (some network and stacked file
systems), followers find changes at their next look.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
from pathlib import Path

import structlog

_log = structlog.get_logger("nsdb")

# linux/inotify.h
_IN_MODIFY = 0x0000_0002
_READ_BYTES = 4096


class Notifier:
    """Tells the listeners of a file that there is something new."""

    def __init__(self, descriptor: int) -> None:
        """descriptor: the file, open for writing; closed by `close`."""
        self._file = descriptor

    def notify(self) -> None:
        """Wake all listeners; on a full disk they find out by themselves, a little later."""
        with contextlib.suppress(OSError):
            os.pwrite(self._file, b"\n", 0)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)


class Listener:
    """Waits for notifications, for a moment at most, or until stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._stop, select.POLLIN)
        self._inode = -1
        self._inotify = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._inotify >= 0:
            self._poll.register(self._inotify, select.POLLIN)
        self.follow_file()

    def follow_file(self) -> None:
        """Listen to the file that has the path now, should somebody have replaced it."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            return
        if inode == self._inode or self._inotify < 0:
            return
        watch = self._libc.inotify_add_watch(
            self._inotify, os.fsencode(self._path), ctypes.c_uint32(_IN_MODIFY)
        )
        if watch < 0:
            reason = os.strerror(ctypes.get_errno())
            _log.warning("changes_are_seen_late", path=str(self._path), error=reason)
            return
        self._inode = inode

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notification or the timeout; False when stopped."""
        ready = {file for file, _ in self._poll.poll(max(0.0, timeout_s) * 1000)}
        if self._stop in ready:
            return False
        if self._inotify in ready:
            os.read(self._inotify, _READ_BYTES)
        return True

    def pause(self, duration_s: float) -> bool:
        """Let notifications gather; False when stopped."""
        return not select.select([self._stop], [], [], duration_s)[0]

    def stop(self) -> None:
        """Make `wait` return False, from any thread."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Release what the kernel keeps for this listener."""
        os.close(self._stop)
        if self._inotify >= 0:
            os.close(self._inotify)
