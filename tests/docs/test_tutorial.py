"""The tutorial does what it says: its blocks are run, in order, as written."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
PORT = 8181


def blocks() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.xdist_group("tutorial")
def test_tutorial_runs_as_written(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cleaning = (
        "trap 'for p in $(cat \"$lab/pids\" 2>/dev/null); do kill -9 $p; done 2>/dev/null' EXIT"
    )
    script = "\n".join(["set -e -o pipefail", cleaning, *blocks()]).replace(str(PORT), str(port))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "TMPDIR": str(tmp_path),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello" in done.stdout or "68656c6c6f" in done.stdout
    assert "FILTERED" in done.stdout.upper()
