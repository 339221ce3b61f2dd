"""`espilot config`: which settings are in force, where they come from, whether they can be used."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes, service
from espilot.config_files import read_layered
from espilot.config_origin import DEFAULT, Layered
from espilot.settings_text import toml_value

EXAMPLES = """\
examples:
  espilot config check --instance 1
      whether the service espilot@1 could start with these settings
  espilot config show --origin
      every setting that is not its default, and the file or variable that says so
  espilot config show --all --json

Settings come from variables ESPILOT_SECTION_KEY, the instance's file, your file, the system's file
and the files in espilot.d beside it, the first of these that names one.

exit codes: 0 usable, 64 not usable
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "config",
        help="settings: check, show",
        description="Check or show the settings of a pilot that takes jobs from a server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", metavar="check|show", required=True)
    check = commands.add_parser("check", help="whether a pilot could start with them")
    show = commands.add_parser("show", help="print them")
    for each in (check, show):
        each.add_argument("--config", type=Path, metavar="FILE", help="instead of the usual files")
        each.add_argument("--instance", default="", metavar="NAME", help="name of the pilot")
    show.add_argument("--origin", action="store_true", help="say where each value comes from")
    show.add_argument("--all", action="store_true", help="those with their default too")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: argparse.Namespace) -> int:
    """Check or show; the exit code."""
    layered = read_layered(args.config, args.instance, os.environ)
    if args.what == "check":
        service.check(args, layered.settings)
        sys.stdout.write("the settings can be used\n")
        return exit_codes.FINISHED
    rows = [row for row in layered.rows() if args.all or row[2] != DEFAULT]
    if args.json:
        settings = {name: {"value": value, "origin": origin} for name, value, origin in rows}
        document = {"schema": "espilot.config/1", "settings": settings}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write(describe(rows, layered, origin=args.origin))
    return exit_codes.FINISHED


def describe(rows: list[tuple[str, Any, str]], layered: Layered, *, origin: bool) -> str:
    """One setting a line."""
    if not rows:
        return f"all {len(list(layered.rows()))} settings have their defaults\n"
    lines = [(f"{name} = {toml_value(value)}", where) for name, value, where in rows]
    width = max(len(text) for text, _ in lines)
    return "".join(
        f"{text:<{width}}  # {where}\n" if origin else f"{text}\n" for text, where in lines
    )
