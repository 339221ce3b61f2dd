"""The small files of a state directory: JSON objects that outlive the machine's crash.

Written by temporary name, sync and rename, so a reader finds the old one or the new one, whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from espilot.errors import LocalError
from espilot.model import FailedRange, Job, JobOutcome, LogFate

BOOT_ID_CHARS = 100


def write_object(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object to disk; LocalError when the disk does not take it."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LocalError(f"cannot write {path}: {error.strerror}; free some space there") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is nothing usable."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sync_directory(directory: Path) -> None:
    """Make the names in a directory last."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_job(path: Path, job: Job) -> None:
    """Write the job that the pilot works on."""
    document = {field.name: getattr(job, field.name) for field in fields(job)}
    write_object(path, document | {"definition": dict(job.definition)})


def read_job(path: Path) -> Job | None:
    """The job of a file, or None when there is no usable one."""
    document = read_object(path)
    try:
        for name in ("output_lfns", "input_lfns"):
            document[name] = tuple(str(each) for each in document[name])
        for name in ("panda_id", "jobset_id", "task_id", "attempt_nr", "core_count"):
            document[name] = int(document[name])
        return Job(**document)
    except (KeyError, TypeError, ValueError):
        return None


def write_outcome(path: Path, outcome: JobOutcome) -> None:
    """Write how a normal or merge job ended."""
    write_object(path, asdict(outcome))


def read_outcome(path: Path, job: Job) -> JobOutcome | None:
    """How this attempt of a job ended, or None when that is not known."""
    document = read_object(path)
    try:
        document["corrupted"] = tuple(str(each) for each in document["corrupted"])
        outcome = JobOutcome(**document)
    except (KeyError, TypeError):
        return None
    same = (outcome.panda_id, outcome.attempt_nr) == (job.panda_id, job.attempt_nr)
    return outcome if same else None


def write_log_fate(path: Path, fate: LogFate) -> None:
    """Write what became of a log archive."""
    write_object(path, asdict(fate))


def read_log_fate(path: Path, job: Job) -> LogFate | None:
    """What became of the log archive of this attempt of a job, or None when nothing did yet."""
    try:
        fate = LogFate(**read_object(path))
    except TypeError:
        return None
    same = (fate.panda_id, fate.attempt_nr) == (job.panda_id, job.attempt_nr)
    return fate if same and isinstance(fate.entry, dict) else None


def write_failures(path: Path, panda_id: int, failures: Sequence[FailedRange]) -> None:
    """Write the failures of a job's ranges that the server has not been told."""
    write_object(path, {"panda_id": panda_id, "failures": [asdict(each) for each in failures]})


def read_failures(path: Path, panda_id: int) -> tuple[FailedRange, ...]:
    """The failures of a job in a file; none where it is of another job, or unusable."""
    document = read_object(path)
    if document.get("panda_id") != panda_id:
        return ()
    try:
        return tuple(
            FailedRange(
                id=str(each["id"]),
                fatal=bool(each["fatal"]),
                code=int(each["code"]),
                diag=str(each["diag"]),
            )
            for each in document["failures"]
        )
    except (KeyError, TypeError, ValueError):
        return ()


def read_boot_id(path: Path) -> str:
    """The id of the machine's boot; LocalError when it cannot be told."""
    try:
        with path.open() as file:
            return file.read(BOOT_ID_CHARS).strip()
    except (OSError, ValueError) as error:
        raise LocalError(f"cannot read the boot id in {path}: {error}") from error
