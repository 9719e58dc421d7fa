"""`docs/reference/commands.md`: every command and option, from the parsers themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from midonet.cli import mm_ctl
from midonet.commands import demo
from midonet.commands.main import build_parser
from scripts.reference_pages.tables import code, table


@dataclass(frozen=True, slots=True)
class Command:
    """A command as typed, its one line of help, and its parser."""

    name: str
    help: str
    parser: argparse.ArgumentParser

    def options(self) -> list[argparse.Action]:
        """Return its options and arguments, without `--help` and subcommands."""
        left_out = (argparse._HelpAction, argparse._SubParsersAction)
        return [each for each in self.parser._actions if not isinstance(each, left_out)]


def all_commands() -> list[Command]:
    """Return every command of every entry point, subcommands one by one."""
    parser = build_parser()
    found = list(_below("midonet", parser))
    if all(each.name != "midonet demo" for each in found):
        alone = argparse.ArgumentParser(prog="midonet")
        demo.add_parser(alone.add_subparsers())
        found += _below("midonet", alone)
    found.append(Command("midonet", parser.description or "", parser))
    mm_parser = mm_ctl._parser()
    found.append(Command("mm-ctl", mm_parser.description or "", mm_parser))
    return sorted(found, key=lambda each: each.name)


def option_strings(command: str) -> frozenset[str]:
    """Return the flags of `midonet COMMAND`."""
    parser = next(each for each in all_commands() if each.name == f"midonet {command}").parser
    return frozenset(text for each in parser._actions for text in each.option_strings)


def explanation(command: Command, action: argparse.Action) -> str:
    """Return what an option does; empty when its parser does not say."""
    return (action.help or "") % {**vars(action), "prog": command.parser.prog}


def commands() -> str:
    """Return a section for each command."""
    return "\n\n".join(_section(command) for command in all_commands())


def _below(prefix: str, parser: argparse.ArgumentParser) -> Iterator[Command]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {each.dest: each.help or "" for each in action._choices_actions}
        for name, subparser in action.choices.items():
            command = Command(f"{prefix} {name}", helps.get(name, ""), subparser)
            deeper = list(_below(command.name, subparser))
            yield command
            yield from deeper


def _section(command: Command) -> str:
    parts = [f"## `{command.name}`", f"{_sentence(command.help)}"]
    if command.parser.description and command.parser.description != command.help:
        parts.append(_paragraph(command.parser.description))
    if command.parser.epilog:
        parts.append(_paragraph(command.parser.epilog))
    if command.options():
        rows = [_option(command, action) for action in command.options()]
        parts.append(table(("option", "what"), rows))
    return "\n\n".join(parts)


def _option(command: Command, action: argparse.Action) -> tuple[str, str]:
    names = ", ".join(action.option_strings) or action.dest
    if action.choices is not None:
        names += f" {{{','.join(str(choice) for choice in action.choices)}}}"
    elif action.nargs != 0:
        metavar = action.metavar or action.dest.upper()
        names += f" {' '.join(metavar) if isinstance(metavar, tuple) else metavar}"
    what = explanation(command, action)
    return code(names), f"{what} (required)" if action.required else what


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def _paragraph(text: str) -> str:
    return " ".join(text.split()).replace("%%", "%")
