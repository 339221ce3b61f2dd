"""The logs of an event job on their way out, beside its outputs and never before them.

* At the end of the job, when every range is reported, the log archive is packed and shipped; what
  became of it is written to `STATE/log.json`, for the final update and for whoever comes after us.
* While the job runs, an archive of the newest logs is shipped at intervals to endpoints with the
  activity `pls`, where there are any: always under the same name, gone when the job's end is safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from espilot.adapters.state_files import read_log_fate, write_log_fate
from espilot.core.job import Phase
from espilot.errors import EspilotError, StorageError
from espilot.model import Job, JobRecord, LogFate
from espilot.ports import Storage
from espilot.workers.calls import Calls
from espilot.workers.child import Child
from espilot.workers.job_log import (
    MEANWHILE,
    epoch_before,
    log_wanted,
    pack_job_log,
    payload_directories,
    ship_job_log,
)
from espilot.workers.storages import storages_of

MEANWHILE_BYTES = 8 * 2**20
"""Of the logs while the job runs, and of all when it ends in haste."""
AGAIN_S = 5.0
"""Pause after it could not be written down what became of the log archive."""
LONGEST_NAME = 255


class EventLog:
    """At most one archive at a time; `look` starts what is due."""

    def __init__(self, child: Child, calls: Calls) -> None:
        self._child = child
        self._calls = calls
        self._every_s = child.settings.stageout.logs_every_s
        self._meanwhile: dict[str, Storage] = {}
        if self._every_s:
            self._meanwhile = storages_of(child.settings, child.context.jobdir, MEANWHILE)
        self._busy = False
        self._known: tuple[int, int] | None = None
        self._not_before = 0.0
        self._next = time.monotonic() + self._every_s

    def look(self, record: JobRecord | None, *, hurried: bool, healthy: bool) -> None:
        """Start what is due; in a hurry, or while a storage is sick, only what must be."""
        now = time.monotonic()
        if self._busy or now < self._not_before or record is None:
            return
        job = record.job
        if not log_wanted(self._child.context, job):
            return
        if record.phase == Phase.ENDING:
            if self._known != (job.panda_id, job.attempt_nr):
                self._begin_final(record, hurried=hurried)
        elif self._meanwhile and not hurried and healthy and now >= self._next:
            self._next = now + self._every_s
            self._start(lambda: self._ship_meanwhile(record), lambda job: None)

    def close(self) -> None:
        """Close the connections."""
        for storage in self._meanwhile.values():
            storage.close()

    def _begin_final(self, record: JobRecord, *, hurried: bool) -> None:
        file = self._child.context.log_fate_file
        if read_log_fate(file, record.job) is not None:
            self._ended(record.job)
            return
        whole_bytes = self._child.settings.stageout.log_bytes
        limit_bytes = min(whole_bytes, MEANWHILE_BYTES) if hurried else whole_bytes
        self._start(lambda: self._ship(record, limit_bytes), self._ended)

    def _start(self, call: Callable[[], Job], then: Callable[[Job], None]) -> None:
        self._busy = True

        def ended(job: Job) -> None:
            self._busy = False
            then(job)

        self._calls.start(call, then=ended, failed=self._failed)

    def _failed(self, error: EspilotError) -> None:
        self._busy = False
        self._not_before = time.monotonic() + AGAIN_S
        self._child.log.warning("upload", "logs not shipped", error=error)

    def _ended(self, job: Job) -> None:
        self._known = (job.panda_id, job.attempt_nr)
        self._child.ring("event-server")

    # -- in a thread ----------------------------------------------------------------------------

    def _ship(self, record: JobRecord, limit_bytes: int) -> Job:
        """Ship the log archive, and write down what became of it."""
        job, context, log = record.job, self._child.context, self._child.log
        directories = payload_directories(context, epoch_before(record))
        try:
            entry = ship_job_log(context, job, directories, log, limit_bytes=limit_bytes)
            fate = LogFate(job.panda_id, job.attempt_nr, entry)
        except EspilotError as error:
            log.error("upload", "the log archive is not shipped", error=error)
            fate = LogFate(job.panda_id, job.attempt_nr, lost=str(error))
        write_log_fate(context.log_fate_file, fate)
        if fate.entry:
            self._remove_meanwhile(job)
        return job

    def _ship_meanwhile(self, record: JobRecord) -> Job:
        job, context = record.job, self._child.context
        name = _name_meanwhile(job)
        directories = payload_directories(context, epoch_before(record))
        packed = pack_job_log(context, job, directories, name=name, limit_bytes=MEANWHILE_BYTES)
        try:
            for endpoint, storage in self._meanwhile.items():
                storage.put(packed.path, name, size_bytes=packed.size_bytes, adler32=packed.adler32)
                self._child.log.info("upload", "logs so far shipped", name=name,
                                     bytes=packed.size_bytes, storage=endpoint)  # fmt: skip
        finally:
            packed.path.unlink(missing_ok=True)
        return job

    def _remove_meanwhile(self, job: Job) -> None:
        for endpoint, storage in self._meanwhile.items():
            try:
                storage.delete(_name_meanwhile(job))
            except StorageError as error:
                self._child.log.warning("upload", "logs of the running job not removed",
                                        storage=endpoint, error=error)  # fmt: skip


def _name_meanwhile(job: Job) -> str:
    end = ".running"
    return job.log_lfn[: LONGEST_NAME - len(end)] + end
