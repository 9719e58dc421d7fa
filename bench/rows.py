"""Rows of the bench, and what the machine is."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `value` is the median of the rounds, `ratio` the median of the rounds' ratios.

    A round runs value and baseline seconds apart, so that a machine that is slow for a while
    is slow for both: ratios of medians taken over different moments would not be.
    baseline: name of the row's baseline ("" for none); low, high: quartiles of the per-round
    ratios (of the values, when there is no baseline); rounds: how many.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 1


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the lower and upper quartile; both the value itself when there is one."""
    if len(values) < 2:
        return values[0], values[0]
    cut = statistics.quantiles(values, n=4, method="inclusive")
    return cut[0], cut[2]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie (the nearest one above)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def compared(
    name: str, unit: str, values: Sequence[float], baseline: str, against: Sequence[float]
) -> Row:
    """Return the row of `values` against the same rounds of a baseline."""
    ratios = [value / base for value, base in zip(values, against, strict=True)]
    low, high = quartiles(ratios)
    return Row(
        name,
        statistics.median(values),
        unit,
        baseline,
        statistics.median(ratios),
        low,
        high,
        len(values),
    )


def plain(name: str, unit: str, values: Sequence[float]) -> Row:
    """Return the row of `values` without a baseline."""
    low, high = quartiles(values)
    return Row(name, statistics.median(values), unit, "", None, low, high, len(values))


def machine() -> dict[str, object]:
    """Return what this machine is and how busy it was."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned table."""
    lines = [("name", "value", "unit", "baseline", "ratio", "quartiles", "rounds")]
    for row in rows:
        spread = "" if row.low is None or row.high is None else f"{row.low:.4g}-{row.high:.4g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        lines.append(
            (row.name, f"{row.value:.5g}", row.unit, row.baseline, ratio, spread, str(row.rounds))
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
