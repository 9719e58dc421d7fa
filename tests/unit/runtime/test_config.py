from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from midonet.errors import UserError
from midonet.runtime.config import describe, load


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    nsdb: str
    retries: Annotated[int, Meta(ge=0, le=9)] = 3
    verbose: bool = False
    peers: tuple[str, ...] = ()


def read(file: Path | None = None, environment=None, **flags: object):
    return load(
        Settings, own_prefix="MIDONET_T_", file=file, environment=environment or {}, flags=flags
    )


def test_later_sources_win_and_name_their_origin(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('nsdb = "a"\nretries = 4\npeers = ["x"]\n')
    environment = {"MIDONET_NSDB": "b", "MIDONET_T_RETRIES": "5", "MIDONET_T_PEERS": "p, q"}

    loaded = read(file, environment, retries=6)

    assert loaded.value == Settings(nsdb="b", retries=6, peers=("p", "q"))
    assert describe(loaded) == [
        ("nsdb", "b", "environment MIDONET_NSDB"),
        ("retries", 6, "flag --retries"),
        ("verbose", False, "default"),
        ("peers", ("p", "q"), "environment MIDONET_T_PEERS"),
    ]


def test_own_variable_beats_the_shared_one() -> None:
    loaded = read(environment={"MIDONET_T_NSDB": "own", "MIDONET_NSDB": "shared"})
    assert loaded.value.nsdb == "own"


def test_text_becomes_the_type_of_the_option() -> None:
    loaded = read(environment={"MIDONET_NSDB": "b", "MIDONET_T_VERBOSE": "true"})
    assert loaded.value.verbose is True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('nsdb = "a"\nnope = 1\n', "unknown key 'nope'"),
        ("nsdb = \n", "not valid TOML"),
        ('nsdb = "a"\nretries = "many"\n', "retries: 'many' is not a whole number from 0 to 9"),
        ('nsdb = "a"\nretrys = 1\n', "did you mean retries"),
    ],
)
def test_bad_file_is_refused_with_its_name(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "t.toml"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_missing_file_unknown_variable_and_missing_setting_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read(tmp_path / "absent.toml")
    with pytest.raises(UserError, match="MIDONET_T_NOPE"):
        read(environment={"MIDONET_T_NOPE": "1"})
    with pytest.raises(UserError, match="did you mean MIDONET_T_RETRIES"):
        read(environment={"MIDONET_T_RETRYS": "1"})
    with pytest.raises(UserError, match="missing setting: nsdb"):
        read()
