"""What people see when they mistype, forget sudo, or ask without an agent."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from midonet.cli import mm_ctl
from midonet.commands import privilege
from midonet.commands.demo import tell
from midonet.commands.main import main


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("flow",), "there is no command 'flow'; did you mean flows?"),
        (("agnet", "--nsdb", "memory:"), "did you mean agent?"),
        (("xyzzy",), "there are agent, cluster"),
        (("agent", "--nsbd", "memory:"), "unrecognized arguments: --nsbd memory:; did you mean"),
        (("agent", "--host-nam3=x"), "did you mean --host-name?"),
        (("agent", "--datapath", "epbf"), "did you mean ebpf?"),
        (("config", "shw"), "did you mean show?"),
        (("config", "show", "clutser"), "did you mean cluster?"),
        (("flows", "extra"), "unrecognized arguments: extra"),
        (("watch-port", "--port", "x", "--wait", "nan"), "'nan' is not a number from 0 to 86400"),
        (("watch-port", "--port", "x", "--count", "0"), "'0' is not a number from 1 to"),
        (("inject", "--port", "x", "--wait", "-1", "--hex", "00"), "is not a number from 0 to 60"),
        (("inject", "--port", "x", "--wait", "inf", "--hex", "00"), "not a number from 0 to 60"),
    ],
)
def test_misspelt_words_suggest_what_was_meant(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert says in refusal(capsys, *arguments)


@pytest.mark.parametrize("command", ["agent", "cluster", "flows", "inject", "doctor", "demo"])
def test_error_of_a_subcommand_shows_its_usage(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert refusal(capsys, command, "--nonsense").startswith(f"usage: midonet {command} ")


# Without privilege. Root without capabilities stands for a user: the interpreter may be root's.

MIDONET = (sys.executable, "-m", "midonet.commands.main")
without_capabilities = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv, to take capabilities away",
)


@without_capabilities
@pytest.mark.parametrize("arguments", [(), ("--uninstall",)])
def test_missing_privilege_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *MIDONET, "agent",
         "--nsdb", "memory:", "--state-dir", str(tmp_path / "state"), *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the eBPF datapath needs" in done.stderr
    assert not (tmp_path / "state").exists()


def test_forgotten_sudo_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(privilege, "missing_capabilities", lambda: ["CAP_NET_ADMIN"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["agent", "--nsdb", "memory:"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "sudo" in shown


@without_capabilities
@pytest.mark.parametrize(
    "command",
    [
        (*MIDONET, "state", "--state-dir"),
        (*MIDONET, "flows", "--state-dir"),
        (sys.executable, "-m", "midonet.cli.mm_ctl", "--unbind-port",
         "00000000-0000-4000-8000-000000000000", "--socket"),
    ],
)  # fmt: skip
def test_socket_of_another_user_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, 65534, 65534)
    place = closed / "agent.sock" if "--socket" in command else closed
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command, str(place)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode in (1, 4)
    assert done.stderr.count("\n") == 1
    assert "sudo" in done.stderr


def test_uninstall_needs_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIDONET_NSDB", raising=False)
    arguments = ["agent", "--uninstall", "--state-dir", str(tmp_path / "s")]
    assert main([*arguments, "--datapath", "memory"]) == 2
    assert "leaves nothing behind" in capsys.readouterr().err


def test_state_directory_that_is_no_path_is_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["state", "--state-dir", "a" * 5000]) == 1
    assert mm_ctl.main(["--socket", "a" * 5000, "--unbind-port", "0" * 32]) == 4
    assert "no such socket" in capsys.readouterr().err


def test_progress_that_nobody_reads_does_not_end_the_demo() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    for text in ("removing everything", "still here"):
        tell(stream, text)
    with contextlib.suppress(BrokenPipeError):
        stream.close()
