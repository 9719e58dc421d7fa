"""Every drop reason is described, and at least one test names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from midonet.agent.flows.drop_reason import DropReason
from scripts.generate_docs import REFERENCE
from scripts.reference_pages.drop_reasons import ADVICE, described

TESTS = Path(__file__).parents[1]

ENUMERATING = frozenset({"test_drop_reasons.py", "test_scenarios.py"})
"""Tests that list reasons without provoking each."""


def named_in_tests() -> set[str]:
    """Return every word in capitals of the tests that provoke drops."""
    words: set[str] = set()
    for path in TESTS.rglob("*.py"):
        if path.name not in ENUMERATING:
            words.update(re.findall(r"\b[A-Z][A-Z_]+\b", path.read_text(encoding="utf-8")))
    return words


@pytest.mark.parametrize("reason", DropReason, ids=lambda reason: reason.name)
def test_reason_has_a_line_with_meaning_and_advice(reason: DropReason) -> None:
    text = (REFERENCE / "drop-reasons.md").read_text(encoding="utf-8")
    line = re.search(rf"^\| {reason.value} \| `{reason.name}` \| (.+) \| (.+) \|$", text, re.M)
    assert line is not None
    assert all(len(cell) > 10 for cell in line.groups())


def test_source_comments_describe_all_reasons_in_order() -> None:
    assert [each.reason for each in described()] == list(DropReason)
    assert set(ADVICE) == set(DropReason)


def test_every_reason_is_named_by_a_test() -> None:
    named = named_in_tests()
    assert [reason for reason in DropReason if reason.name not in named] == []
