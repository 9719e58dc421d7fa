"""`midonet config show`: the effective configuration and where each value comes from.

Refuses what the agent or the control node would refuse, with the same message.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec

from midonet.agent.host.settings import ENVIRONMENT_PREFIX as AGENT_PREFIX
from midonet.agent.host.settings import AgentSettings
from midonet.cluster.settings import ENVIRONMENT_PREFIX as CLUSTER_PREFIX
from midonet.cluster.settings import ClusterSettings
from midonet.runtime.config import describe, load

PROCESSES: dict[str, tuple[type[msgspec.Struct], str]] = {
    "agent": (AgentSettings, AGENT_PREFIX),
    "cluster": (ClusterSettings, CLUSTER_PREFIX),
}
"""Settings and prefix of environment variables of each daemon."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("config", help="show the effective configuration of a daemon")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser(
        "show",
        help="print every option, its value and its origin",
        description=(
            "Print every option of a daemon, its value and its origin. What the daemon would"
            " refuse at its start is refused with the same message and exit code 2."
        ),
    )
    show.add_argument(
        "process",
        nargs="?",
        choices=sorted(PROCESSES),
        default="agent",
        metavar="agent|cluster",
        help="whose configuration (default: %(default)s)",
    )
    show.add_argument("--config", type=Path, metavar="FILE", help="TOML file to read")
    show.add_argument("--nsdb", metavar="URL", help="network state database, as the daemon has it")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the options."""
    kind, prefix = PROCESSES[args.process]
    loaded = load(kind, own_prefix=prefix, file=args.config, flags={"nsdb": args.nsdb})
    rows = describe(loaded)
    if args.json:
        print(json.dumps({n: {"value": v, "origin": o} for n, v, o in rows}, indent=2))
        return 0
    width = max(len(name) for name, _, _ in rows)
    for name, value, origin in rows:
        print(f"{name:<{width}} = {json.dumps(value)}  # {origin}")
    return 0
