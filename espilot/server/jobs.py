"""Jobs: making them, handing them out, describing them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espilot.errors import UsageError
from espilot.server import given_job, merge_inputs
from espilot.server.brokerage import Queue, may_run
from espilot.server.options import Quirks, ServerOptions
from espilot.server.outputs import output_lfns
from espilot.server.schema import Kind, take_ids
from espilot.wire.jobdef import InputFile, JobFacts, write_job
from espilot.wire.mergedef import turn_into_merge

GONE = "tobekilled"
"""The command for a job that is not there any more."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What sets a further job apart: its attempt, its priority and its queue ("": any)."""

    attempt_nr: int = 1
    priority: int | None = None
    queue: str = ""
    status: str = "activated"


def create(
    db: sqlite3.Connection,
    task_id: int,
    jobset_id: int,
    *,
    now: float,
    kind: Kind = Kind.EVENT,
    claim: Claim | None = None,
) -> int:
    """A new job that draws from the pool of `jobset_id`; returns its PandaID."""
    claim = claim or Claim()
    panda_id = take_ids(db, "id")
    db.execute(
        "INSERT INTO job (panda_id, task_id, jobset_id, kind, priority, queue, attempt_nr, status,"
        " updated_at) VALUES (?1, ?2, ?3, ?4,"
        " coalesce(?5, (SELECT priority FROM task WHERE task_id = ?2)), ?6, ?7, ?8, ?9)",
        (
            panda_id,
            task_id,
            jobset_id,
            int(kind),
            claim.priority,
            claim.queue,
            claim.attempt_nr,
            claim.status,
            now,
        ),
    )
    return panda_id


def acquire(
    db: sqlite3.Connection, wanted: Mapping[str, Any], now: float, options: ServerOptions
) -> list[dict[str, Any]]:
    """Definitions of up to `n_jobs` waiting jobs (of `task_id`, when given) that the queue may
    run, now handed out."""
    task_id = wanted.get("task_id")
    site = wanted.get("site_name") or ""
    queue = options.queues.get(site, Queue(site))
    rows = db.execute(
        "SELECT panda_id, kind, priority FROM job"
        " WHERE status = 'activated' AND (?1 IS NULL OR task_id = ?1) AND queue IN ('', ?2)"
        " ORDER BY priority DESC, panda_id",
        (task_id, site),
    )
    chosen: list[int] = []
    for row in rows:
        if len(chosen) >= max(1, wanted.get("n_jobs") or 1):
            break
        if may_run(queue, Kind(row["kind"]), row["priority"]):
            chosen.append(row["panda_id"])
    rows.close()
    quirks = options.quirks
    for panda_id in chosen:
        db.execute(
            "UPDATE job SET status = 'sent', n_sent = n_sent + 1, site = ?, node = ?,"
            " command = coalesce(command, ?), updated_at = ? WHERE panda_id = ?",
            (site, wanted.get("node") or "", quirks.command or None, now, panda_id),
        )
    return [define(db, panda_id, quirks) for panda_id in chosen]


def define(db: sqlite3.Connection, panda_id: int, quirks: Quirks | None = None) -> dict[str, Any]:
    """The definition of a job."""
    quirks = quirks or Quirks()
    job = db.execute(
        "SELECT job.*, task.name, task.outputs, task.core_count, task.events,"
        " task.merge_transformation, task.merge_parameters FROM job"
        " JOIN task USING (task_id) WHERE panda_id = ?",
        (panda_id,),
    ).fetchone()
    given = given_job.definition_of(db, job)
    if given is not None:
        return given
    definition = write_job(_facts_of(db, job), shift_guids=quirks.guid_shift)
    definition["currentPriority"] = job["priority"]
    if job["kind"] != Kind.MERGE:
        return definition
    hides = quirks.tar_hides_loose_files
    return turn_into_merge(definition, merge_inputs.collect(db, job, hides_loose=hides))


def _facts_of(db: sqlite3.Connection, job: sqlite3.Row) -> JobFacts:
    """A jumbo job has all files of its task, any other those of its unit."""
    is_jumbo = job["kind"] == Kind.JUMBO
    files = db.execute(
        "SELECT DISTINCT lfn, guid, scope FROM file WHERE task_id = ? AND (? OR unit_id = ?)"
        " ORDER BY lfn",
        (job["task_id"], is_jumbo, job["jobset_id"]),
    ).fetchall()
    unit = db.execute("SELECT * FROM unit WHERE unit_id = ?", (job["jobset_id"],)).fetchone()
    return JobFacts(
        panda_id=job["panda_id"],
        jobset_id=job["jobset_id"],
        task_id=job["task_id"],
        task_name=job["name"],
        attempt_nr=job["attempt_nr"],
        core_count=job["core_count"],
        events=unit["last_event"] - unit["first_event"] + 1 if unit else job["events"],
        output_lfns=output_lfns(db, job),
        input_files=tuple(InputFile(row["lfn"], row["guid"], row["scope"]) for row in files),
        n_sent=job["n_sent"],
    )


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
