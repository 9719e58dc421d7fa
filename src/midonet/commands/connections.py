"""`midonet connections`: the connections that the agent of this machine knows."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import urlencode

from midonet.commands.control_client import add_agent_option, call

_FILTERS = ("port", "address", "protocol", "limit")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "connections",
        help="list the known connections",
        description="List the connections that filters, translations and load balancers ask about,"
        " in addresses of the virtual network.",
    )
    add_agent_option(parser)
    parser.add_argument("--port", metavar="ID", help="that begin or end at a port or port group")
    parser.add_argument("--address", metavar="IP", help="of which this is an end")
    parser.add_argument("--protocol", metavar="P", help="tcp, udp, sctp, icmp, icmpv6 or a number")
    parser.add_argument("--limit", metavar="N", help="at most so many (1000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask the agent and print."""
    wanted = {name: getattr(args, name) for name in _FILTERS if getattr(args, name) is not None}
    path = "/connections" + (f"?{urlencode(wanted)}" if wanted else "")
    answer = call(args.state_dir, "GET", path)
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    for connection in answer["connections"]:
        print(_line(connection))
    shown = len(answer["connections"])
    more = ", and more like these" if answer["more"] else ""
    print(f"{shown} connections{more}; {answer['known']} are known here")
    return 0


def _line(connection: dict[str, Any]) -> str:
    forward = connection["forward"]
    state = connection["tcpState"].lower() if forward["protocol"] == "tcp" else ""
    answered = state or ("answered" if connection["answered"] else "not answered")
    bindings = "".join(
        f"  {one['side']} {one['before']} -> {one['after']}" for one in connection["bindings"]
    )
    return (
        f"{forward['protocol']:<6} {_end(forward, 'source')} -> {_end(forward, 'destination')}"
        f"  {answered}, idle {connection['idleSeconds']:g} s,"
        f" {connection['remainingSeconds']:g} s left  from {_zone(forward)}"
        f" to {', '.join(_zone(key) for key in connection['returns']) or 'itself'}{bindings}"
    )


def _end(key: dict[str, Any], name: str) -> str:
    address = key[name]
    return (
        f"[{address}]:{key[name + 'Port']}" if ":" in address else f"{address}:{key[name + 'Port']}"
    )


def _zone(key: dict[str, Any]) -> str:
    vlan = f" VLAN {key['vlan']}" if key["vlan"] else ""
    return f"{key['zone']}{vlan}"
