"""The task of a job file, as the built-in server makes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from espilot.config import Settings, split_input
from espilot.errors import MessageError, UsageError
from espilot.server.options import ServerOptions
from espilot.server.store import Store
from espilot.server.tasks import NewTask, read_new_task
from espilot.wire.jobtext import read_definition


def read_local_task(settings: Settings) -> NewTask:
    """The task that the settings name; its inputs are known to the server by their names alone.

    `UsageError` names the key that no server would take.
    """
    table = asdict(settings.task)
    inputs = [split_input(text) for text in settings.task.inputs]
    table["inputs"] = [
        {"lfn": Path(path).name, "events": table["events"] if events is None else events}
        for path, events in inputs
    ]
    table["core_count"] = settings.payload.cores
    if settings.task.job_file:
        table["job"] = _read_job_text(Path(settings.task.job_file))
    return read_new_task(table)


def _read_job_text(path: Path) -> str:
    try:
        return json.dumps(read_definition(path.read_text()))
    except (OSError, ValueError, MessageError) as error:
        raise UsageError(f"task.job_file: {path}: {error}") from error


def is_served(settings: Settings, database: Path) -> bool:
    """Whether the built-in server's database has this task; one that is not there says nothing."""
    if not database.is_file():
        return True
    task = read_local_task(settings)
    store = Store(database, ServerOptions(), now=0.0)
    try:
        shapes = store.task_shapes()
    finally:
        store.close()
    return not shapes or shapes[0] == (task.name, task.events, task.events_per_range)
