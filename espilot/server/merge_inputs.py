"""What a merge job merges: the done ranges of its unit, in archives or as loose files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence

from espilot.model import ArchiveFacts
from espilot.server.outputs import output_lfns
from espilot.server.schema import EventStatus
from espilot.wire.mergedef import MergeFacts, MergeInput, name_outputs, premerge_lfn


def collect(db: sqlite3.Connection, job: sqlite3.Row, *, hides_loose: bool) -> MergeFacts:
    """Inputs and members of a merge job; `job` has the merge columns of its task too.

    With `hides_loose` one archive of a job hides all its loose files, as in real servers.
    """
    rows = _done_rows(db, job["jobset_id"])
    names = _NamesByJob(db)
    lfns = output_lfns(db, job)
    streams: dict[str, list[str]] = {lfn: [] for lfn in lfns}
    loose: dict[int, list[str]] = {}
    for row in rows:
        range_id = "-".join(
            str(row[name]) for name in ("task_id", "owner", "file_id", "process_id", "attempt_nr")
        )
        for stream, produced in zip(streams, names.of(row["owner"]), strict=True):
            member = premerge_lfn(produced, range_id)
            streams[stream].append(member)
            if row["tar_lfn"] is None:
                loose.setdefault(row["owner"], []).append(member)
    return MergeFacts(
        inputs=tuple(_inputs(db, rows, loose, hides_loose=hides_loose)),
        members=streams,
        transformation=job["merge_transformation"],
        parameters=name_outputs(
            job["merge_parameters"], dict(zip(json.loads(job["outputs"]), lfns, strict=True))
        ),
    )


def bytes_by_storage(db: sqlite3.Connection, unit_id: int) -> Mapping[int, int]:
    """Bytes of the unit's archives on each storage endpoint."""
    found: dict[int, int] = {}
    for row in db.execute(
        "SELECT DISTINCT archive.* FROM event JOIN archive ON archive.panda_id = event.owner"
        " AND archive.lfn = event.tar_lfn WHERE pool = ? AND status = ?",
        (unit_id, EventStatus.DONE),
    ):
        number = row["storage"].partition("/")[0]
        if number.isascii() and number.isdigit() and len(number) < 19:
            storage_id = int(number)
            found[storage_id] = found.get(storage_id, 0) + max(0, row["size_bytes"] or 0)
    return found


def finished_archives(db: sqlite3.Connection) -> list[ArchiveFacts]:
    """The archives in which finished ranges are, of all tasks, in the order of their names."""
    rows = db.execute(
        "SELECT DISTINCT archive.* FROM event JOIN archive ON archive.panda_id = event.owner"
        " AND archive.lfn = event.tar_lfn WHERE status IN (?, ?, ?) ORDER BY lfn",
        (EventStatus.FINISHED, EventStatus.DONE, EventStatus.MERGED),
    )
    return [
        ArchiveFacts(
            lfn=row["lfn"],
            size_bytes=row["size_bytes"] or 0,
            adler32=row["adler32"],
            storage_id=int(row["storage"].partition("/")[0]),
            events=row["n_events"] or 0,
        )
        for row in rows
    ]


def _done_rows(db: sqlite3.Connection, unit_id: int) -> list[sqlite3.Row]:
    """One row per range, in the order of files and events; of several the newest job's."""
    rows = db.execute(
        "SELECT * FROM event WHERE pool = ? AND status = ? ORDER BY file_id, process_id, owner",
        (unit_id, EventStatus.DONE),
    ).fetchall()
    newest = {(row["file_id"], row["process_id"]): row for row in rows}
    return list(newest.values())


class _NamesByJob:
    """Output names of the producing jobs, looked up once each."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._known: dict[int, tuple[str, ...]] = {}

    def of(self, panda_id: int) -> tuple[str, ...]:
        """Output names of a job."""
        if panda_id not in self._known:
            job = self._db.execute("SELECT * FROM job WHERE panda_id = ?", (panda_id,)).fetchone()
            self._known[panda_id] = output_lfns(self._db, job)
        return self._known[panda_id]


def _inputs(
    db: sqlite3.Connection,
    rows: Sequence[sqlite3.Row],
    loose: Mapping[int, Sequence[str]],
    *,
    hides_loose: bool,
) -> list[MergeInput]:
    """Archives and loose files, each once, in the order of their first range."""
    inputs: dict[str, MergeInput] = {}
    with_archives = {row["owner"] for row in rows if row["tar_lfn"] is not None}
    for row in rows:
        owner, lfn = row["owner"], row["tar_lfn"]
        if lfn is not None and lfn not in inputs:
            inputs[lfn] = _archive(db, owner, lfn)
        elif lfn is None and not (hides_loose and owner in with_archives):
            inputs.update({name: MergeInput(name, "") for name in loose[owner]})
    return list(inputs.values())


def _archive(db: sqlite3.Connection, owner: int, lfn: str) -> MergeInput:
    row = db.execute(
        "SELECT * FROM archive WHERE panda_id = ? AND lfn = ?", (owner, lfn)
    ).fetchone()
    adler32 = row["adler32"] if row["adler32"] != "None" else ""
    return MergeInput(lfn, row["storage"], True, row["size_bytes"], adler32)
