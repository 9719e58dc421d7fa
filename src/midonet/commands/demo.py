"""`midonet demo`: three virtual hosts, a real topology, real traffic, one line a check."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TextIO

from midonet.demo.checks import Check
from midonet.demo.lab import DEFAULT_PREFIX, Lab, LabOptions
from midonet.demo.services import OUTSIDE
from midonet.demo.show import Scene, build, run_checks
from midonet.errors import MidoNetError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `demo` command."""
    parser = subparsers.add_parser(
        "demo",
        help="build three virtual hosts and show the product at work",
        description=(
            "Make three hosts as network namespaces on a routed underlay, run an agent in each"
            " and one cluster process, build two tenants' networks through REST, plug in VMs,"
            " and check the result with real tools. Needs root. Everything is removed at the"
            " end, on Ctrl-C, and at the next start after a crash. Exit status 0 only when"
            " every check held."
        ),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument(
        "--keep", action="store_true", help="leave everything up and say how to poke at it"
    )
    parser.add_argument("--clean", action="store_true", help="only remove what a run left behind")
    parser.add_argument(
        "--attach-mode",
        choices=("auto", "tcx", "clsact"),
        default="auto",
        help="how programs are attached to interfaces (default: TCX where the kernel has it)",
    )
    parser.add_argument(
        "--prefix",
        type=_prefix,
        default=DEFAULT_PREFIX,
        help="what names begin with, so that several run at once (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]{0,31}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: up to 32 letters and digits, a letter first")
    return text


def _options(arguments: argparse.Namespace) -> LabOptions:
    prefix = arguments.prefix
    name = "midonet-demo" if prefix == DEFAULT_PREFIX else f"midonet-demo-{prefix}"
    attach_mode = arguments.attach_mode
    return LabOptions(
        prefix=prefix,
        directory=Path("/run") / name,
        agent_arguments=() if attach_mode == "auto" else ("--attach-mode", attach_mode),
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit status."""
    if os.geteuid() != 0:
        sys.stderr.write("midonet demo: needs root, to make network namespaces\n")
        return 2
    # Also where a shell has it ignored for background jobs: the lab must go whatever ends us.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started = time.monotonic()

    def say(text: str) -> None:
        stream = sys.stderr if arguments.json else sys.stdout
        tell(stream, f"[{time.monotonic() - started:5.1f} s] {text}")

    lab = Lab(_options(arguments), say)
    lab.clean()
    if arguments.clean:
        return 0
    keep = False
    results: list[Check] = []
    try:
        scene = build(lab, say)
        results = run_checks(scene, lambda check: say(line(check)))
        keep = arguments.keep
        if keep:
            say(how_to_poke(scene))
    except KeyboardInterrupt:
        say("interrupted; removing everything")
        return 130
    except MidoNetError as error:
        say(f"FAILED  {error}")
        results.append(Check("lab", False, detail=str(error)))
    finally:
        if not keep:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            lab.clean()
    if arguments.json:
        sys.stdout.write(json.dumps({"checks": [asdict(check) for check in results]}) + "\n")
    held = sum(check.ok for check in results)
    say(f"{held} of {len(results)} checks held")
    return 0 if results and held == len(results) else 1


def tell(stream: TextIO, text: str) -> None:
    """Write a line of progress. Whether anybody reads it changes nothing of what is checked and
    removed, nor of the exit status."""
    with contextlib.suppress(OSError):
        stream.write(text + "\n")
        stream.flush()


def line(check: Check) -> str:
    """Return one check as one line."""
    figure = "" if check.figure is None else f"{check.figure:g} {check.unit}; "
    return f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {figure}{check.detail}"


def how_to_poke(scene: Scene) -> str:
    """Return what to try on a lab that stays up."""
    lab = scene.lab
    vm = scene.machines["red1"]
    midonet = Path(sys.argv[0])
    prefix = lab.options.prefix
    chosen = "" if prefix == DEFAULT_PREFIX else f" --prefix {prefix}"
    return "\n".join(
        (
            "left up; try:",
            f"  API          curl -s {lab.api_url}/bridges -H 'Accept: application/json'",
            f"  ping         nsenter --net=/run/netns/{vm.namespace.name} ping 10.0.2.14",
            f"  trace        {midonet} trace --state-dir {vm.host.state_dir} --state --reply"
            f" {scene.networks.port_of(vm).id} {_packet_to_trace(scene)}",
            f"  flows        {midonet} flows --state-dir {vm.host.state_dir}",
            f"  drops        {midonet} drops --state-dir {vm.host.state_dir}",
            f"  agent's log  {vm.host.agent.log_path}",
            f"  remove       {midonet} demo --clean{chosen}",
        )
    )


def _packet_to_trace(scene: Scene) -> str:
    """Return a packet of red1 that is translated on its way out."""
    gateway = scene.red.segments[1].router_port.mac
    source = scene.machines["red1"].namespace
    shown = json.loads(source.run("ip", "-j", "link", "show", "eth0"))
    mac = shown[0]["address"]
    return f"tcp,smac={mac},dmac={gateway},src=10.0.1.11,dst={OUTSIDE},sport=40000,dport=80"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
