"""Links between pages lead somewhere, the index pages are complete, fragments are well formed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
SOURCES = ("src", "bpf", "scripts", "tests", "bench")
FRAGMENT = re.compile(
    r"^[a-z]?\d+(-[a-z0-9-]+)?\.(feature|fix|breaking|deprecation|security|doc)\.md$"
)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))


def named_sources(page: Path) -> list[str]:
    return re.findall(r"`([\w/]+\.(?:py|c|h))`", page.read_text(encoding="utf-8"))


def test_what_the_next_tests_look_for_is_found() -> None:
    """Else they would pass on every page."""
    assert sum(len(links(page)) for page in PAGES) > 30
    assert sum(len(named_sources(page)) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_index_lists_every_reference_and_design_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in (DOCS / "reference").glob("*.md"):
        assert f"(reference/{page.name})" in index
    design = (DOCS / "design" / "README.md").read_text(encoding="utf-8")
    for page in (DOCS / "design").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in design


def rooms_of_the_agent() -> set[str]:
    agent = ROOT / "src" / "midonet" / "agent"
    return {path.parent.name for path in agent.glob("*/__init__.py")}


def test_design_names_files_in_the_rooms_where_they_are() -> None:
    text = (DOCS / "design" / "README.md").read_text(encoding="utf-8")
    stages = text[text.index("In the agent:") : text.index("Rooms import downwards")]
    agent = ROOT / "src" / "midonet" / "agent"
    rows = [row.split("|")[2:4] for row in stages.splitlines() if "`" in row]
    assert len(rows) > len(rooms_of_the_agent())
    for rooms, files in rows:
        folders = [agent, *(agent / room for room in re.findall(r"`(\w+/)`", rooms))]
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", files):
            assert any((folder / name).exists() for folder in folders), f"{rooms.strip()}: {name}"


def test_design_shows_every_room_of_the_agent() -> None:
    text = (DOCS / "design" / "README.md").read_text(encoding="utf-8")
    stages = text[text.index("In the agent:") : text.index("Rooms import downwards")]
    for room in rooms_of_the_agent():
        assert f"`{room}/`" in stages, room


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_source_files_that_a_page_names_exist(page: Path) -> None:
    sources = [path.as_posix() for root in SOURCES for path in (ROOT / root).rglob("*.*")]
    text = page.read_text(encoding="utf-8")
    for name in named_sources(page):
        assert any(path.endswith(f"/{name}") for path in sources), name
    for name in re.findall(r"`(midonet(?:\.[a-z]\w*)+)", text):
        path = ROOT / "src" / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), name


def test_every_package_is_in_the_design_index() -> None:
    text = (DOCS / "design" / "README.md").read_text(encoding="utf-8")
    for package in (ROOT / "src" / "midonet").iterdir():
        if (package / "__init__.py").exists():
            assert f"`{package.name}/`" in text, package.name


def test_changelog_fragments_are_named_by_issue_and_kind() -> None:
    fragments = list((ROOT / "changelog.d").iterdir())
    assert all(FRAGMENT.match(path.name) for path in fragments)
    assert all(path.read_text(encoding="utf-8").strip().endswith(".") for path in fragments)
