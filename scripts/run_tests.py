"""Run every test lane this machine can run, and say what was skipped and why.

Lanes without privilege run first, in parallel; then those that need root, namespaces and eBPF;
then the virtual machine. With MIDONET_REQUIRE_LANES=1 (CI) a skipped test fails the run. The
last line is `N passed, N failed, N skipped` over all lanes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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


LANES = (
    Lane(
        "pure",
        ("tests/unit", "tests/property", "tests/fuzz", "tests/contract", "tests/scenario"),
        2,
    ),
    Lane("product", ("tests/api", "tests/differential", "tests/multiagent", "tests/docs"), 2),
    Lane("kernel", ("tests/bpf", "tests/netns"), 2, "loadfile"),
    Lane("qemu", ("tests/qemu",), 0),
)


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


def run_lane(lane: Lane, extra: list[str], tally: Tally) -> bool:
    """Run one lane, echo its output, and tell whether it held."""
    paths = [path for path in lane.paths if (ROOT / path).is_dir()]
    if not paths:
        return True
    command = [sys.executable, "-m", "pytest", "-q", *paths, *extra]
    if lane.workers:
        command += ["-n", str(lane.workers), "--dist", lane.distribution]
    started = time.monotonic()
    print(f"== lane {lane.name}: {' '.join(paths)}", flush=True)
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        if re.search(r"\d+ (passed|failed|error|skipped|deselected)", line):
            last = line
    code = process.wait()
    tally.add(last)
    print(f"== lane {lane.name}: {time.monotonic() - started:.0f} s, exit {code}", flush=True)
    return code == 0


def main() -> int:
    """Run the lanes named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lane", action="append", choices=[lane.name for lane in LANES])
    arguments, extra = parser.parse_known_args()
    tally = Tally()
    held = True
    for lane in LANES:
        if arguments.lane is None or lane.name in arguments.lane:
            held = run_lane(lane, extra, tally) and held
    if tally.skipped and os.environ.get("MIDONET_REQUIRE_LANES") == "1":
        print("a lane that should run here was skipped; see the reasons above")
        held = False
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
