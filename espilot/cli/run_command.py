"""`espilot run`: process a job."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from espilot import config
from espilot.adapters.storage import open_storage
from espilot.adapters.storage.posix import PosixStorage
from espilot.cli import exit_codes, server
from espilot.cli.progress import Progress
from espilot.errors import ConfigError
from espilot.logs import open_log
from espilot.supervisor import preflight
from espilot.supervisor.outcome import Outcome
from espilot.supervisor.resume import note_run, prepare_state
from espilot.supervisor.statedir import StateDir
from espilot.supervisor.supervisor import Supervisor
from espilot.workers.context import Context

EXAMPLES = """\
examples:
  espilot run --local etc/jobs/zmumu.toml
      Z -> mu mu with Pythia 8; everything below ./espilot-work
  espilot run --local job.toml --workdir /scratch/me --storage /data/out --json
      other places; the last line of stdout is one JSON object

exit codes: 0 finished, 1 failed, 3 drained (ended early, nothing lost), 64 wrong usage,
70 defect, 73 this node, 75 server or storage not reachable
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="process a job",
        description="Process the task of a job file on this machine, until it is done.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--local",
        type=Path,
        required=True,
        metavar="JOB.toml",
        help="job file; the run brings its own event server",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path("espilot-work"),
        metavar="DIR",
        help="where the payload works (default: ./espilot-work)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="queue and sealed archives, on a local disk (default: WORKDIR/state)",
    )
    parser.add_argument(
        "--storage",
        default="",
        metavar="URL",
        help="storage element: a directory or file: URL (default: WORKDIR/storage)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the summary as JSON on the last line of stdout"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run until the task is done, drained or failed; the exit code."""
    started = time.monotonic()
    server.require_framework()
    settings = config.read_file(args.local)
    check_task(args.local, settings)
    workdir = args.workdir.resolve()
    state = StateDir((args.state_dir or workdir / "state").resolve())
    try:
        context = make_context(args, settings, workdir, state)
        outcome = supervise(context, quiet=args.json)
        note_run(context, outcome.task_state)
    finally:
        state.close()
    summary = summarise(outcome, context, time.monotonic() - started)
    sys.stdout.write(json.dumps(summary) + "\n" if args.json else describe(summary, outcome))
    sys.stdout.flush()
    return exit_codes.BY_STATE[outcome.state]


def check_task(path: Path, settings: config.Settings) -> None:
    """Refuse a task without events, or without its input files."""
    if settings.task.total_events < 1:
        raise ConfigError(f"{path}: task.events is missing: how many events are there?")
    for text in settings.task.inputs:
        file = path.parent / config.split_input(text)[0]
        if not file.is_file():
            raise ConfigError(f"{path}: task.inputs: there is no file {file}")


def make_context(
    args: argparse.Namespace, settings: config.Settings, workdir: Path, state: StateDir
) -> Context:
    """Where everything is; refuses what cannot work before anything is started."""
    context = Context(
        workdir=workdir,
        state=state.path,
        runtime=state.runtime,
        storage=storage_of(args.storage or settings.storage, workdir),
        settings=settings,
        jobdir=args.local.resolve().parent,
    )
    preflight.check(context)
    if prepare_state(context):
        sys.stderr.write(f"going on with the unfinished run in {state.path}\n")
    return context


def storage_of(url: str, workdir: Path) -> str:
    """The storage's directory, or its URL; a relative directory counts from where we are."""
    storage = open_storage(url or str(workdir / "storage"))
    return str(storage.directory) if isinstance(storage, PosixStorage) else storage.url


def supervise(context: Context, *, quiet: bool) -> Outcome:
    """Run the pilot with a progress line (on stderr with --json)."""
    log = open_log("supervisor", context.log_file, errors_to_stderr=True)
    progress = Progress(context.settings.task, sys.stderr if quiet else sys.stdout)
    supervisor = Supervisor(context, log, on_progress=progress.show)
    try:
        return supervisor.run()
    finally:
        progress.end()


def summarise(outcome: Outcome, context: Context, wall_s: float) -> dict[str, Any]:
    """The summary object, `espilot.summary/1`."""
    task, counts = outcome.task, outcome.counts
    total = task.get("total", context.settings.task.total_ranges)
    ended = {name: task.get(name, 0) for name in ("finished", "failed", "fatal")}
    return {
        "schema": "espilot.summary/1",
        "state": outcome.state,
        "ranges": {"total": total, **ended, "released": total - sum(ended.values())},
        "events": task.get("events_finished", 0),
        "jobs": outcome.jobs,
        "archives": counts.archives if counts else 0,
        "bytes": counts.bytes if counts else 0,
        "wall_s": round(wall_s, 3),
        "storage": context.storage,
        "workdir": str(context.workdir),
    }


def describe(summary: dict[str, Any], outcome: Outcome) -> str:
    """The summary in words, and what to try next."""
    ranges = summary["ranges"]
    lines = [
        f"{summary['state']}: {ranges['finished']} of {ranges['total']} ranges, "
        f"{summary['events']} events in {summary['wall_s']:.1f} s",
    ]
    if outcome.reason:
        lines.append(f"reason: {outcome.reason}")
    if ranges["failed"] or ranges["fatal"] or ranges["released"]:
        lines.append(
            f"failed {ranges['failed']}, fatal {ranges['fatal']}, given back {ranges['released']}"
        )
    storage, workdir = summary["storage"], Path(summary["workdir"])
    if summary["archives"]:
        size_mb = summary["bytes"] / 1e6
        lines.append(f"outputs: {summary['archives']} archives, {size_mb:.1f} MB, in {storage}")
    lines.append(f"log: {workdir / 'logs' / 'pilot.log'}")
    lines.append(f"try next: {next_step(summary)}")
    return "\n".join(lines) + "\n"


def next_step(summary: dict[str, Any]) -> str:
    """A command worth trying after this run."""
    if summary["state"] == "drained":
        return "the same command again, to go on where it stopped"
    if summary["state"] == "failed":
        return f"grep -E 'warning|error' {summary['workdir']}/logs/pilot.log   # what went wrong"
    return f"tar -tf $(ls {summary['storage']}/*.tar | head -1)   # what is inside an archive"
