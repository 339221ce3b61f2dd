"""Single files on their way to a storage: outputs of jobs without ranges, and log archives."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espilot.core.retry import Backoff
from espilot.errors import StorageError, StorageFatal, StorageRetryable
from espilot.logs import Log
from espilot.ports import Storage
from espilot.workers.context import Context
from espilot.workers.storages import storages_for

STAGEOUT_FAILED = 1137


@dataclass(frozen=True, slots=True)
class CheckedOutput:
    """An output as it was when the payload had ended."""

    lfn: str
    path: Path
    size_bytes: int
    adler32: str


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
                asked_s = min(error.retry_after_s or 0.0, self._backoff.max_s)
                if pause_s is None or self._pause(max(pause_s, asked_s)):
                    raise

    def _entry(self, name: str, output: CheckedOutput) -> dict[str, Any]:
        return {
            "guid": str(uuid.uuid4()).upper(),
            "fsize": output.size_bytes,
            "adler32": output.adler32,
            "surl": self._storages[name].url_of(output.lfn),
            "endpoint": name,
        }


def shipping_of(context: Context, activity: str, log: Log) -> StageOut:
    """The stage-out for an activity (`pw`, `pl`), as the settings want it."""
    storages = storages_for(context.settings, context.storage, context.jobdir, activity)
    config = context.settings.stageout
    backoff = Backoff.between(config.retry_min_s, config.retry_max_s, attempts=config.attempts)
    return StageOut(storages, backoff, log=log, pause=wait_out)


def wait_out(pause_s: float) -> bool:
    """Wait between two tries of an upload, whatever else happens; False: go on trying."""
    threading.Event().wait(pause_s)
    return False
