"""What is told of a job besides its ranges, and what the server orders in its answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from espilot.adapters.inspection import Inspection
from espilot.adapters.proctree import descendants
from espilot.core import job_metrics
from espilot.core.instructions import Orders, read_orders
from espilot.core.job import Tally
from espilot.errors import EspilotError
from espilot.model import Job, JobRecord, JobUpdate
from espilot.wire.jobdef import is_set
from espilot.wire.messages import Used
from espilot.workers.calls import Calls
from espilot.workers.child import Child
from espilot.workers.job_log import epoch_before, payload_directories

DEBUG_PERIOD_S = 60.0
REPORT_NAME = "jobReport.json"
_REPORT_LIMIT_BYTES = 2**20
_TIME = "%Y-%m-%d %H:%M:%S"
_EXTRACT_BYTES = 1024


class Heartbeat:
    """The updates of the current job: their fields, their rhythm, and the orders that come back.

    `announce` passes a kill or soft kill on; `beat_soon` asks for an update at once.
    """

    def __init__(
        self,
        child: Child,
        calls: Calls,
        *,
        announce: Callable[[str], None],
        beat_soon: Callable[[], None],
    ) -> None:
        self._child = child
        self._calls = calls
        self._announce = announce
        self._beat_soon = beat_soon
        self._used: dict[str, float] = {}
        self._debug: bool | None = None
        self._answer = ""
        self._asked: tuple[str, ...] = ()
        self._inspection = Inspection(child.context.workdir, private_places(child))
        child.on(Used, self._take_used)

    def begin(self) -> dict[str, Any]:
        """Facts to keep with a job that begins."""
        self._debug, self._answer, self._asked = None, "", ()
        epoch = self._child.queue.epoch()
        return {"began": time.time(), "used": dict(self._used), "epoch": epoch}

    def period_s(self, job: Job) -> float:
        """Seconds until the next update."""
        return job_metrics.heartbeat_limit(
            self._child.settings.server.heartbeat_s,
            is_event_job=job.event_service,
            debug=self._is_debugged(job),
            debug_s=DEBUG_PERIOD_S,
        )

    def _is_debugged(self, job: Job) -> bool:
        """Whether somebody looks closely: by the order of the server, else by the definition."""
        return is_set(job.definition, "debug") if self._debug is None else self._debug

    def update_of(self, record: JobRecord, state: str, tally: Tally) -> JobUpdate:
        """A heartbeat."""
        more = self._fields(record)
        cores = record.job.core_count
        return JobUpdate(state, tally.events, core_count=cores, cpu_s=self._cpu_s(record),
                         metrics=self._metrics(tally), more=more)  # fmt: skip

    def complete(self, record: JobRecord, update: JobUpdate, tally: Tally) -> JobUpdate:
        """The final update with all that goes with it."""
        more = self._fields(record) | dict(update.more)
        more["end_time"] = time.strftime(_TIME, time.gmtime())
        if "pilot_timing" not in more:
            more["pilot_timing"] = job_metrics.timing_text(
                job_s=0, stagein_s=0, payload_s=_lasted_s(record), stageout_s=0
            )
        if update.pilot_error_code:
            more["pilot_log"] = _end_of(self._child.context.log_file)
        report = None if update.state == "failed" else self._find_report(record)
        if report is not None:
            more["meta_data"] = report
        return JobUpdate(
            **{**_shallow(update), "cpu_s": self._cpu_s(record), "metrics": self._metrics(tally),
               "more": more}
        )  # fmt: skip

    def obey(self, command: str) -> None:
        """Carry out what came back with an answer."""
        orders = read_orders(command)
        log = self._child.log
        if orders.unknown:
            log.warning("server", "unknown order", command=orders.unknown[0])
        if orders.debug is not None and orders.debug != self._debug:
            self._debug = orders.debug
            log.info("server", "debug mode", on=self._debug)
            self._beat_soon()
        if orders.keep_workdir:
            log.info("server", "the work directory is kept")
        if orders.inquiry:
            log.info("server", "the server asks", command=" ".join(orders.inquiry)[:100])
            self._calls.start(
                partial(self._inspect, orders.inquiry),
                then=partial(self._answered, orders.inquiry),
                failed=self._no_answer,
            )
        self._pass_on(orders)

    def _pass_on(self, orders: Orders) -> None:
        words = {"tobekilled": orders.kill, "softkill": orders.soft_kill}
        for word in (word for word, ordered in words.items() if ordered):
            self._child.log.warning("server", "the server ordered", command=word)
            self._announce(word)

    def _inspect(self, words: tuple[str, ...]) -> str:
        if words[0] == "ps":
            return list_processes()
        return self._inspection.answer(words)

    def _answered(self, words: tuple[str, ...], answer: str) -> None:
        """A new question is answered at once. The same one comes with every answer until somebody
        takes it back: then the rhythm of the updates is enough."""
        self._answer = answer
        if words != self._asked:
            self._asked = words
            self._beat_soon()

    def _no_answer(self, error: EspilotError) -> None:
        self._child.log.warning("server", "the question cannot be answered", error=error)

    def _take_used(self, used: Used) -> None:
        self._used = {name: float(value) for name, value in used.totals.items()}

    def _cpu_s(self, record: JobRecord) -> int | None:
        return job_metrics.cpu_seconds(self._used, record.facts.get("used", {}))

    def _metrics(self, tally: Tally) -> str:
        counts = {"ranges_finished": tally.finished, "ranges_failed": tally.failed + tally.fatal}
        return job_metrics.metrics_text(self._used, counts)

    def _fields(self, record: JobRecord) -> dict[str, Any]:
        began = record.facts.get("began")
        before = record.facts.get("used", {})
        fields = job_metrics.resource_fields(self._used, before, _lasted_s(record))
        if self._answer and self._is_debugged(record.job):
            fields["stdout"] = self._answer
        if began:
            fields["start_time"] = time.strftime(_TIME, time.gmtime(began))
        return fields

    def _find_report(self, record: JobRecord) -> str | None:
        """The job report of the last start of this job's payload that has one, if it is usable."""
        for directory in payload_directories(self._child.context, epoch_before(record)):
            if (directory / REPORT_NAME).is_file():
                return read_report(directory / REPORT_NAME)
        return None


def private_places(child: Child) -> tuple[Path, ...]:
    """What a server may not look at: our state, but the logs it may."""
    return child.context.state, child.context.runtime


def _shallow(update: JobUpdate) -> Mapping[str, Any]:
    return {name: getattr(update, name) for name in JobUpdate.__slots__}


def _lasted_s(record: JobRecord) -> float:
    began = record.facts.get("began")
    return max(0.0, time.time() - began) if began else 0.0


def read_report(path: Path) -> str | None:
    """The text of a job report: a JSON object of a sane size; None otherwise."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(_REPORT_LIMIT_BYTES + 1)
    try:
        report = json.loads(data) if len(data) <= _REPORT_LIMIT_BYTES else None
    except (ValueError, RecursionError):
        return None
    return json.dumps(report, separators=(",", ":")) if isinstance(report, dict) else None


def _end_of(path: Path) -> str:
    """The end of our log, which says why a job did not end well."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _EXTRACT_BYTES))
            return file.read(_EXTRACT_BYTES).decode("utf-8", "ignore")
    except OSError:
        return ""


def list_processes() -> str:
    """The processes of this pilot and its payload, one a line."""
    lines = ["    pid   ppid s    cpu_s    rss_MB"]
    for process in descendants(os.getppid()):
        facts = asdict(process)
        lines.append(
            f"{facts['pid']:>7} {facts['ppid']:>6} {facts['state']} {facts['cpu_s']:>8.1f}"
            f" {facts['rss_bytes'] / 2**20:>9.1f}"
        )
    return "\n".join(lines)[:2048]
