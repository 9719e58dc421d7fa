"""What the demo checks, each with a real tool and one line of result."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from midonet.demo.lab import VirtualMachine
from midonet.demo.namespaces import CommandError, Namespace
from midonet.demo.processes import wait_until
from midonet.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Check:
    """One result. `figure` is a number in `unit`, or None when there is none."""

    name: str
    ok: bool
    figure: float | None = None
    unit: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PingResult:
    """Summary of one run of ping(8). average_ms is 0 when nothing came back."""

    sent: int
    received: int
    average_ms: float


def ping(
    source: VirtualMachine,
    target: str,
    *,
    count: int = 3,
    interval_s: float = 0.05,
    wait_s: float = 2,
) -> PingResult:
    """Ping from a VM. An answer that does not come is a result, not an error."""
    command = ["ping", "-n", "-q", "-c", str(count), "-i", str(interval_s), "-W", str(wait_s)]
    done = subprocess.run(
        source.namespace.enter([*command, target]),
        capture_output=True,
        text=True,
        timeout=count * interval_s + wait_s + 30,
        check=False,
    )
    return _summary(done.stdout + done.stderr)


def _summary(text: str) -> PingResult:
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    times = re.search(r"= [\d.]+/([\d.]+)/", text)
    if counts is None:
        raise UnavailableError(f"ping: {text.strip() or 'no output'}")
    return PingResult(int(counts[1]), int(counts[2]), float(times[1]) if times else 0.0)


def check_ping(name: str, source: VirtualMachine, target: str) -> Check:
    """All of five pings come back, the first one included."""
    result = ping(source, target, count=5)
    return Check(
        name,
        result.received == result.sent,
        result.average_ms,
        "ms",
        f"{source.name} to {target}: {result.received} of {result.sent} answered",
    )


def check_no_answer(name: str, source: VirtualMachine, target: str) -> Check:
    """Nothing comes back from an address that is not this tenant's."""
    result = ping(source, target, count=3, wait_s=1)
    return Check(
        name,
        result.received == 0,
        result.received,
        "answers",
        f"{source.name} to {target}: {result.received} of {result.sent} answered",
    )


def check_traceroute(
    name: str, source: VirtualMachine, target: str, hops: tuple[str, ...]
) -> Check:
    """The way shows the router and then the target, nothing else."""
    command = ["traceroute", "-n", "-q", "1", "-w", "2", "-m", "6", target]
    try:
        shown = source.namespace.run(*command, timeout_s=40)
    except CommandError as error:
        return Check(name, False, detail=str(error))
    found = tuple(re.findall(r"^\s*\d+\s+(\S+)", shown, re.MULTILINE))
    return Check(name, found == hops, len(found), "hops", " > ".join(found))


@contextmanager
def program(where: Namespace, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of `midonet.demo.ends` in a namespace while the block lasts."""
    process = subprocess.Popen(
        where.enter([sys.executable, "-m", "midonet.demo.ends", *arguments]),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise UnavailableError(f"{arguments[0]} did not start in {where.name}")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=10)


def check_stream(
    name: str, source: VirtualMachine, server: VirtualMachine, target: str, megabytes: int
) -> Check:
    """A TCP stream arrives whole and unchanged."""
    size = megabytes * 1_000_000
    with program(server.namespace, "receive", "5001") as receiver:
        sent = json.loads(
            source.namespace.run(
                *[sys.executable, "-m", "midonet.demo.ends", "send", target, "5001", str(size)],
                timeout_s=120,
            )
        )
        assert receiver.stdout is not None
        got = json.loads(receiver.stdout.readline())
    return Check(
        name,
        got["size"] == size and got["digest"] == sent["digest"],
        got["size"] * 8 / got["seconds"] / 1e9,
        "Gbit/s",
        f"{got['size']} bytes, digest {'equal' if got['digest'] == sent['digest'] else 'differs'}",
    )


def check_identity(
    name: str,
    pairs: tuple[tuple[VirtualMachine, VirtualMachine], ...],
    target: str,
) -> Check:
    """Each tenant that asks the same address reaches its own machine."""
    answers = []
    for source, server in pairs:
        with program(server.namespace, "identify", "5002", server.name):
            ask = [sys.executable, "-m", "midonet.demo.ends", "ask", target, "5002"]
            try:
                answers.append(json.loads(source.namespace.run(*ask))["name"])
            except CommandError:
                answers.append("no answer")
    ok = answers == [server.name for _source, server in pairs]
    said = ", ".join(
        f"{source.name} got {answer}"
        for (source, _server), answer in zip(pairs, answers, strict=True)
    )
    return Check(name, ok, detail=f"{target}: {said}")


def check_restart(name: str, source: VirtualMachine, target: str) -> Check:
    """Kill the agent of the sender's host under traffic, start it again: nothing is lost."""
    agent = source.host.agent
    command = ["ping", "-n", "-q", "-c", "800", "-i", "0.01", "-W", "2", target]
    pinging = subprocess.Popen(
        source.namespace.enter(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        time.sleep(1.5)
        agent.kill()
        time.sleep(1.5)
        agent.start()
        output, _ = pinging.communicate(timeout=60)
    finally:
        pinging.kill()
        pinging.wait()
    agent.require_running()
    result = _summary(output)
    lost = result.sent - result.received
    detail = f"agent of {source.host.name} killed and restarted; {result.sent} pings, 10 ms apart"
    return Check(name, lost == 0, lost, "lost", detail)


def seconds_until_answer(
    source: VirtualMachine, target: str, *, wanted: bool, timeout_s: float = 10
) -> float:
    """Wait until a ping is answered (or is not any more); return the seconds it took."""

    def reached() -> bool:
        return (ping(source, target, count=1, wait_s=0.3).received == 1) is wanted

    state = "answered" if wanted else "silent"
    return wait_until(reached, what=f"{target} {state}", timeout_s=timeout_s, interval_s=0.01)


def check_carrier(
    name: str, fabric: Namespace, source: VirtualMachine, target: str, carrier: str
) -> Check:
    """Pings between hosts are answered, and travel in this encapsulation and no other."""
    seconds_until_answer(source, target, wanted=True, timeout_s=20)
    with program(fabric, "witness") as witness:
        result = ping(source, target, count=10)
        witness.terminate()
        assert witness.stdout is not None
        counts = json.loads(witness.stdout.readline())
    other = "gre" if carrier == "vxlan" else "vxlan"
    ok = result.received == result.sent and counts[carrier] >= 20 and counts[other] == 0
    detail = f"{result.received} of {result.sent} answered; outer packets: {counts}"
    return Check(name, ok, counts[carrier], "outer packets", detail)
