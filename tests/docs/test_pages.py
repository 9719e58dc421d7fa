"""Links between pages lead somewhere, the index pages are complete, fragments are well formed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FRAGMENT = re.compile(r"^\d+(-[a-z0-9-]+)?\.(feature|fix|breaking|deprecation|security|doc)\.md$")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_index_lists_every_reference_and_design_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in (DOCS / "reference").glob("*.md"):
        assert f"(reference/{page.name})" in index
    design = (DOCS / "design" / "README.md").read_text(encoding="utf-8")
    for page in (DOCS / "design").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in design


def test_design_names_files_that_exist() -> None:
    text = (DOCS / "design" / "README.md").read_text(encoding="utf-8")
    stages = text[text.index("In the agent:") : text.index("## Pages")]
    agent = ROOT / "src" / "midonet" / "agent"
    folder = ""
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", stages):
        folder = name.rpartition("/")[0] if "/" in name else folder
        found = [agent / name, agent / folder / name, agent.parent / name, ROOT / name]
        assert any(path.exists() for path in found), name


def test_every_package_is_in_the_design_index() -> None:
    text = (DOCS / "design" / "README.md").read_text(encoding="utf-8")
    for package in (ROOT / "src" / "midonet").iterdir():
        if (package / "__init__.py").exists():
            assert f"`{package.name}/`" in text, package.name


def test_changelog_fragments_are_named_by_issue_and_kind() -> None:
    fragments = list((ROOT / "changelog.d").iterdir())
    assert all(FRAGMENT.match(path.name) for path in fragments)
    assert all(path.read_text(encoding="utf-8").strip().endswith(".") for path in fragments)
