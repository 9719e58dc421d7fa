"""The demo holds, says so in JSON, and leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from midonet.demo.namespaces import existing

pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo under a name of its own, so that it touches no other that runs beside."""

    prefix: str

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "midonet.commands.main", "demo", "--prefix", self.prefix]

    def left(self) -> list[str]:
        """Return what there is of it."""
        directory = f"midonet-demo-{self.prefix}"
        return [*existing(f"{self.prefix}-"), *map(str, Path("/run").glob(directory))]

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Run it until VMs are being made; what a test does not end is ended."""
        running = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        try:
            assert any("vm red2" in line for line in running.stdout)
            assert self.left() != []
            yield running
        finally:
            running.kill()
            running.wait()
            running.stdout.close()


@pytest.fixture
def demo(prefix: str) -> Iterator[Demo]:
    made = Demo(f"{prefix}d")
    yield made
    subprocess.run([*made.command, "--clean"], check=True, timeout=120, capture_output=True)


def test_every_check_of_the_demo_holds(demo: Demo) -> None:
    done = subprocess.run(
        [*demo.command, "--json"], capture_output=True, text=True, timeout=500, check=False
    )
    checks = json.loads(done.stdout)["checks"]
    assert [check for check in checks if not check["ok"]] == []
    assert len(checks) >= 32
    assert all(set(check) == {"name", "ok", "figure", "unit", "detail"} for check in checks)
    assert done.returncode == 0
    assert demo.left() == []


def test_an_interrupt_takes_everything_down(demo: Demo) -> None:
    with demo.running() as running:
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
    assert demo.left() == []


def test_what_a_killed_run_left_is_removed(demo: Demo) -> None:
    with demo.running() as running:
        running.kill()
        running.wait(10)
        assert demo.left() != []
    subprocess.run([*demo.command, "--clean"], check=True, timeout=120, capture_output=True)
    assert demo.left() == []


def test_bad_prefix_is_refused() -> None:
    command = [sys.executable, "-m", "midonet.commands.main", "demo", "--prefix", "a/../b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "letters and digits" in done.stderr
