"""What the files of the present job tell: where its inputs are, and how it ended."""

from __future__ import annotations

from espilot.adapters.state_files import read_outcome
from espilot.core.execution import executed_update
from espilot.core.job import Tally, final_update
from espilot.logs import Log
from espilot.model import EventRange, Job, JobOutcome, JobUpdate
from espilot.wire.messages import Work
from espilot.wire.queue_overrides import HONOURED, split_overrides
from espilot.workers.child import Child
from espilot.workers.context import Context


def find_outcome(child: Child, job: Job) -> JobOutcome | None:
    """How the executor of a job ended; None for an event job, or while it runs."""
    return None if job.event_service else read_outcome(child.context.outcome_file, job)


def last_word(child: Child, job: Job, tally: Tally, work: Work) -> JobUpdate:
    """The final update of a job, by its ranges or by its executor's outcome."""
    if job.event_service:
        return final_update(
            tally,
            code=work.code,
            diag=work.diag,
            core_count=job.core_count,
            drained=work.drained,
        )
    outcome = find_outcome(child, job)
    return executed_update(outcome, code=work.code, diag=work.diag, job=job)


def forget_job(context: Context) -> None:
    """The server has the last word on the job."""
    for path in (context.outcome_file, context.log_fate_file, context.job_file):
        path.unlink(missing_ok=True)


def tell_overrides(log: Log, job: Job) -> None:
    """Say which queue data a job brings with itself, and what of them does not count."""
    _, overrides = split_overrides(str(job.definition.get("jobPars") or ""))
    if overrides:
        names, ignored = sorted(overrides), sorted(set(overrides) - HONOURED)
        log.info("job", "the job has queue data of its own", names=",".join(names)[:200],
                 ignored=",".join(ignored)[:200] or "none")  # fmt: skip


def with_pfn(event_range: EventRange, paths: dict[str, str]) -> EventRange:
    """The range with the place of its file, which the server does not know."""
    r = event_range
    path = paths.get(r.lfn, "")
    return EventRange(r.id, r.start_event, r.last_event, r.lfn, r.guid, r.scope, path or r.pfn)
