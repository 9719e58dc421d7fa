"""The rules of commit messages, and that they can be checked in any kind of clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.check_commits import EXCEPTIONS, Commit, findings
from tests.docs.shell_pages import ROOT

SCRIPT = ROOT / "scripts" / "check_commits.py"
KNOWN = {"a" * 40: "nsdb: read ahead"}


def commit(subject: str, body: str = "") -> Commit:
    return Commit("c" * 40, subject, body)


@pytest.mark.parametrize(
    "good",
    [
        commit("agent/ports: attach a port once"),
        commit("api, nsdb: let writers take turns"),
        commit("midonet trace: explain a packet", "Why.\n\nChecked: so."),
        commit("nsdb: x" + "y" * 65),
        commit("nsdb: mend it", 'Fixes: aaaaaaa ("nsdb: read ahead")'),
        commit("nsdb: mend it", 'Fixes: bbbbbbb ("nsdb: of a commit that is not in this clone")'),
    ],
)
def test_messages_by_the_rules_pass(good: Commit) -> None:
    assert findings(good, KNOWN) == []


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (commit("nsdb: x" + "y" * 66), "has 73 characters"),
        (commit("Take back something"), "is not `area: imperative summary`"),
        (commit("nsdb: a sentence."), "full stop"),
        (commit("nsdb:no space"), "area"),
        (commit("nsdb: mend it", "Fixes: aaaaaaa"), "is not `Fixes:"),
        (commit("nsdb: mend it", "fixes: the thing"), "is not `Fixes:"),
        (commit("nsdb: mend it", 'Fixes: aaaaaaa ("nsdb: read ahaed")'), "has the subject"),
    ],
)
def test_messages_against_the_rules_are_named(bad: Commit, says: str) -> None:
    (found,) = findings(bad, KNOWN)
    assert found.startswith("ccccccc ")
    assert says in found


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT], cwd=directory, capture_output=True, text=True, check=False,
        timeout=60, env=os.environ | {"GIT_CEILING_DIRECTORIES": str(directory.parent)},
    )  # fmt: skip


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", directory, "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def test_shallow_clone_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    whole, shallow = tmp_path / "whole", tmp_path / "shallow"
    whole.mkdir()
    git(whole, "init", "-q")
    for subject in ("an old commit without an area", "nsdb: good", "another without an area"):
        git(whole, "commit", "-q", "--allow-empty", "-m", subject)
    done = run(whole)
    assert (done.returncode, "nothing checked" in done.stdout) == (0, True)
    git(tmp_path, "clone", "-q", "--depth", "2", whole.as_uri(), str(shallow))
    done = run(shallow)
    assert done.returncode == 1
    assert "another without an area" in done.stdout
    assert "an old commit" not in done.stdout


def test_tree_without_history_is_no_failure(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, "no history" in done.stdout) == (0, True)


def test_exceptions_say_why() -> None:
    assert all(len(name) == 7 and reason for name, reason in EXCEPTIONS.items())
