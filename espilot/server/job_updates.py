"""Job updates: heartbeats, final updates, and the loss of a job."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from espilot.server import job_end, jobs, output_report
from espilot.server.brokerage import HIGH_PRIORITY
from espilot.server.options import ServerOptions
from espilot.server.schema import PROCESSING_STATES
from espilot.wire.panda_v1 import FINAL_STATES

NO_COMMAND = "NULL"
ALREADY_DONE = "alreadydone"
_COLUMNS = {
    "n_events": "n_events",
    "pilot_error_code": "error_code",
    "pilot_error_diag": "error_diag",
    "job_sub_status": "sub_status",
    "node": "node",
    "corrupted_files": "corrupted_files",
}
_LENGTHS = {"pilot_error_diag": 500, "job_sub_status": 80, "node": 128}


def update(
    db: sqlite3.Connection, given: Mapping[str, Any], now: float, options: ServerOptions
) -> str:
    """Book a heartbeat or final update; returns the command.

    A final update ends the job at once; whatever comes after it changes nothing.
    """
    job = jobs.find(db, given["job_id"])
    if job is None or not (job["final"] or job["status"] in (*PROCESSING_STATES, "holding")):
        return jobs.GONE
    attempt_nr = given.get("attempt_nr")
    if options.quirks.attempt_check and attempt_nr not in (None, job["attempt_nr"]):
        return jobs.GONE
    if options.quirks.batch_id_check and _is_other_batch(job, given):
        return jobs.GONE
    is_final = given["job_status"] in FINAL_STATES
    if job["final"]:
        return ALREADY_DONE if is_final and options.quirks.final_alreadydone else NO_COMMAND
    _store_fields(db, given, now)
    if is_final:
        _take_final(db, given, now, options)
    else:
        state = _next_state(job["status"], given["job_status"])
        db.execute("UPDATE job SET status = ? WHERE panda_id = ?", (state, job["panda_id"]))
    return job["command"] or NO_COMMAND


def _is_other_batch(job: sqlite3.Row, given: Mapping[str, Any]) -> bool:
    """Whether another batch job claims this one; numbers are not compared."""
    stored, told = json.loads(job["pilot_fields"]).get("batch_id"), given.get("batch_id")
    if not stored or not told or stored.isdigit() or told.isdigit():
        return False
    return bool(stored != told)


def forget(db: sqlite3.Connection, panda_id: int, now: float, options: ServerOptions) -> None:
    """The job is gone: somebody ended it."""
    job = jobs.find(db, panda_id)
    if job is not None and not job["final"] and job["status"] in (*PROCESSING_STATES, "holding"):
        db.execute("UPDATE job SET sub_status = 'pilot_failed' WHERE panda_id = ?", (panda_id,))
        job_end.end_job(db, panda_id, now, options)


def _next_state(stored: str, told: str) -> str:
    """Updates can overtake each other: a job never goes back."""
    order = ("sent", "starting", "running", "transferring", "holding")
    return max(stored, told, key=order.index)


def _store_fields(db: sqlite3.Connection, given: Mapping[str, Any], now: float) -> None:
    """Keep what the pilot tells; the names of columns come from a fixed table."""
    values: dict[str, Any] = {"updated_at": now, "pilot_fields": json.dumps(dict(given))}
    for name, column in _COLUMNS.items():
        if given.get(name) is not None:
            limit = _LENGTHS.get(name)
            values[column] = given[name] if limit is None else given[name][:limit]
    assignments = ", ".join(f"{column} = ?" for column in values)
    db.execute(
        f"UPDATE job SET {assignments} WHERE panda_id = ?", (*values.values(), given["job_id"])
    )


def _take_final(
    db: sqlite3.Connection, given: Mapping[str, Any], now: float, options: ServerOptions
) -> None:
    panda_id = given["job_id"]
    db.execute("UPDATE job SET status = 'holding', final = 1 WHERE panda_id = ?", (panda_id,))
    if options.quirks.report_checks and given["job_status"] == "finished":
        _check_output_report(db, panda_id, given.get("job_output_report"))
    job_end.end_job(db, panda_id, now, options, told=given["job_status"])


def _check_output_report(db: sqlite3.Connection, panda_id: int, text: str | None) -> None:
    """A finished job whose report cannot be used has failed."""
    fault = output_report.fault_of(text, jobs.define(db, panda_id))
    if not fault:
        return
    db.execute(
        "UPDATE job SET sub_status = 'bad_report', error_code = 200, error_diag = ?"
        " WHERE panda_id = ?",
        (fault, panda_id),
    )


def fail_lost(db: sqlite3.Connection, now: float, options: ServerOptions) -> int:
    """End the jobs that were not heard of in time; returns how many."""
    rows = db.execute(
        "SELECT panda_id, status FROM job WHERE final = 0 AND ("
        " (status = 'sent' AND updated_at < ?)"
        " OR (status IN ('starting', 'running', 'transferring') AND updated_at < ?)"
        " OR (status = 'holding' AND updated_at < CASE WHEN priority > ? THEN ? ELSE ? END))",
        (
            now - options.sent_timeout_s,
            now - options.heartbeat_timeout_s,
            HIGH_PRIORITY,
            now - options.urgent_holding_timeout_s,
            now - options.holding_timeout_s,
        ),
    ).fetchall()
    codes = {"sent": 102, "holding": 103}
    for row in rows:
        db.execute(
            "UPDATE job SET sub_status = 'es_heartbeat', error_code = ?,"
            " error_diag = 'lost: no update in time' WHERE panda_id = ?",
            (codes.get(row["status"], 100), row["panda_id"]),
        )
        job_end.end_job(db, row["panda_id"], now, options)
    return len(rows)
