"""Tasks: making them with their units, files, ranges and first jobs; their state."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from espilot.errors import UsageError
from espilot.server import given_job, jobs, tally
from espilot.server.new_task import NewTask, read_new_task
from espilot.server.schema import ACTIVE_STATES, EventStatus, Kind, take_ids

__all__ = ["NewTask", "create", "event_rows", "read_new_task", "status"]
_SCOPE = "local"


@dataclass(frozen=True, slots=True)
class _Record:
    """A piece of an input file that belongs to one unit; events are counted over all files."""

    file_id: int
    unit_id: int
    first: int
    last: int


def create(db: sqlite3.Connection, task: NewTask, now: float) -> int:
    """Make a task with its ranges and first jobs; returns its id.

    Repeating the call with the same explicit id and content changes nothing.
    """
    definition = json.dumps(asdict(task), sort_keys=True)
    known = db.execute("SELECT definition FROM task WHERE task_id = ?", (task.task_id,)).fetchone()
    if known is not None and known["definition"] == definition:
        return task.task_id
    if known is not None:
        raise UsageError(f"task.task_id: there is another task {task.task_id} already")
    task_id = task.task_id or _free_task_id(db)
    _insert_task(db, task_id, task, definition)
    if task.job and not given_job.is_event(task.job):
        jobs.create(db, task_id, 0, now=now, kind=Kind.SINGLE)
        return task_id
    units = _insert_units(db, task_id, task)
    records = _insert_files(db, task_id, task, units)
    db.executemany(
        "INSERT INTO event (task_id, file_id, process_id, attempt_nr, owner, pool, status,"
        " start_event, last_event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        _event_rows(task_id, records, task),
    )
    tally.recount(db, task_id)
    db.execute("UPDATE task SET total = ready WHERE task_id = ?", (task_id,))
    kind = Kind.CO_JUMBO if task.jumbo_jobs else Kind.EVENT
    for unit_id in units:
        for _ in range(task.consumers):
            jobs.create(db, task_id, unit_id, now=now, kind=kind)
    for _ in range(task.jumbo_jobs):
        jobs.create(db, task_id, task_id, now=now, kind=Kind.JUMBO)
    return task_id


def _free_task_id(db: sqlite3.Connection) -> int:
    while True:
        task_id = take_ids(db, "task")
        if not db.execute("SELECT 1 FROM task WHERE task_id = ?", (task_id,)).fetchone():
            return task_id


def _insert_task(db: sqlite3.Connection, task_id: int, task: NewTask, definition: str) -> None:
    columns = {
        "task_id": task_id,
        "name": task.name,
        "definition": definition,
        "state": "running",
        "events": task.events,
        "events_per_range": task.events_per_range,
        "outputs": json.dumps(task.outputs),
        "max_attempts": task.max_attempts,
        "core_count": task.core_count,
        "priority": task.priority,
        "flags": ",".join(task.flags),
        "merge_transformation": task.merge_transformation,
        "merge_parameters": task.merge_parameters,
        "jumbo_jobs": task.jumbo_jobs,
        "jumbo_off_below": task.jumbo_off_below,
    }
    names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    db.execute(f"INSERT INTO task ({names}) VALUES ({marks})", columns)


def _insert_units(db: sqlite3.Connection, task_id: int, task: NewTask) -> list[int]:
    """The units in the order of their events; their ids are the jobset ids of their jobs."""
    size = task.events_per_job or task.events
    n = -(-task.events // size)
    first_id = take_ids(db, "id", n)
    for number in range(n):
        first, last = number * size + 1, min((number + 1) * size, task.events)
        db.execute(
            "INSERT INTO unit (unit_id, task_id, number, first_event, last_event)"
            " VALUES (?, ?, ?, ?, ?)",
            (first_id + number, task_id, number + 1, first, last),
        )
    return list(range(first_id, first_id + n))


def _insert_files(
    db: sqlite3.Connection, task_id: int, task: NewTask, units: list[int]
) -> list[_Record]:
    """Records of the inputs, cut where a unit ends.

    A generator has one pseudo-input that holds all its events.
    """
    size = task.events_per_job or task.events
    records = []
    first = 1
    for lfn, events in task.inputs or ((f"{task_id}.evgen", task.events),):
        guid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"espilot:{task_id}:{lfn}")).upper()
        end = first + events - 1
        while first <= end:
            unit = (first - 1) // size
            last = min(end, (unit + 1) * size)
            record = _Record(take_ids(db, "id"), units[unit], first, last)
            db.execute(
                "INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (record.file_id, task_id, lfn, guid, _SCOPE, first, last, record.unit_id),
            )
            records.append(record)
            first = last + 1
    return records


def _event_rows(task_id: int, records: list[_Record], task: NewTask) -> Iterator[tuple[int, ...]]:
    """One row per range; a range does not cross a record, so the last of one may be shorter."""
    step, ready = task.events_per_range, int(EventStatus.READY)
    for record in records:
        for start in range(record.first, record.last + 1, step):
            end = min(start + step - 1, record.last)
            pool = record.unit_id
            yield (
                task_id, record.file_id, start, task.max_attempts, pool, pool, ready, start, end
            )  # fmt: skip


def status(db: sqlite3.Connection, task_id: int) -> dict[str, Any]:
    """The fields of a `TaskStatus`. Errors: `UsageError` for an unknown task."""
    row = db.execute(
        "SELECT task_id, state, total, finished, failed, fatal, ready, sent, events_finished"
        " FROM task WHERE task_id = ?",
        (task_id,),
    ).fetchone()
    if row is None:
        raise UsageError(f"there is no task {task_id}")
    marks = ",".join("?" * len(ACTIVE_STATES))
    counts = db.execute(
        f"SELECT count(*) AS jobs, coalesce(sum(status IN ({marks})), 0) AS jobs_active"
        " FROM job WHERE task_id = ?",
        (*ACTIVE_STATES, task_id),
    ).fetchone()
    return {**dict(row), **dict(counts)}


def event_rows(db: sqlite3.Connection, task_id: int) -> list[dict[str, Any]]:
    """All event rows of a task, for test oracles."""
    return [
        {
            "id": f"{task_id}-{row['owner']}-{row['file_id']}-{row['process_id']}"
            f"-{row['attempt_nr']}",
            "process_id": row["process_id"],
            "status": EventStatus(row["status"]).name.lower(),
            "owner": row["owner"],
            "pool": row["pool"],
            "attempt_nr": row["attempt_nr"],
            "copied": bool(row["copied"]),
            "error_code": row["error_code"],
            "error_diag": row["error_diag"],
            "tar_lfn": row["tar_lfn"],
        }
        for row in db.execute("SELECT * FROM event WHERE task_id = ?", (task_id,))
    ]
