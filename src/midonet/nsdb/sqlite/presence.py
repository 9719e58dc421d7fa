"""Is the file that this process has open still the one that others find under its name?

A file that was removed or replaced lives on for whoever has it open: reads and writes go on
working there, and nobody else ever sees them. So both are refused from the moment it happened.
"""

from __future__ import annotations

from pathlib import Path

from midonet.errors import StoreLostError

_LOGS = ("-wal", "-shm")
"""What SQLite keeps beside the database; one without the others is worth nothing."""


class Presence:
    """The identities of a database and its logs, as they were when it was opened."""

    def __init__(self, path: Path) -> None:
        """Take note of the files; a connection that has read is open, so that all are there."""
        self._path = path
        self._expected = {
            one: identity
            for one in (path, *(path.with_name(path.name + end) for end in _LOGS))
            if (identity := _identity(one)) is not None
        }
        self._error: StoreLostError | None = None

    def check(self) -> None:
        """Raise StoreLostError when a file is not there any more, now and ever after."""
        if self._error is None:
            for one, expected in self._expected.items():
                found = _identity(one)
                if found != expected:
                    became = "removed" if found is None else "replaced by another file"
                    self._error = StoreLostError(f"{one} was {became} while it was in use")
                    break
        if self._error is not None:
            raise self._error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
