"""Harvester behind the verbs of `ports.EventServer`: jobs, ranges and reports are files.

* A job or ranges file is read until it is complete, and renamed only when the queue holds what was
  in it: for a job by the first call for it, for ranges by the `known` mark of the next request.
* One request for ranges at a time; none while a ranges file is there. Harvester writes the ranges,
  then removes the request: who asks in between would have the new request removed, so we wait. A
  request that is gone without an answer is made again.
* Silence is not "no more ranges": only an empty list is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espilot.adapters.harvester.directory import SharedDirectory
from espilot.adapters.harvester.notes import Note
from espilot.adapters.harvester.reports import Outputs, Reports
from espilot.errors import MessageError, ServerRefused, ServerUnavailable
from espilot.model import (
    ANY_ROOM,
    EventRange,
    Job,
    JobUpdate,
    ReportAnswer,
    ReportBatch,
    Room,
    TaskStatus,
    feed_mark,
)
from espilot.wire import harvester as wire
from espilot.wire.panda_v1 import Pilot

TAKEN = ".taken"
"""Behind the name of a job or ranges file whose content is in the queue."""
KILL = "tobekilled"


@dataclass(frozen=True, slots=True)
class Terms:
    """How long Harvester may take, in seconds, before something is done about it.

    `jobs` is how many jobs are taken one after the other; with `kill_at_end` Harvester is asked to
    end the batch job after the last one; with `first_input_only` the command line of a job keeps
    its first input only.
    """

    job_s: float = 3600.0
    ranges_s: float = 7200.0
    ask_again_s: float = 60.0
    lost_s: float = 30.0
    gone_s: float = 300.0
    jobs: int = 1
    kill_at_end: bool = False
    first_input_only: bool = False


class Clock:
    """How long something has been so."""

    def __init__(self) -> None:
        self._since: float | None = None

    def stop(self) -> None:
        """It is no longer so."""
        self._since = None

    def run(self) -> float:
        """It is so; for how many seconds."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since


class HarvesterServer:
    """One access point (`ports.EventServer`); may be used by several threads.

    `state` is a directory of ours for what must outlive this process.
    """

    def __init__(
        self,
        access_point: Path,
        *,
        names: wire.FileNames,
        state: Path,
        outputs: Outputs,
        pilot: Pilot,
        terms: Terms | None = None,
    ) -> None:
        self._place = SharedDirectory(access_point)
        self._names = names
        self._pilot = pilot
        self._terms = terms or Terms()
        self._ended = Note(state / "ended.json")
        self._reports = Reports(
            self._place, names, Note(state / "dump.json"), outputs, self._terms.lost_s
        )
        self._lock = threading.Lock()
        self._no_job, self._no_ranges, self._asked, self._gone = Clock(), Clock(), Clock(), Clock()
        self._has_asked = False
        self._refused = False

    # -- jobs -----------------------------------------------------------------------------------

    def acquire_job(self, room: Room = ANY_ROOM) -> Job | None:
        """The job of the job file; None while there is none. It is asked for, once.

        Harvester has chosen it for this worker: `room` is not told.
        """
        with self._lock:
            if len(self._ended.read()) >= self._terms.jobs:
                return None
            self._refused = self._refused or self._is_gone()
            if self._refused:
                return None
            self._place.touch(self._names.heartbeat)
            self._refuse_many_jobs()
            job = self._read_job()
            if job is not None:
                self._no_job.stop()
            elif self._no_job.run() < self._terms.job_s:
                if not self._place.has(self._names.job_request):
                    self._place.write(self._names.job_request, wire.write_job_request(1))
            else:
                self._place.remove(self._names.job_request)
            return job

    def task_status(self, task_id: int) -> TaskStatus:
        """How the jobs of this worker stand; `running` while another may come."""
        with self._lock:
            ended = list(self._ended.read().values())
            waits = len(ended) < self._terms.jobs and not self._refused
            waits = waits and self._no_job.run() < self._terms.job_s
            good = any(each["state"] == "finished" for each in ended)
            sums = [
                sum(each["ranges"][i] for each in ended)
                for i in range(4)
            ]  # fmt: skip
            return TaskStatus(
                task_id=task_id,
                state="running" if waits else "finished" if good else "failed",
                total=sums[3],
                finished=sums[0],
                failed=sums[1],
                fatal=sums[2],
                ready=0,
                sent=0,
                events_finished=sum(each["events"] for each in ended),
                jobs=len(ended),
                jobs_active=0,
            )

    def _read_job(self) -> Job | None:
        data = self._place.read(self._names.job)
        if not data:
            return None
        try:
            return wire.read_job_file(data, first_input_only=self._terms.first_input_only)
        except MessageError as error:
            raise ServerUnavailable(f"{self._place.path / self._names.job}: {error}") from None

    def _refuse_many_jobs(self) -> None:
        """Where several jobs share a worker, Harvester answers no request for ranges at all.

        It is refused once; after that there is no job.
        """
        ids = many_jobs(self._place, self._names)
        if ids:
            self._refused = True
            raise ServerRefused(
                f"{self._place.path} holds jobs {', '.join(ids[:3])} in directories of their own "
                "(ManyToOne), where Harvester hands out no ranges; set mapType to OneToOne or "
                "OneToMany"
            )

    def _job_is_taken(self, job: Job) -> None:
        """The queue has this job: its file may go."""
        name = self._names.job
        if self._place.has(name):
            found = self._read_job()
            if found is not None and found.panda_id == job.panda_id:
                self._place.move(name, name + TAKEN)

    # -- ranges ---------------------------------------------------------------------------------

    def acquire_ranges(self, job: Job, n: int, known: str = "") -> tuple[EventRange, ...] | None:
        """The ranges that Harvester has brought; None while it has not, and they are asked for.

        `known` is the mark of the last ranges that the queue has taken.
        """
        with self._lock:
            self._require_place()
            self._job_is_taken(job)
            ranges = self._read_ranges(job)
            if ranges is not None and (not ranges or feed_mark(ranges) != known):
                self._no_ranges.stop()
                self._asked.stop()
                self._has_asked = False
                return ranges
            asked = self._place.has(self._names.event_request)
            if ranges is not None and not asked:
                # While a request is there Harvester may be about to write; it only overwrites what
                # the queue has.
                self._place.move(self._names.event_ranges, self._names.event_ranges + TAKEN)
            self._ask(job, n, asked=asked)
            self._bound_wait(job)
            return None

    def _read_ranges(self, job: Job) -> tuple[EventRange, ...] | None:
        data = self._place.read(self._names.event_ranges)
        if data is None:
            return None
        try:
            return wire.read_ranges(data, job, str(self._place.path))
        except MessageError as error:
            if self._no_ranges.run() >= self._terms.ranges_s:
                raise ServerRefused(
                    f"{self._names.event_ranges}: {error}; no more are asked for"
                ) from None
            raise ServerUnavailable(f"{self._names.event_ranges}: {error}") from None

    def _ask(self, job: Job, n: int, *, asked: bool) -> None:
        """Make a request, if none is under way."""
        if asked:
            self._asked.stop()  # only a request that is gone can be lost
            self._has_asked = True
        elif not self._has_asked or self._asked.run() >= self._terms.ask_again_s:
            self._place.write(self._names.event_request, wire.write_event_request(job, n))
            self._asked.stop()
            self._has_asked = True

    def _bound_wait(self, job: Job) -> None:
        waited_s = self._no_ranges.run()
        if waited_s >= self._terms.ranges_s:
            self._place.remove(self._names.event_request)
            raise ServerRefused(
                f"Harvester brought no ranges for job {job.panda_id} in {waited_s:.0f} s; "
                "the job ends (harvester.ranges_wait_s)"
            )

    def stop_asking(self, job: Job) -> None:
        """Remove a request that Harvester has not answered."""
        with self._lock:
            self._place.remove(self._names.event_request)
            self._has_asked = False
            self._no_ranges.stop()

    # -- reports and updates --------------------------------------------------------------------

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> ReportAnswer:
        """Report ranges by a dump; the answer is pending until Harvester has booked it."""
        with self._lock:
            if self._is_gone():
                return ReportAnswer(tuple(False for batch in batches for _ in batch.ranges))
            return self._reports.tell(job, batches)

    def range_statuses(self, job: Job, wanted: Collection[str] | None = None) -> Mapping[str, str]:
        """Every wanted range is ours while the worker lives; Harvester tells no more."""
        with self._lock:
            return {} if self._is_gone() else dict.fromkeys(wanted or (), "sent")

    def update_job(self, job: Job, update: JobUpdate) -> str:
        """Touch the heartbeat and write the attributes; a final update leaves no request behind."""
        with self._lock:
            if self._is_gone():
                if update.state in ("finished", "failed"):
                    self._note_end(job, update)
                return KILL
            self._job_is_taken(job)
            self._place.touch(self._names.heartbeat)
            report = wire.job_report(update)
            if report is not None:
                self._place.write(self._names.job_report, report)
            attributes = wire.write_attributes(job, update, self._pilot)
            self._place.write(self._names.attributes, attributes)
            if update.state in ("finished", "failed"):
                self._end(job, update)
            return ""

    def update_worker(self, state: str) -> None:
        """Harvester sees for itself how its workers are."""

    def _end(self, job: Job, update: JobUpdate) -> None:
        ranges = self._names.event_ranges
        self._place.remove(self._names.event_request)
        self._place.remove(self._names.job_request)
        self._place.move(ranges, ranges + TAKEN)
        self._note_end(job, update)
        if self._terms.kill_at_end and len(self._ended.read()) >= self._terms.jobs:
            self._place.touch(self._names.kill)

    def _note_end(self, job: Job, update: JobUpdate) -> None:
        facts = {"state": update.state, "ranges": list(update.ranges), "events": update.events}
        self._ended.write(self._ended.read() | {str(job.panda_id): facts})
        self._reports.forget()
        self._has_asked = False
        self._no_ranges.stop()

    # -- the access point -----------------------------------------------------------------------

    def _is_gone(self) -> bool:
        """Whether Harvester has removed the access point; `ServerUnavailable` before that is sure.

        What looks so may be a file system that comes back.
        """
        if self._place.is_there():
            self._gone.stop()
            return False
        if self._gone.run() >= self._terms.gone_s:
            return True
        raise ServerUnavailable(f"the access point {self._place.path} is not there")

    def _require_place(self) -> None:
        if self._is_gone():
            raise ServerRefused(f"Harvester has removed the access point {self._place.path}")

    def close(self) -> None:
        """Nothing is kept open."""


def many_jobs(place: SharedDirectory, names: wire.FileNames) -> list[str]:
    """The jobs that have directories of their own in an access point."""
    if place.has(names.job):
        return []
    found = [name for name in place.names("") if name.isascii() and name.isdigit()]
    return [name for name in found if place.has(f"{name}/{names.job}")]
