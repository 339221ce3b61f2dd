"""The end of a merge job: its unit is finished, or its events are processed once more."""

from __future__ import annotations

import sqlite3

from espilot.server import tally, units
from espilot.server.options import ServerOptions
from espilot.server.schema import EventStatus

MERGE_FAILED = 113


def end_merge(
    db: sqlite3.Connection, job: sqlite3.Row, now: float, options: ServerOptions, *, told: str
) -> None:
    """`told` is the state in the final update; empty for a job that was lost."""
    unit_id, task_id = job["jobset_id"], job["task_id"]
    ok = told == "finished" and job["sub_status"] != "bad_report"
    db.execute(
        "UPDATE job SET status = ?, error_code = CASE WHEN ? OR error_code THEN error_code"
        " ELSE ? END WHERE panda_id = ?",
        ("finished" if ok else "failed", ok, MERGE_FAILED, job["panda_id"]),
    )
    if ok:
        db.execute(
            "UPDATE event SET status = ? WHERE pool = ? AND status = ?",
            (EventStatus.MERGED, unit_id, EventStatus.DONE),
        )
        units.finish(db, task_id, unit_id)
    else:
        _redo(db, job, now, options, was_lost=not told)
    tally.recount(db, task_id)


def _redo(
    db: sqlite3.Connection,
    job: sqlite3.Row,
    now: float,
    options: ServerOptions,
    *,
    was_lost: bool,
) -> None:
    """Corrupt archives cost their own events, any other failure those of the unit; a lost job
    nothing. Then the unit is merged or processed again, a few times."""
    unit_id = job["jobset_id"]
    merges = db.execute("SELECT merges FROM unit WHERE unit_id = ?", (unit_id,)).fetchone()[0]
    if merges >= units.MOST_MERGES:
        units.fail(db, job["task_id"], unit_id, "es_merge_failed")
        return
    discarded = _discard(db, job, was_lost=was_lost)
    db.execute("UPDATE unit SET state = 'running' WHERE unit_id = ?", (unit_id,))
    if not discarded:
        units.complete(db, job, now, options)
    elif units.count_left(db, unit_id).ready:
        tally.recount(db, job["task_id"])
        units.add_consumer(db, job, now)
    else:
        units.fail(db, job["task_id"], unit_id, "es_merge_failed")


def _discard(db: sqlite3.Connection, job: sqlite3.Row, *, was_lost: bool) -> int:
    """Take back what the merge job could not use; returns how many ranges."""
    unit_id = job["jobset_id"]
    corrupted = _corrupted_files(job)
    if corrupted:
        marks = ",".join("?" * len(corrupted))
        arguments = (EventStatus.CORRUPTED, unit_id, EventStatus.DONE, *corrupted)
        db.execute(
            f"UPDATE event SET status = ? WHERE pool = ? AND status = ? AND tar_lfn IN ({marks})",
            arguments,
        )
    elif not was_lost and "de" not in units.flags_of(db, job["task_id"]):
        db.execute(
            "UPDATE event SET status = ? WHERE pool = ? AND status = ?",
            (EventStatus.DISCARDED, unit_id, EventStatus.DONE),
        )
        db.execute(
            "UPDATE job SET status = 'failed', sub_status = 'es_merge_failed'"
            " WHERE jobset_id = ? AND status = 'merging'",
            (unit_id,),
        )
    condition = "pool = ? AND status IN (?, ?)"
    fates = (EventStatus.CORRUPTED, EventStatus.DISCARDED)
    return units.copy_to_pool(db, condition, (unit_id, *fates))


def _corrupted_files(job: sqlite3.Row) -> list[str]:
    """Archives that the pilot named as corrupt; `zip://` may stand before a name."""
    text = str(job["corrupted_files"] or "")
    return [name.removeprefix("zip://") for name in text.split(",") if name][:1000]
