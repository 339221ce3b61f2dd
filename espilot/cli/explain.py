"""`espilot explain`: the story of one range."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.status import add_directory
from espilot.supervisor.range_story import tell_range
from espilot.supervisor.statedir import find_state
from espilot.view.explanation import as_document, describe

EXAMPLES = """\
examples:
  espilot explain 1-1795320398-1795320397-22-3
      what happened to this range in the run of ./espilot-work, and where it is now
  espilot explain 1-1795320398-1795320397-22-3 /scratch/me --json
      one JSON object, espilot.explanation/1

Works while the pilot runs, and on what a finished or dead one left. The ids of ranges are in the
names of outputs and archive members, and in the log.

exit codes: 0 told, 64 there is no run, or it knows no such range
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain",
        help="the story of one range",
        description="Tell what happened to an event range, and where it is now.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("range_id", metavar="RANGE_ID", help="task-job-file-process-attempt")
    add_directory(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: argparse.Namespace) -> int:
    """Tell the story; the exit code."""
    explanation, view = tell_range(find_state(args.dir), args.range_id)
    if args.json:
        sys.stdout.write(json.dumps(as_document(explanation, view)) + "\n")
    else:
        sys.stdout.write(describe(explanation))
    sys.stdout.flush()
    return exit_codes.FINISHED
