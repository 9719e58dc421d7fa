from __future__ import annotations

import json
from pathlib import Path

import pytest

from midonet.commands.main import COMMANDS, main


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
