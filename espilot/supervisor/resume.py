"""What a state directory holds from an earlier run: the same task goes on, another is refused.

A task that is over leaves nothing that is needed: its queue, its server's database and its story
are removed, its unpacked outputs are moved aside, and the next run starts anew. The storage is
never touched. Where the record of a run is lost, what is live is kept: the server's database tells
which task it is of.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from espilot.adapters.disk import remove_path
from espilot.adapters.state_files import read_object, write_object
from espilot.adapters.story import NAME, older_page
from espilot.config import dump_settings, read_settings
from espilot.errors import ConfigError, LocalError, UsageError
from espilot.queue.store import Queue
from espilot.supervisor.recovery import Found, note_boot, take_up, why_not_trusted
from espilot.supervisor.statedir import RECORD, STATE_NOTE
from espilot.workers.access_point import access_point
from espilot.workers.context import Context
from espilot.workers.local_task import is_served

OVER = ("finished", "failed")


def prepare_state(context: Context) -> Found | None:
    """Make the state directory fit for the task; what an earlier run left and is gone on with.

    `UsageError` when it holds an unfinished run of another task.
    """
    record = read_run(context.state)
    if is_over(context, record):
        remove_run(context)
        note_boot(context, context.queue)
        note_run(context, "running", run=uuid.uuid4().hex[:12])
        return None
    require_same_task(context, record)
    note_run(context, "running")
    return take_up(context)


def require_same_task(context: Context, record: Mapping[str, Any]) -> None:
    """Refuse to go on with what belongs to another task."""
    task = record.get("task")
    if isinstance(task, dict):
        same, name = task == as_json(asdict(context.settings.task)), task.get("name", "?")
    else:
        same, name = is_served(context.settings, context.database), "?"
    if not same:
        raise UsageError(
            f"{context.state} holds the unfinished task {name!r}; finish it with its own job file, "
            "or choose another --workdir"
        )


def note_run(
    context: Context, state: str, *, run: str = "", summary: Mapping[str, Any] | None = None
) -> None:
    """Write down, for `espilot recover`, which run this is and how its task stands."""
    former = read_run(context.state)
    record = {
        "schema": "espilot.run/1",
        "run": run or former.get("run") or uuid.uuid4().hex[:12],
        "began": time.time() if run else former.get("began", 0.0),
        "task": asdict(context.settings.task),
        "state": state,
        "settings": dump_settings(context.settings),
        "workdir": str(context.workdir),
        "state_dir": str(context.state),
        "storage": context.storage,
        "jobdir": str(context.jobdir),
        "origin": None if context.origin is None else str(context.origin),
        "jobs": context.jobs,
        "at_server": context.at_server,
        "journal": context.journal,
        "summary": None if summary is None else dict(summary),
    }
    write_object(context.state / RECORD, record)
    context.logs.mkdir(parents=True, exist_ok=True)
    write_object(context.logs / STATE_NOTE, {"state_dir": str(context.state)})


def read_run(state: Path) -> dict[str, Any]:
    """What `note_run` wrote; empty when there is nothing usable."""
    return read_object(state / RECORD)


def recorded_context(state: Path, runtime: Path) -> Context:
    """The context of the run that a state directory records; `LocalError` without a usable one."""
    return context_of(read_run(state), state / RECORD, state, runtime)


def context_of(record: Mapping[str, Any], path: Path, state: Path, runtime: Path) -> Context:
    """The context that a record describes, in a state directory; `path` is named in errors."""
    try:
        origin, at_server = record.get("origin"), bool(record.get("at_server"))
        settings = read_settings(record["settings"], str(path))
        away = at_server or access_point(settings.server.url)
        return Context(
            workdir=Path(record["workdir"]),
            state=state,
            runtime=runtime,
            storage=str(record["storage"]),
            settings=settings,
            jobdir=Path(record["jobdir"]),
            origin=None if origin is None else Path(origin),
            jobs=bool(record.get("jobs", True)),
            at_server=at_server,
            server_url=settings.server.url if away else "",
        )
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise LocalError(
            f"{path} cannot be used ({error}); go on with the same `espilot run` command instead"
        ) from error


def is_over(context: Context, record: Mapping[str, Any]) -> bool:
    """Whether there is no run, or its task is over, and nothing is left to be reported.

    A run that takes no further jobs does not care for its task.
    """
    lost = not isinstance(record.get("task"), dict)
    if not lost and record.get("state") not in OVER and record.get("jobs", True):
        return False
    if why_not_trusted(context):
        return not context.job_file.exists()
    return not has_live(context)


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
    harvester = context.state / "harvester"
    # The story of a pilot that serves others' tasks goes on over all of them.
    story = context.state / NAME
    pages = () if context.server_url else (story, older_page(story))
    for path in (
        context.job_file, context.queue, context.archives, context.inputs, harvester, *databases,
        *payloads, *pages,
    ):  # fmt: skip
        remove_path(path)
    set_aside_outputs(context.outputs)


def set_aside_outputs(directory: Path) -> None:
    """Move unpacked outputs of a former task to `outputs.1`, `outputs.2` ...: what comes must not
    mix with them, and they are not ours to remove."""
    if not directory.is_dir() or next(directory.iterdir(), None) is None:
        return
    names = (directory.with_name(f"{directory.name}.{n}") for n in itertools.count(1))
    directory.rename(next(each for each in names if not each.exists()))


def as_json(value: Any) -> Any:
    """A value as it comes back from JSON (tuples become lists)."""
    return json.loads(json.dumps(value))
