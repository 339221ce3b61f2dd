"""The end of an event job: what becomes of its ranges, of itself, and of its task.

`decide` is the table of outcomes, pure; `end_job` applies it to the job's unit in the caller's
transaction. Merge and jumbo jobs have ends of their own.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from espilot.server import given_job, jumbo, merging, tally, units
from espilot.server.archived import (
    HOPELESS,
    INACTION,
    NO_NEW_JOB,
    Ending,
    FollowUp,
    LastWord,
    rewrite,
)
from espilot.server.brokerage import Queue
from espilot.server.options import ServerOptions
from espilot.server.schema import Kind


@dataclass(frozen=True, slots=True)
class Facts:
    """What is left when a job's rows have been settled. All but `done_here` are of the unit.

    `all_fine`: the events were done before, so the unit is merged although no job did any.
    """

    done_here: int
    done: int
    ready: int
    running: int
    hopeless: int
    barren_jobs: int
    max_job_attempts: int
    all_fine: bool = False


def decide(facts: Facts) -> Ending:
    """The end of a job by what is left; the first rule that matches counts."""
    if facts.ready:
        return _decide_unfinished(facts)
    if facts.running and facts.done_here:
        return Ending("merging", "es_wait", 115, FollowUp.NOTHING)
    if facts.running:
        return Ending("closed", "es_inaction", INACTION, FollowUp.NOTHING)
    if not facts.done:
        return Ending("failed", "es_failed", 119, FollowUp.FAIL)
    if facts.hopeless:
        return Ending("failed", "es_failed", HOPELESS, FollowUp.FAIL)
    if facts.done_here or facts.all_fine:
        status = "merging" if facts.done_here else "closed"
        return Ending(status, "es_merge", 112, FollowUp.COMPLETE)
    return Ending("closed", "es_inaction", INACTION, FollowUp.COMPLETE)


def _decide_unfinished(facts: Facts) -> Ending:
    if facts.done_here:
        return Ending("merging", "es_retry", 111, FollowUp.NEW_JOB)
    if facts.barren_jobs + 1 >= facts.max_job_attempts:
        return Ending("failed", "es_failed", HOPELESS, FollowUp.FAIL)
    return Ending("closed", "es_noevent", 123, FollowUp.NEW_JOB)


def end_job(
    db: sqlite3.Connection, panda_id: int, now: float, options: ServerOptions, *, told: str = ""
) -> None:
    """Settle the rows of a job that ended or was lost, decide, and do what follows.

    `told` is the state of its final update, empty when there was none.
    """
    job = db.execute("SELECT * FROM job WHERE panda_id = ?", (panda_id,)).fetchone()
    if job["kind"] == Kind.MERGE:
        merging.end_merge(db, job, now, options, told=told)
    elif job["kind"] == Kind.SINGLE:
        given_job.end_single(db, job, told=told)
    elif job["kind"] == Kind.JUMBO:
        jumbo.end_jumbo(db, job, now, options)
    else:
        _end_consumer(db, job, now, options)
    tend(db, job["task_id"], now, options)


def tend(db: sqlite3.Connection, task_id: int, now: float, options: ServerOptions) -> None:
    """See to the waiting jobs of a task with jumbo jobs."""
    jumbo.tend(
        db,
        task_id,
        now,
        options,
        lambda db, panda_id, now: _end_waiting(db, panda_id, now, options),
    )


def _end_waiting(db: sqlite3.Connection, panda_id: int, now: float, options: ServerOptions) -> None:
    job = db.execute("SELECT * FROM job WHERE panda_id = ?", (panda_id,)).fetchone()
    _end_consumer(db, job, now, options)


def _end_consumer(
    db: sqlite3.Connection, job: sqlite3.Row, now: float, options: ServerOptions
) -> None:
    unit_id, task_id = job["jobset_id"], job["task_id"]
    done_here, moved = _settle_rows(db, job)
    flags = units.flags_of(db, task_id)
    if "ap" in flags and not options.quirks.partial_merge_fails:
        moved += units.give_up_hopeless(db, unit_id)
    if moved:
        tally.recount(db, task_id)
    facts = _collect(db, job, done_here, options.max_job_attempts, all_fine="at" in flags)
    queue = options.queues.get(job["site"], Queue(job["site"]))
    ending = _override(db, job, decide(facts), queue)
    _store_ending(db, job, ending, queue)
    db.execute("UPDATE unit SET barren_jobs = ? WHERE unit_id = ?", (_count_barren(facts), unit_id))
    if ending.follow_up is FollowUp.NEW_JOB:
        units.add_consumer(db, job, now)
    elif ending.follow_up is FollowUp.COMPLETE:
        units.complete(db, job, now, options)
    elif ending.follow_up is FollowUp.FAIL:
        units.fail(db, task_id, unit_id, "es_ass_failed")
    elif job["kind"] == Kind.CO_JUMBO and not _has_waiting(db, unit_id):
        # Jumbo jobs hold the rest of the unit: somebody must wait for its end.
        units.add_consumer(db, job, now, status="waiting")


def _override(db: sqlite3.Connection, job: sqlite3.Row, ending: Ending, queue: Queue) -> Ending:
    """A unit that came to its end before this job stays as it is; a queue that takes no more jobs
    gets none, and when no other works on the unit, that is its end."""
    unit_id = job["jobset_id"]
    state = db.execute("SELECT state FROM unit WHERE unit_id = ?", (unit_id,)).fetchone()[0]
    if state != "running":
        return replace(ending, follow_up=FollowUp.NOTHING)
    takes_more = queue.status in ("online", "brokeroff") and queue.jobseed != "std"
    if ending.follow_up is not FollowUp.NEW_JOB or takes_more:
        return ending
    others = db.execute(
        "SELECT count(*) FROM job WHERE jobset_id = ? AND panda_id != ? AND status IN"
        " ('activated', 'waiting', 'sent', 'starting', 'running', 'transferring', 'holding')",
        (unit_id, job["panda_id"]),
    ).fetchone()[0]
    if others:
        return replace(ending, follow_up=FollowUp.NOTHING)
    return Ending("failed", ending.sub_status, NO_NEW_JOB, FollowUp.FAIL)


def _has_waiting(db: sqlite3.Connection, unit_id: int) -> bool:
    found = db.execute(
        "SELECT 1 FROM job WHERE jobset_id = ? AND status IN ('activated', 'waiting') LIMIT 1",
        (unit_id,),
    ).fetchone()
    return found is not None


def _count_barren(facts: Facts) -> int:
    """Jobs in a row without a finished range; one that found nothing to do does not count."""
    if facts.done_here:
        return 0
    return facts.barren_jobs + 1 if facts.ready else facts.barren_jobs


def _settle_rows(db: sqlite3.Connection, job: sqlite3.Row) -> tuple[int, int]:
    """Finished rows are done; what was not reported goes back; failed ones get a copy.

    Each costs an attempt. A co-jumbo job also settles what jumbo jobs made of its unit. Returns how
    many rows are done by it, and how many went to the pool.
    """
    mine = "owner = ?"
    arguments: tuple[int, ...] = (job["panda_id"],)
    if job["kind"] == Kind.CO_JUMBO:
        of_jumbo = "pool = ? AND owner IN (SELECT panda_id FROM job WHERE kind = 4)"
        mine, arguments = f"(owner = ? OR ({of_jumbo}))", (job["panda_id"], job["jobset_id"])
    cost = 0 if "df" in units.flags_of(db, job["task_id"]) else 1
    returned = db.execute(
        "UPDATE event SET status = 0, owner = pool, attempt_nr = attempt_nr - ?"
        " WHERE owner = ? AND status IN (1, 2)",
        (cost, job["panda_id"]),
    ).rowcount
    copied = units.copy_to_pool(db, f"status = 7 AND {mine}", arguments)
    query = f"UPDATE event SET status = 6 WHERE status = 3 AND {mine}"
    return db.execute(query, arguments).rowcount, returned + copied


def _collect(
    db: sqlite3.Connection,
    job: sqlite3.Row,
    done_here: int,
    max_job_attempts: int,
    *,
    all_fine: bool,
) -> Facts:
    left = units.count_left(db, job["jobset_id"])
    unit = db.execute(
        "SELECT barren_jobs FROM unit WHERE unit_id = ?", (job["jobset_id"],)
    ).fetchone()
    return Facts(
        done_here=done_here,
        done=left.done,
        ready=left.ready,
        running=left.running + left.unsettled,
        hopeless=left.hopeless,
        barren_jobs=unit["barren_jobs"],
        max_job_attempts=max_job_attempts,
        all_fine=all_fine,
    )


def _store_ending(db: sqlite3.Connection, job: sqlite3.Row, ending: Ending, queue: Queue) -> None:
    """Archive the end of a job. An error code of its own stays."""
    told = LastWord(
        job["sub_status"] or "", job["error_code"], job["n_events"], queue.is_preemptable
    )
    end = rewrite(ending, told)
    db.execute(
        "UPDATE job SET status = ?, sub_status = ?, error_code = CASE error_code WHEN 0 THEN ?"
        " ELSE error_code END WHERE panda_id = ?",
        (end.status, end.sub_status, end.code, job["panda_id"]),
    )
