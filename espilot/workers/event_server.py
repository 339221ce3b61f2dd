"""The event-server worker: the only one that talks to the server.

Four flows, each with at most one call under way: jobs, ranges, reports, updates. After every event
`step` looks at the whole state and starts what is due, so a lost doorbell or a restart of this
process needs no special case.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial

from espilot.adapters.state_files import write_job
from espilot.core.job import Event, Phase, Tally, next_phase, tally_since
from espilot.core.prefetch import Prefetch, Request
from espilot.core.reporting import ReportSize
from espilot.errors import LocalError
from espilot.model import (
    Counts,
    EventRange,
    Job,
    JobRecord,
    JobUpdate,
    RangeState,
    TaskStatus,
    feed_mark,
)
from espilot.pipeline import reports
from espilot.ports import EventServer
from espilot.wire.messages import JobPhase, TaskOver, Work
from espilot.workers.calls import Calls
from espilot.workers.child import Child
from espilot.workers.credential_watch import CredentialWatch
from espilot.workers.flow import Flow
from espilot.workers.foreign_jobs import ForeignJobs
from espilot.workers.heartbeat import Heartbeat
from espilot.workers.inputs import input_places
from espilot.workers.job_files import find_outcome, forget_job, last_word, tell_overrides, with_pfn
from espilot.workers.log_wait import LogWait, with_log
from espilot.workers.presence import Presence
from espilot.workers.resumed_job import ResumedJob
from espilot.workers.server_access import ServerAccess
from espilot.workers.telling import tell_fetched, tell_given_back, tell_reported

THREADS = 8
"""Twice the flows: in a drain a call that hangs is left behind."""
NO_JOB_PAUSE_S = 0.5
"""First pause after "no job"; the built-in server may be about to release one."""


class EventServerWorker:
    """The state of the conversation. What must survive is in the queue."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.calls = Calls(child.loop, THREADS)
        self.record: JobRecord | None = child.queue.job()
        self._work: Work | None = None
        self._access = ServerAccess(child.context)
        CredentialWatch(child, self._access.credentials, needed=self._access.shows_credentials)
        self._jobs = Flow(self, "jobs")
        self._ranges = Flow(self, "ranges")
        self._reports = Flow(self, "reports")
        self._updates = Flow(self, "updates")
        self._foreign = ForeignJobs(child, self.calls, self._jobs)
        self._prefetch = self._new_prefetch()
        self._put = 0
        self._request = Request()
        self._report_size = ReportSize(self._access.report_max_ranges)
        self._next_heartbeat = 0.0
        self._task_over: TaskOver | None = None
        self._final: JobUpdate | None = None
        self._heart = Heartbeat(child, self.calls, announce=self.announce, beat_soon=self._beat)
        self._log_wait = LogWait(child, self.step)
        self._presence = Presence(child, self.calls, self.open_server)
        self._resumed = self._find_resumed()
        child.on(Work, self.direct)
        child.on_bell(self.step)

    def open_server(self) -> EventServer:
        """A connection of its own for one flow."""
        return self._access.open()

    def direct(self, work: Work) -> None:
        """Take the supervisor's directive."""
        self._work = replace(work, jobs=work.jobs and self.child.context.jobs)
        if work.hurry_s:
            self._access.hurry(work.hurry_s)
            # Not that for jobs: a job whose answer is left behind would be nobody's.
            for flow in (self._ranges, self._reports, self._updates):
                flow.hurry(work.hurry_s)
        self.announce()
        self.step()

    def announce(self, command: str = "") -> None:
        """Tell the supervisor where the job is, as soon as that is known."""
        if self._resumed is not None:
            return
        if self.record is None:
            self.child.send(JobPhase(0, 0, "", command))
        else:
            job, phase = self.record.job, self.record.phase
            executed = find_outcome(self.child, job) is not None
            self.child.send(JobPhase(job.panda_id, job.task_id, phase, command, job.kind, executed))

    def step(self) -> None:
        """Start whatever is due."""
        work = self._work
        if work is None:
            return
        self._presence.begin()
        if self.record is None:
            self._step_without_job(work)
            return
        self.child.log.job = self.record.job.panda_id
        if self._resumed is not None:
            self._resumed.step(self._heartbeat_of("running"))
            return
        counts = self.child.queue.counts()
        self._move_on(work, counts)
        is_event = self.record.job.event_service
        if self.record.phase == Phase.RUNNING and work.fetch and is_event:
            self._fetch(counts)
        elif self._request.n and self._ranges.due:
            self._request.cancel()
            job = self.record.job
            self._ranges.call(lambda: self._ranges.server.stop_asking(job), lambda _: None)
        self._report()
        self._heartbeat(counts)

    def refused(self, flow: str) -> None:
        """The server said a definite no to a call of this flow."""
        if flow == "ranges":
            self._enter(next_phase(self._phase, Event.NO_MORE_RANGES))
        elif flow == "reports":
            # Maybe for its content, maybe for our rights: smaller, but never given back for it.
            self._report_size.shrink()

    # -- jobs -----------------------------------------------------------------------------------

    def _find_resumed(self) -> ResumedJob | None:
        if self.record is None or not self.record.unasked:
            return None
        return ResumedJob(self, self.record, self._resume)

    def _resume(self, command: str, gone: bool) -> None:
        """The server was asked about the job that was found: go on with it, or end it."""
        self._resumed, self.record = None, self.child.queue.job()
        if gone:
            self._enter(next_phase(self._phase, Event.JOB_GONE))
        else:
            self.announce()
            self._heart.obey(command)

    def _step_without_job(self, work: Work) -> None:
        if not self._jobs.busy:  # what the call under way brings would be nobody's
            self._task_over = self._task_over or self._foreign.end(work)
        if self._task_over is not None:
            self._presence.end(self._task_over, work)
        elif self._jobs.due and work.jobs:
            self._jobs.call(partial(self._foreign.acquire, work.end_mono), self._got_job)
        elif self._jobs.due and not self._foreign.here:
            self._ask_task()

    def _got_job(self, job: Job | None) -> None:
        if job is None:
            self._foreign.none() if self._foreign.here else self._ask_task()
            return
        counts = self.child.queue.counts()
        facts = {"before": asdict(counts), **self._heart.begin()}
        self._keep_job(job)
        with self.child.queue.moves() as moves:
            moves.set_job(job, Phase.RUNNING, facts)
        self.child.queue.sync()
        self._foreign.begun(job)
        self.record = JobRecord(job, Phase.RUNNING, facts)
        self._prefetch = self._new_prefetch()
        self._next_heartbeat = 0.0
        self._final = None
        self.child.log.job = job.panda_id
        self.child.log.info("job", "job acquired", task=job.task_id, attempt=job.attempt_nr)
        tell_overrides(self.child.log, job)
        self.announce()

    def _keep_job(self, job: Job) -> None:
        """After a crash of the machine this file, not the queue, tells whose the archives are."""
        try:
            write_job(self.child.context.job_file, job)
        except LocalError as error:
            self.child.log.warning("job", "job not kept for a crash of the machine", error=error)

    def _ask_task(self) -> None:
        task_id = self.child.context.task_id
        self._jobs.call(lambda: self._jobs.server.task_status(task_id), self._got_task)

    def _got_task(self, status: TaskStatus) -> None:
        if status.state != "running" or (self._work is not None and not self._work.jobs):
            self._task_over = TaskOver(asdict(status))
            self.child.log.info("task", "task needs no more jobs", state=status.state)
        else:
            self._jobs.pause(NO_JOB_PAUSE_S)

    # -- phases ---------------------------------------------------------------------------------

    @property
    def _phase(self) -> Phase:
        assert self.record is not None
        return Phase(self.record.phase)

    def _enter(self, phase: Phase) -> None:
        assert self.record is not None
        if phase == self.record.phase:
            return
        with self.child.queue.moves() as moves:
            moves.set_phase(phase)
            # What was never sent is the server's again when the job ends.
            released = moves.give_back(RangeState.READY) if phase is Phase.SETTLING else []
        tell_given_back(self.child.story, released, "the job ends, it was not in work")
        self.record = JobRecord(self.record.job, phase, self.record.facts)
        self.child.log.info("state", "job phase", phase=str(phase), released=len(released))
        self.announce()
        self.child.ring("dispatcher")
        self.child.ring("stageout")

    def _move_on(self, work: Work, counts: Counts) -> None:
        assert self.record is not None
        over = work.payload_over and work.panda_id == self.record.job.panda_id
        if over and self._ranges.due:
            self._enter(next_phase(self._phase, Event.PAYLOAD_OVER))
        if self._phase is Phase.SETTLING:
            counts = self.child.queue.counts()
            if counts.ready:
                # A range that came back after the others were given back.
                with self.child.queue.moves() as moves:
                    late = moves.give_back(RangeState.READY)
                tell_given_back(self.child.story, late, "the job ends, it came back unfinished")
            elif not counts.live:
                self._enter(next_phase(self._phase, Event.NOTHING_LIVE))
        if self._phase is Phase.ENDING and self._updates.due:
            self._end_job(work)

    def _end_job(self, work: Work) -> None:
        assert self.record is not None
        job = self.record.job
        if self._final is None:
            fate = self._log_wait.fate_of(job, work)
            if fate is None:
                return
            tally = self._tally()
            final = with_log(last_word(self.child, job, tally, work), job, fate)
            self._final = self._heart.complete(self.record, final, tally)
        update = self._final
        self._updates.call(
            lambda: self._updates.server.update_job(job, update), partial(self._ended, update)
        )

    def _ended(self, update: JobUpdate, command: str) -> None:
        with self.child.queue.moves() as moves:
            moves.clear_job()
        forget_job(self.child.context)
        self.child.log.info("final", "job ended", state=update.state, events=update.events,
                            sub_status=update.sub_status, code=update.pilot_error_code)  # fmt: skip
        self._foreign.ended(good=update.state == "finished", code=update.pilot_error_code)
        self.record = None
        self.child.log.job = None
        self.announce()

    def _tally(self) -> Tally:
        assert self.record is not None
        return tally_since(self.child.queue.counts(), self.record.facts["before"])

    # -- ranges ---------------------------------------------------------------------------------

    def _new_prefetch(self) -> Prefetch:
        settings = self.child.settings
        return Prefetch(
            cores=settings.payload.cores,
            work_ahead_s=settings.limits.work_ahead_s,
            bound=settings.limits.live_ranges,
            largest=self._access.request_max_ranges,
        )

    def _fetch(self, counts: Counts) -> None:
        assert self.record is not None
        if not self._ranges.due:
            return
        taken = self._put - counts.ready
        request = self._request
        n = request.n or self._prefetch.wanted(
            ready=counts.ready,
            live=counts.live,
            taken=taken,
            now=time.monotonic(),
            round_trip_s=request.round_trip_s,
        )
        if n:
            job, known = self.record.job, self.child.queue.feed()
            request.begin(n, time.monotonic())
            self._ranges.call(
                lambda: self._ranges.server.acquire_ranges(job, n, known),
                partial(self._got_ranges, job),
            )

    def _got_ranges(self, job: Job, ranges: tuple[EventRange, ...] | None) -> None:
        if self.record is None or self.record.job.panda_id != job.panda_id:
            return
        if ranges is None:
            self._ranges.pause(self._access.poll_s)
            return
        self._request.end(time.monotonic())
        if not ranges:
            self.child.log.info("exhausted", "the server has no more ranges for this job")
            self._enter(next_phase(self._phase, Event.NO_MORE_RANGES))
            return
        paths = input_places(self.child.context, job)
        named = [with_pfn(r, paths) for r in ranges]
        with self.child.queue.moves() as moves:
            new = moves.put_ranges(named, now=time.time())
            moves.note_feed(feed_mark(ranges))
        self._put += new
        tell_fetched(self.child.story, job, named)
        self.child.log.info("fetch", "ranges fetched", n=len(ranges), new=new)
        self.child.ring("dispatcher")

    # -- reports and updates --------------------------------------------------------------------

    def _report(self) -> None:
        assert self.record is not None
        if not self._reports.due:
            return
        collected = reports.collect(
            self.child.queue, self._report_size.ranges, self.child.settings.path_conventions
        )
        if collected.batches:
            job = self.record.job
            self._reports.call(
                lambda: reports.send(self._reports.server, job, collected.batches),
                partial(self._reported, collected),
            )

    def _reported(self, collected: reports.Collected, answered: reports.Answered) -> None:
        assert self.record is not None
        if answered.pending and not answered.fates.booked:
            self._reports.pause(self._access.poll_s)
            return
        ended = reports.book(self.child.queue, collected, answered.fates)
        tell_reported(self.child.story, collected, answered)
        self.child.log.info("report", "ranges reported", n=len(collected.reports), ended=ended,
                            verified=answered.verified, again=len(answered.fates.again),
                            lost=len(answered.fates.lost))  # fmt: skip
        self._heart.obey(answered.commands.get(self.record.job.panda_id, ""))
        if ended:
            self._report_size.progressed()
        elif self._report_size.failed():
            self._give_up_report(collected, reports.give_up(answered))
        else:
            self._reports.pause(self.child.settings.server.retry_min_s)
        self.child.ring("stageout")

    def _give_up_report(self, collected: reports.Collected, answered: reports.Answered) -> None:
        """A single item that never gets through goes back, or the job would never end."""
        self.child.log.error("report", "never booked, given back",
                             first=collected.reports[0].id, n=len(answered.fates.lost))  # fmt: skip
        reports.book(self.child.queue, collected, answered.fates)
        tell_given_back(self.child.story, sorted(answered.fates.lost), "the server never booked it")
        self._report_size.progressed()

    def _heartbeat(self, counts: Counts) -> None:
        assert self.record is not None
        if not self._updates.due or time.monotonic() < self._next_heartbeat:
            return
        job, first = self.record.job, self._next_heartbeat == 0.0
        update = self._heartbeat_of("starting" if first else "running")
        period_s = min(self._heart.period_s(job), self._access.heartbeat_s)
        delay_s = NO_JOB_PAUSE_S if first else period_s
        self._updates.call(
            lambda: self._updates.server.update_job(job, update), partial(self._beaten, delay_s)
        )

    def _heartbeat_of(self, state: str) -> JobUpdate:
        assert self.record is not None
        return self._heart.update_of(self.record, state, self._tally())

    def _beat(self) -> None:
        """An update is due at once."""
        if self._next_heartbeat > 0.0:
            self._next_heartbeat = time.monotonic()
        self.step()

    def _beaten(self, delay_s: float, command: str) -> None:
        self._next_heartbeat = time.monotonic() + delay_s
        self._heart.obey(command)


def serve(child: Child) -> None:
    """Be the event-server worker."""
    worker = EventServerWorker(child)
    child.run()
    worker.calls.close()
