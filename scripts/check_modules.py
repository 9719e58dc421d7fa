"""Hold modules to the size and naming rules of the house. Exit 1 with a line per finding."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

MAX_LINES = 600
LONGER_WITH_REASON: dict[str, str] = {}
"""Paths allowed over MAX_LINES, each with the reason."""

EMPTY_PROMISE = re.compile(r"(^|/)(utils?|helpers?|common|misc|base|managers?|handlers?)(\.|/)")
ONE_NAME_EACH = "src/midonet/agent/"
CHECKED = ("src/*.py", "tests/*.py", "bench/*.py", "scripts/*.py", "bpf/*.c", "bpf/*.h")


def findings(paths: list[str]) -> list[str]:
    """Return what is wrong with `paths`, a line each."""
    found = []
    for path in paths:
        if EMPTY_PROMISE.search(path):
            found.append(f"{path}: the name promises nothing; name the module by what it does")
        text = Path(path).read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > MAX_LINES and path not in LONGER_WITH_REASON:
            found.append(f"{path}: {lines} lines (at most {MAX_LINES}); split it by idea")
        if re.search(r"\b(TODO|FIXME|XXX)\b", text) and path != "scripts/check_modules.py":
            found.append(f"{path}: holds an unfinished mark")
    found += [
        f"{' and '.join(same)}: one name for two things; name each by what it does"
        for same in _same_names(path for path in paths if path.startswith(ONE_NAME_EACH))
    ]
    found += [
        f"{path}: is listed as longer than {MAX_LINES} lines but is not there"
        for path in LONGER_WITH_REASON
        if not Path(path).exists()
    ]
    return found


def _same_names(paths: Iterable[str]) -> list[list[str]]:
    """Return the groups of modules that have one file name in several rooms."""
    by_name: dict[str, list[str]] = {}
    for path in paths:
        by_name.setdefault(Path(path).name, []).append(path)
    return [same for name, same in by_name.items() if len(same) > 1 and name != "__init__.py"]


def main() -> int:
    """Check the files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *CHECKED],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    found = findings([path for path in listed if Path(path).exists()])
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
