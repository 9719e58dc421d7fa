from __future__ import annotations

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
