"""One write transaction on the queue: the moves of ranges and archives.

Rules:

* A range is in exactly one state; each move asserts the state that it leaves.
* All moves of one `with queue.moves()` happen, or none of them.
* What may come late or twice (an outcome) answers False; what may not (a pack) raises `StateError`.
* No I/O and no waiting inside: every other process waits for the lock meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from espilot.errors import StateError
from espilot.model import Archive, ArchiveState, EventRange, FailedRange, Job, Output, RangeState
from espilot.queue import records as rec
from espilot.queue.records import (
    ARCHIVES,
    BYTES,
    CODES,
    DATA,
    DONE,
    EPOCH,
    EVENTS,
    FAILED,
    FAILED_TOTAL,
    FATAL,
    FATAL_TOTAL,
    FINISHED,
    MOVES,
    ORDER,
    OWNER,
    PACKED,
    RANGE,
    READY,
    RELEASED,
    SENT,
    SINCE,
    STAGED,
    STATE,
    SUSPECT_ORDER,
    id_bytes,
    pack_key,
    pack_row,
    unpack_row,
)
from espilot.queue.transaction import Transaction

FIRST_SUSPECT = pack_key(READY, SUSPECT_ORDER)
"""Where the suspects begin in the index."""


class Moves(Transaction):
    """The verbs, inside one transaction. Made by `Queue.moves()`, used in a `with`."""

    __slots__ = ()

    # -- ranges ---------------------------------------------------------------------------------

    def put_ranges(self, ranges: Iterable[EventRange], *, now: float) -> int:
        """Add ranges as ready, without touching those that are here; returns how many are new."""
        counts = self._load_counts()
        put, items, index = self._txn.put, self._items, self._index
        new = 0
        for event_range in ranges:
            key = id_bytes(event_range.id)
            order = counts[MOVES] + 1
            row = [READY, order, rec.pack_range(event_range), "", 0, now, None]
            if put(key, pack_row(row), True, False, False, items):
                put(pack_key(READY, order), key, True, True, False, index)
                counts[MOVES] = order
                new += 1
        counts[READY] += new
        return new

    def take(self, owners: Sequence[str], *, epoch: int, now: float) -> list[EventRange]:
        """Move one range per owner from ready to sent, oldest first; short when ready runs out.

        Suspects are left where they are.
        """
        taken: list[EventRange] = []
        counts, txn, items, index = self._load_counts(), self._txn, self._items, self._index
        get, put, delete = txn.get, txn.put, txn.delete
        order = counts[MOVES]
        for (index_key, key), owner in zip(self._first(READY, len(owners)), owners, strict=False):
            if index_key >= FIRST_SUSPECT:
                break
            row = unpack_row(get(key, None, items))
            taken.append(rec.read_range(key.decode(), row[RANGE]))
            order += 1
            row[STATE], row[ORDER], row[OWNER], row[EPOCH] = SENT, order, owner, epoch
            row[SINCE] = now
            delete(index_key, b"", index)
            put(key, pack_row(row), True, True, False, items)
            put(pack_key(SENT, order), key, True, True, False, index)
        counts[MOVES] = order
        counts[READY] -= len(taken)
        counts[SENT] += len(taken)
        return taken

    def take_suspect(self, owner: str, *, epoch: int, now: float) -> EventRange | None:
        """Move the first suspect from ready to sent; None when there is none."""
        first = self._first(READY, 1)
        if not first or first[0][0] < FIRST_SUSPECT:
            return None
        key = first[0][1]
        row = self._row(key)
        row[OWNER], row[EPOCH], row[SINCE] = owner, epoch, now
        self._move(key, row, SENT)
        return rec.read_range(key.decode(), row[RANGE])

    def finish(
        self,
        range_id: str,
        *,
        epoch: int,
        outputs: tuple[Output, ...],
        now: float,
        facts: tuple[int | None, float | None, float | None] = (None, None, None),
    ) -> bool:
        """Sent -> done; False when the range is not sent in this epoch (late, repeated, unknown).

        `facts` are events (None: all of the range; never more), CPU seconds and wall seconds.
        """
        found = self._sent(range_id, epoch)
        if found is None:
            return False
        key, row = found
        events, cpu_s, wall_s = facts
        whole = rec.count_events(row[RANGE])
        events = whole if events is None else min(events, whole)
        if cpu_s is None and wall_s is None:
            wall_s = max(0.0, now - row[SINCE])
        row[SINCE] = now
        row[DATA] = (rec.pack_outputs(outputs), events, cpu_s, wall_s)
        self._move(key, row, DONE)
        return True

    def fail(self, failure: FailedRange, *, epoch: int, now: float) -> bool:
        """Sent -> failed or fatal; False when the range is not sent in this epoch."""
        found = self._sent(failure.id, epoch)
        if found is None:
            return False
        key, row = found
        row[SINCE], row[DATA] = now, (failure.code, failure.diag)
        self._move(key, row, FATAL if failure.fatal else FAILED)
        return True

    def return_sent(
        self, *, epoch: int | None = None, owner: str | None = None, before: int | None = None
    ) -> list[str]:
        """Sent -> ready for all ranges of an epoch, an owner, or epochs before one; their ids."""
        back: list[str] = []
        for _, key in self._first(SENT, -1):
            row = self._row(key)
            if (
                (epoch is None or row[EPOCH] == epoch)
                and (owner is None or row[OWNER] == owner)
                and (before is None or row[EPOCH] < before)
            ):
                row[OWNER] = ""
                self._move(key, row, READY)
                back.append(key.decode())
        return back

    def return_ranges(self, ids: Iterable[str], *, epoch: int, crashed: bool = False) -> int:
        """Sent -> ready for these ranges, where they are sent in this epoch; returns how many.

        `crashed`: the payload crashed with them in hand, which makes them suspects.
        """
        returned = 0
        for range_id in ids:
            found = self._sent(range_id, epoch)
            if found is not None:
                key, row = found
                row[OWNER] = ""
                row[DATA] = (row[DATA] or 0) + 1 if crashed else row[DATA]
                self._move(key, row, READY)
                returned += 1
        return returned

    def crashes(self, range_id: str, *, epoch: int) -> int:
        """How often the payload has crashed with this sent range in hand."""
        found = self._sent(range_id, epoch)
        return 0 if found is None else int(found[1][DATA] or 0)

    @property
    def ready(self) -> int:
        """How many ranges are ready, suspects included."""
        return self._load_counts()[READY]

    def drop(self, range_id: str, failure: FailedRange | None, *, now: float) -> None:
        """Done -> ready (its output is gone: process it again), or -> failed with a reason."""
        key = id_bytes(range_id)
        row = self._expect(key, DONE)
        row[SINCE], row[OWNER] = now, ""
        row[DATA] = None if failure is None else (failure.code, failure.diag)
        self._move(key, row, READY if failure is None else FATAL if failure.fatal else FAILED)

    def forget_failures(self, ids: Iterable[str]) -> int:
        """Delete failed and fatal rows that the server has booked; returns how many there were."""
        counts = self._load_counts()
        forgotten = 0
        for range_id in ids:
            row = self._get(id_bytes(range_id))
            if row is not None and row[STATE] in (FAILED, FATAL):
                counts[FATAL_TOTAL if row[STATE] == FATAL else FAILED_TOTAL] += 1
                self._delete(id_bytes(range_id), row)
                forgotten += 1
        return forgotten

    def forget_done(self, ids: Iterable[str]) -> int:
        """Delete done rows whose outputs were taken over by others; returns how many there were."""
        counts = self._load_counts()
        forgotten = 0
        for range_id in ids:
            row = self._get(id_bytes(range_id))
            if row is not None and row[STATE] == DONE:
                counts[EVENTS] += row[DATA][1]
                self._delete(id_bytes(range_id), row)
                forgotten += 1
        counts[FINISHED] += forgotten
        return forgotten

    def give_back(self, state: RangeState) -> list[str]:
        """Delete all rows of a state: the ranges are the server's again; returns their ids."""
        if state in (RangeState.PACKED, RangeState.STAGED):
            raise StateError(f"{state.value} ranges are given back with their archive only")
        keys = [key for _, key in self._first(CODES[state], -1)]
        for key in keys:
            self._delete(key, self._row(key))
        self._load_counts()[RELEASED] += len(keys)
        return [key.decode() for key in keys]

    def give_back_ranges(self, ids: Iterable[str]) -> int:
        """Delete these rows, whatever their state but inside archives; returns how many."""
        given = 0
        for range_id in ids:
            row = self._get(id_bytes(range_id))
            if row is not None and row[STATE] != PACKED:
                self._delete(id_bytes(range_id), row)
                given += 1
        self._load_counts()[RELEASED] += given
        return given

    # -- archives -------------------------------------------------------------------------------

    def pack(self, archive: Archive) -> None:
        """Done -> packed for all ranges of a sealed archive, which fixes its name and list."""
        if self._txn.get(archive.name.encode(), db=self._archives) is not None:
            raise StateError(f"archive {archive.name} exists already")
        txn, items, index = self._txn, self._items, self._index
        for range_id in archive.ids:
            key = id_bytes(range_id)
            row = self._expect(key, DONE)
            txn.delete(pack_key(DONE, row[ORDER]), b"", index)
            row[STATE] = PACKED
            row[DATA] = (archive.name, row[DATA][1], rec.cost_s(row[DATA]))
            txn.put(key, pack_row(row), True, True, False, items)
        self._count(archive, DONE, PACKED)
        self._put_archive(replace(archive, state=ArchiveState.PACKED))

    def staged(self, name: str, *, storage_id: int) -> None:
        """Packed -> staged: the archive is verified on the storage element."""
        archive = self._archive(name, ArchiveState.PACKED)
        self._count(archive, PACKED, STAGED)
        self._put_archive(replace(archive, state=ArchiveState.STAGED, storage_id=storage_id))

    def reported(self, name: str, *, refused: frozenset[str] = frozenset()) -> None:
        """Delete the rows of a staged archive: the server has booked all but the refused ones."""
        archive = self._archive(name, ArchiveState.STAGED)
        refused &= frozenset(archive.ids)
        events = self._delete_members(archive, STAGED, refused)
        counts = self._load_counts()
        counts[RELEASED] += len(refused)
        counts[FINISHED] += len(archive.ids) - len(refused)
        counts[EVENTS] += events
        if len(refused) < len(archive.ids):
            counts[ARCHIVES] += 1
            counts[BYTES] += archive.size_bytes
        self._put_archive(replace(archive, state=ArchiveState.REPORTED))

    def abandon_archive(self, name: str) -> None:
        """Give all ranges of a packed archive back: the server no longer wants them from us."""
        archive = self._archive(name, ArchiveState.PACKED)
        self._delete_members(archive, PACKED, frozenset(archive.ids))
        self._load_counts()[RELEASED] += len(archive.ids)
        self._put_archive(replace(archive, state=ArchiveState.REPORTED))

    def forget_archive(self, name: str) -> None:
        """Delete the row of a reported archive whose files are gone."""
        self._archive(name, ArchiveState.REPORTED)
        self._txn.delete(name.encode(), db=self._archives)

    # -- job and epoch --------------------------------------------------------------------------

    def set_job(self, job: Job, phase: str, facts: Mapping[str, Any]) -> None:
        """Store the job, its phase and facts."""
        self._txn.put(b"job", rec.pack_job(job, facts), db=self._meta)
        self.set_phase(phase)

    def note_feed(self, mark: str) -> None:
        """Note which ranges were put last."""
        self._txn.put(b"feed", mark.encode(), db=self._meta)

    def set_phase(self, phase: str) -> None:
        """Store the phase of the job."""
        self._txn.put(b"phase", phase.encode(), db=self._meta)

    def phase(self) -> str:
        """The phase of the job; "" between jobs. For decisions that must fit this transaction."""
        return str(self._txn.get(b"phase", b"", db=self._meta), "utf-8")

    def clear_job(self) -> None:
        """The job is over; nothing of it may be live."""
        live = sum(self._load_counts()[READY : FATAL + 1])
        if live:
            raise StateError(f"the job cannot be cleared: {live} ranges are live")
        self._txn.delete(b"job", db=self._meta)
        self._txn.delete(b"phase", db=self._meta)
        self._txn.delete(b"feed", db=self._meta)

    def set_epoch(self, epoch: int) -> None:
        """Note a start of the payload; numbers only grow."""
        if epoch > int(self._txn.get(b"epoch", b"0", db=self._meta)):
            self._txn.put(b"epoch", b"%d" % epoch, db=self._meta)

    # -- archives inside ------------------------------------------------------------------------

    def _count(self, archive: Archive, former: int, code: int) -> None:
        """Its ranges are in another state now."""
        counts, n = self._load_counts(), len(archive.ids)
        counts[MOVES] += n
        counts[former] -= n
        counts[code] += n

    def _delete_members(self, archive: Archive, code: int, refused: frozenset[str]) -> int:
        """Delete an archive's rows; returns the events of those that are not refused."""
        events = 0
        for range_id in archive.ids:
            key = id_bytes(range_id)
            row = self._expect(key, PACKED)
            events += 0 if range_id in refused else row[DATA][1]
            self._txn.delete(key, b"", self._items)
        self._load_counts()[code] -= len(archive.ids)
        return events

    def _archive(self, name: str, state: ArchiveState) -> Archive:
        data = self._txn.get(name.encode(), db=self._archives)
        if data is None:
            raise StateError(f"archive {name} is not known")
        archive = rec.read_archive(name, data)
        if archive.state is not state:
            raise StateError(f"archive {name} is {archive.state.value}, not {state.value}")
        return archive

    def _put_archive(self, archive: Archive) -> None:
        self._txn.put(archive.name.encode(), rec.pack_archive(archive), db=self._archives)
