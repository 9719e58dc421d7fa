"""Behaviour by behaviour: every test that the pages name exists, and no row is without one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.scenario import dhcp_sequences
from tests.scenario.balancing_paths import BEHAVIOURS as BALANCING
from tests.scenario.lives import LIVES
from tests.scenario.sequences import SEQUENCES
from tests.scenario.test_scenarios import SCENARIOS

TESTS = Path(__file__).parents[1]
DESIGN = TESTS.parent / "docs" / "design"

_LISTS = (SCENARIOS, SEQUENCES, dhcp_sequences.SEQUENCES, LIVES, BALANCING)
NAMES = frozenset(one.name for each in _LISTS for one in each)


@dataclass(frozen=True)
class Row:
    """A row of a table. number: `1.2-3` of a behaviour, `D4` of a deviation."""

    number: str
    cells: tuple[str, ...]

    @property
    def holders(self) -> list[str]:
        """What the last column names, one by one."""
        return [one.strip() for one in self.cells[-1].split(";")]


def rows(page: str) -> list[Row]:
    """Return the rows of all tables of a page, but for their heads."""
    found = []
    for line in (DESIGN / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and re.fullmatch(r"D\d+|\d\.\d-\d+", cells[0]):
            found.append(Row(cells[0], tuple(cells[1:])))
    return found


BEHAVIOURS, DEVIATIONS = rows("behaviour.md"), rows("deviations.md")


@cache
def functions(path: Path) -> frozenset[str]:
    """Return the names of the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_"
    )


def names_a_test(holder: str) -> bool:
    """Tell whether a cell names a test that exists."""
    if holder.startswith("*"):
        return holder.strip("*") in NAMES
    file, _, name = holder.strip("`").partition("::")
    path = TESTS / file
    return path.is_file() and (name in functions(path) if name else bool(functions(path)))


def test_tables_are_read() -> None:
    """Else the tests below would hold of nothing."""
    assert len(BEHAVIOURS) > 150
    assert len(DEVIATIONS) > 30


@pytest.mark.parametrize("row", BEHAVIOURS, ids=lambda row: row.number)
def test_a_behaviour_has_a_test_or_is_a_deviation(row: Row) -> None:
    deviations = {one.number for one in DEVIATIONS}
    assert len(row.cells) == 2
    for holder in row.holders:
        assert holder in deviations or names_a_test(holder), holder


@pytest.mark.parametrize("row", DEVIATIONS, ids=lambda row: row.number)
def test_a_deviation_has_a_reason_and_a_test(row: Row) -> None:
    assert len(row.cells) == 4
    assert all(len(cell) > 10 for cell in row.cells[:3])
    for holder in row.holders:
        assert names_a_test(holder), holder


def _numbers(behaviours: list[Row], section: str) -> Iterator[int]:
    for row in behaviours:
        if row.number.startswith(f"{section}-"):
            yield int(row.number.partition("-")[2])


def test_rows_are_numbered_without_gaps_and_deviations_apart() -> None:
    for section in {row.number.partition("-")[0] for row in BEHAVIOURS}:
        numbers = list(_numbers(BEHAVIOURS, section))
        assert numbers == list(range(1, len(numbers) + 1)), section
    deviations = [row.number for row in DEVIATIONS]
    assert len(deviations) == len(set(deviations))


def test_every_section_of_the_original_is_there() -> None:
    sections = {row.number.partition("-")[0] for row in BEHAVIOURS}
    counts = {1: 9, 2: 7, 3: 6, 4: 7, 5: 3}
    assert sections == {
        f"{one}.{two}" for one, last in counts.items() for two in range(1, last + 1)
    }
