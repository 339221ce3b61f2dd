"""`espilot dump`: what all processes of a pilot are doing just now."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.status import add_directory
from espilot.supervisor.dump import append_to, picture_of_pilot
from espilot.supervisor.observation import places_of, require_pilot
from espilot.supervisor.resume import read_run
from espilot.supervisor.statedir import find_state

EXAMPLES = """\
examples:
  espilot dump
      the process tree and the stacks of the pilot of ./espilot-work, also into its log

The pilot's own processes write their stacks, even when they hang; the payload gets no signal, of
its processes it is told where they are in the kernel.

exit codes: 0 shown, 64 there is no run, 73 no pilot runs there
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "dump",
        help="stacks and process tree of a running pilot",
        description="Show the process tree of a pilot and what each process is doing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_directory(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Show and log the picture; the exit code."""
    state = find_state(args.dir)
    pid, runtime = require_pilot(state)
    picture = picture_of_pilot(pid, runtime)
    sys.stdout.write(picture)
    sys.stdout.flush()
    log_file = Path(places_of(state, read_run(state)).log)
    try:
        append_to(log_file, f"dump of pilot {pid}", picture)
    except OSError as error:
        sys.stderr.write(f"espilot dump: not written to {log_file}: {error.strerror}\n")
    return exit_codes.FINISHED
