"""The tutorial does what it says: its blocks are run, in order, as written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from midonet.demo.processes import free_port
from tests.docs.shell_pages import ROOT, blocks, run_script

TUTORIAL = ROOT / "docs" / "tutorial.md"
PORT = 8181


@pytest.mark.xdist_group("tutorial")
def test_tutorial_runs_as_written(tmp_path: Path) -> None:
    script = "\n".join(("set -e -o pipefail", *blocks(TUTORIAL, "bash")))
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
        "MIDONET_UNDERLAY_PORT": str(free_port(socket.SOCK_DGRAM)),
    }
    code, output = run_script(
        script.replace(str(PORT), str(free_port())), environment, tmp_path / "output"
    )
    assert code == 0, output
    printed = "\n".join(line for line in output.splitlines() if not line.startswith("+"))
    assert "hello" in printed or "68656c6c6f" in printed
    assert "FILTERED" in printed.upper()
