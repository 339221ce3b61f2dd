"""Tasks: making them, counting their ranges, their state."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from espilot.errors import UsageError
from espilot.server import jobs, tally
from espilot.server.schema import ACTIVE_STATES, EventStatus, take_ids
from espilot.wire.jobdef import is_lfn

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST_RANGES = 10_000_000
_MOST_EVENTS = 10**15
_SCOPE = "local"


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be made. `inputs` are (LFN, events); a generator has none."""

    name: str
    events: int
    events_per_range: int = 1
    outputs: tuple[str, ...] = ("output",)
    inputs: tuple[tuple[str, int], ...] = ()
    max_attempts: int = 3
    core_count: int = 1
    consumers: int = 1
    task_id: int = 0


def read_new_task(values: Mapping[str, Any]) -> NewTask:
    """A task from a request or a `[task]` table. Errors: `UsageError` that names the key."""
    inputs = _read_inputs(values.get("inputs") or (), values.get("events") or 0)
    task = NewTask(
        name=str(values.get("name") or "task"),
        events=_number(values, "events", 0, 0, _MOST_EVENTS) or sum(n for _, n in inputs),
        events_per_range=_number(values, "events_per_range", 1, 1, _MOST_EVENTS),
        outputs=_read_outputs(values.get("outputs") or ("output",)),
        inputs=inputs,
        max_attempts=_number(values, "max_attempts", 3, 1, 1000),
        core_count=_number(values, "core_count", 1, 1, 100_000),
        consumers=_number(values, "consumers", 1, 1, 1000),
        task_id=_number(values, "task_id", 0, 0, 10**15),
    )
    _check_task(task)
    return task


def _check_task(task: NewTask) -> None:
    if not _NAME.fullmatch(task.name):
        raise UsageError(f"task.name: letters, digits, '._-' only, not {task.name!r:.80}")
    if task.events < 1:
        raise UsageError("task.events: at least 1 event is needed")
    if task.inputs and task.events != sum(n for _, n in task.inputs):
        raise UsageError(f"task.events: {task.events} is not the sum of the inputs' events")
    if task.events // task.events_per_range > _MOST_RANGES:
        raise UsageError(f"task.events_per_range: more than {_MOST_RANGES} ranges; make it larger")


def _number(values: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"task.{name}: a number from {low} to {high}, not {value!r:.40}")
    return value


def _read_outputs(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= 100:
        raise UsageError("task.outputs: a list of 1 to 100 file names")
    for name in value:
        if not isinstance(name, str) or not is_lfn(name):
            raise UsageError(f"task.outputs: not a plain file name: {name!r:.80}")
    if len(set(value)) != len(value):
        raise UsageError("task.outputs: a name appears twice")
    return tuple(value)


def _read_inputs(value: Any, events: Any) -> tuple[tuple[str, int], ...]:
    """Inputs sorted by LFN, because event numbers count over the sorted list."""
    if not isinstance(value, list | tuple) or len(value) > 100_000:
        raise UsageError("task.inputs: a list of {lfn, events}")
    if len(value) == 1 and isinstance(value[0], str):
        value = [{"lfn": value[0], "events": events}]
    inputs = []
    for item in value:
        if not isinstance(item, Mapping) or not isinstance(item.get("lfn"), str):
            raise UsageError("task.inputs: each needs lfn and events when there are several")
        if not is_lfn(item["lfn"]):
            raise UsageError(f"task.inputs: not a plain file name: {item['lfn']!r:.80}")
        inputs.append((item["lfn"], _number(item, "events", 0, 1, _MOST_EVENTS)))
    if len({lfn for lfn, _ in inputs}) != len(inputs):
        raise UsageError("task.inputs: a file appears twice")
    return tuple(sorted(inputs))


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
    jobset_id = take_ids(db, "id")
    files = _insert_files(db, task_id, task)
    db.executemany(
        "INSERT INTO event (task_id, file_id, process_id, attempt_nr, owner, pool, status,"
        " start_event, last_event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        _event_rows(task_id, files, jobset_id, task),
    )
    tally.recount(db, task_id)
    db.execute("UPDATE task SET total = ready WHERE task_id = ?", (task_id,))
    for _ in range(task.consumers):
        jobs.create(db, task_id, jobset_id, attempt_nr=1, now=now)
    return task_id


def _free_task_id(db: sqlite3.Connection) -> int:
    while True:
        task_id = take_ids(db, "task")
        if not db.execute("SELECT 1 FROM task WHERE task_id = ?", (task_id,)).fetchone():
            return task_id


def _insert_task(db: sqlite3.Connection, task_id: int, task: NewTask, definition: str) -> None:
    db.execute(
        "INSERT INTO task (task_id, name, definition, state, events, events_per_range, outputs,"
        " max_attempts, core_count) VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?)",
        (
            task_id,
            task.name,
            definition,
            task.events,
            task.events_per_range,
            json.dumps(task.outputs),
            task.max_attempts,
            task.core_count,
        ),
    )


def _insert_files(
    db: sqlite3.Connection, task_id: int, task: NewTask
) -> list[tuple[int, int, int]]:
    """Records of the inputs as (file id, first event, last event), counted over all of them.

    A generator has one pseudo-input that holds all its events.
    """
    inputs = task.inputs or ((f"{task_id}.evgen", task.events),)
    file_id = take_ids(db, "id", len(inputs))
    records = []
    first = 1
    for lfn, events in inputs:
        guid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"espilot:{task_id}:{lfn}")).upper()
        last = first + events - 1
        db.execute(
            "INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?)",
            (file_id, task_id, lfn, guid, _SCOPE, first, last),
        )
        records.append((file_id, first, last))
        file_id, first = file_id + 1, last + 1
    return records


def _event_rows(
    task_id: int, files: Sequence[tuple[int, int, int]], pool: int, task: NewTask
) -> Iterator[tuple[int, ...]]:
    """One row per range; a range does not cross a file, so the last of a file may be shorter."""
    step, ready = task.events_per_range, int(EventStatus.READY)
    for file_id, first, last in files:
        for start in range(first, last + 1, step):
            end = min(start + step - 1, last)
            yield task_id, file_id, start, task.max_attempts, pool, pool, ready, start, end


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
