"""`espilot recover`: take up what a dead or drained pilot left, and bring its task to the end."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes, server
from espilot.cli.run_command import describe, run_to_end, tell
from espilot.supervisor import preflight
from espilot.supervisor.resume import is_over, prepare_state, read_run, recorded_context
from espilot.supervisor.statedir import StateDir, find_state

EXAMPLES = """\
examples:
  espilot recover
      go on with what is left in ./espilot-work
  espilot recover /scratch/me/state --json
      a state directory; the last line of stdout is one JSON object

What is whole is shipped and reported, the rest is processed again or goes back to the server.
Doing it twice is harmless.

exit codes: those of `espilot run`; 0 when there is nothing to recover
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "recover",
        help="go on with what a dead pilot left",
        description="Say what a dead or drained pilot left, then bring its task to the end.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dir",
        type=Path,
        nargs="?",
        default=Path("espilot-work"),
        metavar="DIR",
        help="work or state directory of the run (default: ./espilot-work)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the summary as JSON on the last line of stdout"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Recover until the task is done, drained or failed; the exit code."""
    started = time.monotonic()
    state = StateDir(find_state(args.dir))
    try:
        record = read_run(state.path)
        context = recorded_context(state.path, state.runtime)
        if is_over(context, record):
            return say_over(record, as_json=args.json)
        server.require_framework()
        preflight.check(context)
        found = prepare_state(context)
        if found is not None:
            tell(found, context, sys.stderr if args.json else sys.stdout)
        return run_to_end(context, started, as_json=args.json)
    finally:
        state.close()


def say_over(record: Mapping[str, Any], *, as_json: bool) -> int:
    """There is nothing to recover; print the summary of the run that was, if it wrote one."""
    sys.stderr.write("nothing to recover\n")
    summary = record.get("summary")
    if isinstance(summary, dict):
        sys.stdout.write(json.dumps(summary) + "\n" if as_json else describe(summary, ""))
        sys.stdout.flush()
    return exit_codes.FINISHED
