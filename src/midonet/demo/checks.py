"""What the demo checks, each with a real tool and one line of result."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from midonet.demo.lab import VirtualMachine
from midonet.demo.namespaces import CommandError, Namespace
from midonet.demo.processes import wait_until
from midonet.demo.steady_ping import PATIENCE_S, steady_ping
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
    interface: str | None = None,
) -> PingResult:
    """Ping from a VM. An answer that does not come is a result, not an error."""
    command = ["ping", "-n", "-q", "-c", str(count), "-i", str(interval_s), "-W", str(wait_s)]
    if interface is not None:
        command += ["-I", interface]
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
    with steady_ping(source, target, 0.05, least=0) as pinging:
        last, lost = pinging.stop(5)
    return Check(
        name,
        not lost,
        pinging.average_ms,
        "ms",
        f"{source.name} to {target}: {last - len(lost)} of {last} answered",
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
    command = ["traceroute", "-n", "-q", "1", "-w", "10", "-m", "6", target]
    try:
        shown = source.namespace.run(*command, timeout_s=100)
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


def check_seen_as(
    name: str, source: VirtualMachine, server: VirtualMachine, target: str, address: str
) -> Check:
    """The other end of a TCP connection sees the source under this address."""
    with program(server.namespace, "mirror", "5003"):
        ask = [sys.executable, "-m", "midonet.demo.ends", "ask", target, "5003"]
        try:
            seen = json.loads(source.namespace.run(*ask, timeout_s=90))["name"]
        except CommandError as error:
            return Check(name, False, detail=str(error))
    return Check(name, seen == address, detail=f"{source.name} to {target}, seen as {seen}")


def check_restart(name: str, source: VirtualMachine, target: str) -> Check:
    """Kill the agent of the sender's host under traffic, start it again: nothing is lost."""
    host = source.host
    with steady_ping(source, target) as pinging:
        pinging.wait_answers(100)
        host.agent.kill()
        pinging.wait_answers(150)
        host.agent.start()
        host.wait_ready()
        last, lost = pinging.stop(200)
    host.agent.require_running()
    detail = f"agent of {host.name} killed and restarted; {last} pings, 10 ms apart"
    return Check(name, not lost, len(lost), "lost", detail)


def seconds_until_answer(source: VirtualMachine, target: str, *, wanted: bool) -> float:
    """Wait until pings are answered (or not any more); return the seconds it took."""

    def reached() -> bool:
        if wanted:
            return ping(source, target, count=1, wait_s=0.3).received == 1
        return ping(source, target, count=3, wait_s=1).received == 0

    state = "answered" if wanted else "silent"
    return wait_until(reached, what=f"{target} {state}", timeout_s=PATIENCE_S, interval_s=0.01)


def check_carrier(
    name: str, fabric: Namespace, source: VirtualMachine, target: str, carrier: str
) -> Check:
    """Pings between hosts are answered, and travel in this encapsulation and no other."""
    seconds_until_answer(source, target, wanted=True)
    with program(fabric, "witness") as witness:
        with steady_ping(source, target, 0.05, least=0) as pinging:
            last, lost = pinging.stop(10)
        witness.terminate()
        assert witness.stdout is not None
        counts = json.loads(witness.stdout.readline())
    other = "gre" if carrier == "vxlan" else "vxlan"
    ok = not lost and counts[carrier] >= 20 and counts[other] == 0
    detail = f"{last - len(lost)} of {last} answered; outer packets: {counts}"
    return Check(name, ok, counts[carrier], "outer packets", detail)
