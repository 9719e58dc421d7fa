from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from midonet.cluster.settings import ClusterSettings
from midonet.commands.config import PROCESSES
from midonet.commands.main import COMMANDS, main
from midonet.errors import UserError
from midonet.runtime.config import load, option_type


@pytest.fixture(autouse=True)
def _no_store_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIDONET_NSDB", raising=False)


def test_config_show_tells_value_and_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('nsdb = "sqlite:///var/x.db"\n')
    monkeypatch.setenv("MIDONET_AGENT_HOST_NAME", "alpha")
    assert main(["config", "show", "--config", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["nsdb"] == {"value": "sqlite:///var/x.db", "origin": f"file {file}"}
    assert shown["host_name"]["origin"] == "environment MIDONET_AGENT_HOST_NAME"
    assert shown["vxlan_port"] == {"value": 6677, "origin": "default"}


def test_unknown_key_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("nope = 1\n")
    assert main(["config", "show", "--config", str(file)]) == 2
    assert "unknown key 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("subcommand", [name for names in COMMANDS.values() for name in names])
def test_every_subcommand_explains_itself(
    subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([subcommand, "--help"])
    assert stop.value.code == 0
    assert subcommand in capsys.readouterr().out


def test_config_show_covers_the_control_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('nsdb = "memory:"\nlisten = "[::1]:9000"\n')
    assert main(["config", "show", "cluster", "--config", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["listen"] == {"value": "[::1]:9000", "origin": f"file {file}"}
    assert main(["config", "show", "agent", "--config", str(file)]) == 2
    assert "unknown key 'listen'" in capsys.readouterr().err


@pytest.mark.parametrize("process", sorted(PROCESSES))
@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("", "missing setting: nsdb"),
        ('nsdb = "postgres://x"\n', "nsdb: There is no store of type 'postgres'"),
        ('nsdb = "memory:"\nlog_level = "inof"\n', "did you mean info"),
        ('nsdb = "memory:"\nlog_format = "xml"\n', "one of text, json"),
    ],
)
def test_config_show_refuses_what_the_daemon_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], process: str, content: str, refusal: str
) -> None:
    file = tmp_path / "daemon.toml"
    file.write_text(content)
    assert main(["config", "show", process, "--config", str(file)]) == 2
    shown = capsys.readouterr().err
    assert refusal in shown
    assert main([process, "--config", str(file)]) == 2
    assert capsys.readouterr().err == shown


def settings_fields() -> list[tuple[str, msgspec.structs.FieldInfo]]:
    return [
        (process, field)
        for process, (kind, _) in PROCESSES.items()
        for field in msgspec.structs.fields(kind)
    ]


def named(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "name", "")


def test_every_settings_class_is_shown() -> None:
    classes = set(msgspec.Struct.__subclasses__()) & {
        member
        for module in list(sys.modules.values())
        if module.__name__.startswith("midonet.") and hasattr(module, "ENVIRONMENT_PREFIX")
        for member in vars(module).values()
        if isinstance(member, type)
    }
    assert classes == {kind for kind, _ in PROCESSES.values()}


@pytest.mark.parametrize(("process", "field"), settings_fields(), ids=named)
def test_every_option_has_its_bound(process: str, field: msgspec.structs.FieldInfo) -> None:
    match option_type(field):
        case inspect.IntType() | inspect.FloatType() as kind:
            assert kind.ge is not None
            assert kind.le is not None
        case inspect.StrType() as kind:
            assert kind.max_length is not None
        case inspect.VarTupleType() as kind:
            assert kind.max_length is not None
            assert isinstance(kind.item_type, inspect.StrType)
            assert kind.item_type.max_length is not None
        case kind:
            assert isinstance(kind, inspect.EnumType | inspect.LiteralType | inspect.BoolType)


def bad_values(kind: inspect.Type) -> list[str]:
    """Return what an option must refuse, as TOML."""
    match kind:
        case inspect.IntType(ge=low, le=high):
            return [f"{low - 1}", f"{high + 1}", "nan", "inf", "-inf", "1.5", '"many"', "true",
                    "[1]", f'"{low}"', "9223372036854775807"]  # fmt: skip
        case inspect.FloatType(ge=low, le=high):
            return [f"{low - 0.001}", f"{high + 0.001}", "-5", "0", "nan", "inf", "-inf", '"long"',
                    "true", "[1.0]", f'"{low}"']  # fmt: skip
        case inspect.StrType(max_length=most):
            return ["1", "true", "[]", f'"{"x" * (most + 1)}"', '"\\u0000"']
        case inspect.EnumType() | inspect.LiteralType():
            return ['"nonsense"', '""', "1", "true"]
        case inspect.VarTupleType(max_length=most):
            return ["1", '"text"', "[1]", '[""]', '["a b"]', f"{['x'] * (most + 1)}"]
        case _:
            return ["1", '"maybe"', "[]"]


@pytest.mark.parametrize("source", ["file", "environment", "flag"])
@pytest.mark.parametrize(("process", "field"), settings_fields(), ids=named)
def test_value_out_of_bounds_is_refused_from_every_source(
    tmp_path: Path, process: str, field: msgspec.structs.FieldInfo, source: str
) -> None:
    kind, prefix = PROCESSES[process]
    option = option_type(field)
    file = tmp_path / "daemon.toml"
    variable = prefix + field.name.upper()
    for text in bad_values(option):
        value = tomllib.loads(f"value = {text}")["value"]
        arguments: dict[str, Any] = {"file": None, "environment": {}, "flags": {}}
        if source == "file":
            file.write_text(f"{field.name} = {text}\n")
            arguments["file"] = file
        elif isinstance(value, list) or (source == "environment" and "\0" in str(value)):
            continue  # neither can be said there
        elif isinstance(option, inspect.StrType | inspect.VarTupleType) and not (
            isinstance(value, str) and ("x" in value or "\0" in value)
        ):
            continue  # is text there, and a good one
        elif (
            isinstance(value, str)
            and not isinstance(option, inspect.StrType | inspect.EnumType | inspect.LiteralType)
            and value not in ("many", "long", "maybe")
        ):
            continue  # numbers are written as text there
        elif source == "environment":
            arguments["environment"] = {variable: str(value)}
        else:
            arguments["flags"] = {field.name: str(value)}
        with pytest.raises(UserError) as refusal:
            load(kind, own_prefix=prefix, **arguments)
        message = str(refusal.value)
        assert message.startswith((str(file), variable, "--" + field.name.replace("_", "-"))), text
        if isinstance(option, inspect.IntType | inspect.FloatType):
            assert f"from {option.ge:g} to" in message or f"from {option.ge} to" in message


@pytest.mark.parametrize(("process", "field"), settings_fields(), ids=named)
def test_the_bounds_themselves_are_accepted(process: str, field: msgspec.structs.FieldInfo) -> None:
    kind, prefix = PROCESSES[process]
    option = option_type(field)
    if isinstance(option, inspect.IntType | inspect.FloatType):
        for bound in (option.ge, option.le):
            environment = {"MIDONET_NSDB": "memory:", prefix + field.name.upper(): str(bound)}
            loaded = load(kind, own_prefix=prefix, environment=environment)
            assert getattr(loaded.value, field.name) == bound


@pytest.mark.parametrize(
    "listen", ["", "8181", "127.0.0.1", "127.0.0.1:65536", "::1:80", "a:b", "[::1]:-1", ":99999"]
)
def test_address_to_listen_on_is_checked_where_it_is_read(listen: str) -> None:
    with pytest.raises(UserError, match=r"^MIDONET_CLUSTER_LISTEN: .*(ADDRESS:PORT|65535)"):
        load(ClusterSettings, own_prefix="MIDONET_CLUSTER_",
             environment={"MIDONET_NSDB": "memory:", "MIDONET_CLUSTER_LISTEN": listen})  # fmt: skip
