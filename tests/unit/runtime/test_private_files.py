from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from midonet.errors import UserError
from midonet.runtime.private_files import (
    check_not_writable_by_all,
    open_private,
    open_private_directory,
)

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


@pytest.fixture(autouse=True, params=[0, 0o077], ids="umask {:03o}".format)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_and_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    os.close(open_private_directory(tmp_path / "made" / "here"))
    os.close(open_private(tmp_path / "made" / "here" / "file", os.O_RDWR | os.O_CREAT))
    assert mode(tmp_path / "made" / "here") == 0o700
    assert mode(tmp_path / "made" / "here" / "file") == 0o600
    assert not mode(tmp_path / "made") & 0o022


def test_permissions_of_others_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o666)
    os.close(open_private(tmp_path / "file", os.O_RDWR))
    assert mode(tmp_path / "file") == 0o600
    tmp_path.chmod(0o775)
    os.close(open_private_directory(tmp_path))
    assert mode(tmp_path) == 0o700


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    for name in ("link", "dangling"):
        with pytest.raises(UserError, match="symbolic link"):
            open_private(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "absent").exists()


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(UserError, match="not a regular file"):
        open_private(tmp_path / "fifo", os.O_RDWR)


def test_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(UserError, match="everybody"):
        open_private_directory(tmp_path)
    check_not_writable_by_all(tmp_path, tmp_path.stat())  # as /tmp: others replace nothing there
    tmp_path.chmod(0o777)
    with pytest.raises(UserError, match="everybody"):
        check_not_writable_by_all(tmp_path, tmp_path.stat())
    tmp_path.chmod(0o700)


@as_root
def test_what_belongs_to_a_stranger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", STRANGER, -1)
    with pytest.raises(UserError, match="belongs to user 65534"):
        open_private(tmp_path / "file", os.O_RDWR)
    os.close(open_private(tmp_path / "file", os.O_RDWR, owners=(STRANGER,)))
    (tmp_path / "directory").mkdir()
    os.chown(tmp_path / "directory", STRANGER, -1)
    with pytest.raises(UserError, match="belongs to user 65534"):
        open_private_directory(tmp_path / "directory")
