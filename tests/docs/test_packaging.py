"""The wheel: what it holds, and what an installation of it puts where people find commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.docs.shell_pages import ROOT

OWN_COMMANDS = {"midonet", "midolman", "mm-ctl"}
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tree, without a network."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("src", "tests", "bench", "scripts", "docs"):
        shutil.copytree(
            ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [*PIP, "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation", "-w", out, tree],
        check=True,
        timeout=300,
    )
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"midonet", wheel.name.partition("-py3")[0] + ".dist-info"}
    assert "midonet/py.typed" in names
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyc", ".c", ".md"))]
    sources = {
        path.relative_to(ROOT / "src").as_posix()
        for pattern in ("*.py", "*.bpf.o")
        for path in (ROOT / "src" / "midonet").rglob(pattern)
    }
    assert sources <= set(names)


def test_installation_puts_only_our_own_commands_on_the_path(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=120
    )
    before = {path.name for path in (environment / "bin").iterdir()}
    subprocess.run(
        [*PIP, "--python", environment / "bin" / "python",
         "install", "-q", "--no-index", "--no-deps", wheel],
        check=True, timeout=120,
    )  # fmt: skip
    assert {path.name for path in (environment / "bin").iterdir()} - before == OWN_COMMANDS

    # They run from there, wherever they are called from; what they depend on is taken from here.
    here = next(path for path in sys.path if path.endswith("site-packages"))
    for command in sorted(OWN_COMMANDS):
        done = subprocess.run(
            [environment / "bin" / command, "--help"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": here, "PYTHONSAFEPATH": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: ")


def test_declared_commands_are_the_documented_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["scripts"]) == OWN_COMMANDS
    page = (ROOT / "docs" / "howto" / "run-the-agent-under-systemd.md").read_text(encoding="utf-8")
    packaging = page[page.index("## Packaging") :]
    assert all(f"`{command}`" in packaging for command in OWN_COMMANDS)
