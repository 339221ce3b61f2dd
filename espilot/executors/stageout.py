"""Stage-out of a job's outputs: verified here, then on the storage."""

from __future__ import annotations

import random
import stat
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espilot.core.retry import Backoff
from espilot.errors import OutputError, StorageError, StorageFatal, StorageRetryable
from espilot.executors.stagein import facts_of
from espilot.logs import Log
from espilot.ports import Storage

TOO_LARGE, STAGEOUT_FAILED, MISSING, EMPTY, UNUSABLE = 1124, 1137, 1165, 1191, 1303


@dataclass(frozen=True, slots=True)
class CheckedOutput:
    """An output as it was when the payload had ended."""

    lfn: str
    path: Path
    size_bytes: int
    adler32: str


def check_outputs(
    directory: Path, lfns: Sequence[str], *, limit_bytes: int, optional: Collection[str] = ()
) -> list[CheckedOutput]:
    """The declared outputs with size and checksum; `OutputError` names the first that is unusable.

    An optional one that is missing or empty is left out.
    """
    checked = []
    for lfn in lfns:
        path = directory / lfn
        try:
            _require_file(path, lfn, limit_bytes)
            size_bytes, adler32 = facts_of(path)
        except OutputError as error:
            if lfn in optional and error.code in (MISSING, EMPTY):
                continue
            raise
        except OSError as error:
            raise OutputError(f"output {lfn}: {error.strerror}", UNUSABLE) from error
        checked.append(CheckedOutput(lfn, path, size_bytes, adler32))
    return checked


def _require_file(path: Path, lfn: str, limit_bytes: int) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise OutputError(f"output {lfn}: the payload did not make it", MISSING) from None
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"output {lfn}: not a regular file", UNUSABLE)
    if not status.st_size:
        raise OutputError(f"output {lfn}: is empty", EMPTY)
    if status.st_size > limit_bytes:
        text = f"output {lfn}: {status.st_size} bytes are over the limit of {limit_bytes}"
        raise OutputError(text, TOO_LARGE)


class StageOut:
    """Ships outputs, each to the first storage that takes it."""

    def __init__(
        self,
        storages: Mapping[str, Storage],
        backoff: Backoff,
        *,
        log: Log,
        pause: Callable[[float], bool],
    ) -> None:
        self._storages = storages
        self._backoff = backoff
        self._log = log
        self._pause = pause

    def ship(self, output: CheckedOutput, *, endpoint: str = "") -> dict[str, Any]:
        """Put it on a storage; its entry in the output report.

        `endpoint` is the name of the storage that the job asks for. `StorageError`: none takes it.
        """
        named = [name for name in self._storages if name == endpoint]
        last: StorageError | None = None
        for name in dict.fromkeys([*named, *self._storages]):
            try:
                self._put(self._storages[name], output)
            except StorageError as error:
                self._log.warning("upload", "upload failed", name=output.lfn, error=error,
                                  storage=name)  # fmt: skip
                last = error
                continue
            self._log.info("upload", "output on the storage", name=output.lfn,
                           bytes=output.size_bytes, storage=name)  # fmt: skip
            return self._entry(name, output)
        raise last or StorageFatal(f"output {output.lfn}: no storage is known")

    def _put(self, storage: Storage, output: CheckedOutput) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                storage.put(output.path, output.lfn, size_bytes=output.size_bytes,
                            adler32=output.adler32)  # fmt: skip
                return
            except StorageRetryable as error:
                pause_s = self._backoff.next_delay(attempt, random.random())
                if pause_s is None or self._pause(max(pause_s, error.retry_after_s or 0.0)):
                    raise

    def _entry(self, name: str, output: CheckedOutput) -> dict[str, Any]:
        return {
            "guid": str(uuid.uuid4()).upper(),
            "fsize": output.size_bytes,
            "adler32": output.adler32,
            "surl": self._storages[name].url_of(output.lfn),
            "endpoint": name,
        }
