"""`midonet flows`, `drops` and `state`: what the agent of this machine holds."""

from __future__ import annotations

import argparse
import json
from typing import Any

from midonet.commands.control_client import add_agent_option, call


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands."""
    for name, text, show in (
        ("flows", "list the installed flow programs", _show_flows),
        ("drops", "show dropped packets by reason and port", _show_drops),
        ("state", "show the agent's ports, peers and counters", _show_state),
    ):
        parser = subparsers.add_parser(name, help=text)
        add_agent_option(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run, path=f"/{name}", show=show)


def run(args: argparse.Namespace) -> int:
    """Ask the agent and print."""
    answer = call(args.state_dir, "GET", args.path)
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        args.show(answer)
    return 0


def _show_flows(answer: Any) -> None:
    for flow in answer:
        outcome = f"drop {flow['drop']}" if flow["drop"] else ", ".join(flow["outputs"])
        match = " ".join(f"{name}={value}" for name, value in flow["match"].items()) or "any"
        print(f"{flow['id']:>6}  {flow['port']}  {match}  ->  {outcome}  ({flow['packets']} pkts)")
    print(f"{len(answer)} flow programs")


def _show_drops(answer: Any) -> None:
    for drop in answer:
        print(f"{drop['packets']:>10}  {drop['reason']:<24} {drop['port'] or 'overlay'}")
    if not answer:
        print("no drops")


def _show_state(answer: Any) -> None:
    print(f"host     {answer['hostId']} ({answer['hostName']})")
    print(f"store    {answer['store']}")
    print(f"datapath {answer['datapath']}")
    for port in answer["ports"]:
        state = "active" if port["active"] else "not attached"
        print(f"port     {port['id']} on {port['interface']}: {state}, key {port['tunnelKey']}")
    for peer in answer["peers"]:
        print(f"peer     {peer}")
    for name, value in answer["counters"].items():
        print(f"{name:<20} {value}")
