"""`python -m espilot.executors CONTEXT EPOCH`: the normal or merge job of a state directory.

The launcher starts it like a payload, and ends it like one. Exit code 0: there is an outcome.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from espilot.adapters.state_files import read_job, write_outcome
from espilot.errors import LocalError
from espilot.executors.execution import Execution
from espilot.logs import open_log
from espilot.supervisor.launcher import RUN_ID_VARIABLE
from espilot.workers.context import Context, read_context


def run(argv: list[str]) -> int:
    """Execute the job that is noted in the state directory."""
    context_file, epoch = argv
    try:
        run_id = os.environ[RUN_ID_VARIABLE]
        execute(read_context(Path(context_file)), int(epoch), run_id)
    except (LocalError, FileNotFoundError) as error:
        sys.stderr.write(f"executor: {error}\n")
        return 73
    return 0


def execute(context: Context, epoch: int, run_id: str) -> None:
    """Run the job, and write down how it ended."""
    job = read_job(context.job_file)
    if job is None:
        raise LocalError(f"there is no job in {context.job_file}")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
    log = open_log("executor", context.log_file)
    log.job = job.panda_id
    log.info("start", "job begins", kind=job.kind, epoch=epoch)
    execution = Execution(context, job, epoch=epoch, run_id=run_id, stopped=stopped, log=log)
    outcome = execution.run()
    write_outcome(context.outcome_file, outcome)
    log.info("stop", "job ended", code=outcome.code)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
