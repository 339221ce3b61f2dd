"""Stage-in: the inputs of a job come to this node, each verified by size and checksum."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from espilot.adapters.disk import file_size, free_bytes
from espilot.adapters.storage.posix import PosixStorage
from espilot.core.retry import Backoff
from espilot.errors import (
    InputError,
    LocalError,
    StorageDiffers,
    StorageError,
    StorageFatal,
    StorageRetryable,
)
from espilot.logs import Log
from espilot.ports import Storage
from espilot.wire.jobfiles import JobInput
from espilot.workers.inputs import Sources

NO_SPACE, STAGEIN_FAILED, MISSING = 1098, 1099, 1103
MD5_DIFFERS, ADLER_DIFFERS = 1145, 1171
_CHUNK_BYTES = 2**20

_Error = StorageError | InputError | LocalError


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that did not come."""

    lfn: str
    text: str
    code: int
    corrupt: bool


class StageIn:
    """Fetches the inputs of one job into a directory. `pause` waits; True from it: stop trying."""

    def __init__(
        self,
        sources: Sources,
        directory: Path,
        backoff: Backoff,
        *,
        parallel: int,
        log: Log,
        pause: Callable[[float], bool],
    ) -> None:
        self._sources = sources
        self._directory = directory
        self._backoff = backoff
        self._parallel = parallel
        self._log = log
        self._pause = pause

    def fetch(self, inputs: Sequence[JobInput]) -> list[Failure]:
        """Bring all of them; returns what did not come. `InputError`: there is no room for them."""
        needed = sum(self._needed_bytes(each) for each in inputs)
        free = free_bytes(self._directory)
        if needed > free:
            text = f"the inputs have {needed} bytes, {free} are free in {self._directory}"
            raise InputError(text, code=NO_SPACE)
        with ThreadPoolExecutor(self._parallel) as pool:
            return [failure for failure in pool.map(self._fetch, inputs) if failure is not None]

    def _needed_bytes(self, wanted: JobInput) -> int:
        """What it will take of the disk: nothing if an earlier try has brought it."""
        size_bytes = wanted.size_bytes or 0
        there = file_size(self._directory / wanted.lfn) == size_bytes
        return 0 if there else size_bytes

    def _fetch(self, wanted: JobInput) -> Failure | None:
        if self._is_there(wanted) or self._took_from_cache(wanted):
            return None
        errors: list[_Error] = []
        for storage in self._sources.of(wanted):
            try:
                self._get(storage, wanted)
            except (StorageError, InputError, LocalError) as failed:
                errors.append(failed)
                self._log.warning("stage-in", "input not fetched", lfn=wanted.lfn, error=failed)
                continue
            self._log.info("stage-in", "input fetched", lfn=wanted.lfn, storage=storage.url)
            self._keep_in_cache(wanted)
            return None
        return _failure_of(wanted, _what_counts(errors, len(self._sources.named(wanted))))

    def _took_from_cache(self, wanted: JobInput) -> bool:
        """Whether an earlier job has left it on this machine."""
        cache, facts = self._sources.cache, _facts_of_cached(wanted, self._sources)
        if cache is None or facts is None:
            return False
        target = self._directory / wanted.lfn
        taken = cache.take(wanted.lfn, target, size_bytes=facts[0], adler32=facts[1])
        if taken:
            self._log.info("stage-in", "input taken from the cache", lfn=wanted.lfn)
        return taken

    def _keep_in_cache(self, wanted: JobInput) -> None:
        cache, facts = self._sources.cache, _facts_of_cached(wanted, self._sources)
        if cache is None or facts is None:
            return
        source = self._directory / wanted.lfn
        if not cache.keep(wanted.lfn, source, size_bytes=facts[0], adler32=facts[1]):
            self._log.warning("stage-in", "input not kept in the cache", lfn=wanted.lfn)

    def _is_there(self, wanted: JobInput) -> bool:
        """Whether an earlier try has brought it."""
        path = self._directory / wanted.lfn
        if wanted.size_bytes is None or not wanted.adler32 or not path.is_file():
            return False
        return facts_of(path) == (wanted.size_bytes, wanted.adler32)

    def _get(self, storage: Storage, wanted: JobInput) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                self._get_once(storage, wanted)
                return
            except StorageRetryable as error:
                pause_s = self._backoff.next_delay(attempt, random.random())
                if pause_s is None:
                    raise
                asked_s = min(error.retry_after_s or 0.0, self._backoff.max_s)
                if self._pause(max(pause_s, asked_s)):
                    # It was not tried to the end: a file that is not there may still come.
                    raise StorageRetryable(str(error)) from error

    def _get_once(self, storage: Storage, wanted: JobInput) -> None:
        target = self._directory / wanted.lfn
        size_bytes, adler32 = self._expected(storage, wanted)
        storage.get(wanted.lfn, target, size_bytes=size_bytes, adler32=adler32)
        if wanted.md5 and md5_of(target) != wanted.md5:
            target.unlink()
            raise InputError(f"input {wanted.lfn}: its md5 differs", corrupt=True, code=MD5_DIFFERS)

    def _expected(self, storage: Storage, wanted: JobInput) -> tuple[int, str]:
        """Size and adler32; of a file on this machine what the job does not tell."""
        if wanted.size_bytes is not None and wanted.adler32:
            return wanted.size_bytes, wanted.adler32
        if not isinstance(storage, PosixStorage):
            raise InputError(
                f"input {wanted.lfn}: size and adler32 are not known, so it cannot be verified"
            )
        try:
            size_bytes, adler32 = facts_of(storage.directory / wanted.lfn)
        except OSError as error:
            raise StorageDiffers(f"input {wanted.lfn}: {storage.url}: {error.strerror}") from error
        if wanted.size_bytes not in (None, size_bytes) or wanted.adler32 not in ("", adler32):
            raise StorageDiffers(f"input {wanted.lfn}: {storage.url} has another file of that name")
        return size_bytes, adler32


def _facts_of_cached(wanted: JobInput, sources: Sources) -> tuple[int, str] | None:
    """Size and adler32 of an input that a cache may have: known, and not a file of this machine."""
    if wanted.lfn in sources.local or wanted.size_bytes is None or not wanted.adler32:
        return None
    return wanted.size_bytes, wanted.adler32


def facts_of(path: Path) -> tuple[int, str]:
    """Size and adler32 of a file."""
    size_bytes, adler = 0, 1
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            adler = zlib.adler32(piece, adler)
            size_bytes += len(piece)
    return size_bytes, f"{adler:08x}"


def md5_of(path: Path) -> str:
    """The md5 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _what_counts(errors: Sequence[_Error], named: int) -> _Error | None:
    """Of the errors of all storages, the `named` ones first. That an input is not there, or is
    another, counts only when all of those said so that should have it."""
    asked = errors[:named] or errors
    return next((each for each in asked if not _differs(each)), asked[0] if asked else None)


def _differs(error: _Error) -> bool:
    return isinstance(error, StorageDiffers) or (isinstance(error, InputError) and error.corrupt)


def _failure_of(wanted: JobInput, error: _Error | None) -> Failure:
    if isinstance(error, InputError):
        return Failure(wanted.lfn, str(error), error.code, error.corrupt)
    if isinstance(error, StorageDiffers):
        known = wanted.adler32 or wanted.size_bytes is not None
        return Failure(wanted.lfn, str(error), ADLER_DIFFERS if known else MISSING, True)
    if isinstance(error, StorageFatal | StorageRetryable | LocalError):
        return Failure(wanted.lfn, str(error), STAGEIN_FAILED, False)
    return Failure(wanted.lfn, f"input {wanted.lfn}: no storage is known", STAGEIN_FAILED, False)
