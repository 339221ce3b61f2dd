"""The event-status dump: placed whole, never over an unread one, kept until Harvester has it.

Harvester renames the dump to `.read`, books it, and renames it to `.read.TIME`. A dump that is gone
without that last name was thrown away. What was placed is written down in the state directory
first, so whoever comes after us knows what to look for; and of a booked dump it is kept which
ranges we have not been asked about since, or only just: they must not be said again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from espilot.adapters.harvester.directory import SharedDirectory
from espilot.adapters.harvester.notes import Note
from espilot.model import Job, ReportAnswer, ReportBatch
from espilot.wire.harvester import (
    ES_OUTPUT,
    READ,
    ZIP_OUTPUT,
    DumpEntry,
    FileFacts,
    FileNames,
    write_dump,
)

PENDING = ReportAnswer(None, pending=True)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where outputs are on the shared file system, and what is in an archive.

    `members_of` gives the files of each range of an archive as (name, size, adler32). With `single`
    they lie there each on their own, where every range has one; else the archive does.
    """

    directory: Path
    single: bool
    members_of: Callable[[str], Mapping[str, Sequence[tuple[str, int, str]]]]


class Fate(Enum):
    """What became of a dump."""

    WAITING = "waiting"
    """It was not read, or not booked yet."""
    ACCEPTED = "accepted"
    """Harvester has booked it."""
    LOST = "lost"
    """It is gone, and was not booked."""


class Reports:
    """One dump under way at a time. Not for use by two threads at once."""

    def __init__(
        self, place: SharedDirectory, names: FileNames, note: Note, outputs: Outputs, lost_s: float
    ) -> None:
        self._place = place
        self._names = names
        self._note = note
        self._outputs = outputs
        self._lost_s = lost_s
        self._seen: set[str] = set()
        self._vanished_at: float | None = None
        self._told: set[str] = set()
        self._settled: set[str] = set()

    def tell(self, job: Job, batches: Sequence[ReportBatch]) -> ReportAnswer:
        """Report ranges; ask again with the same ones while the answer is pending."""
        placed = self._note.read()
        fate = self._fate_of(placed) if placed else Fate.ACCEPTED
        booked = set(placed.get("held", ()))
        if fate is Fate.ACCEPTED:
            booked.update(placed.get("ids", ()))
        told = tuple(r.id in booked or None for batch in batches for r in batch.ranges)
        if any(told):
            self._told.update(r.id for batch in batches for r in batch.ranges if r.id in booked)
            return ReportAnswer(told)
        if fate is Fate.LOST:
            self._put(placed)
        elif fate is Fate.ACCEPTED and not self._is_busy():
            self._tell_anew(job, batches, booked - self._settled)
        return PENDING

    def forget(self) -> None:
        """The job is over, all of it is booked."""
        self._note.write({})
        self._told, self._settled = set(), set()

    def _tell_anew(self, job: Job, batches: Sequence[ReportBatch], held: set[str]) -> None:
        entries = list(self._entries(batches))
        note = {
            "data": write_dump(job, entries).decode(),
            "ids": [entry.id for entry in entries],
            "accepted": False,
            "held": sorted(held),
        }
        self._note.write(note)
        # What was told since the former dump may not be in the queue yet: who reports goes on with
        # the rest before that. When the next dump is made it is.
        self._told, self._settled = set(), self._told
        self._put(note)

    def _put(self, note: Mapping[str, Any]) -> None:
        self._vanished_at = None
        self._place.place(self._names.dump, note["data"].encode())

    def _fate_of(self, placed: dict[str, Any]) -> Fate:
        if placed["accepted"]:
            return Fate.ACCEPTED
        # In the order of its names, so that a rename between two looks is not missed.
        if self._is_busy():
            self._vanished_at = None
            return Fate.WAITING
        if self._was_booked(placed["data"].encode()):
            placed["accepted"] = True
            self._note.write(placed)
            return Fate.ACCEPTED
        # A network file system may show the new name late.
        now = time.monotonic()
        self._vanished_at = now if self._vanished_at is None else self._vanished_at
        return Fate.LOST if now - self._vanished_at >= self._lost_s else Fate.WAITING

    def _is_busy(self) -> bool:
        return self._place.has(self._names.dump) or self._place.has(self._names.dump_read)

    def _was_booked(self, data: bytes) -> bool:
        """Whether a dump with this content was acknowledged; each one is looked at once."""
        prefix = f"{self._names.dump}{READ}."
        for name in reversed(self._place.names(prefix)):
            if name not in self._seen:
                if self._place.read(name) == data:
                    return True
                self._seen.add(name)
        return False

    def _entries(self, batches: Sequence[ReportBatch]) -> Iterator[DumpEntry]:
        for batch in batches:
            if batch.archive is None:
                yield from (DumpEntry(report.id, report.status) for report in batch.ranges)
                continue
            files = self._files_of(batch)
            yield from (DumpEntry(r.id, r.status, files[r.id]) for r in batch.ranges)

    def _files_of(self, batch: ReportBatch) -> Mapping[str, FileFacts]:
        """The file of each range: its own, or the archive."""
        archive = batch.archive
        assert archive is not None
        members = self._outputs.members_of(archive.lfn) if self._outputs.single else {}
        if members and all(len(files) == 1 for files in members.values()):
            return {
                range_id: FileFacts(ES_OUTPUT, str(self._outputs.directory / name), size, adler32)
                for range_id, ((name, size, adler32),) in members.items()
            }
        path = str(self._outputs.directory / archive.lfn)
        whole = FileFacts(ZIP_OUTPUT, path, archive.size_bytes, archive.adler32)
        return {report.id: whole for report in batch.ranges}
