"""`espilot report`: the page of a run, frozen into one file."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.status import add_directory
from espilot.errors import LocalError
from espilot.supervisor.statedir import find_state
from espilot.supervisor.watch import PilotWatch

EXAMPLES = """\
examples:
  espilot report > report.html
      what the pilot of ./espilot-work did, as a page for any browser
  espilot report /scratch/me --output report.html
      the same of another run; the file is written whole or not at all

Works while the pilot runs, and on what a finished or dead one left: state directory, story, log.
The page needs no network and no server. It knows everything about 5,000 ranges; of larger runs
those that are not simply reported come first, and the map shows all.

exit codes: 0 written, 64 there is no run, 70 it cannot be read or written
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "report",
        help="a run as one HTML file",
        description="Write the page of a run, frozen, to standard output.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_directory(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the report; the exit code."""
    with closing(PilotWatch(find_state(args.dir))) as watch:
        text = watch.report()
    if args.output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_whole(args.output, text)
    return exit_codes.FINISHED


def write_whole(path: Path, text: str) -> None:
    """Write by temporary name and rename; `LocalError` when that fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error
