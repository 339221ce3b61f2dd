"""The pilot as a factory or its wrapper starts it: stock options, files and exit codes.

It never prompts, and whatever happens it ends with a code of the stock table and an exit report.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from espilot import __version__
from espilot.cli.early_signals import EarlySignals, Ended
from espilot.cli.exit_report import Report, failure
from espilot.cli.faces import STOCK_PROGRAM
from espilot.cli.service import checked
from espilot.cli.stock_options import StockCommand, describe, read_stock
from espilot.cli.stock_settings import StockSettings, read_stock_settings
from espilot.config import Settings
from espilot.core.exit_code import QUEUE_NOT_ACTIVE, QUEUE_OFFLINE, UNKNOWN_EXCEPTION
from espilot.errors import EspilotError, UsageError
from espilot.logs import open_log
from espilot.supervisor import preflight
from espilot.supervisor.liveness import Liveness
from espilot.supervisor.outcome import Outcome
from espilot.supervisor.removal import remove_workdir
from espilot.supervisor.resume import has_live, note_run, prepare_state
from espilot.supervisor.statedir import StateDir
from espilot.supervisor.supervisor import Supervisor
from espilot.workers.access_point import access_point, shared_storage
from espilot.workers.context import Context
from espilot.workers.storages import absolute_location, location_of, open_storages

PILOT_LOG = "pilotlog.txt"
JOB_IDS = "pandaIDs.out"
WORKDIR = "espilot-work"


def run(program: str, argv: Sequence[str]) -> int:
    """Be the pilot until the end; the exit code, one of the stock table."""
    if "--help" in argv:
        sys.stdout.write(describe())
        return 0
    report = Report(Path.cwd())
    signals = EarlySignals()
    try:
        command = read_stock(argv)
        report.configure(command)
        redirect(command.get("redirect-stdout"))
        pilot = Pilot(program, command, report)
        outcome = pilot.run(signals)
    except Ended as ended:
        return report.write_signal(ended.number)
    except EspilotError as error:
        return report.write_failure(failure(error), str(error))
    except Exception as error:  # noqa: BLE001 (the top of the process)
        traceback.print_exception(error)
        return report.write_failure(UNKNOWN_EXCEPTION, f"{type(error).__name__}: {error}")
    return report.write(outcome, whole=pilot.whole)


def redirect(path: str | None) -> None:
    """Let stdout and stderr go to a file; `UsageError` when it cannot be opened."""
    if not path:
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"--redirect-stdout {path}: {error.strerror}") from error
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)


class Pilot:
    """One run for a factory. `whole`: it left nothing that a later run could report."""

    def __init__(self, program: str, command: StockCommand, report: Report) -> None:
        self.whole = True
        self._command = command
        self._report = report
        self._here = Path.cwd()
        self._workdir = self._here / WORKDIR
        self._ids = ids_file(program, self._here)

    def run(self, signals: EarlySignals) -> Outcome:
        """Process jobs; what is wrong before the start is an error, later it is in the outcome."""
        for warning in self._command.warnings:
            sys.stderr.write(f"espilot: {warning}\n")
        stock = read_stock_settings(self._command, os.environ, self._here)
        for note in stock.notes:
            sys.stderr.write(f"espilot: {note}\n")
        settings = stock.layered.settings
        self._report.queue = settings.server.site
        refused = refuse_queue(stock)
        if refused is not None:
            return refused
        self._workdir = choose_workdir(settings, Path(self._command.get("workdir") or self._here))
        if access_point(settings.server.url) is None:
            checked(settings)
        state_dir = self._command.get("state-dir")
        state = StateDir(Path(state_dir).absolute() if state_dir else self._workdir / "state")
        try:
            outcome = self._run_in(state, settings, signals)
        finally:
            state.close()
        if self.whole and self._command.get("cleanup", True):
            self._clean_up(settings)
        return outcome

    def _clean_up(self, settings: Settings) -> None:
        """What cannot be removed makes no failure of a job that is done."""
        try:
            remove_workdir(self._workdir, keep=(settings.storage, settings.recovery_dir))
        except EspilotError as error:
            sys.stderr.write(f"espilot: the work directory stays: {error}\n")

    def _run_in(self, state: StateDir, settings: Settings, signals: EarlySignals) -> Outcome:
        context = make_context(self._workdir, state, settings, self._here)
        preflight.check(context)
        found = prepare_state(context)
        log = open_log("supervisor", context.log_file, errors_to_stderr=True)
        for line in found.lines() if found is not None else ():
            log.warning("recover", line)
        liveness = Liveness(self._pilot_log, self._ids, log)
        liveness.say(f"espilot {__version__} starts: {settings.server.site}, {context.workdir}")
        signals.hand_over()
        supervisor = Supervisor(context, log, on_progress=liveness.show)
        signals.resend()
        outcome = supervisor.run()
        self.whole = not has_live(context)
        note_run(context, "finished" if self.whole else "running")
        liveness.say(f"{outcome.state}: {outcome.reason or 'all done'}")
        return outcome

    @property
    def _pilot_log(self) -> Path | None:
        return None if self._command.get("no-pilot-log") else self._here / PILOT_LOG


def choose_workdir(settings: Settings, base: Path) -> Path:
    """Below the base; beside Harvester on a disk of the node, and the same one each time.

    Of what lies in its directory Harvester would take unfinished outputs for finished ones.
    """
    place, base = access_point(settings.server.url), base.absolute()
    if place is None or not base.resolve().is_relative_to(place.resolve()):
        return base / WORKDIR
    node = os.environ.get("OSG_WN_TMP") or os.environ.get("TMPDIR") or "/tmp"
    mark = hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:12]
    return Path(node).absolute() / f"{WORKDIR}-{os.getuid()}-{mark}"


def make_context(workdir: Path, state: StateDir, settings: Settings, here: Path) -> Context:
    """Where everything is; relative places of storages count from here."""
    url = absolute_location(settings.storage, here)
    storages = open_storages(settings, shared_storage(settings, url), here)
    try:
        location = location_of(next(iter(storages.values())))
    finally:
        for storage in storages.values():
            storage.close()
    return Context(
        workdir=workdir,
        state=state.path,
        runtime=state.runtime,
        storage=location,
        settings=settings,
        server_url=settings.server.url,
        jobdir=here,
        at_server=access_point(settings.server.url) is None,
    )


def refuse_queue(stock: StockSettings) -> Outcome | None:
    """The end of a run for a queue that takes no pilots; None when it does."""
    if stock.queue is not None and not stock.queue.is_active:
        return Outcome(reason=f"the queue is {stock.queue.state}", code=QUEUE_NOT_ACTIVE)
    if stock.queue is not None and stock.queue.is_offline:
        return Outcome(reason="the queue is offline", code=QUEUE_OFFLINE)
    return None


def ids_file(program: str, here: Path) -> Path:
    """Where wrappers look for the ids of our jobs: beside the pilot's source, if it can be."""
    source = os.environ.get("PANDA_PILOT_SOURCE")
    beside = Path(program).absolute().parent if Path(program).name == STOCK_PROGRAM else here
    directory = Path(source) if source else beside
    return (directory if os.access(directory, os.W_OK) else here) / JOB_IDS
