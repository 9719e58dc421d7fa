"""Command lines: errors that show the usage of the subcommand and suggest what was meant."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from midonet.runtime.config import did_you_mean

_INVALID_CHOICE = re.compile(r"invalid choice: '(?P<word>[^']*)' \(choose from (?P<known>.*)\)")


class CommandParser(argparse.ArgumentParser):
    """A parser whose subcommands report their own errors."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse; a subcommand refuses what it does not know, where its usage can be shown."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None:
            options = [word for word in unknown if word.startswith("-")]
            hint = ""
            if options:
                hint = did_you_mean(options[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, with a suggestion for a misspelt choice; exit 2."""
        found = _INVALID_CHOICE.search(message)
        if found is not None:
            known = [word.strip(" '") for word in found["known"].split(",")]
            message += did_you_mean(found["word"], known)
        super().error(message)


def number_between(
    convert: Callable[[str], float], low: float, high: float
) -> Callable[[str], float]:
    """Return the `type` of an argument that is a finite number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return parse
