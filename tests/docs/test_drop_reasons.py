"""Every drop reason is described, and at least one test provokes it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from midonet.agent.flows.drop_reason import DropReason
from scripts.generate_docs import REFERENCE
from scripts.reference_pages.drop_reasons import ADVICE, described
from tests.scenario.test_scenarios import DATAPATH_ONLY

TESTS = Path(__file__).parents[1]

_WAITING = frozenset(("expect_drops", "wait_dropped", "eventually", "until"))
"""Functions of the tests that fail when a condition does not come true."""


def _asserts(function: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Assert)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in _WAITING
        )
        for node in ast.walk(function)
    )


def _names(function: ast.AST) -> set[str]:
    """Return the reasons that a function names, as members or as an agent prints them."""
    names = {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "DropReason"
    }
    texts = {node.value for node in ast.walk(function) if isinstance(node, ast.Constant)}
    return names | (texts & set(DropReason.__members__))


def asserted() -> set[str]:
    """Return the names of reasons in tests that assert something, and in what these call."""
    found: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        functions = {
            node.name: node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for name, function in functions.items():
            if name.startswith("test_") and _asserts(function):
                found |= _names(function)
                for called in _called(function) & functions.keys():
                    found |= _names(functions[called])
    return found


def _called(function: ast.AST) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


@pytest.mark.parametrize("reason", DropReason, ids=lambda reason: reason.name)
def test_reason_has_a_line_with_meaning_and_advice(reason: DropReason) -> None:
    text = (REFERENCE / "drop-reasons.md").read_text(encoding="utf-8")
    line = re.search(rf"^\| {reason.value} \| `{reason.name}` \| (.+) \| (.+) \|$", text, re.M)
    assert line is not None
    assert all(len(cell) > 10 for cell in line.groups())


def test_source_comments_describe_all_reasons_in_order() -> None:
    assert [each.reason for each in described()] == list(DropReason)
    assert set(ADVICE) == set(DropReason)


def test_every_reason_is_provoked_by_a_test() -> None:
    """Simulation's reasons are observed with the scenarios; a test asserts each of the others."""
    left_out = {reason.name for reason in DATAPATH_ONLY} - asserted()
    assert left_out == set()
