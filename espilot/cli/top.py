"""`espilot top`: a pilot live in the terminal."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.page import until_told
from espilot.cli.status import add_directory
from espilot.supervisor.statedir import find_state
from espilot.supervisor.watch import PilotWatch
from espilot.view.top import is_screen, show_live, show_once

EXAMPLES = """\
examples:
  espilot top
      the pilot of ./espilot-work, until Ctrl-C
  espilot top /scratch/me > frame.txt
      one plain frame: so it is wherever there is no terminal
  NO_COLOR=1 espilot top
      without colour; each state has its own glyph anyway

exit codes: 0 ended by SIGTERM or SIGINT, 64 there is no run, 70 it cannot be read
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "top",
        help="a pilot live in the terminal",
        description="Show ranges, workers, stage-out, resources, deadline and health, each second.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_directory(parser)
    parser.add_argument("--once", action="store_true", help="print one plain frame and end")
    return parser


def run(args: argparse.Namespace) -> int:
    """Show the pilot; the exit code."""
    with closing(PilotWatch(find_state(args.dir))) as watch:
        if args.once or not is_screen(sys.stdout):
            show_once(watch.look(), sys.stdout)
        else:
            with until_told() as told:
                show_live(watch.look, sys.stdout, told.wait)
    return exit_codes.FINISHED
