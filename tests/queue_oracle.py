"""What must be true of a queue at any instant, read in one transaction; and rows to test with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from espilot.model import Archive, ArchiveState, EventRange, FailedRange, Job, Output, RangeState
from espilot.queue import records as rec
from espilot.queue.store import Queue

HOLDING = (ArchiveState.PACKED, ArchiveState.STAGED)
JOB = Job(17, 18, 7, 1, 2, ("out.dat",), "log.tgz", ("in.root",), True, {"jobPars": "-x"})


@dataclass(frozen=True)
class Snapshot:
    """All rows as bytes: two equal snapshots are the same queue."""

    items: dict[bytes, bytes]
    index: dict[bytes, bytes]
    archives: dict[bytes, bytes]
    meta: dict[bytes, bytes]

    @property
    def counts(self) -> list[int]:
        """The counters."""
        return rec.unpack_counts(self.index.get(rec.COUNTS_KEY))

    @property
    def ever_put(self) -> int:
        """Ranges that were put, whatever became of them."""
        c = self.counts
        ended = (rec.FINISHED, rec.FAILED_TOTAL, rec.FATAL_TOTAL, rec.RELEASED)
        return len(self.items) + sum(c[i] for i in ended)


def check_queue(queue: Queue) -> Snapshot:
    """Every invariant of the queue, whoever else uses it meanwhile; returns what was checked."""
    with queue._env.begin() as txn:
        tables = [dict(txn.cursor(db=db)) for db in queue._dbs]
    snapshot = Snapshot(*tables)
    rows = {key: rec.unpack_row(data) for key, data in snapshot.items.items()}
    archives = [rec.read_archive(k.decode(), v) for k, v in snapshot.archives.items()]
    _check_index(rows, snapshot)
    _check_rows(rows)
    _check_members(rows, archives)
    return snapshot


def _check_index(rows: dict[bytes, rec.Row], snapshot: Snapshot) -> None:
    index = {k: v for k, v in snapshot.index.items() if k != rec.COUNTS_KEY}
    placed = {key: row for key, row in rows.items() if row[rec.STATE] != rec.PACKED}
    expected = {rec.pack_key(row[rec.STATE], row[rec.ORDER]): key for key, row in placed.items()}
    assert index == expected, "the index and the rows disagree"
    assert len(expected) == len(placed), "two ranges have one place in a state"
    numbers = Counter(
        rec.CODES[rec.read_state(row, snapshot.archives.__getitem__)] for row in rows.values()
    )
    counts = snapshot.counts
    assert counts[rec.READY : rec.FATAL + 1] == [numbers[code] for code in sorted(rec.STATES)]
    orders = [row[rec.ORDER] % rec.SUSPECT_ORDER for row in rows.values()]
    assert counts[rec.MOVES] >= max(orders, default=0)
    for row in rows.values():
        suspect = row[rec.STATE] == rec.READY and bool(row[rec.DATA])
        assert (row[rec.ORDER] >= rec.SUSPECT_ORDER) == suspect, row


def _check_rows(rows: dict[bytes, rec.Row]) -> None:
    for key, row in rows.items():
        state = rec.STATES[row[rec.STATE]]
        rec.read_range(key.decode(), row[rec.RANGE])
        assert state is not RangeState.READY or row[rec.OWNER] == "", row
        assert state is not RangeState.SENT or row[rec.EPOCH] > 0, row
        if state is RangeState.DONE:
            assert rec.read_done(key.decode(), row).outputs
        if state in (RangeState.FAILED, RangeState.FATAL):
            rec.read_failed(key.decode(), row)


def _check_members(rows: dict[bytes, rec.Row], archives: list[Archive]) -> None:
    owed = {key: row[rec.DATA][0] for key, row in rows.items() if row[rec.STATE] == rec.PACKED}
    assert not any(row[rec.STATE] == rec.STAGED for row in rows.values())
    for archive in archives:
        for range_id in archive.ids if archive.state in HOLDING else ():
            assert owed.pop(range_id.encode()) == archive.name, f"{range_id} is in two archives"
    assert not owed, f"packed, but in no archive: {owed}"


def range_id(number: int) -> str:
    """The id of range `number`."""
    return f"7-17-3-{number}-1"


def number_of(an_id: str) -> int:
    """The number of a range id."""
    return int(an_id.split("-")[3])


def make_range(number: int, events: int = 2) -> EventRange:
    """Range `number`, of a few events."""
    first = 1 + (number - 1) * events
    return EventRange(range_id(number), first, first + events - 1, "in.root", "AB-CD", "user", "")


def make_ranges(first: int, last: int) -> list[EventRange]:
    """Ranges `first`..`last`."""
    return [make_range(number) for number in range(first, last + 1)]


def make_outputs(number: int) -> tuple[Output, ...]:
    """An output whose facts follow from the number."""
    return (Output(f"/w/out.{number}", 1, number, 100 + number, 5),)


def make_archive(name: str, numbers: list[int]) -> Archive:
    """An archive of these ranges."""
    ids = tuple(range_id(number) for number in numbers)
    return Archive(name, ids, 1000 + len(ids), "0a0b0c0d", 2 * len(ids))


def make_failure(number: int, *, fatal: bool = False) -> FailedRange:
    """A failure of this range."""
    return FailedRange(range_id(number), fatal, 1305, "it broke")


def go_round(queue: Queue, number: int, owner: str = "z") -> None:
    """One more range goes the whole way: nothing is stuck."""
    with queue.moves() as moves:
        assert moves.put_ranges([make_range(number)], now=1.0) == 1
    ready = queue.counts().ready
    with queue.moves() as moves:
        taken = moves.take([owner] * ready, epoch=99, now=2.0)
        assert taken[-1] == make_range(number)
        assert moves.finish(range_id(number), epoch=99, outputs=make_outputs(number), now=3.0)
        moves.return_ranges([r.id for r in taken], epoch=99)
    finished = queue.counts().finished
    with queue.moves() as moves:
        moves.pack(make_archive(f"round-{number}", [number]))
    with queue.moves() as moves:
        moves.staged(f"round-{number}", storage_id=3)
    with queue.moves() as moves:
        moves.reported(f"round-{number}")
    with queue.moves() as moves:
        moves.forget_archive(f"round-{number}")
    assert queue.counts().finished == finished + 1
    assert queue.state(range_id(number)) is None
