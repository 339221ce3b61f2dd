"""The command line: one sub-command per file."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import NoReturn

from espilot import __version__
from espilot.cli import completion, exit_codes, help, own_command
from espilot.cli.command_tree import commands_of, suggest
from espilot.cli.faces import is_stock
from espilot.errors import EspilotError
from espilot.view.wording import printable

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "run": "run_command",
        "recover": "recover",
        "status": "status",
        "explain": "explain",
        "top": "top",
        "page": "page",
        "report": "report",
        "dump": "dump",
        "drain": "drain",
        "config": "config_command",
        "doctor": "doctor",
        "bundle": "bundle",
        "server": "server",
        "check-payload": "check_payload",
    }
)
"""The commands in the order of `--help`, and their modules: only the wanted one is imported,
for a pilot starts often and its supervisor stays."""
EXAMPLES = """\
examples:
  espilot run --local --events 1000 --per-range 10 -- \\
          ./my-sim --first {startEvent} --last {lastEvent} --out {output}
      a program of your own on this machine, server and storage included
  espilot run --local etc/jobs/zmumu.toml
      run a job on this machine, server and storage included
  espilot status
      how the pilot of ./espilot-work stands, alive or dead
  espilot explain 1-1795320398-1795320397-22-3
      what happened to one event range
  espilot top
      the same live in the terminal
  espilot page
      the same as a live page for a browser
  espilot report > report.html
      that page frozen, also of what a dead pilot left
  espilot drain --deadline 30s
      end a running pilot early, losing nothing
  espilot recover espilot-work
      go on with what a killed or drained run left
  espilot doctor etc/jobs/zmumu.toml
      whether all is there that a run needs
  espilot bundle
      one archive for support, secrets removed
  espilot server --task etc/jobs/zmumu.toml
      only the built-in event server, for pilots elsewhere
  espilot check-payload -- ./my-payload
      whether a payload speaks the protocol right

`espilot COMMAND --help` tells more.
"""


class Parser(argparse.ArgumentParser):
    """A wrong command line is exit 64: 2 means something else to those who start pilots."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(exit_codes.USAGE, f"{self.prog}: {message}\n")


def make_parser(only: str = "") -> argparse.ArgumentParser:
    """The parser of all commands, or of one of them."""
    parser = Parser(
        prog="espilot",
        description="A pilot for the event service: every event range that was handed out ends "
        "safe and reported, or goes back.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"espilot {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [only] if only in COMMANDS else COMMANDS:
        module = import_module(f"espilot.cli.{COMMANDS[name]}")
        module.add_parser(commands).set_defaults(run=module.run)
    if only not in COMMANDS:
        completion.add_parser(commands, parser)
        help.add_parser(commands, parser)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace; what is misspelt ends the process with a suggestion."""
    parser = make_parser(argv[0] if argv else "")
    names = [each.name for each in commands_of(parser)]
    if argv and not argv[0].startswith("-") and argv[0] not in names:
        parser.error(f"there is no command {argv[0]!r:.40}{suggest(parser, argv)}")
    args, unknown = parser.parse_known_args(own_command.mark_no_file(argv))
    if unknown:
        meant = suggest(parser, unknown, args.command)
        parser.error(f"{args.command} has no {printable(unknown[0]):.60}{meant}")
    return args


def main(argv: Sequence[str]) -> int:
    """Carry out a command line; returns the exit code. Errors are one line on stderr."""
    args = parse(argv)
    try:
        return int(args.run(args))
    except EspilotError as error:
        sys.stderr.write(f"espilot {args.command}: {error}\n")
        return exit_codes.code_of(error)
    except KeyboardInterrupt:
        sys.stderr.write(f"espilot {args.command}: interrupted\n")
        return exit_codes.INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the top of the process)
        traceback.print_exception(error)
        sys.stderr.write(f"espilot {args.command}: a defect in espilot, see above\n")
        return exit_codes.DEFECT


def run() -> NoReturn:
    """Entry point of the command `espilot`, and of the stock pilot whose place it takes."""
    if is_stock(sys.argv[0], sys.argv[1:]):
        from espilot.cli import compat

        sys.exit(compat.run(sys.argv[0], sys.argv[1:]))
    sys.exit(main(sys.argv[1:]))
