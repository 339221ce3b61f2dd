"""The commands and options as data, read from the parser: for completion, manual, suggestions.

The only place that looks into argparse.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One option or argument; `flags` is empty for an argument, `value` for a switch."""

    flags: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One command; its name has several words where commands are nested."""

    name: str
    help: str
    description: str
    usage: str
    epilog: str
    options: tuple[Option, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """All its long options."""
        return tuple(flag for option in self.options for flag in option.flags if flag[:2] == "--")


def commands_of(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """All commands, in the order of `--help`; a command with sub-commands comes before them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            for name, each in action.choices.items():
                yield _command(name, helps.get(name, ""), each)
                for nested in commands_of(each):
                    yield Command(
                        f"{name} {nested.name}", nested.help, nested.description, nested.usage,
                        nested.epilog, nested.options,
                    )  # fmt: skip


def suggest(parser: argparse.ArgumentParser, words: Sequence[str], command: str = "") -> str:
    """What a person may have meant with the first of these words, as ", did you mean ...?"; or "".

    Without `command` the word is the name of a command, else an option of that one.
    """
    commands = list(commands_of(parser))
    known = [each.name for each in commands if " " not in each.name]
    if command:
        mine = [each for each in commands if each.name.split()[0] == command]
        known = [flag for each in mine for flag in each.flags]
    word = words[0].partition("=")[0] if words else ""
    near = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {near[0]}?" if near else ""


def _command(name: str, about: str, parser: argparse.ArgumentParser) -> Command:
    return Command(
        name=name,
        help=about,
        description=parser.description or about,
        usage=" ".join(parser.format_usage().removeprefix("usage: ").split()),
        epilog=parser.epilog or "",
        options=tuple(_options(parser)),
    )


def _options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        choices = tuple(map(str, action.choices or ()))
        value = "" if action.nargs == 0 else _value_of(action, choices)
        yield Option(tuple(action.option_strings), value, action.help or "", choices)


def _value_of(action: argparse.Action, choices: tuple[str, ...]) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(choices) or action.dest.upper()
