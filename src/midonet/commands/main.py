"""The `midonet` command: one entry point, a subcommand for each thing it does.

Each subcommand is a module with `add_parser(subparsers)` and `run(args) -> int`. Exit codes:
0 done, 1 it failed, 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from types import ModuleType

from midonet.errors import MidoNetError, UserError

COMMANDS: dict[str, tuple[str, ...]] = {
    "agent": ("agent",),
    "cluster": ("cluster",),
    "config": ("config",),
    "inject": ("inject",),
    "watch": ("watch-port",),
    "inspect": ("flows", "drops", "state"),
    "doctor": ("doctor",),
    "demo": ("demo",),
}
"""Modules of this package with the subcommands that each adds. Only the module that is asked for
is imported: the daemons bring much that a quick question does not need."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    args = build_parser(given[0] if given else None).parse_args(given)
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


def build_parser(subcommand: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with one subcommand, or with all when there is none of that name."""
    parser = argparse.ArgumentParser(
        prog="midonet", description="Virtual networks on any IP network."
    )
    parser.add_argument("--version", action="version", version=metadata.version("midonet"))
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    wanted = [name for name, adds in COMMANDS.items() if subcommand in adds]
    for name in wanted or COMMANDS:
        _module(name).add_parser(subparsers)
    return parser


def _module(name: str) -> ModuleType:
    return import_module(f"midonet.commands.{name}")


if __name__ == "__main__":
    sys.exit(main())
