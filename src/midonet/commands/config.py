"""`midonet config show`: the effective configuration and where each value comes from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from midonet.agent.host.settings import ENVIRONMENT_PREFIX, AgentSettings
from midonet.runtime.config import describe, load


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("config", help="show the effective configuration of the agent")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print every option, its value and its origin")
    show.add_argument("--config", type=Path, metavar="FILE", help="TOML file to read")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the options."""
    # The one option without a default must not keep the others from being shown.
    loaded = load(_ShownSettings, own_prefix=ENVIRONMENT_PREFIX, file=args.config)
    rows = describe(loaded)
    if args.json:
        print(json.dumps({n: {"value": v, "origin": o} for n, v, o in rows}, indent=2))
        return 0
    width = max(len(name) for name, _, _ in rows)
    for name, value, origin in rows:
        print(f"{name:<{width}} = {json.dumps(value)}  # {origin}")
    return 0


class _ShownSettings(AgentSettings, frozen=True, kw_only=True):
    nsdb: str = ""
