"""Job after job from a server that is not our own: when the next one is asked for, and the end.

Also what such a pilot must not pile up: the directories of payloads whose job is over.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from espilot.adapters.disk import remove_path
from espilot.core.job_requests import JobRequests
from espilot.errors import EspilotError, ServerUnavailable
from espilot.model import Job
from espilot.wire.messages import TaskOver, Work
from espilot.workers.calls import Calls
from espilot.workers.child import Child
from espilot.workers.flow import Flow
from espilot.workers.job_room import room_for_job
from espilot.workers.pushed_job import PushedJob

NO_SERVER, BAD_FILE = 1318, 1303
"""Pilot error codes: the server cannot be reached; the file of a job cannot be used."""


class ForeignJobs:
    """Asks through the worker's flow of jobs; in a local run it has nothing to say."""

    def __init__(self, child: Child, calls: Calls, flow: Flow) -> None:
        self.here = child.context.at_server
        self._child = child
        self._calls = calls
        self._flow = flow
        self._requests = JobRequests(child.settings.jobs)
        self._asked = time.monotonic()
        self._code = 0
        definition = child.settings.jobs.definition if self.here else ""
        self._pushed = PushedJob(child.context.jobdir / definition if definition else None)
        self._taken: Job | None = None
        self._fault = ""
        record = child.queue.job()
        if record is not None:
            # Of a former process of this worker, or of another pilot: it is one of our jobs.
            self.begun(record.job)

    def end(self, work: Work) -> TaskOver | None:
        """The last word when no further job is wanted; None while they are."""
        self._requests.had(work.jobs_taken, time.monotonic() - work.since_mono)
        found_only = "" if self._child.context.jobs else "the job that was found is ended"
        reason = work.over or self._requests.over or self._unreachable() or work.late or found_only
        if not reason or not self.here:
            return None
        self._child.log.info("job", "no further job is taken", reason=reason)
        c = self._child.queue.counts()
        return TaskOver(
            {
                "state": "running" if work.over else "finished",
                "total": c.finished + c.failed_total + c.fatal_total + c.released,
                "finished": c.finished,
                "failed": c.failed_total,
                "fatal": c.fatal_total,
                "events_finished": c.events,
                "reason": reason if work.over or work.late or self._unreachable() else "",
                "code": self._last_code(),
            }
        )

    def _last_code(self) -> int:
        if not self._unreachable():
            return self._code
        return BAD_FILE if self._fault else NO_SERVER

    def _unreachable(self) -> str:
        """Why the server is given up; "" while it is not."""
        limit = self._child.settings.jobs.failures
        if not limit or self._flow.failures < limit:
            return ""
        if self._fault:
            return self._fault
        return f"{self._flow.failures} requests in a row failed"

    def acquire(self, end_mono: float = 0.0) -> Job | None:
        """The job that was left in a file, else one of the server's, where that may be asked.

        `end_mono`: about when this run must be over; 0 when nobody says.
        """
        self._fault = ""
        try:
            job = self._pushed.read()
        except ServerUnavailable as error:
            self._fault = str(error)
            raise
        if job is not None and self._taken is not None and job.panda_id == self._taken.panda_id:
            self._pushed.taken(job)
            job = None
        if job is None and not (self.here and self._child.settings.jobs.pushed):
            job = self._flow.server.acquire_job(room_for_job(self._child.context, end_mono))
        return job

    def none(self) -> None:
        """There is none; for one that is to be pushed we wait."""
        jobs = self._child.settings.jobs
        if jobs.pushed and time.monotonic() - self._asked < jobs.pushed_wait_s:
            self._flow.pause(jobs.pause_min_s)
        else:
            self._flow.pause(self._requests.no_job(random.random()))

    def begun(self, job: Job) -> None:
        """There is one, and the queue holds it."""
        self._requests.job_begun()
        self._put_away(job)

    def _put_away(self, job: Job) -> None:
        self._taken = job
        try:
            self._pushed.taken(job)
        except ServerUnavailable as error:
            self._child.log.warning("job", "the job's file stays", error=error)

    def ended(self, *, good: bool, code: int) -> None:
        """The job ended with this pilot error code; a good one has made something."""
        self._code = code if not good else self._code
        self._asked = time.monotonic()
        pause_s = self._requests.job_ended(good=good, chance=random.random())
        if self.here:
            self._flow.pause(pause_s)
            self._remove_past_payloads()

    def _remove_past_payloads(self) -> None:
        """All but the last start's, whose logs may be of use. Nothing of the job is live."""
        last, workdir = self._child.queue.epoch(), self._child.context.workdir
        self._calls.start(
            lambda: remove_before(workdir, last), then=lambda _: None, failed=self._not_removed
        )

    def _not_removed(self, error: EspilotError) -> None:
        self._child.log.warning("delete", "former payloads' directories stay", error=error)


def remove_before(workdir: Path, last: int) -> None:
    """Remove `payload-N` for each N below `last`."""
    for path in workdir.glob("payload-*"):
        number = path.name.removeprefix("payload-")
        if number.isdecimal() and int(number) < last:
            remove_path(path)
