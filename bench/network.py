"""Network rows: the product against bare wires, bridges, routing and kernel VXLAN.

All scenarios stand at the same time; each round runs every scenario once for each kind of
traffic, in random order. Client and server share one CPU. A-A rows compare a baseline with a
second copy of itself: the distance from 1 is the noise of the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path as FilePath

from bench import baselines
from bench.baselines import Path
from bench.first_packet import first_packet_rows
from bench.rows import Row, compared
from bench.traffic import Generator, Sample, last_cpu
from bench.virtual import virtual
from midonet.model.hosts import TunnelKind


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of traffic: how to run it and which figure counts."""

    name: str
    unit: str
    run: Callable[[Path, float], Sample]
    figure: Callable[[Sample], float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One scenario against a baseline."""

    scenario: str
    baseline: str


LOCAL = (
    Comparison("midonet-local", "bridge"),
    Comparison("midonet-local", "bare"),
    Comparison("bridge again", "bridge"),
)
REMOTE = (
    Comparison("midonet-vxlan", "kref"),
    Comparison("midonet-gre", "kref"),
    Comparison("midonet-vxlan-routed", "kref"),
    Comparison("midonet-vxlan", "route"),
    Comparison("midonet-gre", "route"),
    Comparison("midonet-vxlan-routed", "route"),
    Comparison("midonet-vxlan", "bare"),
    Comparison("kref again", "kref"),
    Comparison("route again", "route"),
)


def traffics(generator: Generator) -> tuple[Traffic, ...]:
    """Return the kinds of traffic; rates are per second of CPU of both ends."""
    return (
        Traffic("latency", "us", generator.request_response, lambda s: s.p50_us),
        Traffic("connections", "1/cpu-s", generator.connections, lambda s: s.count / s.cpu_s),
        Traffic("bulk TCP", "Gbit/cpu-s", generator.bulk, lambda s: s.bytes * 8e-9 / s.cpu_s),
        Traffic("64-byte packets", "1/cpu-s", generator.small_packets, lambda s: s.count / s.cpu_s),
    )


def measure(build: FilePath, rounds: int, seconds: float, seed: int = 1) -> list[Row]:
    """Run all network rows."""
    generator = Generator(build, last_cpu())
    order = random.Random(seed)
    with ExitStack() as stack:
        paths: dict[str, Path] = {}
        for prefix, make in (
            ("mnb-bare", baselines.bare),
            ("mnb-br", baselines.bridge),
            ("mnb-rt", baselines.route),
            ("mnb-kr", baselines.kref),
        ):
            path = stack.enter_context(make(prefix))
            paths[path.name] = path
        for prefix, make in (
            ("mnb-br2", baselines.bridge),
            ("mnb-rt2", baselines.route),
            ("mnb-kr2", baselines.kref),
        ):
            path = stack.enter_context(make(prefix))
            paths[f"{path.name} again"] = path
        for kind in (TunnelKind.VXLAN, TunnelKind.GRE):
            lab_directory = build / f"lab-{kind}"
            made = stack.enter_context(virtual(f"mnb-{kind}", lab_directory, kind))
            for path in made.paths.values():
                paths.setdefault(path.name, path)
            if kind is TunnelKind.VXLAN:
                first = first_packet_rows(made)
        samples = _rounds(paths, traffics(generator), rounds, seconds, order)
    rows = []
    for traffic in traffics(generator):
        for comparison in (*LOCAL, *REMOTE):
            rows.append(
                compared(
                    f"{comparison.scenario}: {traffic.name}",
                    traffic.unit,
                    samples[comparison.scenario, traffic.name],
                    comparison.baseline,
                    samples[comparison.baseline, traffic.name],
                )
            )
    return rows + first


def _rounds(
    paths: dict[str, Path],
    kinds: tuple[Traffic, ...],
    rounds: int,
    seconds: float,
    order: random.Random,
) -> dict[tuple[str, str], list[float]]:
    samples: dict[tuple[str, str], list[float]] = {
        (name, traffic.name): [] for name in paths for traffic in kinds
    }
    for number in range(rounds):
        for traffic in kinds:
            names = list(paths)
            order.shuffle(names)
            for name in names:
                figure = traffic.figure(traffic.run(paths[name], seconds))
                samples[name, traffic.name].append(figure)
        print(f"network round {number + 1} of {rounds}", flush=True)
    return samples
