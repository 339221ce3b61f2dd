"""The layout of a recovery directory: what a drained pilot spares, and `espilot recover` takes in.

    RECOVERY_DIR/<PandaID>-<run>/
        job.json             the job, a copy of STATE/job.json (`adapters/state_files.py`)
        run.json             settings and places, a copy of STATE/run.json; `run` in it is <run>,
                             `state` the state directory of origin
        failures.json        the ranges that failed and were not reported, if there are any
        archives/NAME        a sealed archive
        archives/NAME.json   its manifest

A spare is complete when it has its name: it is written as `.<PandaID>-<run>.tmp`, synced, and
renamed. There is no queue in it, so it may lie on a shared file system; what became of each range
is asked of the server when the spare is taken in.
"""

from __future__ import annotations

import re
from pathlib import Path

from espilot.errors import UsageError

JOB, RUN, ARCHIVES, FAILURES = "job.json", "run.json", "archives", "failures.json"
"""Names in a spare, and in a state directory."""
LOCK = "lock"
"""A state directory has it, a spare has not."""

_NAME = re.compile(r"\d+-[0-9a-z]+")


def spare_name(panda_id: int, run: str) -> str:
    """The name of the spare of a job of a run."""
    return f"{panda_id}-{run}"


def temporary_name(name: str) -> str:
    """Its name while it is written."""
    return f".{name}.tmp"


def is_spare(path: Path) -> bool:
    """Whether a directory is a complete spare."""
    if not _NAME.fullmatch(path.name) or (path / LOCK).exists():
        return False
    return all((path / name).is_file() for name in (JOB, RUN)) and (path / ARCHIVES).is_dir()


def find_spares(path: Path) -> list[Path]:
    """The spares at `path`: itself, or those in it, by name. `UsageError` if we may not look."""
    try:
        if is_spare(path):
            return [path]
        if not path.is_dir():
            return []
        return sorted(entry for entry in path.iterdir() if is_spare(entry))
    except OSError as error:
        raise UsageError(f"cannot look into {path}: {error.strerror}") from error
