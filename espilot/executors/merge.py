"""What a merge job does before its payload runs: archives are unpacked, lists written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from espilot.adapters.archive import Allowance, unpack
from espilot.config import StageinConfig
from espilot.errors import InputError, LocalError
from espilot.executors.stagein import ADLER_DIFFERS, MISSING, Failure
from espilot.logs import Log
from espilot.wire.jobfiles import JobInput, read_member_lists, replace_lists

_ONLY_FOR_SERVERS = "--autoConfiguration=everything"
"""Merging transformations do not take it; other pilots leave it out as well."""


def unpack_archives(
    inputs: Sequence[JobInput], directory: Path, config: StageinConfig, log: Log
) -> list[Failure]:
    """Unpack what was fetched, and remove the archives; returns those that cannot be used."""
    allowance = Allowance(config.archive_bytes, config.archive_files)
    failures = []
    for archive in (each for each in inputs if each.is_archive):
        path = directory / archive.lfn
        try:
            names = unpack(path, directory, allowance)
        except InputError as error:
            log.warning("unpack", "archive not unpacked", name=archive.lfn, error=error)
            code = ADLER_DIFFERS if error.corrupt else error.code
            failures.append(Failure(archive.lfn, str(error), code, error.corrupt))
            continue
        log.info("unpack", "archive unpacked", name=archive.lfn, files=len(names))
        path.unlink()
    return failures


def missing_members(
    definition: Mapping[str, Any], inputs: Sequence[JobInput], directory: Path
) -> list[Failure]:
    """Archives that lack what they should hold: those of the jobs that made what is missing."""
    lists = read_member_lists(definition)
    missing = [
        name for names in lists.values() for name in names if not (directory / name).is_file()
    ]
    return [
        Failure(lfn, f"{lfn}: {name} is missing", MISSING, True)
        for name in missing
        for lfn in _holders(name, inputs)
    ]


def _holders(member: str, inputs: Sequence[JobInput]) -> Collection[str]:
    """Where a member should be: a loose file, or an archive of the job in its range id."""
    job_id = member.rpartition(".")[2].split("-")[1:2]
    archives = [each.lfn for each in inputs if each.is_archive]
    mine = [lfn for lfn in archives if job_id and f"_{job_id[0]}_" in lfn]
    loose = [each.lfn for each in inputs if each.lfn == member]
    return loose or mine or archives or [member]


def write_lists(
    definition: Mapping[str, Any], arguments: Sequence[str], directory: Path
) -> list[str]:
    """Write the lists of `writeToFile`; the arguments, with the lists' files in them.

    Each file has the option in its first line, then one path a line.
    """
    lists = read_member_lists(definition)
    kept = [each for each in arguments if each != _ONLY_FOR_SERVERS]
    replaced, options = replace_lists(kept, {name: f"{name}.txt" for name in lists})
    for name, members in lists.items():
        option = options.get(name)
        lines = [*([option] if option else []), *members]
        try:
            (directory / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        except OSError as error:
            raise LocalError(f"cannot write {directory / name}.txt: {error.strerror}") from error
    return replaced
