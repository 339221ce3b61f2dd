"""The shared-memory queue: one LMDB environment that all roles map.

Opened after exec and once per process. It lives in the page cache and so survives the death of
every process. No sync per transaction; `sync()` at archive boundaries. No writemap: on a full disk
a mapped write would be a SIGBUS. The file is grown beforehand, so that moves go on when the disk
is full.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from espilot.errors import QueueError
from espilot.model import (
    Archive,
    ArchiveState,
    AtRisk,
    Counts,
    DoneRange,
    EventRange,
    FailedRange,
    JobRecord,
    RangeState,
)
from espilot.queue import records as rec
from espilot.queue.faults import queue_error
from espilot.queue.moves import Moves

TABLES = (b"items", b"index", b"archives", b"meta")
MAP_BYTES = 1 << 30
GROWN_BYTES = 64 << 20
LOCK_BYTES = 64 << 10
REMOTE_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "cifs", "smb3", "beegfs", "ceph", "afs", "9p", "fuse.sshfs"}
)


class Queue:
    """The verbs of reading; `moves()` gives those of writing. One instance per process."""

    def __init__(self, directory: Path, *, map_bytes: int = MAP_BYTES) -> None:
        """Open, or make, the queue in `directory`; `QueueError` names the remedy."""
        grown_bytes = min(GROWN_BYTES, map_bytes)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_remote(directory)
            require_room(directory, grown_bytes)
            self._env = lmdb.open(
                # As bytes: a name need not be UTF-8.
                os.fsencode(directory),
                map_size=map_bytes,
                max_dbs=4,
                max_readers=64,
                sync=False,
                metasync=False,
                writemap=False,
                readahead=False,
                meminit=False,
                mode=0o600,
            )
            # Takes the lock for a moment: opening waits for a writer, as every write does.
            self._dbs = tuple(self._env.open_db(name) for name in TABLES)
            # Who was killed while reading would pin its pages until the map is full.
            self._env.reader_check()
            grow_file(directory / "data.mdb", grown_bytes)
        except (OSError, lmdb.Error) as error:
            raise QueueError(f"cannot open the queue in {directory}: {error}") from error
        self._map_bytes = map_bytes

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def moves(self) -> Moves:
        """One write transaction; use it in a `with` and do nothing slow inside."""
        try:
            return Moves(self._env, *self._dbs)
        except lmdb.Error as error:
            raise queue_error(error) from error

    def sync(self) -> None:
        """Write the queue through to the disk (an archive boundary)."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise queue_error(error) from error

    def check_readers(self) -> int:
        """Free the reader slots of dead processes; returns how many there were."""
        return int(self._env.reader_check())

    def usage(self) -> float:
        """The share of the map that was ever used, 0..1; half is an alarm."""
        info = self._env.info()
        return float((info["last_pgno"] + 1) * self._env.stat()["psize"] / self._map_bytes)

    def counts(self) -> Counts:
        """Ranges by state and totals, from the counters that each move keeps."""
        with self._read() as txn:
            c = rec.unpack_counts(txn.get(rec.COUNTS_KEY, db=self._index))
        return Counts(*(c[1:8] + c[9:16] + c[8:9]))

    def job(self) -> JobRecord | None:
        """The current job, or None between jobs."""
        with self._read() as txn:
            data = txn.get(b"job", db=self._meta)
            phase = str(txn.get(b"phase", b"", db=self._meta), "utf-8")
        if data is None:
            return None
        job, facts = rec.read_job(data)
        return JobRecord(job, phase, facts)

    def phase(self) -> str:
        """The phase of the current job; "" between jobs."""
        with self._read() as txn:
            return str(txn.get(b"phase", b"", db=self._meta), "utf-8")

    def feed(self) -> str:
        """The mark of the ranges that were put last; "" when there is none."""
        with self._read() as txn:
            return str(txn.get(b"feed", b"", db=self._meta), "utf-8")

    def epoch(self) -> int:
        """Number of the newest start of the payload; 0 before the first."""
        with self._read() as txn:
            return int(txn.get(b"epoch", b"0", db=self._meta))

    def state(self, range_id: str) -> RangeState | None:
        """The state of one range, or None when it is not here."""
        with self._read() as txn:
            data = txn.get(rec.id_bytes(range_id), db=self._items)
            return None if data is None else self._state(txn, rec.unpack_row(data))

    def ids(self, state: RangeState) -> list[str]:
        """The ids in a state, in the order of their coming; those in archives by its name."""
        return [key.decode() for key, _ in self._walk(state, 0)]

    def ready(self) -> list[EventRange]:
        """All ready ranges, next first."""
        rows = self._walk(RangeState.READY, 0)
        return [rec.read_range(key.decode(), row[rec.RANGE]) for key, row in rows]

    def done(self, after: int = 0) -> tuple[list[DoneRange], int]:
        """Done ranges that came after the move number `after`, and the number to go on from."""
        done = []
        for key, row in self._walk(RangeState.DONE, after + 1):
            done.append(rec.read_done(key.decode(), row))
            after = row[rec.ORDER]
        return done, after

    def failures(self) -> list[FailedRange]:
        """All failed and fatal ranges that wait to be reported."""
        return [
            rec.read_failed(key.decode(), row)
            for state in (RangeState.FAILED, RangeState.FATAL)
            for key, row in self._walk(state, 0)
        ]

    def owners(self) -> dict[str, str]:
        """Who holds each sent range."""
        rows = self._walk(RangeState.SENT, 0)
        return {key.decode(): row[rec.OWNER] for key, row in rows}

    def at_risk(self, now: float, *, ahead: int = 0) -> AtRisk:
        """What would be lost if this node vanished now: all that was begun and is not reported.

        So many sent ranges are with no client yet: the newest ones without an owner.
        """
        sent = [(row[rec.OWNER] == "", row[rec.SINCE]) for _, row in self._walk(RangeState.SENT, 0)]
        nobodys = min(max(0, ahead), sum(is_free for is_free, _ in sent))
        begun = [since for _, since in sorted(sent)][: len(sent) - nobodys]
        ranges, cpu_s, oldest = len(begun), sum(max(0.0, now - since) for since in begun), now
        for state in (RangeState.DONE, RangeState.PACKED, RangeState.STAGED):
            for _, row in self._walk(state, 0):
                ranges += 1
                cpu_s += rec.cost_s(row[rec.DATA]) if state is RangeState.DONE else row[rec.DATA][2]
                oldest = min(oldest, row[rec.SINCE])
        return AtRisk(ranges, cpu_s, max(0.0, now - oldest))

    def archives(self, state: ArchiveState | None = None, limit: int = 0) -> list[Archive]:
        """All archives (of a state), by name; at most `limit` of them, unless it is 0."""
        code = None if state is None else rec.ARCHIVE_CODES[state]
        found: list[Archive] = []
        with self._read() as txn, txn.cursor(db=self._archives) as cursor:
            for name, data in cursor:
                # Their lists of ids are long: those of another state are not unpacked.
                if code is None or rec.archive_code(data) == code:
                    found.append(rec.read_archive(name.decode(), data))
                    if len(found) == limit:
                        break
        return found

    @property
    def _items(self) -> Any:
        return self._dbs[0]

    @property
    def _index(self) -> Any:
        return self._dbs[1]

    @property
    def _archives(self) -> Any:
        return self._dbs[2]

    @property
    def _meta(self) -> Any:
        return self._dbs[3]

    @contextmanager
    def _read(self) -> Iterator[Any]:
        try:
            with self._begin() as txn:
                yield txn
        except lmdb.Error as error:
            raise queue_error(error) from error

    def _begin(self) -> Any:
        try:
            return self._env.begin()
        except lmdb.ReadersFullError:
            # Killed processes keep their slots until somebody looks.
            self._env.reader_check()
            return self._env.begin()

    def _state(self, txn: Any, row: rec.Row) -> RangeState:
        return rec.read_state(row, lambda name: txn.get(name, db=self._archives))

    def _members(self, state: ArchiveState) -> list[tuple[bytes, rec.Row]]:
        """The rows in all archives of a state."""
        rows = []
        with self._read() as txn, txn.cursor(db=self._archives) as cursor:
            for name, data in cursor:
                if rec.archive_code(data) == rec.ARCHIVE_CODES[state]:
                    for range_id in rec.read_archive(name.decode(), data).ids:
                        key = range_id.encode()
                        rows.append((key, rec.unpack_row(txn.get(key, db=self._items))))
        return rows

    def _walk(self, state: RangeState, order: int) -> list[tuple[bytes, rec.Row]]:
        if state in rec.MEMBERS:
            return self._members(rec.MEMBERS[state])
        code = rec.CODES[state]
        rows = []
        with self._read() as txn, txn.cursor(db=self._index) as cursor:
            found = cursor.set_range(rec.pack_key(code, order))
            while found:
                index_key, key = cursor.item()
                if index_key[0] != code:
                    break
                rows.append((key, rec.unpack_row(txn.get(key, db=self._items))))
                found = cursor.next()
        return rows


def require_room(directory: Path, size_bytes: int) -> None:
    """Raise `QueueError` when a new queue would not fit: its lock is mapped before it can fail."""
    if not (directory / "data.mdb").exists():
        disk = os.statvfs(directory)
        if disk.f_bavail * disk.f_frsize < size_bytes + LOCK_BYTES:
            raise no_room(directory, size_bytes)


def grow_file(path: Path, size_bytes: int) -> None:
    """Allocate the file's blocks up to `size_bytes`; a disk too full for it is told at once.

    Never do this to `lock.mdb`: closing it would end LMDB's own POSIX lock on it, and the next
    process to open the queue would make the mutexes anew under the others.
    """
    with path.open("r+b") as file:
        if os.fstat(file.fileno()).st_size >= size_bytes:
            return
        try:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        except OSError as error:
            raise no_room(path.parent, size_bytes) from error


def no_room(directory: Path, size_bytes: int) -> QueueError:
    """The error of a disk that cannot hold the queue, with the remedy."""
    return QueueError(
        f"no room for the queue in {directory}: it needs {size_bytes / 2**20:.0f} MiB, "
        "free some space or choose another --state-dir"
    )


def refuse_remote(directory: Path) -> None:
    """Raise `QueueError` when the directory lies on a network file system, where mmap is unsafe."""
    kind = filesystem_type(directory)
    if kind in REMOTE_FILESYSTEMS:
        raise QueueError(
            f"the state directory {directory} is on {kind}, which cannot hold the queue; "
            "choose a directory on a local disk with --state-dir"
        )


def filesystem_type(directory: Path) -> str:
    """The type of the file system that holds `directory` (or its nearest existing parent)."""
    place = directory.resolve()
    best, kind = -1, "unknown"
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        mount = Path(os.fsdecode(re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]), fields[4])))
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), fields[fields.index(b"-") + 1].decode()
    return kind
