"""The reference pages are current, and leave out no option, command, kind or file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from midonet.agent.host.settings import AgentSettings
from midonet.agent.host.state_directory import StateDirectory
from midonet.cluster.settings import ClusterSettings
from midonet.model.references import KINDS
from midonet.nsdb.store import StateTables
from midonet.nsdb.url import open_store
from scripts.generate_docs import PARTS, REFERENCE, generated_pages, parts_used
from scripts.reference_pages import commands
from scripts.reference_pages.commands import Command
from scripts.reference_pages.effects import effects
from scripts.reference_pages.store import table_names

COMMANDS = commands.all_commands()


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def file_names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(("path", "text"), generated_pages().items(), ids=lambda each: "")
def test_page_is_current(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, "run `make docs`"


def test_every_part_is_on_a_page() -> None:
    assert parts_used() == set(PARTS)


@pytest.mark.parametrize("kind", [AgentSettings, ClusterSettings], ids=lambda kind: kind.__module__)
def test_every_option_says_what_it_does(kind: type[msgspec.Struct]) -> None:
    described = effects(kind)
    assert set(described) == {field.name for field in msgspec.structs.fields(kind)}
    assert all(described.values())
    for name in described:
        assert f"| `{name}` |" in page("configuration.md")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_command_and_its_options_have_help(command: Command) -> None:
    assert command.help
    for action in command.options():
        what = commands.explanation(command, action)
        assert what, f"{command.name} {action.dest} has no help text"
        if action.default not in (None, False, "==SUPPRESS=="):
            assert "default" in what, f"{command.name} {action.dest} hides its default"


def test_commands_of_the_product_are_among_them() -> None:
    names = {command.name for command in COMMANDS}
    assert {"midonet agent", "midonet cluster", "midonet demo", "mm-ctl"} <= names
    assert "midonet config show" in names


def test_every_command_of_the_readme_exists() -> None:
    readme = (REFERENCE.parents[1] / "README.md").read_text(encoding="utf-8")
    for name in ("agent", "cluster", "inject", "config", "demo"):
        assert f"`midonet {name}`" in readme
        assert any(command.name == f"midonet {name}" for command in COMMANDS)


def test_every_kind_and_state_table_is_described() -> None:
    text = page("store.md")
    assert all(f"| `{kind.__name__}` |" in text for kind in KINDS)
    assert all((getattr(StateTables, name).__doc__ or "").strip() for name in table_names())


async def test_every_file_of_the_database_is_described(tmp_path: Path) -> None:
    store = open_store(f"sqlite://{tmp_path}/PATH")
    await store.open()
    found = file_names(tmp_path)
    await store.close()
    assert {"PATH", "PATH-wal", "PATH-notify"} <= found
    assert all(f"`{name}`" in page("store.md") for name in found)


def test_every_file_of_the_state_directory_is_described(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    directory.host_id()
    directory.next_epoch()
    directory.save_session_secret("secret")
    directory.save_hash_seed(1)
    directory.close()
    text = page("store.md")
    assert all(f"| `{name}` |" in text for name in file_names(tmp_path))
