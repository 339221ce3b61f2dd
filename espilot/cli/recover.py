"""`espilot recover`: take up what a dead or drained pilot left, and bring its task to the end."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.run_command import run_to_end
from espilot.cli.summary import describe, tell
from espilot.errors import EspilotError
from espilot.supervisor import preflight
from espilot.supervisor.intake import take_in
from espilot.supervisor.recovery_layout import find_spares
from espilot.supervisor.resume import is_over, prepare_state, read_run, recorded_context
from espilot.supervisor.statedir import StateDir, find_state
from espilot.workers.context import Context

EXAMPLES = """\
examples:
  espilot recover
      go on with what is left in ./espilot-work
  espilot recover /scratch/me/state --json
      a state directory; the last line of stdout is one JSON object
  espilot recover /shared/spares --state-dir /tmp/recovered
      ship and report what drained pilots spared to a recovery directory

What is whole is shipped and reported, the rest is processed again or goes back to the server.
Doing it twice is harmless. A spare stays where it is; remove it when it was taken in.

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
        help="work, state or recovery directory of the run (default: ./espilot-work)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="local directory into which spares are taken (default: a new ./espilot-recover-...)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the summary as JSON on the last line of stdout"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Recover until the task is done, drained or failed; the exit code."""
    spares = find_spares(args.dir)
    if not spares:
        return recover_state(find_state(args.dir), as_json=args.json)
    preflight.require_framework()
    base = args.state_dir or Path(tempfile.mkdtemp(prefix="espilot-recover-", dir=Path.cwd()))
    code = max(_recover_one(each, base.resolve(), as_json=args.json) for each in spares)
    if code == exit_codes.FINISHED and args.state_dir is None:
        shutil.rmtree(base)
    return code


def _recover_one(spare: Path, base: Path, *, as_json: bool) -> int:
    """One that cannot be recovered is told, and keeps no other from it."""
    try:
        return recover_spare(spare, base, as_json=as_json)
    except EspilotError as error:
        sys.stderr.write(f"espilot recover: {spare.name}: {error}\n")
        return exit_codes.code_of(error)


def recover_spare(spare: Path, base: Path, *, as_json: bool) -> int:
    """Take a spare in, then go on as with any other state directory."""
    directory = base / spare.name
    sys.stderr.write(f"taking {spare} into {directory}\n")
    state = StateDir(directory)
    try:
        if not read_run(state.path):
            take_in(spare, state)
    finally:
        state.close()
    return recover_state(directory, as_json=as_json)


def recover_state(path: Path, *, as_json: bool) -> int:
    """Bring the run of a state directory to its end; the exit code."""
    started = time.monotonic()
    state = StateDir(path)
    try:
        record = read_run(state.path)
        context = recorded_context(state.path, state.runtime)
        if is_over(context, record):
            return say_over(record, as_json=as_json)
        preflight.require_framework()
        preflight.check(context, recovering=True)
        found = prepare_state(context)
        if found is not None:
            tell(found, context, sys.stderr if as_json else sys.stdout)
        with held_origin(context):
            return run_to_end(context, started, as_json=as_json)
    finally:
        state.close()


@contextmanager
def held_origin(context: Context) -> Iterator[None]:
    """Keep other pilots from the state directory with the server's database."""
    if context.origin is None:
        yield
        return
    origin = StateDir(context.origin)
    try:
        yield
    finally:
        origin.close()


def say_over(record: Mapping[str, Any], *, as_json: bool) -> int:
    """There is nothing to recover; print the summary of the run that was, if it wrote one."""
    sys.stderr.write("nothing to recover\n")
    summary = record.get("summary")
    if isinstance(summary, dict):
        sys.stdout.write(json.dumps(summary) + "\n" if as_json else describe(summary, ""))
        sys.stdout.flush()
    return exit_codes.FINISHED
