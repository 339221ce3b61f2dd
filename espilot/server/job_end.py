"""The end of an event job: what becomes of its ranges, of itself, and of its task.

`decide` is the table of outcomes, pure; `end_job` applies it in the caller's transaction. There are
no merge jobs yet: `settle_complete_unit` is the one place that will make them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum

from espilot.server import jobs, tally
from espilot.server.schema import EventStatus


class FollowUp(Enum):
    """What happens to the task."""

    NOTHING = "nothing"
    """Other jobs still work on it."""
    NEW_JOB = "new job"
    """Ranges wait in the pool."""
    COMPLETE = "complete"
    """Every range is done."""
    FAIL = "fail"
    """Some range can never be done, or jobs end without doing any."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is left when a job's rows have been settled. All but `done_here` are of the task."""

    done_here: int
    done: int
    ready: int
    running: int
    hopeless: int
    barren_jobs: int
    max_job_attempts: int


@dataclass(frozen=True, slots=True)
class Ending:
    """What a job becomes, and what follows."""

    status: str
    sub_status: str
    code: int
    follow_up: FollowUp


def decide(facts: Facts) -> Ending:
    """The end of a job by what is left; the first rule that matches counts."""
    if facts.ready:
        return _decide_unfinished(facts)
    if facts.running and facts.done_here:
        return Ending("merging", "es_wait", 115, FollowUp.NOTHING)
    if facts.running:
        return Ending("closed", "es_inaction", 117, FollowUp.NOTHING)
    if not facts.done:
        return Ending("failed", "es_failed", 119, FollowUp.FAIL)
    if facts.hopeless:
        return Ending("failed", "es_failed", 118, FollowUp.FAIL)
    if facts.done_here:
        return Ending("merging", "es_merge", 112, FollowUp.COMPLETE)
    return Ending("closed", "es_inaction", 117, FollowUp.COMPLETE)


def _decide_unfinished(facts: Facts) -> Ending:
    if facts.done_here:
        return Ending("merging", "es_retry", 111, FollowUp.NEW_JOB)
    if facts.barren_jobs + 1 >= facts.max_job_attempts:
        return Ending("failed", "es_failed", 118, FollowUp.FAIL)
    return Ending("closed", "es_noevent", 123, FollowUp.NEW_JOB)


def end_job(db: sqlite3.Connection, panda_id: int, now: float, *, max_job_attempts: int) -> Ending:
    """Settle the rows of a job that ended or was lost, decide, and do what follows."""
    job = db.execute("SELECT * FROM job WHERE panda_id = ?", (panda_id,)).fetchone()
    _settle_rows(db, panda_id)
    facts = _collect(db, job, max_job_attempts)
    ending = decide(facts)
    _store_ending(db, job, ending)
    db.execute(
        "UPDATE task SET barren_jobs = ? WHERE task_id = ?", (_count_barren(facts), job["task_id"])
    )
    if ending.follow_up is FollowUp.NEW_JOB:
        attempt = job["attempt_nr"] + 1
        jobs.create(db, job["task_id"], job["jobset_id"], attempt_nr=attempt, now=now)
    elif ending.follow_up is FollowUp.COMPLETE:
        settle_complete_unit(db, job["task_id"])
    elif ending.follow_up is FollowUp.FAIL:
        _close_task(db, job["task_id"], "failed")
    return ending


def _count_barren(facts: Facts) -> int:
    """Jobs in a row without a finished range; one that found nothing to do does not count."""
    if facts.done_here:
        return 0
    return facts.barren_jobs + 1 if facts.ready else facts.barren_jobs


def _settle_rows(db: sqlite3.Connection, panda_id: int) -> None:
    """Finished rows are done; what was not reported goes back; failed ones get a copy.

    Each costs an attempt. The copy of a fatal row has none left: its report set 1.
    """
    db.execute(
        "UPDATE event SET status = ? WHERE owner = ? AND status = ?",
        (EventStatus.DONE, panda_id, EventStatus.FINISHED),
    )
    db.execute(
        "UPDATE event SET status = ?, owner = pool, attempt_nr = attempt_nr - 1"
        " WHERE owner = ? AND status IN (?, ?)",
        (EventStatus.READY, panda_id, EventStatus.SENT, EventStatus.RUNNING),
    )
    db.execute(
        "INSERT INTO event (task_id, file_id, process_id, attempt_nr, owner, pool, status,"
        " start_event, last_event, fatal, error_code, error_diag)"
        " SELECT task_id, file_id, process_id, attempt_nr - 1, pool, pool, ?, start_event,"
        " last_event, fatal, error_code, error_diag FROM event"
        " WHERE owner = ? AND status = ? AND copied = 0",
        (EventStatus.READY, panda_id, EventStatus.FAILED),
    )
    db.execute(
        "UPDATE event SET copied = 1 WHERE owner = ? AND status = ?",
        (panda_id, EventStatus.FAILED),
    )


def _collect(db: sqlite3.Connection, job: sqlite3.Row, max_job_attempts: int) -> Facts:
    counted = tally.recount(db, job["task_id"])
    here = db.execute(
        "SELECT count(*) FROM event WHERE owner = ? AND status = ?",
        (job["panda_id"], EventStatus.DONE),
    ).fetchone()[0]
    rows = db.execute(
        "SELECT status, count(*) FROM event WHERE task_id = ? AND copied = 0"
        " AND (status IN (?, ?) OR (status = ? AND attempt_nr > 0)) GROUP BY status",
        (job["task_id"], EventStatus.FINISHED, EventStatus.FAILED, EventStatus.READY),
    ).fetchall()
    counts = {row[0]: row[1] for row in rows}
    unsettled = counts.get(EventStatus.FINISHED, 0) + counts.get(EventStatus.FAILED, 0)
    task = db.execute(
        "SELECT barren_jobs FROM task WHERE task_id = ?", (job["task_id"],)
    ).fetchone()
    return Facts(
        done_here=here,
        done=counted.finished - counts.get(EventStatus.FINISHED, 0),
        ready=counts.get(EventStatus.READY, 0),
        running=counted.sent + unsettled,
        hopeless=counted.failed + counted.fatal,
        barren_jobs=task["barren_jobs"],
        max_job_attempts=max_job_attempts,
    )


def _store_ending(db: sqlite3.Connection, job: sqlite3.Row, ending: Ending) -> None:
    """A pilot's own `pilot_failed`, or the loss of a job that did nothing, is kept as failed."""
    status, sub_status = ending.status, ending.sub_status
    lost_for_nothing = job["sub_status"] == "es_heartbeat" and ending.status != "merging"
    if job["sub_status"] in ("pilot_failed", "bad_report") or lost_for_nothing:
        status, sub_status = "failed", job["sub_status"]
    db.execute(
        "UPDATE job SET status = ?, sub_status = ?, error_code = CASE error_code WHEN 0 THEN ?"
        " ELSE error_code END WHERE panda_id = ?",
        (status, sub_status, ending.code, job["panda_id"]),
    )


def settle_complete_unit(db: sqlite3.Connection, task_id: int) -> None:
    """Every range of the unit is done. Without merge jobs that finishes the task."""
    db.execute(
        "UPDATE job SET status = 'finished' WHERE task_id = ? AND status = 'merging'", (task_id,)
    )
    _close_task(db, task_id, "finished")


def _close_task(db: sqlite3.Connection, task_id: int, state: str) -> None:
    db.execute("UPDATE task SET state = ? WHERE task_id = ?", (state, task_id))
    db.execute(
        "UPDATE job SET status = 'closed', sub_status = 'es_unused', error_code = 116"
        " WHERE task_id = ? AND status = 'activated'",
        (task_id,),
    )
