"""Jobs whose definition somebody gave whole: only their ids are the server's own."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

_TRUE = ("True", "true", True)


def is_event(text: str) -> bool:
    """Whether a definition (JSON) is that of an event job."""
    return json.loads(text).get("eventService") in _TRUE


def definition_of(db: sqlite3.Connection, job: sqlite3.Row) -> dict[str, Any] | None:
    """The definition of a job of such a task; None for any other task."""
    task = db.execute("SELECT definition FROM task WHERE task_id = ?", (job["task_id"],)).fetchone()
    text = json.loads(task["definition"]).get("job")
    if not text:
        return None
    own = {
        "StatusCode": 0,
        "PandaID": job["panda_id"],
        "jobsetID": job["jobset_id"],
        "taskID": job["task_id"],
        "attemptNr": job["attempt_nr"],
        "nSent": job["n_sent"],
    }
    given: dict[str, Any] = json.loads(text)
    return given | own


def end_single(db: sqlite3.Connection, job: sqlite3.Row, *, told: str) -> None:
    """The job of a task that has no other: as it ends, so does the task.

    `told` is the state in the final update; a job that was lost has failed.
    """
    ok = told == "finished" and job["sub_status"] != "bad_report"
    state = "finished" if ok else "failed"
    db.execute("UPDATE job SET status = ? WHERE panda_id = ?", (state, job["panda_id"]))
    db.execute("UPDATE task SET state = ? WHERE task_id = ?", (state, job["task_id"]))
