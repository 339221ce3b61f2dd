"""Units of merging: what is left of them, what follows when they are complete or cannot be."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from espilot.server import jobs, merge_inputs
from espilot.server.brokerage import HIGH_PRIORITY, MergePlace, choose_merge_queue, choose_storage
from espilot.server.jobs import Claim
from espilot.server.options import ServerOptions
from espilot.server.schema import EventStatus, Kind
from espilot.wire.mergedef import PRIORITY

MOST_MERGES = 3
TAIL_SHARE = 10
"""When less than one tenth of a task's ranges is left, its new jobs are of high priority."""


@dataclass(frozen=True, slots=True)
class Left:
    """Rows of a unit that have no copy, by what can still become of them."""

    ready: int
    running: int
    unsettled: int
    done: int
    hopeless: int

    @property
    def is_open(self) -> bool:
        """Whether some range may still be processed."""
        return self.ready + self.running > 0


def count_left(db: sqlite3.Connection, unit_id: int) -> Left:
    """Count the rows of a unit. `unsettled` have a fate but belong to a job that has not ended."""
    counts = db.execute(
        "SELECT"
        " coalesce(sum(status = 0 AND attempt_nr > 0), 0) AS ready,"
        " coalesce(sum(status IN (1, 2)), 0) AS running,"
        " coalesce(sum(status IN (3, 7)), 0) AS unsettled,"
        " coalesce(sum(status IN (6, 9)), 0) AS done,"
        " coalesce(sum(status = 0 AND attempt_nr <= 0), 0) AS hopeless"
        " FROM event WHERE pool = ? AND copied = 0",
        (unit_id,),
    ).fetchone()
    return Left(*counts)


def flags_of(db: sqlite3.Connection, task_id: int) -> frozenset[str]:
    """The flags of a task."""
    row = db.execute("SELECT flags FROM task WHERE task_id = ?", (task_id,)).fetchone()
    return frozenset(row[0].split(",")) - {""}


def give_up_hopeless(db: sqlite3.Connection, unit_id: int) -> int:
    """With partial results accepted, ranges without attempts are fatal and hold nothing up; returns
    how many."""
    return db.execute(
        "UPDATE event SET status = ? WHERE pool = ? AND owner = pool AND status = ?"
        " AND attempt_nr <= 0",
        (EventStatus.FATAL, unit_id, EventStatus.READY),
    ).rowcount


def add_consumer(
    db: sqlite3.Connection, job: sqlite3.Row, now: float, *, status: str = "activated"
) -> None:
    """A further job for the unit of one that has ended."""
    kind = Kind.CO_JUMBO if job["kind"] == Kind.CO_JUMBO else Kind.EVENT
    priority = job["priority"] + 1
    counts = db.execute(
        "SELECT ready + sent AS left, total FROM task WHERE task_id = ?", (job["task_id"],)
    ).fetchone()
    if counts["left"] * TAIL_SHARE < counts["total"]:
        priority = max(priority, HIGH_PRIORITY + 1)
    claim = Claim(job["attempt_nr"] + 1, priority, status=status)
    jobs.create(db, job["task_id"], job["jobset_id"], now=now, kind=kind, claim=claim)


def complete(db: sqlite3.Connection, job: sqlite3.Row, now: float, options: ServerOptions) -> None:
    """Every range of the unit is done: it is merged, or finished where nothing is merged."""
    unit_id, task_id = job["jobset_id"], job["task_id"]
    _close_waiting(db, unit_id)
    task = db.execute("SELECT * FROM task WHERE task_id = ?", (task_id,)).fetchone()
    if not task["merge_transformation"]:
        finish(db, task_id, unit_id)
        return
    queue = _choose_queue(db, job, options)
    claim = Claim(job["attempt_nr"] + 1, PRIORITY, queue)
    jobs.create(db, task_id, unit_id, now=now, kind=Kind.MERGE, claim=claim)
    db.execute(
        "UPDATE unit SET state = 'merging', merges = merges + 1 WHERE unit_id = ?", (unit_id,)
    )


def _choose_queue(db: sqlite3.Connection, job: sqlite3.Row, options: ServerOptions) -> str:
    place = MergePlace(
        producer=job["site"],
        storage=choose_storage(
            merge_inputs.bytes_by_storage(db, job["jobset_id"]), options.endpoints
        ),
        near_storage="mo" in flags_of(db, job["task_id"]),
    )
    return choose_merge_queue(place, options.queues)


def finish(db: sqlite3.Connection, task_id: int, unit_id: int) -> None:
    """The unit is all there; so are the jobs that contributed."""
    db.execute(
        "UPDATE job SET status = 'finished' WHERE jobset_id = ? AND status = 'merging'", (unit_id,)
    )
    _close(db, task_id, unit_id, "finished")


def fail(db: sqlite3.Connection, task_id: int, unit_id: int, sub_status: str) -> None:
    """The unit can never be complete; jobs that contributed have failed with it."""
    db.execute(
        "UPDATE job SET status = 'failed', sub_status = ? WHERE jobset_id = ?"
        " AND status = 'merging'",
        (sub_status, unit_id),
    )
    _close(db, task_id, unit_id, "failed")


def _close(db: sqlite3.Connection, task_id: int, unit_id: int, state: str) -> None:
    db.execute("UPDATE unit SET state = ? WHERE unit_id = ?", (state, unit_id))
    _close_waiting(db, unit_id)
    states = [
        row[0]
        for row in db.execute("SELECT DISTINCT state FROM unit WHERE task_id = ?", (task_id,))
    ]
    if "running" in states or "merging" in states:
        return
    end = "failed" if "failed" in states else "finished"
    db.execute("UPDATE task SET state = ? WHERE task_id = ?", (end, task_id))
    db.execute(
        "UPDATE job SET status = 'closed', sub_status = 'es_unused', error_code = 116"
        " WHERE task_id = ? AND kind = ? AND status = 'activated'",
        (task_id, Kind.JUMBO),
    )


def _close_waiting(db: sqlite3.Connection, jobset_id: int) -> None:
    """Jobs that nobody has taken have nothing to do."""
    db.execute(
        "UPDATE job SET status = 'closed', sub_status = 'es_unused', error_code = 116"
        " WHERE jobset_id = ? AND status IN ('activated', 'waiting')",
        (jobset_id,),
    )


def copy_to_pool(db: sqlite3.Connection, condition: str, arguments: tuple[object, ...]) -> int:
    """Give rows that have their fate a next attempt in the pool; returns how many.

    The copy of a fatal row has no attempt left: its report set 1.
    """
    where = f" WHERE copied = 0 AND {condition}"
    db.execute(
        "INSERT INTO event (task_id, file_id, process_id, attempt_nr, owner, pool, status,"
        " start_event, last_event, fatal, error_code, error_diag)"
        " SELECT task_id, file_id, process_id, attempt_nr - 1, pool, pool, 0, start_event,"
        f" last_event, fatal, error_code, error_diag FROM event{where}",
        arguments,
    )
    return db.execute(f"UPDATE event SET copied = 1{where}", arguments).rowcount
