"""`espilot completion SHELL`: commands and options are completed by the shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.command_tree import Command, Option, commands_of

EXAMPLES = """\
examples:
  source <(espilot completion bash)
      in this bash; put the line into ~/.bashrc for all
  espilot completion zsh > ~/.zfunc/_espilot
      in a directory of fpath
  espilot completion fish > ~/.config/fish/completions/espilot.fish
"""
_BASH = """\
# bash completion of espilot
_espilot() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} options=
    if [[ $COMP_CWORD -eq 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -W '{commands}' -- "$word")
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}}
complete -o filenames -F _espilot espilot
"""
_ZSH = """\
#compdef espilot
# zsh completion of espilot
_espilot() {{
    local -a commands=(
{commands}    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case $words[2] in
{cases}    esac
}}
compdef _espilot espilot
"""


def add_parser(subparsers: Any, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser, whose commands are completed."""
    own: argparse.ArgumentParser = subparsers.add_parser(
        "completion",
        help="completion for bash, zsh, fish",
        description="Print a script with which the shell completes commands and options.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.add_argument("shell", choices=tuple(SHELLS), help="which shell")
    own.set_defaults(run=partial(run, parser))
    return own


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Print the script; the exit code."""
    commands = [each for each in commands_of(parser) if " " not in each.name]
    sys.stdout.write(SHELLS[args.shell](commands))
    return exit_codes.FINISHED


def bash(commands: Sequence[Command]) -> str:
    """The script for bash."""
    names = " ".join(each.name for each in commands)
    cases = "".join(f"        {c.name}) options='{' '.join(c.flags)}' ;;\n" for c in commands)
    return _BASH.format(commands=names, cases=cases)


def zsh(commands: Sequence[Command]) -> str:
    """The script for zsh."""
    names = "".join(f"        '{each.name}:{_quoted(each.help)}'\n" for each in commands)
    cases = ""
    for each in commands:
        specs = [_zsh_option(option, flag) for option in each.options for flag in option.flags]
        words = " ".join(f"'{spec}'" for spec in [*specs, "*:file:_files"])
        cases += f"        {each.name}) _arguments {words} ;;\n"
    return _ZSH.format(commands=names, cases=cases)


def fish(commands: Sequence[Command]) -> str:
    """The script for fish."""
    lines = ["# fish completion of espilot"]
    for each in commands:
        about = _quoted(each.help)
        lines.append(f"complete -c espilot -f -n __fish_use_subcommand -a {each.name} -d '{about}'")
        for option in each.options:
            for flag in option.flags:
                kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                value = " -r" if option.value else ""
                lines.append(
                    f"complete -c espilot -n '__fish_seen_subcommand_from {each.name}' {kind}"
                    f"{value} -d '{_quoted(option.help)}'"
                )
    return "\n".join(lines) + "\n"


def _zsh_option(option: Option, flag: str) -> str:
    about = _quoted(option.help).replace("[", "(").replace("]", ")").replace(":", "\\:")
    return f"{flag}[{about}]" + (f":{option.value}:_files" if option.value else "")


def _quoted(text: str) -> str:
    """Text that may stand in single quotes of any of the shells."""
    return " ".join(text.replace("'", "").replace("\\", "").split())


SHELLS: Mapping[str, Callable[[Sequence[Command]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
