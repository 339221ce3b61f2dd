"""`espilot run --job FILE`: the job definition of a server, run on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from espilot.config import Settings, TaskConfig
from espilot.errors import ConfigError, MessageError
from espilot.model import Job
from espilot.wire.jobdef import is_lfn, read_job
from espilot.wire.jobtext import events_of, read_definition, task_name_of

_MOST_BYTES = 64 * 2**20


def settings_for(path: Path, settings: Settings) -> Settings:
    """Settings whose task is the one job of a file. `ConfigError` names the file and the fault."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path}: too large for a job definition")
        definition = read_definition(path.read_text())
        job = read_job(definition)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (MessageError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no job definition: {error}") from error
    task = replace(
        settings.task,
        name=task_name_of(definition),
        outputs=job.output_lfns or ("output",),
        job_file=str(path.resolve()),
        task_id=0,
    )
    if job.kind != "event":
        return replace(settings, task=replace(task, events=1, inputs=()))
    return replace(settings, task=_event_task(path, job, task))


def _event_task(path: Path, job: Job, task: TaskConfig) -> TaskConfig:
    """Events are spread evenly over the inputs, where the job has several."""
    events = task.events or events_of(job.definition)
    n = len(job.input_lfns)
    if events < max(1, n):
        raise ConfigError(
            f"{path}: the parameters do not tell --maxEvents; say task.events in a file for --local"
        )
    if not all(is_lfn(lfn) for lfn in job.input_lfns):
        raise ConfigError(f"{path}: an event job cannot read archives")
    shares = [events // n + (i < events % n) for i in range(n)]
    inputs = tuple(
        f"{lfn}:{share}" for lfn, share in zip(sorted(job.input_lfns), shares, strict=True)
    )
    return replace(task, events=events, inputs=inputs)
