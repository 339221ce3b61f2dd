"""`espilot run`: process a job."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from espilot import config
from espilot.cli import exit_codes, own_command, service
from espilot.cli.collection import collect_outputs
from espilot.cli.job_file import settings_for
from espilot.cli.news import News
from espilot.cli.progress import Progress
from espilot.cli.show import show_result
from espilot.cli.summary import say_end, summarise, tell
from espilot.errors import ConfigError
from espilot.logs import open_log
from espilot.supervisor import preflight
from espilot.supervisor.outcome import Outcome
from espilot.supervisor.resume import OVER, has_live, note_run, prepare_state
from espilot.supervisor.statedir import StateDir
from espilot.supervisor.supervisor import Supervisor
from espilot.workers.access_point import SCHEME, access_point, shared_storage
from espilot.workers.context import Context
from espilot.workers.recording import prepare_record
from espilot.workers.storages import absolute_location, location_of, open_storages

EXAMPLES = """\
examples:
  espilot run --local --events 1000 --per-range 10 -- \\
          ./my-sim --first {startEvent} --last {lastEvent} --out {output}
      a program of your own, run once for each range; everything below ./espilot-work
  espilot run --local etc/jobs/zmumu.toml
      Z -> mu mu with Pythia 8; everything below ./espilot-work
  espilot run --local job.toml --workdir /scratch/me --storage /data/out --json
      other places; the last line of stdout is one JSON object
  espilot run --local job.toml --record channel.record
      what payload and pilot say, for `fake-payload --replay channel.record`

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
        nargs="?",
        const=own_command.NO_FILE,
        metavar="JOB.toml",
        help="job file, or none with a COMMAND; the run brings its own event server. Without "
        "--local jobs are taken from the server of the configuration, one after the other",
    )
    parser.add_argument(
        "--job",
        type=Path,
        metavar="FILE",
        help="job definition of a server (JSON or form-encoded): run it here; "
        "--local then names a file with settings, if any are needed",
    )
    own_command.add_options(parser)
    service.add_options(parser)
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
        help="storage element: directory or URL (file, s3, davs, root; default: WORKDIR/storage)",
    )
    parser.add_argument(
        "--recovery-dir",
        type=Path,
        metavar="DIR",
        help="where an early end spares what the storage does not take; may be a shared directory",
    )
    parser.add_argument(
        "--harvester",
        type=Path,
        metavar="DIR",
        help="work beside Harvester: jobs, ranges and reports are files in this access point",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write down what goes over the payload's channel, for fake-payload --replay",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the summary as JSON on the last line of stdout"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run until the task is done, drained or failed; the exit code."""
    started = time.monotonic()
    settings = own_command.take(args) or read_settings_of(args)
    if settings is None:
        return service.run(args)
    if args.harvester is not None:
        url = f"{SCHEME}{args.harvester.absolute()}"
        settings = replace(settings, server=replace(settings.server, url=url))
    if args.recovery_dir is not None:
        settings = replace(settings, recovery_dir=str(args.recovery_dir.absolute()))
    if args.record is not None:
        record = str(prepare_record(args.record))
        settings = replace(settings, payload=replace(settings.payload, record=record))
    if access_point(settings.server.url) is None:
        preflight.require_framework()
        check_task(args.local, settings)
    workdir = args.workdir.resolve()
    state = StateDir((args.state_dir or workdir / "state").resolve())
    try:
        context = make_context(args, settings, workdir, state)
        return run_to_end(context, started, as_json=args.json)
    finally:
        state.close()


def read_settings_of(args: argparse.Namespace) -> config.Settings | None:
    """The settings of a job file or a job definition; None when neither is given."""
    if args.local is None and args.job is None:
        return None
    settings = config.Settings() if args.local is None else config.read_file(args.local)
    args.local = args.local or args.job
    if args.job is None and settings.task.job_file:
        args.job = args.local.parent / settings.task.job_file
    if args.job is not None:
        settings = settings_for(args.job, settings)
    return own_command.overridden(args, settings)


def run_to_end(context: Context, started: float, *, as_json: bool) -> int:
    """Run the pilot, write down and print the summary; the exit code. `started` is monotonic."""
    outcome = supervise(context, quiet=as_json)
    if not context.jobs and outcome.task_state == "running" and not has_live(context):
        # All that was asked for: what was here is reported, or went back.
        outcome.state = "finished"
    done = outcome.state == "finished" and outcome.task_state == "finished"
    if done and not show_result(context, sys.stderr if as_json else sys.stdout):
        outcome.state, outcome.reason = "failed", "the result is not what it should be"
    over = outcome.state in OVER and outcome.task_state in OVER
    if over and not collect_outputs(context, sys.stderr if as_json else sys.stdout):
        outcome.state, outcome.reason = "failed", "the outputs cannot be unpacked"
    summary = summarise(outcome, context, time.monotonic() - started)
    note_run(context, outcome.task_state, summary=summary)
    say_end(summary, outcome.reason, as_json=as_json)
    return exit_codes.BY_STATE[outcome.state]


def check_task(path: Path, settings: config.Settings) -> None:
    """Refuse a task without events, or without its input files."""
    if settings.task.total_events < 1:
        raise ConfigError(f"{path}: task.events is missing: how many events are there?")
    # The inputs of a job may also be on a storage.
    for text in () if settings.task.job_file else settings.task.inputs:
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
        storage=storage_of(args, settings, workdir),
        settings=settings,
        jobdir=args.local.resolve().parent,
        server_url=settings.server.url if access_point(settings.server.url) else "",
    )
    preflight.check(context)
    found = prepare_state(context)
    if found is not None:
        sys.stderr.write(f"going on with the unfinished run in {state.path}\n")
        tell(found, context, sys.stderr)
    return context


def storage_of(args: argparse.Namespace, settings: config.Settings, workdir: Path) -> str:
    """Where outputs go first, a directory or a URL; a relative directory counts from here."""
    url = absolute_location(args.storage or settings.storage, Path.cwd())
    url = shared_storage(settings, url)
    directory = args.local.resolve().parent
    storages = open_storages(settings, url, directory)
    if not storages:
        storages = open_storages(settings, str(workdir / "storage"), directory)
    return location_of(next(iter(storages.values())))


def supervise(context: Context, *, quiet: bool) -> Outcome:
    """Run the pilot with a progress line (on stderr with --json)."""
    progress = Progress(context.settings.task, sys.stderr if quiet else sys.stdout)
    if progress.renews_itself:
        log = open_log("supervisor", context.log_file, also=News(progress.say))
    else:
        log = open_log("supervisor", context.log_file, errors_to_stderr=True)
    supervisor = Supervisor(context, log, on_progress=progress.show)
    done: int | None = None
    try:
        outcome = supervisor.run()
        done = outcome.task.get("finished")
        return outcome
    finally:
        progress.end(done)
