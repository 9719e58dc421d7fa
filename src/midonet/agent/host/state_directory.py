"""What an agent remembers between its runs, in one directory that only one agent may use.

    lock           held (flock(2)) while an agent runs here
    host_id        the host's UUID, created once
    session        secret of the store session, to resume it after a restart
    epoch          number of starts so far
    hash_seed      the deployment's key of the flow hash, to start while the store is away
    connections    the connections this host knows (`connection_journal.py`)

The directory is the agent's alone (mode 0700), its files have mode 0600, and no link in it is
followed. Files are replaced atomically, so that a crash leaves the old or the new content. Where
a secret or key cannot be written (a full disk), the agent goes on with what it has in memory and
tries again: it costs something after the next restart only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from midonet.errors import UserError
from midonet.model.ids import HostId
from midonet.runtime.private_files import open_private, open_private_directory

_MAX_FILE_BYTES = 4096

_log = structlog.get_logger("state_directory")


class StateDirectory:
    """The opened directory; holds its lock until `close`."""

    def __init__(self, path: Path) -> None:
        """Create the directory when needed and lock it.

        Raises UserError when another agent uses it, it cannot be written, or others can.
        """
        self.path = path
        self._unsaved: dict[str, str] = {}
        with contextlib.ExitStack() as undo:
            try:
                self._directory = open_private_directory(path)
                undo.callback(os.close, self._directory)
                self._lock = self._open("lock", os.O_RDWR | os.O_CREAT)
                undo.callback(os.close, self._lock)
            except OSError as error:
                raise UserError(
                    f"cannot use state directory {path}: {error.strerror}{_hint(error)}"
                ) from None
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"another agent is running with state directory {path}; "
                    "give each agent of a machine its own --state-dir"
                ) from None
            self._resources = undo.pop_all()

    def close(self) -> None:
        """Give the directory free."""
        self._resources.close()

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
        self._remember("session", secret)

    def hash_seed(self) -> int | None:
        """Return the deployment's flow-hash key as last seen, or None."""
        return self._read_number("hash_seed") if self._read("hash_seed") else None

    def save_hash_seed(self, seed: int) -> None:
        """Remember the deployment's flow-hash key."""
        self._remember("hash_seed", str(seed))

    def open_file(self, name: str, flags: int) -> int:
        """Open a file of the directory and return the descriptor.

        Raises UserError when it may not be trusted, OSError for the rest.
        """
        return self._open(name, flags)

    def replace_file(self, new: str, name: str) -> None:
        """Let the file `new` take the place of `name`, at once or not at all. Raises OSError."""
        os.replace(new, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def save_again(self) -> None:
        """Write what could not be written before."""
        for name, text in tuple(self._unsaved.items()):
            with contextlib.suppress(UserError):
                self._write(name, text)
                del self._unsaved[name]
                _log.info("state_saved", file=name)

    def _remember(self, name: str, text: str) -> None:
        try:
            self._write(name, text)
        except UserError as error:
            self._unsaved[name] = text
            _log.warning("state_not_saved", error=str(error))
        else:
            self._unsaved.pop(name, None)

    def _read(self, name: str) -> str | None:
        if name in self._unsaved:
            return self._unsaved[name]
        try:
            with os.fdopen(self._open(name, os.O_RDONLY), "rb") as file:
                return file.read(_MAX_FILE_BYTES).decode("ascii").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {self.path / name}: {error}") from None

    def _read_number(self, name: str) -> int:
        text = self._read(name) or "0"
        if not text.isdecimal():
            raise UserError(f"{self.path / name} does not hold a number")
        return int(text)

    def _write(self, name: str, text: str) -> None:
        new = f".{name}.new"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=self._directory)
            try:
                with os.fdopen(self._open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                    file.write(text.encode("ascii") + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(new, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(new, dir_fd=self._directory)
                raise
        except OSError as error:
            raise UserError(f"cannot write {self.path / name}: {error.strerror}") from None

    def _open(self, name: str, flags: int) -> int:
        try:
            return open_private(name, flags, dir_fd=self._directory)
        except UserError as error:
            raise UserError(f"cannot use state directory {self.path}: {error}") from None


def _hint(error: OSError) -> str:
    return " (root may)" if isinstance(error, PermissionError) and os.geteuid() else ""
