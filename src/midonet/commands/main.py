"""The `midonet` command: one entry point, a subcommand for each thing it does.

Each subcommand is a module with `add_parser(subparsers)` and `run(args) -> int`. Exit codes:
0 done, 1 it failed, 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from types import ModuleType

from midonet.commands.parsing import CommandParser
from midonet.errors import MidoNetError, UserError
from midonet.runtime.config import did_you_mean
from midonet.runtime.log_sink import open_standard_streams

COMMANDS: dict[str, tuple[str, ...]] = {
    "agent": ("agent",),
    "cluster": ("cluster",),
    "config": ("config",),
    "inject": ("inject",),
    "trace": ("trace",),
    "watch": ("watch-port",),
    "inspect": ("flows", "drops", "state"),
    "connections": ("connections",),
    "doctor": ("doctor",),
    "demo": ("demo",),
}
"""Modules of this package with the subcommands that each adds. Only the module that is asked for
is imported: the daemons bring much that a quick question does not need."""


DAEMONS = frozenset(("agent", "cluster"))
"""The commands that run until they are told to stop."""

_OUTPUT_ERRORS = frozenset((errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code."""
    open_standard_streams()
    given = sys.argv[1:] if arguments is None else arguments
    code: int = 0
    try:
        args = build_parser(given[0] if given else None).parse_args(given)
        code = int(args.run(args))
        sys.stdout.flush()
    except UserError as error:
        _complain(str(error))
        return 2
    except MidoNetError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # Daemons print nothing: theirs is a fault to be seen whole.
        if error.errno not in _OUTPUT_ERRORS or given[0] in DAEMONS:
            raise
        _forget_output()
        # Whoever read our output and went has seen enough.
        if error.errno == errno.EPIPE:
            return code
        _complain(f"cannot write the output: {error.strerror}")
        return 1
    return code


def _complain(message: str) -> None:
    with contextlib.suppress(OSError):
        print(f"midonet: {message}", file=sys.stderr, flush=True)


def _forget_output() -> None:
    """Give up what waits to be written: at its end the interpreter would try again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def midolman(arguments: Sequence[str] | None = None) -> int:
    """Run `midonet agent`; the name by which operators know the agent."""
    return main(["agent", *(sys.argv[1:] if arguments is None else arguments)])


def build_parser(subcommand: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with one subcommand, or with all when there is none of that name."""
    parser = CommandParser(prog="midonet", description="Virtual networks on any IP network.")
    parser.add_argument("--version", action="version", version=metadata.version("midonet"))
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    every = [command for adds in COMMANDS.values() for command in adds]
    if subcommand is not None and not subcommand.startswith("-") and subcommand not in every:
        hint = did_you_mean(subcommand, every) or f"; there are {', '.join(every)}"
        parser.error(f"there is no command {subcommand!r}{hint}")
    wanted = [name for name, adds in COMMANDS.items() if subcommand in adds]
    for name in wanted or COMMANDS:
        _module(name).add_parser(subparsers)
    return parser


def _module(name: str) -> ModuleType:
    return import_module(f"midonet.commands.{name}")


if __name__ == "__main__":
    sys.exit(main())
