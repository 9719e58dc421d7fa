"""`mm-ctl`: where it looks for the agent."""

from __future__ import annotations

from uuid import uuid4

import pytest

from midonet.agent.host.settings import ENVIRONMENT_PREFIX, AgentSettings
from midonet.cli import mm_ctl
from midonet.runtime.config import load


def test_the_socket_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(mm_ctl.SOCKET_VARIABLE, "/nonexistent/other.sock")
    assert mm_ctl.main(["--unbind-port", str(uuid4())]) == 4
    assert "/nonexistent/other.sock" in capsys.readouterr().err


def test_an_agent_accepts_the_variable_in_its_environment() -> None:
    environment = {mm_ctl.SOCKET_VARIABLE: "/run/a.sock", "MIDONET_NSDB": "memory:x"}
    loaded = load(AgentSettings, own_prefix=ENVIRONMENT_PREFIX, environment=environment)
    assert loaded.value.nsdb == "memory:x"
