"""The generated page is current."""

from __future__ import annotations

from pathlib import Path

from midonet.api.reference_doc import main, reference_page

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "rest.md"


def test_reference_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        f"regenerate it: python -m midonet.api.reference_doc {PAGE}"
    )


def test_page_is_written_to_the_file_that_is_named(tmp_path: Path) -> None:
    assert main([str(tmp_path / "rest.md")]) == 0
    assert (tmp_path / "rest.md").read_text(encoding="utf-8") == reference_page()
