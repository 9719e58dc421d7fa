"""Bring the generated parts of the documentation up to date: `python -m scripts.generate_docs`.

A page holds its generated parts between `<!-- generated: NAME -->` and `<!-- end -->`; everything
else on it is written by hand. `docs/reference/rest.md` is generated as a whole. With `--check`
nothing is written, and the exit code is 1 when a page is not current.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from midonet.api.reference_doc import reference_page
from scripts.reference_pages import commands, drop_reasons, overlay, settings, store

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"

PARTS: dict[str, Callable[[], str]] = {
    "drop-reasons": drop_reasons.reasons,
    "agent-options": settings.agent_options,
    "cluster-options": settings.cluster_options,
    "commands": commands.commands,
    "stored-kinds": store.kinds,
    "state-tables": store.state_tables,
    "sql-tables": store.sql_tables,
    "overlay-numbers": overlay.numbers,
}
"""What makes each generated part."""

_PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def generated_pages() -> dict[Path, str]:
    """Return every reference page with a generated part, as it should be.

    Raises KeyError for a part that nothing makes.
    """
    pages = {REFERENCE / "rest.md": reference_page()}
    for path in sorted(REFERENCE.glob("*.md")):
        if path in pages:
            continue
        pages[path] = _PART.sub(
            lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}",
            path.read_text(encoding="utf-8"),
        )
    return pages


def parts_used() -> set[str]:
    """Return the names of the parts that pages hold."""
    return {
        found[2]
        for path in REFERENCE.glob("*.md")
        for found in _PART.finditer(path.read_text(encoding="utf-8"))
    }


def main() -> int:
    """Write the pages that changed, or tell which would."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when not current")
    check = parser.parse_args().check
    stale = [
        (path, text)
        for path, text in generated_pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        print(f"{'not current' if check else 'written'}: {path.name}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
