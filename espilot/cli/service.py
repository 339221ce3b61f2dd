"""`espilot run` without a job file: job after job from a server, as a service of the machine."""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

from espilot.cli import exit_codes
from espilot.cli.summary import say_end, summarise, tell
from espilot.config import Settings
from espilot.config_files import SYSTEM_FILE, read_layered
from espilot.errors import ConfigError, LocalError
from espilot.logs import Log
from espilot.supervisor import preflight
from espilot.supervisor.deadlines import CREDENTIAL
from espilot.supervisor.outcome import Outcome
from espilot.supervisor.resume import has_live, note_run, prepare_state
from espilot.supervisor.service import (
    Notifier,
    Service,
    journal_name,
    open_notifier,
    open_service_log,
)
from espilot.supervisor.statedir import StateDir
from espilot.supervisor.supervisor import Supervisor
from espilot.view.look import Look
from espilot.workers.context import Context
from espilot.workers.storages import location_of, open_storages


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run that takes jobs from a server."""
    group = parser.add_argument_group("jobs from a server")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings (default: /etc/espilot/espilot.toml, then yours)",
    )
    group.add_argument(
        "--instance",
        default="",
        metavar="NAME",
        help="name of this pilot among those of the node; NAME.toml beside the settings is its own",
    )
    group.add_argument(
        "--runtime-dir",
        type=Path,
        metavar="DIR",
        help="where the sockets of the pilot's processes are (default: below /tmp)",
    )


def run(args: argparse.Namespace) -> int:
    """Take jobs until told to stop; the exit code. A drain that was asked for is no failure."""
    started = time.monotonic()
    # A watchdog that loses patience sends SIGABRT: the stacks go to the journal.
    faulthandler.enable()

    def reread() -> Settings:
        return checked(read_layered(args.config, args.instance, os.environ).settings)

    settings = reread()
    with closing(open_notifier(os.environ)) as notifier:
        notifier.tell(status="starting", extend_timeout_usec=60_000_000)
        state = StateDir(state_path(args), args.runtime_dir)
        try:
            context = make_context(args, settings, state)
            outcome = supervise(context, notifier, reread, args.instance)
            over = outcome.state == "finished" or not has_live(context)
            summary = summarise(outcome, context, time.monotonic() - started)
            note_run(context, "finished" if over else "running", summary=summary)
            notifier.tell(status=f"{outcome.state}: {outcome.reason or 'all done'}")
        finally:
            state.close()
    say_end(summary, outcome.reason, as_json=args.json)
    return exit_code(outcome)


def exit_code(outcome: Outcome) -> int:
    """A drain that was asked for is no failure; one that nobody asked for has us started again."""
    if outcome.state == "failed":
        return exit_codes.FAILED
    if outcome.drained_by == CREDENTIAL and not outcome.signal:
        # A start gives us what the service manager has loaded by then.
        return exit_codes.UNAVAILABLE
    return exit_codes.FINISHED


def state_path(args: argparse.Namespace) -> Path:
    """The state directory; never the work directory itself, where a payload may write."""
    given, workdir = args.state_dir, args.workdir.resolve()
    if given is None or given.resolve() == workdir:
        return Path(workdir, "state")
    return Path(given).resolve()


def checked(settings: Settings) -> Settings:
    """The settings, if a pilot can take jobs with them; `ConfigError` names what is missing."""
    if not settings.server.url:
        raise ConfigError(
            "server.url is missing: the address of the server to take jobs from "
            "(or use espilot run --local JOB.toml)"
        )
    if not settings.storage and not settings.endpoints:
        raise ConfigError("storage is missing: where outputs go, a directory or a URL")
    return settings


def check(args: argparse.Namespace, settings: Settings) -> None:
    """Refuse settings with which no pilot could start, without making anything."""
    places = Path("/var/lib/espilot/check")
    preflight.check_payload(context_of(args, checked(settings), places, (places, places)))


def context_of(
    args: argparse.Namespace, settings: Settings, workdir: Path, state: tuple[Path, Path]
) -> Context:
    """Where everything is; `state` are state and runtime directory."""
    directory = args.config.resolve().parent if args.config else SYSTEM_FILE.parent
    storages = open_storages(settings, settings.storage, directory)
    try:
        location = location_of(next(iter(storages.values())))
    finally:
        for storage in storages.values():
            storage.close()
    return Context(
        workdir=workdir,
        state=state[0],
        runtime=state[1],
        storage=location,
        settings=settings,
        server_url=settings.server.url,
        jobdir=directory,
        at_server=True,
        journal=journal_name(settings.service.journal, args.instance, os.environ),
    )


def make_context(args: argparse.Namespace, settings: Settings, state: StateDir) -> Context:
    """Where everything is; refuses what cannot work before anything is started."""
    context = context_of(args, settings, args.workdir.resolve(), (state.path, state.runtime))
    preflight.check(context)
    found = prepare_state(context)
    if found is not None:
        tell(found, context, sys.stderr)
    return context


def supervise(
    context: Context, notifier: Notifier, reread: Callable[[], Settings], instance: str
) -> Outcome:
    """Run the pilot, and tell the service manager how it goes."""
    log = open_service_log(context)
    with exporting(context, instance, log) as also:
        service = Service(notifier, log, settings=context.settings, reread=reread, also=also)
        supervisor = Supervisor(context, log, on_progress=lambda snapshot: None, attendant=service)
        return supervisor.run()


@contextmanager
def exporting(
    context: Context, instance: str, log: Log
) -> Iterator[tuple[Callable[[Look], None], ...]]:
    """Export metrics if the settings say so; `LocalError` when the library is missing."""
    config = context.settings.metrics
    if not config.textfile and not config.port:
        yield ()
        return
    if find_spec("prometheus_client") is None:
        raise LocalError(
            "metrics need the package prometheus-client: pip install 'espilot[metrics]', or leave "
            "metrics.textfile and metrics.port empty"
        )
    from espilot.supervisor.exporter import Exporter
    from espilot.supervisor.node_figures import NodeFigures

    figures = NodeFigures(context)
    exporter = Exporter(config, instance, figures.measure, log)
    try:
        yield (exporter.look,)
    finally:
        exporter.close()
        figures.close()
