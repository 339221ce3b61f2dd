"""Spares what the storage did not take: archives, job and run go to the recovery directory.

The layout is in `recovery_layout.py`. It is done when all roles have ended, so nothing changes
meanwhile. What is here stays here too: whoever ships an archive first, its bytes and its name are
the same.
"""

from __future__ import annotations

import os
from pathlib import Path

from espilot.adapters.archive import manifest_path
from espilot.adapters.copies import copy_to_disk
from espilot.adapters.disk import remove_path
from espilot.adapters.state_files import sync_directory, write_failures
from espilot.errors import LocalError
from espilot.model import Archive, ArchiveState
from espilot.queue.store import Queue
from espilot.supervisor import recovery_layout as layout
from espilot.supervisor.resume import read_run
from espilot.workers.context import Context

OPEN = (ArchiveState.PACKED, ArchiveState.STAGED)
"""Archives that the server has not been told of."""


def spare(context: Context, queue: Queue) -> Path | None:
    """Copy all that is needed to ship and report the archives, and to report failures; where to.

    None if there is nothing of either.

    `LocalError` says what could not be written; what was begun is removed again.
    """
    record = queue.job()
    archives = [each for each in queue.archives() if each.state in OPEN]
    failures = queue.failures()
    if record is None or not (archives or failures):
        return None
    run = str(read_run(context.state).get("run", "0"))
    name = layout.spare_name(record.job.panda_id, run)
    place = Path(context.settings.recovery_dir)
    temporary, target = place / layout.temporary_name(name), place / name
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_path(temporary)
        write_spare(context, archives, temporary)
        if failures:
            write_failures(temporary / layout.FAILURES, record.job.panda_id, failures)
        replace_directory(temporary, target)
        sync_directory(place)
    except OSError as error:
        remove_path(temporary)
        raise LocalError(
            f"archives not spared to {target}: {error.strerror or error}; they stay in "
            f"{context.archives}"
        ) from error
    return target


def write_spare(context: Context, archives: list[Archive], directory: Path) -> None:
    """Write a spare's files, each through to the disk."""
    (directory / layout.ARCHIVES).mkdir(mode=0o700, parents=True)
    for archive in archives:
        source = context.archives / archive.name
        for file in (source, manifest_path(source)):
            copy_to_disk(file, directory / layout.ARCHIVES / file.name)
    for name in (layout.JOB, layout.RUN):
        copy_to_disk(context.state / name, directory / name)
    for made in (directory / layout.ARCHIVES, directory):
        sync_directory(made)


def replace_directory(temporary: Path, target: Path) -> None:
    """Give a complete spare its name; an older one of the same job and run makes room."""
    if target.exists():
        older = temporary.with_suffix(".old")
        remove_path(older)
        os.rename(target, older)
        os.rename(temporary, target)
        remove_path(older)
    else:
        os.rename(temporary, target)
