"""`midonet trace`: what would become of a packet, step by step, without sending it.

The agent of the host answers with the simulation that decides about real traffic, on what it
knows at this moment.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from midonet.commands.control_client import add_agent_option, call
from midonet.commands.frame_spec import frames_from_text
from midonet.commands.frame_text import describe_frame

Answer = dict[str, Any]

_WAITS = {
    "devices": "the devices on the way are not loaded; is the state database away?",
    "connection": "another host may know the connection; it would be asked first",
    "neighbour": "the router does not know the next hop's MAC yet; it would ask for it first",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "trace",
        help="explain what would become of a packet",
        description=__doc__,
        epilog="PACKET is KIND,KEY=VALUE,... with KIND arp, ping, udp or tcp, for example "
        "udp,smac=02:00:00:00:00:01,dmac=02:00:00:00:00:02,src=10.0.0.1,dst=10.0.0.2,"
        "sport=1000,dport=53 (optional: ttl, tos, vlan, data; flags of tcp; id, seq of ping); "
        "or a frame in hexadecimal; or a pcap file, FILE:3 for its third frame only.",
    )
    add_agent_option(parser)
    parser.add_argument("port", metavar="PORT", help="id of the port here where it enters")
    parser.add_argument("packet", metavar="PACKET", help="see below")
    parser.add_argument(
        "--all-rules", action="store_true", help="show also the rules that did not match"
    )
    parser.add_argument(
        "--state",
        action="store_true",
        help="look for the packet's connection, whether a rule asks for it or not",
    )
    parser.add_argument(
        "--reply",
        action="store_true",
        help="go on with the packet that answers, as if the connection had been begun",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trace and print; 0 whatever becomes of the packet."""
    traces = []
    for frame in frames_from_text(args.packet):
        answer = call(
            args.state_dir,
            "POST",
            "/trace",
            portId=args.port,
            frame=frame.hex(),
            allRules=args.all_rules,
            state=args.state,
            reply=args.reply,
        )
        if not args.json:
            print(f"in   {args.port}  {describe_frame(frame)}")
            _print(answer)
            if args.reply:
                _print_reply(answer["reply"])
        traces.append(answer)
    if args.json:
        print(json.dumps(traces[0] if len(traces) == 1 else traces, indent=2))
    return 0


def _print(answer: Answer) -> None:
    for step in answer["steps"]:
        # What happens in a device stands below the line that enters it.
        depth = step["depth"] - (step["event"] == "enteredPort")
        print(f"     {'  ' * max(0, depth)}{step['text']}")
    for made in answer["answers"]:
        print(f"back {made['portId']}  {describe_frame(bytes.fromhex(made['frame']))}")
    print(_verdict(answer), flush=True)


def _print_reply(reply: Answer | None) -> None:
    if reply is None:
        print("     there is no packet to answer")
        return
    print(f"in   {reply['portId']}  {describe_frame(bytes.fromhex(reply['frame']))}")
    _print(reply)


def _verdict(answer: Answer) -> str:
    match answer["verdict"]:
        case "forward":
            places = [_place(output) for output in answer["outputs"]]
            return f"out  {', '.join(places)}"
        case "drop":
            return f"drop {answer['reason']}"
        case "wait":
            return f"wait {_WAITS[answer['for']]}"
        case _:
            return "end  a device takes the packet"


def _place(output: Answer) -> str:
    interface = output["interface"] or output["portId"]
    return f"{interface} at host {output['host']} (key {output['tunnelKey']:#x})"
