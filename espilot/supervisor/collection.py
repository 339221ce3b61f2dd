"""The outputs of a finished task as plain files: what the server lists, fetched and unpacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from espilot.adapters.archive.unpack import Allowance, unpack
from espilot.adapters.disk import remove_path
from espilot.errors import LocalError
from espilot.model import ArchiveFacts
from espilot.ports import Storage

_ANY = 2**62


def collect(
    archives: Iterable[ArchiveFacts], storages: Mapping[int, Storage], directory: Path
) -> int:
    """Fetch, verify and unpack archives into a directory; how many files they had.

    A file appears when it is whole; doing it again is harmless. `storages` are by id. Errors:
    `StorageError`, `InputError`, `LocalError`.
    """
    files = 0
    scratch = directory / ".unpacking"
    try:
        for facts in archives:
            remove_path(scratch)
            scratch.mkdir(parents=True)
            files += _collect_one(facts, storages, scratch, directory)
    except OSError as error:
        raise LocalError(f"cannot unpack into {directory}: {error.strerror}") from error
    finally:
        remove_path(scratch)
    return files


def _collect_one(
    facts: ArchiveFacts, storages: Mapping[int, Storage], scratch: Path, directory: Path
) -> int:
    storage = storages.get(facts.storage_id)
    if storage is None:
        raise LocalError(f"{facts.lfn} is on the storage {facts.storage_id}, which has no endpoint")
    archive = scratch / ".archive"
    storage.get(facts.lfn, archive, size_bytes=facts.size_bytes, adler32=facts.adler32)
    names = unpack(archive, scratch, Allowance(_ANY, _ANY))
    for name in names:
        (scratch / name).replace(directory / name)
    return len(names)
