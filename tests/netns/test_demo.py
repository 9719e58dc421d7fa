"""The demo holds, says so in JSON, and leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from midonet.demo.namespaces import existing

pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(240)]
DEMO = [sys.executable, "-m", "midonet.commands.main", "demo"]


def _left() -> list[str]:
    return [*existing("mnd-"), *map(str, Path("/run").glob("midonet-demo/*"))]


def test_every_check_of_the_demo_holds() -> None:
    done = subprocess.run(
        [*DEMO, "--json"], capture_output=True, text=True, timeout=200, check=False
    )
    checks = json.loads(done.stdout)["checks"]
    assert [check for check in checks if not check["ok"]] == []
    assert len(checks) >= 17
    assert all(set(check) == {"name", "ok", "figure", "unit", "detail"} for check in checks)
    assert done.returncode == 0
    assert _left() == []


def test_an_interrupt_takes_everything_down() -> None:
    running = subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if "vm red2" in line:
            break
    assert _left() != []
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    running.stdout.close()
    assert _left() == []


def test_what_a_killed_run_left_is_removed() -> None:
    running = subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if "vm red2" in line:
            break
    running.kill()
    running.wait(10)
    running.stdout.close()
    assert _left() != []
    subprocess.run([*DEMO, "--clean"], check=True, timeout=60, capture_output=True)
    assert _left() == []
