"""The stage-out worker: packs outputs into archives, ships them, deletes what is reported."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from espilot.adapters.archive import (
    Member,
    Sealed,
    archive_name,
    manifest_path,
    member_of,
    remove_debris,
    seal,
)
from espilot.adapters.outputs import OutputInspector, remove
from espilot.core.pace import Rate
from espilot.core.pressure import Pressure
from espilot.core.retry import Backoff
from espilot.core.storage_choice import Route, StorageChoice
from espilot.core.storage_trouble import (
    StageoutFailed,
    StageoutSucceeded,
    State,
    StorageTrouble,
    TimePassed,
)
from espilot.errors import (
    EspilotError,
    OutputError,
    StorageDiffers,
    StorageFatal,
    StorageRetryable,
)
from espilot.histogram import CALLS_S, Histogram
from espilot.model import Archive, ArchiveState, DoneRange, Job
from espilot.pipeline.packing import Packing, ends, flush_wanted
from espilot.wire.messages import Ship, StorageHealth
from espilot.workers.calls import Calls
from espilot.workers.child import Child
from espilot.workers.event_log import EventLog
from espilot.workers.storages import open_storages
from espilot.workers.telling import tell_dropped, tell_packed, tell_staged

LOCAL_PAUSE_S = 5.0
"""Pause after this node could not write an archive."""


@dataclass(slots=True)
class Upload:
    """One archive on its way: the tries of this stage-out, and when the next may start."""

    route: Route = field(default_factory=Route)
    endpoint: str = ""
    busy: bool = False
    not_before: float = 0.0


class StageoutWorker:
    """Looks at the queue and starts what is due: one seal at a time, a few uploads."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._config = child.settings.stageout
        self.calls = Calls(child.loop, threads=self._config.parallel + 2)
        self.storages = open_storages(child.settings, child.context.storage, child.context.jobdir)
        self._choice = StorageChoice(
            tuple(self.storages),
            Backoff.between(
                self._config.retry_min_s, self._config.retry_max_s, attempts=self._config.attempts
            ),
            limit=self._config.circuit_failures,
            open_s=self._config.circuit_open_s,
        )
        self._upload_times = Histogram(CALLS_S)
        self._rest: set[Path] = set()
        self._directory = child.context.archives
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._inspector = OutputInspector(
            child.context.workdir,
            child.context.private,
            child.settings.payload.output_limit_bytes,
        )
        self._packing = Packing(child.queue, child.settings.packing)
        self._sealing = self._hastened = False
        self._seal_not_before = 0.0
        self._pressure = Pressure(self._config.waiting_bytes)
        self._told = "ok"
        self._uploads: dict[str, Upload] = {}
        self._trouble = StorageTrouble(
            give_up_after=self._config.give_up_after, storage_wait_s=self._config.storage_wait_s
        )
        self.logs = EventLog(child, self.calls)
        self._remove_debris()
        self._pack_rate, self._upload_rate = Rate(), Rate()
        child.on(Ship, self._hasten)
        child.on_bell(self.look)

    def look(self) -> None:
        """Start what is due."""
        record = self.child.queue.job()
        if record is not None and record.unasked:
            return  # its archives may be nobody's any more
        self._packing.refresh()
        self._pack(*self._weigh())
        self._upload()
        self._clean()
        self._handle_trouble(TimePassed())
        self.logs.look(record, hurried=self._hastened, healthy=self._told == "ok")

    def _weigh(self) -> tuple[int, bool]:
        """Bytes of the archives that wait for the storage; whether what waits is too much."""
        archives = self.child.queue.archives()
        held_bytes = sum(archive.size_bytes for archive in archives) + self._packing.size_bytes
        self._pressure.observe(held_bytes)
        packed = [a.size_bytes for a in archives if a.state is ArchiveState.PACKED]
        self.child.facts["backlog_bytes"] = sum(packed) + self._packing.size_bytes
        return sum(packed), not self._pressure.is_open

    def _hasten(self, ship: Ship) -> None:
        self._packing.hasten(ship.max_age_s)
        self._hastened = True
        self.look()

    def _measure(self, rate: Rate, size_bytes: int, began: float) -> None:
        """Note how long a transfer took, for those who plan."""
        rate.add(size_bytes, time.monotonic() - began)
        self.child.facts["pack_rate"] = self._pack_rate.value
        self.child.facts["upload_rate"] = self._upload_rate.value

    # -- packing --------------------------------------------------------------------------------

    def _pack(self, waiting_bytes: int, pressed: bool) -> None:
        if self._sealing or time.monotonic() < self._seal_not_before:
            return
        counts, phase = self.child.queue.counts(), self.child.queue.phase()
        over = self._hastened or ends(counts, phase)
        if not over and self._pressure.packing_waits(waiting_bytes):
            return
        bound = self.child.settings.limits.live_ranges
        flush = pressed or flush_wanted(counts, phase, bound)
        plan = self._packing.choose(now=time.time(), flush=flush)
        record = self.child.queue.job()
        if not plan.ids or record is None:
            # An archive that age will force is found by the beat, at most a second late.
            return
        rows = self._packing.rows(plan.ids)
        self._sealing = True
        self.calls.start(
            lambda: self._seal(record.job, rows),
            then=partial(self._sealed, time.monotonic()),
            failed=self._not_sealed,
        )

    def _seal(self, job: Job, rows: list[DoneRange]) -> Sealed:
        members: list[Member] = []
        unnamed: list[tuple[str, OutputError]] = []
        for row in rows:
            try:
                members.append(member_of(row, job.output_lfns))
            except OutputError as error:
                unnamed.append((row.id, error))
        sealed = seal(
            self._directory,
            archive_name(job.panda_id, rows[0].id, time.time()),
            members,
            job_id=job.panda_id,
            open_output=self._inspector.open_checked,
        )
        return Sealed(sealed.archive, (*sealed.dropped, *unnamed))

    def _sealed(self, began: float, sealed: Sealed) -> None:
        self._sealing = False
        archive, log = sealed.archive, self.child.log
        packed = self._packing.book(archive, sealed.dropped, now=time.time())
        for range_id, error in sealed.dropped:
            log.warning("pack", "output lost before packing", range=range_id, error=error)
            tell_dropped(self.child.story, range_id, error)
        if sealed.dropped:
            self.child.ring("event-server")
        if archive is not None:
            tell_packed(self.child.story, archive, packed)
            self.child.queue.sync()
            self._measure(self._pack_rate, archive.size_bytes, began)
            log.info("pack", "archive sealed", name=archive.name, ranges=len(archive.ids),
                     bytes=archive.size_bytes)  # fmt: skip
            self.calls.start(
                lambda: remove_outputs(packed), then=lambda _: None, failed=self._not_deleted
            )
        self.look()

    def _not_sealed(self, error: EspilotError) -> None:
        self._sealing = False
        self._seal_not_before = time.monotonic() + LOCAL_PAUSE_S
        self.child.log.error("pack", "archive not sealed", error=error, retry_in_s=LOCAL_PAUSE_S)

    def _not_deleted(self, error: EspilotError) -> None:
        self.child.log.warning("delete", "packed outputs not deleted", error=error)

    # -- uploads --------------------------------------------------------------------------------

    def _upload(self) -> None:
        now = time.monotonic()
        room = self._config.parallel - sum(u.busy for u in self._uploads.values())
        for archive in self.child.queue.archives(ArchiveState.PACKED):
            upload = self._uploads.setdefault(archive.name, Upload())
            if room > 0 and not upload.busy and now >= upload.not_before:
                room -= 1
                upload.busy = True
                upload.endpoint = endpoint = self._choice.choose(upload.route, now)
                self.calls.start(
                    partial(self._put, archive, endpoint),
                    then=partial(self._uploaded, archive, now),
                    failed=partial(self._not_uploaded, archive),
                )

    def _put(self, archive: Archive, endpoint: str) -> None:
        self.storages[endpoint].put(
            self._directory / archive.name,
            archive.name,
            size_bytes=archive.size_bytes,
            adler32=archive.adler32,
            crc32=archive.crc32,
        )

    def _uploaded(self, archive: Archive, began: float, _: None) -> None:
        endpoint = self._uploads.pop(archive.name).endpoint
        self._choice.succeeded(endpoint)
        self._tally(endpoint, size_bytes=archive.size_bytes)
        self._upload_times.add(time.monotonic() - began)
        self.child.facts["upload_times"] = self._upload_times.facts()
        storage_id = self.storages[endpoint].storage_id
        self._measure(self._upload_rate, archive.size_bytes, began)
        with self.child.queue.moves() as moves:
            moves.staged(archive.name, storage_id=storage_id)
        tell_staged(self.child.story, archive, endpoint, storage_id)
        self.child.log.info("upload", "archive on the storage", name=archive.name,
                            bytes=archive.size_bytes, storage=endpoint)  # fmt: skip
        self._handle_trouble(StageoutSucceeded())
        self.child.ring("event-server")
        self.look()

    def _not_uploaded(self, archive: Archive, error: EspilotError) -> None:
        upload = self._uploads[archive.name]
        upload.busy, endpoint = False, upload.endpoint
        self._tally(endpoint, failure=kind_of(error))
        now = time.monotonic()
        wanted_s = error.retry_after_s if isinstance(error, StorageRetryable) else None
        following = self._choice.failed(
            upload.route,
            endpoint,
            hopeless=isinstance(error, StorageFatal),
            now=now,
            chance=random.random(),
            wanted_s=wanted_s or 0.0,
        )
        self.child.log.warning("upload", "upload failed", name=archive.name, error=error,
                               storage=endpoint, retry_in_s=following.wait_s)  # fmt: skip
        upload.not_before = now + following.wait_s
        self.child.loop.call_later(following.wait_s, self.look)
        if following.failed:
            self._handle_trouble(StageoutFailed(), str(error))

    def _tally(self, endpoint: str, *, size_bytes: int = 0, failure: str = "") -> None:
        """Note what went to an endpoint, or that it failed, for metrics."""
        uploads = self.child.facts.setdefault("uploads", {})
        each = uploads.setdefault(endpoint, {"bytes": 0, "archives": 0, "failures": {}})
        each["bytes"] += size_bytes
        if failure:
            each["failures"][failure] = each["failures"].get(failure, 0) + 1
            return
        each["archives"] += 1
        if endpoint != next(iter(self.storages)):
            self.child.facts["failovers"] = self.child.facts.get("failovers", 0) + 1

    def _handle_trouble(
        self, event: StageoutSucceeded | StageoutFailed | TimePassed, reason: str = ""
    ) -> None:
        self._trouble.handle(event, time.monotonic())
        sick = self._trouble.state is not State.OK
        state = self._trouble.state.value
        if not sick and not self._pressure.is_open:
            state, reason = "behind", self._pressure.reason
        if state != self._told:
            self._told = state
            self.child.log.warning("storage", "storage health changed", state=state, reason=reason)
            self.child.facts["trouble"] = int(sick)
            self.child.send(StorageHealth(state, reason))

    # -- deleting -------------------------------------------------------------------------------

    def _clean(self) -> None:
        """The server knows: tar and manifest may go."""
        for archive in self.child.queue.archives(ArchiveState.REPORTED):
            path = self._directory / archive.name
            try:
                for file in (path, manifest_path(path)):
                    file.unlink(missing_ok=True)
            except OSError as error:
                self._complain_of_rest(path, error)
                continue
            with self.child.queue.moves() as moves:
                moves.forget_archive(archive.name)

    def _complain_of_rest(self, path: Path, error: OSError) -> None:
        """Once for each: it is tried again at each look."""
        if path not in self._rest:
            self._rest.add(path)
            self.child.log.warning("delete", "reported archive not deleted",
                                   name=path.name, error=error.strerror)  # fmt: skip

    def _remove_debris(self) -> None:
        known = {archive.name for archive in self.child.queue.archives()}
        removed = remove_debris(self._directory, known)
        if removed:
            self.child.log.info("delete", "debris of an unfinished archive removed",
                                names=",".join(removed))  # fmt: skip


def kind_of(error: EspilotError) -> str:
    """What kind of failure an upload had, in a few words."""
    kinds = {StorageDiffers: "differs", StorageRetryable: "temporary", StorageFatal: "refused"}
    return next((word for kind, word in kinds.items() if isinstance(error, kind)), "local")


def remove_outputs(rows: list[DoneRange]) -> None:
    """Delete the outputs of packed ranges, where they are still the same files."""
    for row in rows:
        for output in row.outputs:
            remove(output)


def serve(child: Child) -> None:
    """Be the stage-out worker."""
    worker = StageoutWorker(child)
    child.run()
    worker.calls.close()
    worker.logs.close()
    for storage in worker.storages.values():
        storage.close()
