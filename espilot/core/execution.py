"""The last word on a job with an executor of its own: a normal or merge job.

* It is finished when its executor says so, whatever was ordered meanwhile: its outputs are safe.
* Without an outcome the reason of the end that was ordered counts, else the executor is lost.
* Inputs that must be made again are named; the server has their ranges processed once more.
"""

from __future__ import annotations

from typing import Any

from espilot.core.job_metrics import timing_text
from espilot.model import Job, JobOutcome, JobUpdate

LOST, KILLED_EVENT_JOB, KILLED = 1305, 1237, 1144
DIAG_CHARS = 256


def executed_update(outcome: JobOutcome | None, *, code: int, diag: str, job: Job) -> JobUpdate:
    """The final update; `code` and `diag` say why the job was ended, if it was."""
    if outcome is None:
        code = KILLED if code == KILLED_EVENT_JOB else code or LOST
        return _failed(code, diag or "the job was ended before it was done", job, {})
    more = _facts_of(outcome)
    if not outcome.code:
        return JobUpdate("finished", core_count=job.core_count, more=more)
    told = (code, diag) if code else (outcome.code, outcome.diag)
    if told[0] == KILLED_EVENT_JOB:
        told = KILLED, told[1]
    return _failed(*told, job, more)


def _failed(code: int, diag: str, job: Job, more: dict[str, Any]) -> JobUpdate:
    sub_status = "pilot_killed" if code == KILLED else "pilot_failed"
    return JobUpdate(
        state="failed",
        pilot_error_code=code,
        pilot_error_diag=diag[:DIAG_CHARS],
        sub_status=sub_status,
        core_count=job.core_count,
        more=more,
    )


def _facts_of(outcome: JobOutcome) -> dict[str, Any]:
    """Fields of the update under their v1 names; the report is written as JSON with the call."""
    facts: dict[str, Any] = {
        "job_output_report": {lfn: dict(entry) for lfn, entry in outcome.report.items()},
        "pilot_timing": timing_text(
            job_s=0,
            stagein_s=outcome.stagein_s,
            payload_s=outcome.payload_s,
            stageout_s=outcome.stageout_s,
        ),
    }
    if outcome.exit_code is not None:
        facts["trans_exit_code"] = outcome.exit_code
    if outcome.corrupted:
        facts["corrupted_files"] = ",".join(outcome.corrupted)
    return facts
