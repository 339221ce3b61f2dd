"""Jobs: making them, handing them out, describing them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from espilot.errors import UsageError
from espilot.server.options import Quirks
from espilot.server.schema import take_ids
from espilot.wire.jobdef import InputFile, JobFacts, write_job

GONE = "tobekilled"
"""The command for a job that is not there any more."""


def create(
    db: sqlite3.Connection, task_id: int, jobset_id: int, *, attempt_nr: int, now: float
) -> int:
    """A new event job that draws from the pool of `jobset_id`; returns its PandaID."""
    panda_id = take_ids(db, "id")
    db.execute(
        "INSERT INTO job (panda_id, task_id, jobset_id, attempt_nr, status, updated_at)"
        " VALUES (?, ?, ?, ?, 'activated', ?)",
        (panda_id, task_id, jobset_id, attempt_nr, now),
    )
    return panda_id


def acquire(
    db: sqlite3.Connection, wanted: Mapping[str, Any], now: float, quirks: Quirks
) -> list[dict[str, Any]]:
    """Definitions of up to `n_jobs` waiting jobs (of `task_id`, when given), now handed out."""
    task_id = wanted.get("task_id")
    rows = db.execute(
        "SELECT panda_id FROM job WHERE status = 'activated' AND (? IS NULL OR task_id = ?)"
        " ORDER BY panda_id LIMIT ?",
        (task_id, task_id, max(1, wanted.get("n_jobs") or 1)),
    ).fetchall()
    for row in rows:
        db.execute(
            "UPDATE job SET status = 'sent', n_sent = n_sent + 1, site = ?, node = ?,"
            " command = coalesce(command, ?), updated_at = ? WHERE panda_id = ?",
            (
                wanted.get("site_name") or "",
                wanted.get("node") or "",
                quirks.command or None,
                now,
                row["panda_id"],
            ),
        )
    return [define(db, row["panda_id"], shift_guids=quirks.guid_shift) for row in rows]


def define(db: sqlite3.Connection, panda_id: int, *, shift_guids: bool = True) -> dict[str, Any]:
    """The definition of a job."""
    job = db.execute(
        "SELECT job.*, task.name, task.events, task.outputs, task.core_count FROM job"
        " JOIN task USING (task_id) WHERE panda_id = ?",
        (panda_id,),
    ).fetchone()
    files = db.execute(
        "SELECT lfn, guid, scope FROM file WHERE task_id = ? ORDER BY lfn", (job["task_id"],)
    ).fetchall()
    facts = JobFacts(
        panda_id=panda_id,
        jobset_id=job["jobset_id"],
        task_id=job["task_id"],
        task_name=job["name"],
        attempt_nr=job["attempt_nr"],
        core_count=job["core_count"],
        events=job["events"],
        output_lfns=tuple(json.loads(job["outputs"])),
        input_files=tuple(InputFile(row["lfn"], row["guid"], row["scope"]) for row in files),
        n_sent=job["n_sent"],
    )
    return write_job(facts, shift_guids=shift_guids)


def pilot_fields(db: sqlite3.Connection, panda_id: int) -> dict[str, Any]:
    """What the last update of a job said, under the v1 names."""
    row = find(db, panda_id)
    fields: dict[str, Any] = json.loads(row["pilot_fields"]) if row else {}
    return fields


def set_command(db: sqlite3.Connection, panda_id: int, command: str) -> None:
    """Store a command for a job. Errors: `UsageError` for an unknown one."""
    if find(db, panda_id) is None:
        raise UsageError(f"there is no job {panda_id}")
    db.execute("UPDATE job SET command = ? WHERE panda_id = ?", (command[:250] or None, panda_id))


def commands(db: sqlite3.Connection, job_ids: list[int]) -> list[dict[str, Any]]:
    """Status and command of each job."""
    found: list[dict[str, Any]] = []
    for job_id in job_ids:
        row = find(db, job_id)
        status, command = (row["status"], row["command"]) if row else ("unknown", GONE)
        found.append({"command": command, "status": status})
    return found


def statuses(db: sqlite3.Connection, job_ids: list[int]) -> list[dict[str, Any]]:
    """Status and attempt of each job; "not found" and 0 for an unknown one."""
    found = []
    for job_id in job_ids:
        row = find(db, job_id)
        status, attempt = (row["status"], row["attempt_nr"]) if row else ("not found", 0)
        found.append({"job_id": job_id, "status": status, "attempt_number": attempt})
    return found


def find(db: sqlite3.Connection, panda_id: int) -> sqlite3.Row | None:
    """The row of a job."""
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM job WHERE panda_id = ?", (panda_id,)
    ).fetchone()
    return row
