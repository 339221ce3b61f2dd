"""The queue's keys and rows as bytes: pure, no I/O. Who changes them counts `LAYOUT` up.

Databases of the environment:

* `items`: range id -> row `[state, order, range, owner, epoch, since, data]`
* `index`: state byte + order (8 bytes, big endian) -> range id; "the next n in a state" is a walk
* `archives`: archive name -> row `[state, ids, size, adler32, events, storage id, crc32]`
* `meta`: job, epoch

`order` is the number of the move that brought the range into its state, so a state is a FIFO.
The rows of an archive move with its one row: theirs say *packed* and have no place in `index`,
staged or not is what the archive says.
`range` is itself packed, because most moves do not look into it. `data` depends on the state:
crashes (or nothing) when ready or sent, outputs when done, archive name, events and CPU seconds
when packed or staged, code and diagnosis when failed. A ready range with a crash is a suspect; its
order is so high that it comes after all others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

import msgpack

from espilot.errors import QueueError
from espilot.model import (
    Archive,
    ArchiveState,
    DoneRange,
    EventRange,
    FailedRange,
    Job,
    Output,
    RangeState,
)

CODES: dict[RangeState, int] = {
    RangeState.READY: 1,
    RangeState.SENT: 2,
    RangeState.DONE: 3,
    RangeState.PACKED: 4,
    RangeState.STAGED: 5,
    RangeState.FAILED: 6,
    RangeState.FATAL: 7,
}
STATES: dict[int, RangeState] = {code: state for state, code in CODES.items()}
READY, SENT, DONE, PACKED, STAGED, FAILED, FATAL = (CODES[state] for state in RangeState)

LAYOUT = 3
"""Which keys and rows these are. A queue in another layout is not read."""

STATE, ORDER, RANGE, OWNER, EPOCH, SINCE, DATA = range(7)
"""Positions in an item row."""

ARCHIVE_CODES: dict[ArchiveState, int] = {
    ArchiveState.PACKED: 1,
    ArchiveState.STAGED: 2,
    ArchiveState.REPORTED: 3,
}
ARCHIVE_STATES = {code: state for state, code in ARCHIVE_CODES.items()}
MEMBERS: dict[RangeState, ArchiveState] = {
    RangeState.PACKED: ArchiveState.PACKED,
    RangeState.STAGED: ArchiveState.STAGED,
}
"""The states of ranges in archives, and of their archives meanwhile."""
_MEMBER_STATES = {ARCHIVE_CODES[archive]: state for state, archive in MEMBERS.items()}

COUNTS_KEY = b"\0counts"
"""In `index`, before every state: the counters live on a page that each move touches anyway."""

_COUNTS = Struct("<16Q")
MOVES, FINISHED, FAILED_TOTAL, FATAL_TOTAL, RELEASED, EVENTS, ARCHIVES, BYTES = range(8, 16)
"""Positions of the totals in the counters; 1..7 are the live counts by state code."""
NO_COUNTS = [0] * 16

SUSPECT_ORDER = 1 << 62
"""Added to the order of a ready range that was in hand at a crash."""

_KEY = Struct(">BQ")
pack_key = _KEY.pack
pack_row = msgpack.Packer(use_bin_type=True).pack
unpack_row = msgpack.unpackb

Row = list[Any]


def pack_counts(counts: list[int]) -> bytes:
    """The counters as bytes."""
    return _COUNTS.pack(*counts)


def unpack_counts(data: bytes | None) -> list[int]:
    """The counters; all zero where there are none yet."""
    return list(NO_COUNTS) if data is None else list(_COUNTS.unpack(data))


def pack_range(event_range: EventRange) -> bytes:
    """The part of a row that no move changes."""
    r = event_range
    packed: bytes = pack_row((r.start_event, r.last_event, r.lfn, r.guid, r.scope, r.pfn))
    return packed


def count_events(packed: bytes) -> int:
    """The number of events of a row's range."""
    start, last, *_ = unpack_row(packed)
    return int(last - start + 1)


def read_range(range_id: str, packed: bytes) -> EventRange:
    """The range of a row."""
    start, last, lfn, guid, scope, pfn = unpack_row(packed)
    return EventRange(range_id, start, last, lfn, guid, scope, pfn)


def pack_outputs(outputs: tuple[Output, ...]) -> list[tuple[str, int, int, int, int]]:
    """The outputs of a done range as the row holds them."""
    return [(o.path, o.device, o.inode, o.size_bytes, o.mtime_ns) for o in outputs]


def read_done(range_id: str, row: Row) -> DoneRange:
    """A done row as its noun."""
    outputs, events, cpu_s, wall_s = row[DATA]
    return DoneRange(
        id=range_id,
        outputs=tuple(Output(*fields) for fields in outputs),
        events=events,
        done_at=row[SINCE],
        cpu_s=cpu_s,
        wall_s=wall_s,
    )


def cost_s(data: Any) -> float:
    """The CPU seconds in a done row's data; wall seconds where the payload did not tell."""
    _, _, cpu_s, wall_s = data
    return float(wall_s or 0.0) if cpu_s is None else float(cpu_s)


def read_failed(range_id: str, row: Row) -> FailedRange:
    """A failed or fatal row as its noun."""
    code, diag = row[DATA]
    return FailedRange(id=range_id, fatal=row[STATE] == FATAL, code=code, diag=diag)


def pack_archive(archive: Archive) -> bytes:
    """An archive's row."""
    a = archive
    row = (
        ARCHIVE_CODES[a.state], a.ids, a.size_bytes, a.adler32, a.events, a.storage_id, a.crc32
    )  # fmt: skip
    packed: bytes = msgpack.packb(row, use_bin_type=True)
    return packed


def archive_code(data: bytes) -> int:
    """The state in an archive's row, which is an array with a small number first."""
    return data[1]


def read_state(row: Row, archives: Callable[[bytes], bytes]) -> RangeState:
    """The state of a row; `archives` finds the archive's row by its name."""
    if row[STATE] != PACKED:
        return STATES[row[STATE]]
    return _MEMBER_STATES[archive_code(archives(row[DATA][0].encode()))]


def read_archive(name: str, data: bytes) -> Archive:
    """An archive's row as its noun."""
    code, ids, size_bytes, adler32, events, storage_id, crc32 = unpack_row(data)
    return Archive(
        name=name,
        ids=tuple(ids),
        size_bytes=size_bytes,
        adler32=adler32,
        events=events,
        state=ARCHIVE_STATES[code],
        storage_id=storage_id,
        crc32=crc32,
    )


def pack_job(job: Job, facts: Mapping[str, Any]) -> bytes:
    """The job and what must survive with it."""
    fields = {
        "panda_id": job.panda_id,
        "jobset_id": job.jobset_id,
        "task_id": job.task_id,
        "attempt_nr": job.attempt_nr,
        "core_count": job.core_count,
        "output_lfns": job.output_lfns,
        "log_lfn": job.log_lfn,
        "input_lfns": job.input_lfns,
        "event_service": job.event_service,
        "definition": dict(job.definition),
    }
    # As JSON: a definition may hold whatever a server writes, such as half a surrogate pair.
    packed: bytes = msgpack.packb([json.dumps(fields), dict(facts)], use_bin_type=True)
    return packed


def read_job(data: bytes) -> tuple[Job, dict[str, Any]]:
    """The job and its facts."""
    text, facts = unpack_row(data)
    fields = json.loads(text)
    tuples = ("output_lfns", "input_lfns")
    fields.update({name: tuple(fields[name]) for name in tuples})
    return Job(**fields), facts


def id_bytes(range_id: str) -> bytes:
    """A range id as a key; LMDB takes 1 to 511 bytes."""
    try:
        key = range_id.encode()
    except UnicodeEncodeError:
        raise QueueError(f"range id cannot be a key: {range_id[:60]!r}") from None
    if not 0 < len(key) <= 400:
        raise QueueError(f"range id of {len(key)} bytes cannot be a key: {range_id[:60]!r}")
    return key
