"""`espilot help [TOPIC]`: the commands, or one topic."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from espilot.cli import exit_codes
from espilot.core.exit_code import TABLE
from espilot.errors import UsageError


def add_parser(subparsers: Any, whole: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser, whose help it prints without a topic."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "help",
        help="explain a topic",
        description=f"Explain a topic: {', '.join(TOPICS)}. Without one: the commands.",
    )
    parser.add_argument(
        "topic", nargs="?", default="", metavar="TOPIC", help="what is to be explained"
    )
    parser.add_argument("--json", action="store_true", help="print the topic as one JSON object")
    parser.set_defaults(run=partial(run, whole))
    return parser


def run(whole: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Print the topic on stdout; `UsageError` when there is none of that name."""
    if not args.topic:
        whole.print_help()
        return exit_codes.FINISHED
    if args.topic not in TOPICS:
        raise UsageError(f"no topic {args.topic!r:.40}; there are {', '.join(TOPICS)}")
    topic = TOPICS[args.topic]()
    sys.stdout.write(json.dumps(topic) + "\n" if args.json else describe(topic))
    return exit_codes.FINISHED


def exit_code_topic() -> dict[str, Any]:
    """Both tables of exit codes, `espilot.exit-codes/1`."""
    return {
        "schema": "espilot.exit-codes/1",
        "native": [{"code": code, "meaning": text} for code, text in exit_codes.TABLE.items()],
        "stock": [
            {"code": row.shell, "pilot_codes": list(row.pilot), "meaning": row.meaning}
            for row in TABLE
        ],
    }


def describe(topic: dict[str, Any]) -> str:
    """The tables as text."""
    lines = ["Exit codes of espilot's commands:"]
    lines += [f"  {row['code']:>3}  {row['meaning']}" for row in topic["native"]]
    lines += [
        "",
        "Exit codes when called as a stock pilot, with the pilot error codes behind them:",
    ]
    for row in topic["stock"]:
        codes = ", ".join(map(str, row["pilot_codes"]))
        lines.append(f"  {row['code']:>3}  {row['meaning']}" + (f" ({codes})" if codes else ""))
    lines += ["", "2 is never used: factories read it as a pilot that was killed as stuck."]
    return "\n".join(lines) + "\n"


TOPICS: Mapping[str, Callable[[], dict[str, Any]]] = {"exit-codes": exit_code_topic}
