"""Names of the outputs of a job."""

from __future__ import annotations

import json
import sqlite3


def output_lfns(db: sqlite3.Connection, job: sqlite3.Row) -> tuple[str, ...]:
    """Output names of a job; where a task has several units, they are numbered by unit."""
    outputs = db.execute("SELECT outputs FROM task WHERE task_id = ?", (job["task_id"],))
    names = tuple(json.loads(outputs.fetchone()[0]))
    units = db.execute(
        "SELECT count(*) AS n, max(CASE unit_id WHEN ? THEN number END) AS number FROM unit"
        " WHERE task_id = ?",
        (job["jobset_id"], job["task_id"]),
    ).fetchone()
    if units["n"] < 2 or units["number"] is None:
        return names
    return tuple(f"{name}._{units['number']:06d}" for name in names)
