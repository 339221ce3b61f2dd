"""Takes a spare in from a recovery directory: a fresh state directory with its job and archives.

There is a job and no queue in it, so the queue is rebuilt from the manifests as after a crash of
the machine. Only this job is ended; its task is somebody else's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from espilot.adapters.copies import copy_to_disk
from espilot.adapters.state_files import read_object
from espilot.errors import LocalError
from espilot.supervisor import recovery_layout as layout
from espilot.supervisor.resume import context_of, note_run
from espilot.supervisor.statedir import StateDir
from espilot.workers.context import Context


def take_in(spare: Path, state: StateDir) -> Context:
    """Copy a spare into a state directory; its context, which takes no further jobs.

    Nothing is recovered from the directory before all is there. `LocalError` says what is wrong.
    """
    path = spare / layout.RUN
    record = read_object(path)
    context = context_of(record, path, state.path, state.runtime)
    context = replace(context, workdir=state.path / "work", jobs=False)
    if not context.server_url:
        origin = context.origin or Path(str(record.get("state_dir")))
        context = replace(context, origin=origin)
        if not context.database.is_file():
            raise LocalError(
                f"{spare} belongs to a local run, whose server was in {origin}: there is no "
                f"{context.database.name} any more, so nobody wants these archives"
            )
    try:
        context.archives.mkdir(mode=0o700, exist_ok=True)
        copy_to_disk(spare / layout.JOB, context.job_file)
        if (spare / layout.FAILURES).is_file():
            copy_to_disk(spare / layout.FAILURES, context.state / layout.FAILURES)
        for file in sorted((spare / layout.ARCHIVES).iterdir()):
            if file.is_file() and not file.is_symlink():
                copy_to_disk(file, context.archives / file.name)
    except OSError as error:
        raise LocalError(
            f"cannot take {spare} into {state.path}: {error.strerror}; free some space there or "
            "choose another --state-dir"
        ) from error
    note_run(context, "running", run=str(record.get("run", "")))
    return context
