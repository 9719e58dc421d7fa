"""Run every test lane this machine can run, and say what was skipped and why.

Lanes without privilege run first; then those that need root, namespaces and eBPF, with the
virtual machine beside them. With MIDONET_REQUIRE_LANES=1 (CI) a skipped test fails the run. The
last line is `N passed, N failed, N skipped` over all lanes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Lane:
    """One pytest run. `workers` is the number of parallel processes (0: in this one).

    distribution: what stays together on one worker; loadfile where a file's tests share a lab.
    """

    name: str
    paths: tuple[str, ...]
    workers: int
    distribution: str = "loadgroup"


STAGES = (
    (
        Lane(
            "pure",
            ("tests/unit", "tests/property", "tests/fuzz", "tests/contract", "tests/scenario"),
            2,
        ),
    ),
    # Agents wait for each other's clocks, so one worker more than there are processors has work.
    (Lane("product", ("tests/api", "tests/differential", "tests/multiagent", "tests/docs"), 3),),
    # Labs wait for their agents most of the time; the virtual machine computes meanwhile.
    (
        Lane("kernel", ("tests/bpf", "tests/netns"), 2, "loadfile"),
        Lane("qemu", ("tests/qemu",), 0),
    ),
)
"""Lanes in order; those of a stage run at the same time."""

LANES = tuple(lane for stage in STAGES for lane in stage)


@dataclass(slots=True)
class Tally:
    """Counts over lanes."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, output: str) -> None:
        """Add the counts of a pytest summary line."""
        for count, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", output):
            if word == "passed":
                self.passed += int(count)
            elif word == "skipped":
                self.skipped += int(count)
            else:
                self.failed += int(count)


def start_lane(lane: Lane, extra: list[str], output: IO[str] | None) -> subprocess.Popen[str]:
    """Start a lane. output: where what it prints goes; None to read it from the process."""
    command = [sys.executable, "-m", "pytest", "-q", *lane.paths, *extra]
    if lane.workers:
        command += ["-n", str(lane.workers), "--dist", lane.distribution]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=output or subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def echo(lines: Iterable[str]) -> str:
    """Print lines as they come; return the summary of pytest among them."""
    last = ""
    for line in lines:
        sys.stdout.write(line)
        sys.stdout.flush()
        if re.search(r"\d+ (passed|failed|error|skipped|deselected)", line):
            last = line
    return last


def run_stage(lanes: Sequence[Lane], extra: list[str], tally: Tally) -> bool:
    """Run lanes at the same time and tell whether all held.

    What the first prints is seen as it comes, what the others print when the first is done.
    """
    started = time.monotonic()
    held = True
    with contextlib.ExitStack() as stack:
        running = []
        for number, lane in enumerate(lanes):
            output = stack.enter_context(tempfile.TemporaryFile("w+")) if number else None
            running.append((lane, output, start_lane(lane, extra, output)))
        for lane, output, process in running:
            print(f"== lane {lane.name}: {' '.join(lane.paths)}", flush=True)
            if output is None:
                assert process.stdout is not None
                last = echo(process.stdout)
                code = process.wait()
            else:
                code = process.wait()
                output.seek(0)
                last = echo(output)
            tally.add(last)
            held = held and code == 0
            print(
                f"== lane {lane.name}: {time.monotonic() - started:.0f} s, exit {code}", flush=True
            )
    return held


def main() -> int:
    """Run the lanes named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lane", action="append", choices=[lane.name for lane in LANES])
    arguments, extra = parser.parse_known_args()
    tally = Tally()
    held = True
    for stage in STAGES:
        wanted = [lane for lane in stage if arguments.lane is None or lane.name in arguments.lane]
        held = run_stage(wanted, extra, tally) and held
    if tally.skipped and os.environ.get("MIDONET_REQUIRE_LANES") == "1":
        print("a lane that should run here was skipped; see the reasons above")
        held = False
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
