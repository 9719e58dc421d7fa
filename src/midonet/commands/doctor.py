"""`midonet doctor`: can this host run an agent, and does one run?"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from midonet.commands.control_client import add_agent_option, call
from midonet.errors import MidoNetError

_KERNEL_WITH_TCX = (6, 6)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("doctor", help="check whether this host can run an agent")
    add_agent_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print each check; 1 when one that every agent needs has failed."""
    findings = [_kernel(), _privilege(), _type_information(), _agent(args.state_dir)]
    if args.json:
        print(json.dumps([{"check": c, "ok": ok, "detail": d} for c, ok, d in findings], indent=2))
    else:
        for check, is_fine, detail in findings:
            print(f"{'ok  ' if is_fine else 'FAIL'}  {check}: {detail}")
    return 0 if all(is_fine for _, is_fine, _ in findings) else 1


Finding = tuple[str, bool, str]


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    is_new = numbers >= _KERNEL_WITH_TCX
    return "kernel", is_new, release if is_new else f"{release}; the eBPF datapath wants 6.6"


def _privilege() -> Finding:
    is_root = os.geteuid() == 0
    return "privilege", is_root, "root" if is_root else "not root; only --datapath memory works"


def _type_information() -> Finding:
    path = Path("/sys/kernel/btf/vmlinux")
    return "kernel type information", path.exists(), str(path)


def _agent(state_dir: Path) -> Finding:
    try:
        state = call(state_dir, "GET", "/state", timeout_s=5)
    except MidoNetError as error:
        return "agent", False, str(error)
    detail = f"host {state['hostId']}, {len(state['ports'])} ports, store {state['store']}"
    return "agent", True, detail
