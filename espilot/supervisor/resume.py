"""What a state directory holds from an earlier run: the same task goes on, another is refused.

A task that is over leaves nothing that is needed: its queue and its server's database are removed,
and the next run starts anew. The storage is never touched.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from espilot.adapters.disk import remove_path
from espilot.errors import UsageError
from espilot.queue.store import Queue
from espilot.supervisor.statedir import read_object, write_atomically
from espilot.workers.context import Context

OVER = ("finished", "failed")


def prepare_state(context: Context) -> bool:
    """Make the state directory fit for the task; returns whether an earlier run is gone on with.

    `UsageError` when it holds an unfinished run of another task.
    """
    record = read_run(context.state)
    task = as_json(asdict(context.settings.task))
    unfinished = bool(record) and (record.get("state") not in OVER or has_live(context))
    if unfinished and record.get("task") != task:
        name = record.get("task", {}).get("name", "?")
        raise UsageError(
            f"{context.state} holds the unfinished task {name!r}; finish it with its own job file, "
            "or choose another --workdir"
        )
    if not unfinished:
        remove_run(context)
    note_run(context, "running")
    return unfinished


def note_run(context: Context, state: str) -> None:
    """Write down which task this state directory is for, and how the task stands."""
    record = {"task": asdict(context.settings.task), "state": state}
    write_atomically(context.state / "run.json", json.dumps(record))


def read_run(state: Path) -> dict[str, Any]:
    """What `note_run` wrote; empty when there is nothing usable."""
    return read_object(state / "run.json")


def has_live(context: Context) -> bool:
    """Whether the queue holds anything that is not reported."""
    if not (context.queue / "data.mdb").exists():
        return False
    queue = Queue(context.queue)
    try:
        return queue.counts().live > 0 or queue.job() is not None
    finally:
        queue.close()


def remove_run(context: Context) -> None:
    """Remove queue, archives, server database and payload directories of a run that is over."""
    databases = context.state.glob("server.sqlite*")
    payloads = context.workdir.glob("payload-*")
    for path in (context.queue, context.archives, *databases, *payloads):
        remove_path(path)


def as_json(value: Any) -> Any:
    """A value as it comes back from JSON (tuples become lists)."""
    return json.loads(json.dumps(value))
