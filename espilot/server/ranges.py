"""Event ranges: handing them out, booking their fate, telling their status."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from espilot.errors import EspilotError, MessageError
from espilot.server import tally
from espilot.server.jobs import GONE
from espilot.server.options import Quirks
from espilot.server.schema import DRAWING_STATES, PROCESSING_STATES, EventStatus, Kind
from espilot.wire.panda_reports import (
    DIAG_LIMIT,
    FINAL_STATUSES,
    IGNORED_STATUSES,
    RangeId,
    RangeUpdate,
    read_range_id,
)

_HERE = (
    " WHERE task_id = ? AND file_id = ? AND process_id = ? AND attempt_nr = ? AND owner = ?"
    " AND status IN (1, 2) RETURNING last_event - start_event + 1"
)
_BOOK = {
    "finished": "UPDATE event SET status = 3, error_code = ?, error_diag = ?, tar_lfn = ?",
    "failed": "UPDATE event SET status = 7, error_code = ?, error_diag = ?, tar_lfn = ?",
    "fatal": "UPDATE event SET status = 7, error_code = ?, error_diag = ?, tar_lfn = ?,"
    " attempt_nr = 1, fatal = 1",
}


class BatchAborted(EspilotError):
    """An item that the database cannot take: the whole batch is undone.

    `entries` are the answers gathered before it.
    """

    def __init__(self, text: str, entries: Sequence[bool | None], commands: Mapping[str, Any]):
        super().__init__(text)
        self.entries = entries
        self.commands = commands


def acquire(
    db: sqlite3.Connection, wanted: Mapping[str, Any], quirks: Quirks
) -> list[dict[str, Any]]:
    """Up to `n_ranges` ready ranges of the job's pool, now the job's; none for an inactive job."""
    job = db.execute("SELECT * FROM job WHERE panda_id = ?", (wanted["job_id"],)).fetchone()
    if job is None or job["status"] not in DRAWING_STATES or "tobekilled" in (job["command"] or ""):
        return []
    n = 10 if wanted.get("n_ranges") is None else max(0, wanted["n_ranges"])
    rows = _draw(db, job, wanted["jobset_id"], n)
    db.executemany(
        "UPDATE event SET status = 1, owner = ?"
        " WHERE task_id = ? AND file_id = ? AND process_id = ? AND attempt_nr = ?",
        ((job["panda_id"], job["task_id"], row[0], row[1], row[2]) for row in rows),
    )
    tally.add(db, job["task_id"], tally.Tally(ready=-len(rows), sent=len(rows)))
    is_jumbo = job["kind"] == Kind.JUMBO
    drained = not is_jumbo and not _any_ready(db, wanted["jobset_id"])
    if drained and quirks.close_waiting_consumers:
        _close_waiting(db, job["jobset_id"])
    return [_describe(row, job) for row in rows]


def _draw(db: sqlite3.Connection, job: sqlite3.Row, jobset_id: int, n: int) -> list[sqlite3.Row]:
    """Ready rows of the pool; a jumbo job draws from all running units of its task."""
    where = " WHERE owner = :pool AND event.task_id = :task"
    if job["kind"] == Kind.JUMBO:
        where = (
            " JOIN unit ON unit.unit_id = pool"
            " WHERE event.task_id = :task AND unit.state = 'running'"
        )
    return db.execute(
        "SELECT event.file_id, process_id, attempt_nr, start_event, event.last_event, lfn, guid,"
        f" scope FROM event LEFT JOIN file ON file.file_id = event.file_id{where}"
        " AND status = 0 AND attempt_nr > 0 ORDER BY event.file_id, process_id LIMIT :n",
        {"pool": jobset_id, "task": job["task_id"], "n": n},
    ).fetchall()


def _any_ready(db: sqlite3.Connection, jobset_id: int) -> bool:
    query = "SELECT 1 FROM event WHERE owner = ? AND status = 0 AND attempt_nr > 0 LIMIT 1"
    return db.execute(query, (jobset_id,)).fetchone() is not None


def _close_waiting(db: sqlite3.Connection, jobset_id: int) -> None:
    """The pool is drained: consumers that wait to be started have nothing to do."""
    db.execute(
        "UPDATE job SET status = 'closed', sub_status = 'es_unused', error_code = 116"
        " WHERE jobset_id = ? AND status = 'activated' AND kind = ?",
        (jobset_id, Kind.EVENT),
    )


def _describe(row: sqlite3.Row, job: sqlite3.Row) -> dict[str, Any]:
    key = RangeId(job["task_id"], job["panda_id"], row[0], row[1], row[2])
    return {
        "eventRangeID": str(key),
        "startEvent": row["start_event"],
        "lastEvent": row["last_event"],
        "LFN": row["lfn"],
        "GUID": row["guid"],
        "scope": row["scope"],
    }


def count_ready(db: sqlite3.Connection, job_id: int, jobset_id: int) -> int:
    """Ready ranges with attempts left in a pool, or in the whole task of a jumbo job."""
    job = db.execute(
        "SELECT task_id FROM job WHERE panda_id = ? AND kind = ?", (job_id, Kind.JUMBO)
    ).fetchone()
    column, value = ("task_id", job["task_id"]) if job else ("owner", jobset_id)
    query = f"SELECT count(*) FROM event WHERE {column} = ? AND status = 0 AND attempt_nr > 0"
    return int(db.execute(query, (value,)).fetchone()[0])


def statuses(
    db: sqlite3.Connection, jobs: Sequence[tuple[int, int]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Status of the ranges that each (task, job) holds, by PandaID and range id."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    # Most ranges of a large job have the same status: they share one object.
    shared: dict[tuple[Any, ...], dict[str, Any]] = {}

    def status_of(row: sqlite3.Row) -> dict[str, Any]:
        facts = (row["status"], row["error_code"], row["error_diag"])
        if facts not in shared:
            name = EventStatus(facts[0]).name.lower()
            shared[facts] = {"status": name, "error": facts[1], "dialog": facts[2]}
        return shared[facts]

    for task_id, panda_id in jobs:
        rows = db.execute(
            "SELECT * FROM event WHERE owner = ? AND task_id = ?", (panda_id, task_id)
        )
        found[str(panda_id)] = {
            f"{task_id}-{panda_id}-{row['file_id']}-{row['process_id']}-{row['attempt_nr']}": (
                status_of(row)
            )
            for row in rows
        }
    return found


@dataclass(slots=True)
class _Batch:
    """The bookkeeping of one bulk update."""

    quirks: Quirks
    entries: list[bool | None] = field(default_factory=list)
    commands: dict[str, str | None] = field(default_factory=dict)
    takes_reports: dict[int, bool] = field(default_factory=dict)
    changes: dict[int, Counter[str]] = field(default_factory=dict)
    finished: dict[int, int] = field(default_factory=dict)
    archives: set[tuple[int, str]] = field(default_factory=set)


def update(
    db: sqlite3.Connection, updates: Sequence[RangeUpdate], quirks: Quirks
) -> tuple[list[bool | None], dict[str, str | None]]:
    """Book the fate of ranges: one entry per range, and the commands of their jobs.

    A row is changed only while this job holds it in this attempt and it has no fate yet; anything
    else is answered true as well. Errors: `BatchAborted`, and nothing is booked.
    """
    batch = _Batch(quirks)
    for position, item in enumerate(updates):
        within = position < quirks.update_cap
        batch.entries.append(_update_one(db, batch, item) if within else None)
    for task_id, change in batch.changes.items():
        tally.add(db, task_id, tally.Tally(**change))
    for panda_id, n in batch.finished.items():
        _count_events(db, panda_id, n)
    return batch.entries, batch.commands


def _update_one(db: sqlite3.Connection, batch: _Batch, item: RangeUpdate) -> bool | None:
    try:
        key = read_range_id(item.id)
    except MessageError:
        return False
    if item.status in IGNORED_STATUSES:
        return None
    if item.status not in FINAL_STATUSES or not _takes_reports(db, batch, key.panda_id):
        return False
    _check_item(batch, item)
    tar_lfn = _check_archive(batch, item.archive)
    changed = db.execute(
        _BOOK[item.status] + _HERE,
        (
            item.code,
            item.diag,
            tar_lfn,
            key.task_id,
            key.file_id,
            key.process_id,
            key.attempt_nr,
            key.panda_id,
        ),
    ).fetchall()
    if tar_lfn and item.archive and (changed or batch.quirks.orphan_tar_rows):
        _store_archive(db, batch, key.panda_id, item.archive)
    if changed:
        _note_change(batch, key, item.status, int(changed[0][0]))
    return bool(changed) or batch.quirks.true_for_noop


def _takes_reports(db: sqlite3.Connection, batch: _Batch, panda_id: int) -> bool:
    """Whether reports of this job are taken; looked up once per call, with its command."""
    if panda_id not in batch.takes_reports:
        job = db.execute(
            "SELECT status, final, command FROM job WHERE panda_id = ?", (panda_id,)
        ).fetchone()
        active = job is not None and job["status"] in (*PROCESSING_STATES, "holding")
        batch.commands[str(panda_id)] = job["command"] if active else GONE
        usable = active and job["status"] in PROCESSING_STATES
        usable = usable or (active and not batch.quirks.refuse_after_final)
        batch.takes_reports[panda_id] = usable
    return batch.takes_reports[panda_id]


def _check_item(batch: _Batch, item: RangeUpdate) -> None:
    """What breaks the database call of a real server, and with it the whole batch."""
    code_ok = item.code is None or (type(item.code) is int and abs(item.code) < 2**31)
    diag_ok = item.diag is None or (
        isinstance(item.diag, str) and len(item.diag) <= DIAG_LIMIT and _is_storable(item.diag)
    )
    if not code_ok or not diag_ok:
        raise BatchAborted("errorCode or errorDiag cannot be stored", batch.entries, batch.commands)


def _is_storable(text: str) -> bool:
    """JSON can hold lone surrogates, a database cannot."""
    return not any(0xD800 <= ord(char) <= 0xDFFF for char in text)


def _check_archive(batch: _Batch, archive: Mapping[str, Any] | None) -> str | None:
    """Name of the archive, if there is one; one without its keys aborts the batch."""
    if archive is None:
        return None
    lfn, storage = archive.get("lfn"), archive.get("objstoreID")
    if not isinstance(lfn, str) or not isinstance(storage, int | str):
        if not batch.quirks.strict_zip_keys:
            return None
        raise BatchAborted("zipFile without lfn or objstoreID", batch.entries, batch.commands)
    if not _is_storable(lfn):
        raise BatchAborted("the lfn of a zipFile cannot be stored", batch.entries, batch.commands)
    return lfn


def _store_archive(
    db: sqlite3.Connection, batch: _Batch, panda_id: int, archive: Mapping[str, Any]
) -> None:
    """Keep the archive once per job and name."""
    lfn = archive["lfn"]
    if (panda_id, lfn) in batch.archives:
        return
    db.execute(
        "INSERT OR IGNORE INTO archive VALUES (?, ?, ?, ?, ?, ?)",
        (
            panda_id,
            lfn,
            _place(archive["objstoreID"], archive.get("pathConvention")),
            _number(archive.get("fsize")),
            str(archive.get("adler32"))[:64].encode("ascii", "replace").decode(),
            _number(archive.get("numEvents")),
        ),
    )
    batch.archives.add((panda_id, lfn))


def _place(storage: int | str, convention: Any) -> str:
    """`id` or `id/pathConvention`."""
    place = str(storage).encode("ascii", "replace").decode()
    return place if convention is None or "/" in place else f"{place}/{_number(convention)}"


def _number(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 2**63 else None


def _note_change(batch: _Batch, key: RangeId, status: str, events: int) -> None:
    """Add one booked range to the changes of its task."""
    change = batch.changes.setdefault(key.task_id, Counter())
    change["sent"] -= 1
    change["ready" if status == "failed" and key.attempt_nr > 1 else status] += 1
    if status == "finished":
        change["events_finished"] += events
        batch.finished[key.panda_id] = batch.finished.get(key.panda_id, 0) + 1


def _count_events(db: sqlite3.Connection, panda_id: int, n: int) -> None:
    """A job's events are its finished ranges times the task's events per range."""
    db.execute(
        "UPDATE job SET ranges_finished = ranges_finished + ?1, n_events = (ranges_finished + ?1)"
        " * (SELECT events_per_range FROM task WHERE task.task_id = job.task_id)"
        " WHERE panda_id = ?2",
        (n, panda_id),
    )
