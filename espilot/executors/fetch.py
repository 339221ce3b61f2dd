"""`python -m espilot.executors.fetch CONTEXT -- COMMAND ...`: stage-in of an event job, then its
payload, in the same process.

The launcher starts it as the payload. What opens the storages is gone when the payload begins.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from espilot.adapters.state_files import read_job
from espilot.core.retry import Backoff
from espilot.errors import EspilotError, InputError, LocalError
from espilot.executors.stagein import StageIn
from espilot.logs import Log, open_log
from espilot.supervisor.payload import without_secrets
from espilot.workers.context import Context, read_context
from espilot.workers.inputs import inputs_to_fetch, sources_of

STAGEIN_FAILED = 73


def run(argv: list[str]) -> int:
    """Fetch, then become the payload; returns only when that cannot be."""
    context_file, _, *command = argv
    try:
        context = read_context(Path(context_file))
        fetch(context, open_log("executor", context.log_file))
        os.execvpe(command[0], command, without_secrets(os.environ, context.settings))
    except EspilotError as error:
        sys.stderr.write(f"stage-in: {error}\n")
    except OSError as error:
        sys.stderr.write(f"cannot start payload: {error.strerror}\n")
    return STAGEIN_FAILED


def fetch(context: Context, log: Log) -> None:
    """Bring the inputs of the present job; `InputError` names what did not come."""
    job = read_job(context.job_file)
    if job is None:
        raise LocalError(f"there is no job in {context.job_file}")
    log.job = job.panda_id
    inputs = inputs_to_fetch(context, job)
    context.inputs.mkdir(exist_ok=True)
    config, pauses = context.settings.stagein, context.settings.stageout
    stage_in = StageIn(
        sources_of(context, job, inputs),
        context.inputs,
        Backoff.between(pauses.retry_min_s, pauses.retry_max_s, attempts=config.attempts),
        parallel=config.parallel,
        log=log,
        pause=threading.Event().wait,
    )
    failures = stage_in.fetch(inputs)
    if failures:
        log.error("stage-in", "inputs missing", n=len(failures), first=failures[0].text)
        raise InputError(failures[0].text, code=failures[0].code)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
