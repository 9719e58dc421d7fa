"""`midonet inject`: send a frame into a port of a memory agent and see where it leaves.

What leaves at another agent is seen there with `midonet watch-port`.
"""

from __future__ import annotations

import argparse
import json

from midonet.commands.control_client import add_agent_option, call
from midonet.commands.frame_spec import add_frame_options, frame_from
from midonet.commands.frame_text import describe_frame
from midonet.commands.parsing import number_between


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "inject",
        help="send a frame into a port of a memory agent",
        description=__doc__,
        epilog="SPEC is KEY=VALUE,...; for example --udp "
        "smac=02:00:00:00:00:01,dmac=02:00:00:00:00:02,src=10.0.0.1,dst=10.0.0.2,"
        "sport=1000,dport=2000,data=hello",
    )
    add_agent_option(parser)
    parser.add_argument("--port", required=True, metavar="PORT_ID", help="where the frame enters")
    add_frame_options(parser)
    parser.add_argument(
        "--wait",
        type=number_between(float, 0, 60),
        default=1.0,
        metavar="SECONDS",
        help="how long to wait for what leaves at this agent (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inject and print what left; 0 also when nothing left at this agent."""
    frame = frame_from(args)
    answer = call(
        args.state_dir,
        "POST",
        "/inject",
        timeout_s=args.wait + 30,
        portId=args.port,
        frame=frame.hex(),
        waitSeconds=args.wait,
    )
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    print(f"in   {args.port}  {describe_frame(frame)}")
    print_deliveries(answer["deliveries"])
    if not answer["deliveries"]:
        print(f"nothing left at this agent within {args.wait:g} s")
    for drop in answer["drops"]:
        print(f"drop {drop['port'] or 'overlay'}  {drop['reason']} ({drop['packets']})")
    return 0


def print_deliveries(deliveries: list[dict[str, str]]) -> None:
    """Print each frame with its one-line description and its bytes."""
    for delivery in deliveries:
        frame = bytes.fromhex(delivery["frame"])
        print(f"out  {delivery['portId']}  {describe_frame(frame)}")
        print(f"     {frame.hex()}", flush=True)
