"""`midonet watch-port`: print the frames that leave by a port of a memory agent."""

from __future__ import annotations

import argparse
import json
import time

from midonet.commands.control_client import add_agent_option, call
from midonet.commands.inject import print_deliveries
from midonet.commands.parsing import number_between

_POLL_S = 10.0
"""Longest time one request to the agent waits for a frame."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "watch-port", help="print the frames that leave by a port of a memory agent"
    )
    add_agent_option(parser)
    parser.add_argument(
        "--port", required=True, metavar="PORT_ID", help="port whose frames are printed"
    )
    parser.add_argument(
        "--count", type=number_between(int, 1, 1_000_000), metavar="N", help="stop after N frames"
    )
    parser.add_argument(
        "--wait",
        type=number_between(float, 0, 86_400),
        metavar="SECONDS",
        help="stop after this time (exit code 1 if none)",
    )
    parser.add_argument(
        "--recent", action="store_true", help="begin with the frames that left before"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Follow the port until the count or the time is reached."""
    deadline_s = time.monotonic() + args.wait if args.wait is not None else None
    after = -1 if args.recent else call(args.state_dir, "GET", f"/watch/{args.port}")["next"] - 1
    seen = 0
    while args.count is None or seen < args.count:
        wait_s = _POLL_S
        if deadline_s is not None:
            wait_s = min(wait_s, deadline_s - time.monotonic())
            if wait_s <= 0:
                break
        path = f"/watch/{args.port}?after={after}&wait={wait_s:.3f}"
        answer = call(args.state_dir, "GET", path, timeout_s=wait_s + 30)
        deliveries = answer["deliveries"]
        if args.count is not None:
            deliveries = deliveries[: args.count - seen]
        after = answer["next"] - 1
        seen += len(deliveries)
        if args.json:
            for delivery in deliveries:
                print(json.dumps(delivery), flush=True)
        else:
            print_deliveries(deliveries)
    return 0 if seen else 1
