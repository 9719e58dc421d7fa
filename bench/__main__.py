"""Run the bench: figures of the parts, then the network against its baselines."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from bench.network import measure
from bench.rows import Row, machine, table, write

ROOT = Path(__file__).resolve().parent.parent
PARTS = (
    "simulation",
    "flows",
    "invalidation",
    "topology",
    "world",
    "loading",
    "binding",
    "nsdb",
    "rest",
    "bpf",
)


def part_rows(name: str) -> list[Row]:
    """Run one `bench_NAME` in a process of its own and collect the rows it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"bench.bench_{name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(f"bench_{name} failed:\n{done.stderr}", file=sys.stderr)
        raise SystemExit(1)
    return [
        Row(found["name"], found["value"], found["unit"])
        for line in done.stdout.splitlines()
        if line.startswith("{")
        for found in [json.loads(line)]
    ]


def main() -> int:
    """Measure, print a table, write build/bench.json."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="network rounds (default 7)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run (default 1)")
    parser.add_argument("--only", choices=["parts", "network"], help="one half")
    arguments = parser.parse_args()
    rows: list[Row] = []
    if arguments.only != "network":
        for name in PARTS:
            print(f"part {name}", flush=True)
            rows += part_rows(name)
    if arguments.only != "parts":
        if os.geteuid() != 0:
            print("network rows need root, for namespaces and eBPF", file=sys.stderr)
            return 2
        rows += measure(ROOT / "build", arguments.rounds, arguments.seconds)
    print(json.dumps(machine()))
    print(table(rows))
    write(rows, ROOT / "build" / "bench.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
