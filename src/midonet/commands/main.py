"""The `midonet` command: one entry point, a subcommand for each thing it does.

Each subcommand is a module with `add_parser(subparsers)` and `run(args) -> int`. Exit codes:
0 done, 1 it failed, 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType

from midonet.commands import agent, cluster, config, doctor, inject, inspect, watch
from midonet.errors import MidoNetError, UserError

COMMANDS: tuple[ModuleType, ...] = (agent, cluster, config, inject, watch, inspect, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    try:
        code: int = args.run(args)
    except UserError as error:
        print(f"midonet: {error}", file=sys.stderr)
        return 2
    except MidoNetError as error:
        print(f"midonet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        return 0
    return code


def midolman(arguments: Sequence[str] | None = None) -> int:
    """Run `midonet agent`; the name by which operators know the agent."""
    return main(["agent", *(sys.argv[1:] if arguments is None else arguments)])


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    parser = argparse.ArgumentParser(
        prog="midonet", description="Virtual networks on any IP network."
    )
    parser.add_argument("--version", action="version", version=metadata.version("midonet"))
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
