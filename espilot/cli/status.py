"""`espilot status`: how a pilot stands, alive or dead."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes
from espilot.supervisor.observation import observe
from espilot.supervisor.statedir import find_state
from espilot.view.snapshot import as_document
from espilot.view.status_text import describe

EXAMPLES = """\
examples:
  espilot status
      the pilot of ./espilot-work
  espilot status /scratch/me --json
      one JSON object, espilot.status/1

A living pilot is asked; when it does not answer in 2 s, and for a dead one, the figures come from
its queue. Nothing is changed by looking.

exit codes: 0 shown, 64 there is no run, 70 its queue cannot be read
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "status",
        help="how a pilot stands",
        description="Show state, ranges, what is at risk, rates, deadline, storage and verdicts.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_directory(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the run."""
    parser.add_argument(
        "dir",
        type=Path,
        nargs="?",
        default=Path("espilot-work"),
        metavar="DIR",
        help="work or state directory of the run (default: ./espilot-work)",
    )


def run(args: argparse.Namespace) -> int:
    """Show the status; the exit code."""
    snapshot = observe(find_state(args.dir), now=time.time())
    if args.json:
        sys.stdout.write(json.dumps(as_document(snapshot)) + "\n")
    else:
        sys.stdout.write(describe(snapshot))
    sys.stdout.flush()
    return exit_codes.FINISHED
