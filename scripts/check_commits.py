"""Hold commit messages to the rules of CONTRIBUTING. Exit 1 with a line per finding.

The commits since BASE are looked at; earlier ones are as they are. In a shallow clone that does
not reach BASE it is those that are there, and where there is no history, none: it says so.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

BASE = "fefe30893ad6aebdaa577c80113b70a567646615"
"""The last commit before the rules were checked."""

MAX_SUBJECT = 72
EXCEPTIONS: dict[str, str] = {}
"""Abbreviated commits that break a rule, each with the reason why it stands."""

_SUBJECT = re.compile(r"[a-z0-9][\w./, -]*: \S.*[^.]")
_FIXES = re.compile(r'Fixes: (?P<commit>[0-9a-f]{7,40}) \("(?P<subject>.+)"\)')


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; name is its full hash."""

    name: str
    subject: str
    body: str


def findings(commit: Commit, subject_of: dict[str, str]) -> list[str]:
    """Return what is wrong with a commit's message, a line each.

    subject_of: subjects of the commits that are there, by full name.
    """
    found = []
    if len(commit.subject) > MAX_SUBJECT:
        found.append(f"the subject has {len(commit.subject)} characters (at most {MAX_SUBJECT})")
    if not _SUBJECT.fullmatch(commit.subject):
        found.append("the subject is not `area: imperative summary`, without a full stop")
    for line in commit.body.splitlines():
        if re.match(r"fix(es|ed)?\b ?:", line, re.IGNORECASE):
            found += _fixes_findings(line, subject_of)
    return [f"{commit.name[:7]} {commit.subject!r}: {each}" for each in found]


def _fixes_findings(line: str, subject_of: dict[str, str]) -> list[str]:
    match = _FIXES.fullmatch(line)
    if match is None:
        return [f'{line!r} is not `Fixes: COMMIT ("subject")` on a line of its own']
    named = [text for name, text in subject_of.items() if name.startswith(match["commit"])]
    if named and match["subject"] not in named:
        return [f"{match['commit']} has the subject {named[0]!r}"]
    return []


def main() -> int:
    """Check the commits of this checkout."""
    if _git("rev-parse", "--is-inside-work-tree") is None:
        print("check_commits: no history here, nothing checked")
        return 0
    everything = _commits("HEAD")
    subject_of = {commit.name: commit.subject for commit in everything}
    if BASE in subject_of:
        checked = _commits(f"{BASE}..HEAD")
    elif (_git("rev-parse", "--is-shallow-repository") or "").strip() == "true":
        checked = everything
    else:
        print(f"check_commits: {BASE[:7]} is not in this history, nothing checked")
        return 0
    found = [
        line
        for commit in checked
        if commit.name[:7] not in EXCEPTIONS
        for line in findings(commit, subject_of)
    ]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


def _commits(revisions: str) -> list[Commit]:
    listed = _git("log", "--no-merges", "--format=%H%x00%s%x00%b%x01", revisions) or ""
    records = (record.strip("\n") for record in listed.split("\x01"))
    return [Commit(*record.split("\x00", 2)) for record in records if record]


def _git(*arguments: str) -> str | None:
    """Return what git says, None when it refuses."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
