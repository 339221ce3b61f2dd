"""Looking into the queue of another process, alive or dead: no write transaction, nothing is made.

A reader takes no lock that a pilot waits for; what it sees is one consistent instant per question.
"""

from __future__ import annotations

import json
from pathlib import Path

import lmdb

from espilot.errors import LocalError, QueueError, UsageError
from espilot.model import Output, RangeState, RangeView
from espilot.queue import records as rec
from espilot.queue.faults import queue_error
from espilot.queue.moves import Moves
from espilot.queue.store import MAP_BYTES, TABLES, Queue

NOTE = "boot.json"
"""Beside a queue: under which boot of the machine, and in which layout, it is written."""


class QueueReader(Queue):
    """The reading verbs of the queue in a directory, and some for people."""

    def __init__(self, directory: Path) -> None:
        """Open; `UsageError` when there is no queue, `QueueError` when it cannot be read.

        `LocalError`: it is in the layout of another version.
        """
        if not (directory / "data.mdb").is_file():
            raise UsageError(f"there is no queue in {directory}")
        require_layout(directory)
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=MAP_BYTES,
                max_dbs=len(TABLES),
                readonly=True,
                create=False,
                readahead=False,
            )
            self._dbs = tuple(self._env.open_db(name, create=False) for name in TABLES)
        except lmdb.NotFoundError:
            raise UsageError(f"the queue in {directory} was never used") from None
        except (OSError, lmdb.Error) as error:
            raise QueueError(f"cannot read the queue in {directory}: {error}") from error
        self._map_bytes = MAP_BYTES

    def moves(self) -> Moves:
        """Refuse: readers move nothing."""
        raise QueueError("this queue was opened for reading")

    def find(self, range_id: str) -> RangeView | None:
        """All about one range, or None when it is not here."""
        try:
            key = rec.id_bytes(range_id)
        except QueueError:
            return None
        with self._read() as txn:
            data = txn.get(key, db=self._items)
            if data is None:
                return None
            row = rec.unpack_row(data)
            return read_view(range_id, row, self._state(txn, row))

    def all_ids(self) -> list[str]:
        """The ids of all ranges that are here."""
        try:
            with self._env.begin() as txn, txn.cursor(db=self._items) as cursor:
                return [key.decode() for key in cursor.iternext(keys=True, values=False)]
        except lmdb.Error as error:
            raise queue_error(error) from error

    def states(self) -> dict[str, RangeState]:
        """The state of each range that is here."""
        try:
            with self._env.begin() as txn, txn.cursor(db=self._items) as cursor:
                return {
                    key.decode(): self._state(txn, rec.unpack_row(data))
                    for key, data in cursor.iternext()
                }
        except lmdb.Error as error:
            raise queue_error(error) from error


def require_layout(directory: Path) -> None:
    """Refuse a queue that says of itself that its rows are of another kind."""
    try:
        noted = json.loads((directory / NOTE).read_text())["layout"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # nothing is said
    if noted != rec.LAYOUT:
        raise LocalError(
            f"the queue in {directory} was written by another version of espilot; look at it with "
            "that one, or have `espilot recover` take up what is there"
        )


def read_view(range_id: str, row: rec.Row, state: RangeState) -> RangeView:
    """A row in its state as its noun."""
    code, diag, archive = 0, "", ""
    outputs: tuple[Output, ...] = ()
    if row[rec.STATE] == rec.DONE:
        outputs = rec.read_done(range_id, row).outputs
    elif row[rec.STATE] == rec.PACKED:
        archive = row[rec.DATA][0]
    elif row[rec.STATE] in (rec.FAILED, rec.FATAL):
        failed = rec.read_failed(range_id, row)
        code, diag = failed.code, failed.diag
    return RangeView(
        range=rec.read_range(range_id, row[rec.RANGE]),
        state=state,
        owner=row[rec.OWNER],
        epoch=row[rec.EPOCH],
        since=row[rec.SINCE],
        outputs=outputs,
        archive=archive,
        code=code,
        diag=diag,
    )
