"""What an agent remembers between its runs, in one directory that only one agent may use.

    lock           held (flock(2)) while an agent runs here
    host_id        the host's UUID, created once
    session        secret of the store session, to resume it after a restart
    epoch          number of starts so far
    hash_seed      the deployment's key of the flow hash, to start while the store is away

Files are replaced atomically, so that a crash leaves the old or the new content.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import TextIO
from uuid import UUID, uuid4

from midonet.errors import UserError
from midonet.model.ids import HostId


class StateDirectory:
    """The opened directory; holds its lock until `close`."""

    def __init__(self, path: Path) -> None:
        """Create the directory when needed and lock it.

        Raises UserError when another agent uses it or it cannot be written.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock: TextIO = (path / "lock").open("w", encoding="ascii")
        except OSError as error:
            raise UserError(f"cannot use state directory {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(
                f"another agent is running with state directory {path}; "
                "give each agent of a machine its own --state-dir"
            ) from None

    def close(self) -> None:
        """Give the directory free."""
        self._lock.close()

    def host_id(self) -> HostId:
        """Return the host's UUID, creating it on first use."""
        text = self._read("host_id")
        if text is None:
            host_id = uuid4()
            self._write("host_id", str(host_id))
            return HostId(host_id)
        try:
            return HostId(UUID(text))
        except ValueError:
            raise UserError(f"{self.path / 'host_id'} does not hold a UUID") from None

    def next_epoch(self) -> int:
        """Count one more start and return the count, 1 at first."""
        epoch = self._read_number("epoch") + 1
        self._write("epoch", str(epoch))
        return epoch

    def session_secret(self) -> str | None:
        """Return the secret of the last session, or None."""
        return self._read("session")

    def save_session_secret(self, secret: str) -> None:
        """Remember the secret of the present session."""
        self._write("session", secret)

    def hash_seed(self) -> int | None:
        """Return the deployment's flow-hash key as last seen, or None."""
        return self._read_number("hash_seed") if self._read("hash_seed") else None

    def save_hash_seed(self, seed: int) -> None:
        """Remember the deployment's flow-hash key."""
        self._write("hash_seed", str(seed))

    def _read(self, name: str) -> str | None:
        try:
            return (self.path / name).read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {self.path / name}: {error}") from None

    def _read_number(self, name: str) -> int:
        text = self._read(name) or "0"
        if not text.isdigit():
            raise UserError(f"{self.path / name} does not hold a number")
        return int(text)

    def _write(self, name: str, text: str) -> None:
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="ascii", dir=self.path, prefix=f".{name}.", delete=False
            ) as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self.path / name)
        except OSError as error:
            raise UserError(f"cannot write {self.path / name}: {error.strerror}") from None
