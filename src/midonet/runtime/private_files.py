"""Files that hold secrets or locks: of this user alone, and never somebody else's by a link.

Whoever may write to a directory can put a link or a file of his own where a process expects its
own: what is opened here is a regular file of this user (or of root), whatever the umask is.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from midonet.errors import UserError

PRIVATE_DIRECTORY_MODE = 0o700
PRIVATE_FILE_MODE = 0o600


def open_private(
    path: Path | str,
    flags: int,
    *,
    dir_fd: int | None = None,
    mode: int = PRIVATE_FILE_MODE,
    owners: Iterable[int] = (),
) -> int:
    """Open a regular file without following a link, and return the descriptor.

    mode: of a new file; one of ours that has more permissions loses them. owners: users whose
    file is accepted beside this one's and root's. Raises UserError when the file is not one that
    may be trusted, OSError for the rest.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is a symbolic link, which is not followed") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is not a regular file")
        check_owner(path, status, owners)
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_owner(path: Path | str, status: os.stat_result, owners: Iterable[int] = ()) -> None:
    """Raise UserError when a file is neither this user's, nor root's, nor one of `owners`'."""
    if status.st_uid not in {os.geteuid(), 0, *owners}:
        raise UserError(
            f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()} who runs this;"
            " whoever owns it could change what it holds"
        )


def check_not_writable_by_all(path: Path | str, status: os.stat_result) -> None:
    """Raise UserError when everybody may replace what is in a directory."""
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise UserError(f"{path} may be written by everybody; say `chmod o-w {path}` first")


def make_directories(path: Path) -> None:
    """Make a directory with its parents where they are missing, writable by this user only."""
    if not path.is_dir():
        make_directories(path.parent)
        path.mkdir(mode=0o755, exist_ok=True)


def open_private_directory(path: Path) -> int:
    """Open a directory that is this user's alone, made when absent; return the descriptor.

    The last component may be a link that leads to one. Permissions of others are taken away;
    raises UserError when the directory is another's or everybody may write to it, OSError for
    the rest.
    """
    make_directories(path.parent)
    path.mkdir(mode=PRIVATE_DIRECTORY_MODE, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        check_owner(path, status)
        if status.st_mode & stat.S_IWOTH:
            raise UserError(
                f"{path} may be written by everybody, so that what it holds cannot be trusted;"
                " use another directory, or empty it and say `chmod 700`"
            )
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(descriptor, PRIVATE_DIRECTORY_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
