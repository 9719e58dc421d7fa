from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from midonet.agent.host.state_directory import StateDirectory
from midonet.errors import UserError


def test_host_id_epoch_and_secret_survive_a_restart(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path / "a")
    host_id = first.host_id()
    assert first.next_epoch() == 1
    assert first.session_secret() is None
    assert first.hash_seed() is None
    first.save_session_secret("s3cret")
    first.save_hash_seed(0)
    first.close()

    second = StateDirectory(tmp_path / "a")
    assert second.host_id() == host_id
    assert second.next_epoch() == 2
    assert second.session_secret() == "s3cret"
    assert second.hash_seed() == 0
    second.close()


def test_second_agent_with_the_same_directory_is_refused(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    with pytest.raises(UserError, match="another agent is running"):
        StateDirectory(tmp_path)
    first.close()
    StateDirectory(tmp_path).close()


def test_damaged_content_is_named(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    (tmp_path / "host_id").write_text("nonsense")
    (tmp_path / "epoch").write_text("many")
    with pytest.raises(UserError, match="host_id"):
        directory.host_id()
    with pytest.raises(UserError, match="epoch"):
        directory.next_epoch()
    directory.close()


def test_unusable_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use state directory"):
        StateDirectory(tmp_path / "file")


def test_what_is_in_it_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = StateDirectory(tmp_path / "deep" / "state")
        directory.host_id()
        directory.next_epoch()
        directory.save_session_secret("s3cret")
        directory.save_hash_seed(1)
        directory.close()
    finally:
        os.umask(before)
    state = tmp_path / "deep" / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    assert found == dict.fromkeys(("lock", "host_id", "epoch", "session", "hash_seed"), 0o600)


def use(path: Path) -> None:
    directory = StateDirectory(path)
    try:
        directory.host_id()
        directory.next_epoch()
        directory.session_secret()
    finally:
        directory.close()


@pytest.mark.parametrize("name", ["lock", "host_id", "epoch", "session"])
def test_links_are_neither_read_nor_written_through(tmp_path: Path, name: str) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("7")
    (state / name).symlink_to(victim)
    with pytest.raises(UserError, match="symbolic link"):
        use(state)
    assert victim.read_text() == "7"


def test_planted_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    directory = StateDirectory(tmp_path / "state")
    (tmp_path / "state" / ".session.new").symlink_to(victim)
    directory.save_session_secret("s3cret")
    assert directory.session_secret() == "s3cret"
    directory.close()
    assert victim.read_text() == "kept"


def test_secret_that_cannot_be_written_is_kept_in_memory_and_written_later(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    (tmp_path / "session").mkdir()  # what a full disk does: no file takes the place
    directory.save_session_secret("s3cret")
    assert directory.session_secret() == "s3cret"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "session"]
    (tmp_path / "session").rmdir()
    directory.save_again()
    directory.close()
    again = StateDirectory(tmp_path)
    assert again.session_secret() == "s3cret"
    again.close()


def test_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UserError, match="everybody"):
        StateDirectory(tmp_path)
    tmp_path.chmod(0o700)
