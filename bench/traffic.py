"""Run the traffic generator over a path, both ends on one CPU, and account the CPU it took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path as FilePath

from bench.baselines import Path
from midonet.demo.namespaces import Namespace
from midonet.errors import UnavailableError

_SOURCE = FilePath(__file__).with_name("traffic.c")
_PORT = "9000"


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of one run. cpu_s: both ends and the kernel's packet thread of their CPU."""

    count: int
    bytes: int
    seconds: float
    cpu_s: float
    p25_us: float
    p50_us: float
    p99_us: float


class Generator:
    """The compiled generator, pinned to one CPU."""

    def __init__(self, build: FilePath, cpu: int) -> None:
        build.mkdir(parents=True, exist_ok=True)
        self._binary = build / "traffic"
        self._cpu = cpu
        compiler = shutil.which("gcc")
        if compiler is None:
            raise UnavailableError("gcc is not installed; `scripts/bootstrap bench` installs it")
        subprocess.run(
            [compiler, "-O2", "-Wall", "-Wextra", "-o", str(self._binary), str(_SOURCE)], check=True
        )

    def request_response(self, path: Path, seconds: float) -> Sample:
        """One byte there and back on one connection; percentiles are of a round trip."""
        return self._measure(path, "echo", ["rr"], seconds, by_server=False)

    def connections(self, path: Path, seconds: float) -> Sample:
        """Connect, one byte there and back, close; `count` is connections."""
        return self._measure(path, "echo", ["crr"], seconds, by_server=False)

    def bulk(self, path: Path, seconds: float) -> Sample:
        """One TCP stream; `bytes` is what arrived."""
        return self._measure(path, "sink", ["bulk"], seconds, by_server=True)

    def small_packets(self, path: Path, seconds: float) -> Sample:
        """UDP datagrams in 64-byte frames; `count` is what arrived."""
        return self._measure(path, "count", ["udp"], seconds, extra=["18"], by_server=True)

    def _command(self, end: Namespace, *arguments: str) -> list[str]:
        return end.enter(["taskset", "-c", str(self._cpu), str(self._binary), *arguments])

    def _measure(
        self,
        path: Path,
        server_mode: str,
        mode: list[str],
        seconds: float,
        *,
        by_server: bool,
        extra: list[str] | None = None,
    ) -> Sample:
        server = subprocess.Popen(
            self._command(path.server, server_mode, _PORT), stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            if server.stdout.readline().strip() != "ready":
                raise UnavailableError(f"{path.name}: the traffic server did not start")
            softirq = _softirq_seconds(self._cpu)
            client = subprocess.run(
                self._command(path.client, *mode, path.target, _PORT, str(seconds), *(extra or [])),
                capture_output=True,
                text=True,
                timeout=seconds + 30,
                check=False,
            )
            softirq = _softirq_seconds(self._cpu) - softirq
        finally:
            server.terminate()
            rest, _ = server.communicate(timeout=10)
        if client.returncode != 0:
            raise UnavailableError(f"{path.name}: {mode[0]}: {client.stderr.strip()}")
        sent = json.loads(client.stdout)
        received = json.loads(rest)
        counted = received if by_server else sent
        return Sample(
            count=counted["count"],
            bytes=counted["bytes"],
            seconds=sent["seconds"],
            cpu_s=sent["cpu_s"] + received["cpu_s"] + softirq,
            p25_us=sent["p25_us"],
            p50_us=sent["p50_us"],
            p99_us=sent["p99_us"],
        )


def _softirq_seconds(cpu: int) -> float:
    """Return the run time of the kernel's packet thread of a CPU (proc(5), schedstat)."""
    for process in FilePath("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if (process / "comm").read_text().strip() == f"ksoftirqd/{cpu}":
                return int((process / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue
    return 0.0


def last_cpu() -> int:
    """Return the highest CPU this process may use; the ends run there."""
    return max(os.sched_getaffinity(0))
