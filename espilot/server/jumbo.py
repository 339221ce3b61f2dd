"""Jumbo jobs: they take any range of their task, and the co-jumbo jobs of the units wait for them.

A co-jumbo job that nobody has taken waits while its unit has no ready range, can be handed out
while there is one, and is ended here when every range of its unit has its fate. Jumbo processing is
switched off for good when few events are left: then co-jumbo jobs finish the rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from espilot.server import jobs, tally, units
from espilot.server.options import ServerOptions
from espilot.server.schema import EventStatus, Kind

NO_EVENT = 123
SWITCHED_OFF = -1
"""In the place of a task's number of jumbo jobs; its co-jumbo jobs are still seen to."""
End = Callable[[sqlite3.Connection, int, float], object]


def end_jumbo(db: sqlite3.Connection, job: sqlite3.Row, now: float, options: ServerOptions) -> None:
    """The end of a jumbo job: what it holds goes back to the pools, its finished ranges wait for
    the end of their co-jumbo jobs."""
    cost = 0 if "df" in units.flags_of(db, job["task_id"]) else 1
    db.execute(
        "UPDATE event SET status = ?, owner = pool, attempt_nr = attempt_nr - ?"
        " WHERE owner = ? AND status IN (1, 2)",
        (EventStatus.READY, cost, job["panda_id"]),
    )
    done = db.execute(
        "SELECT 1 FROM event WHERE owner = ? AND status IN (3, 6, 9) LIMIT 1", (job["panda_id"],)
    ).fetchone()
    db.execute(
        "UPDATE job SET status = ?, error_code = CASE WHEN ? OR error_code THEN error_code"
        " ELSE ? END WHERE panda_id = ?",
        ("finished" if done else "failed", bool(done), NO_EVENT, job["panda_id"]),
    )
    db.execute(
        "UPDATE task SET barren_jumbos = CASE WHEN ? THEN 0 ELSE barren_jumbos + 1 END"
        " WHERE task_id = ?",
        (bool(done), job["task_id"]),
    )
    tally.recount(db, job["task_id"])


def tend(
    db: sqlite3.Connection, task_id: int, now: float, options: ServerOptions, end: End
) -> None:
    """Bring the jobs of a jumbo-enabled task to where its events are; `end` ends a job."""
    task = db.execute("SELECT * FROM task WHERE task_id = ?", (task_id,)).fetchone()
    if task is None or not task["jumbo_jobs"] or task["state"] != "running":
        return
    rows = db.execute(
        "SELECT panda_id, jobset_id, status FROM job WHERE task_id = ? AND kind = ?"
        " AND status IN ('activated', 'waiting')",
        (task_id, Kind.CO_JUMBO),
    ).fetchall()
    for row in rows:
        left = units.count_left(db, row["jobset_id"])
        if not left.is_open and not _has_other_consumer(db, row):
            end(db, row["panda_id"], now)
            continue
        status = "activated" if left.ready else "waiting"
        if status != row["status"]:
            db.execute("UPDATE job SET status = ? WHERE panda_id = ?", (status, row["panda_id"]))
    if task["jumbo_jobs"] != SWITCHED_OFF:
        _tend_jumbo_jobs(db, task, now, options)


def _has_other_consumer(db: sqlite3.Connection, job: sqlite3.Row) -> bool:
    """Whether a job of the unit is at work; its own end decides then."""
    found = db.execute(
        "SELECT 1 FROM job WHERE jobset_id = ? AND kind = ? AND panda_id != ?"
        " AND status IN ('sent', 'starting', 'running', 'transferring', 'holding') LIMIT 1",
        (job["jobset_id"], Kind.CO_JUMBO, job["panda_id"]),
    ).fetchone()
    return found is not None


def _tend_jumbo_jobs(
    db: sqlite3.Connection, task: sqlite3.Row, now: float, options: ServerOptions
) -> None:
    task_id = task["task_id"]
    counts = db.execute(
        "SELECT (ready + sent) * events_per_range AS events_left, ready FROM task"
        " WHERE task_id = ?",
        (task_id,),
    ).fetchone()
    barren = task["barren_jumbos"] >= options.max_job_attempts
    if barren or counts["events_left"] < task["jumbo_off_below"]:
        db.execute("UPDATE task SET jumbo_jobs = ? WHERE task_id = ?", (SWITCHED_OFF, task_id))
        db.execute(
            "UPDATE job SET status = 'closed', sub_status = 'es_unused' WHERE task_id = ?"
            " AND kind = ? AND status = 'activated'",
            (task_id, Kind.JUMBO),
        )
        return
    open_jobs = db.execute(
        "SELECT count(*) FROM job WHERE task_id = ? AND kind = ? AND status IN"
        " ('activated', 'sent', 'starting', 'running', 'transferring', 'holding')",
        (task_id, Kind.JUMBO),
    ).fetchone()[0]
    for _ in range(task["jumbo_jobs"] - open_jobs if counts["ready"] else 0):
        jobs.create(db, task_id, task_id, now=now, kind=Kind.JUMBO)
