"""The mechanics of one write transaction: rows, index and counters, changed together.

In the hot moves LMDB's arguments are given by position, which is quicker: `get(key, default, db)`,
`put(key, value, dupdata, overwrite, append, db)`, `delete(key, value, db)`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import lmdb

from espilot.errors import QueueError, StateError
from espilot.queue import records as rec
from espilot.queue.faults import queue_error
from espilot.queue.records import (
    COUNTS_KEY,
    DATA,
    EPOCH,
    MOVES,
    ORDER,
    READY,
    SENT,
    STATE,
    SUSPECT_ORDER,
    Row,
    pack_key,
    pack_row,
    unpack_row,
)


class Transaction:
    """Commits when its `with` ends well, aborts otherwise; holds the queue's lock meanwhile."""

    __slots__ = ("_archives", "_counts", "_index", "_items", "_meta", "_txn")

    def __init__(self, env: Any, items: Any, index: Any, archives: Any, meta: Any) -> None:
        self._items, self._index, self._archives, self._meta = items, index, archives, meta
        self._counts: list[int] | None = None
        self._txn = env.begin(None, None, True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self._commit()
            return
        self._txn.abort()
        if isinstance(error, lmdb.Error):
            raise queue_error(error) from error

    def _commit(self) -> None:
        txn, counts = self._txn, self._counts
        try:
            if counts is not None:
                txn.put(COUNTS_KEY, rec.pack_counts(counts), True, True, False, self._index)
            txn.commit()
        except BaseException as failure:
            # Whatever happened, the lock must not stay taken.
            txn.abort()
            if isinstance(failure, lmdb.Error):
                raise queue_error(failure) from failure
            raise

    def _load_counts(self) -> list[int]:
        if self._counts is None:
            self._counts = rec.unpack_counts(self._txn.get(COUNTS_KEY, None, self._index))
        return self._counts

    def _get(self, key: bytes) -> Row | None:
        data = self._txn.get(key, None, self._items)
        return None if data is None else unpack_row(data)

    def _row(self, key: bytes) -> Row:
        row = self._get(key)
        if row is None:
            raise QueueError(f"the index names a range that is not there: {key!r}")
        return row

    def _expect(self, key: bytes, code: int) -> Row:
        row = self._get(key)
        if row is None or row[STATE] != code:
            state = "unknown" if row is None else rec.STATES[row[STATE]].value
            raise StateError(f"range {key.decode()} is {state}, not {rec.STATES[code].value}")
        return row

    def _sent(self, range_id: str, epoch: int) -> tuple[bytes, Row] | None:
        key = range_id.encode()
        if not 0 < len(key) <= 400:
            return None
        row = self._get(key)
        if row is None or row[STATE] != SENT or row[EPOCH] != epoch:
            return None
        return key, row

    def _first(self, code: int, n: int) -> list[tuple[bytes, bytes]]:
        """The first `n` of a state (all, when n is negative): index key and key."""
        found_items: list[tuple[bytes, bytes]] = []
        if n == 0:
            return found_items
        # Not closed: it ends with the transaction, which is short.
        cursor = self._txn.cursor(self._index)
        found = cursor.set_range(pack_key(code, 0))
        while found:
            item = cursor.item()
            if item[0][0] != code:
                break
            found_items.append(item)
            if len(found_items) == n:
                break
            found = cursor.next()
        return found_items

    def _move(self, key: bytes, row: Row, code: int) -> None:
        counts = self._counts or self._load_counts()
        txn, index, former, former_order = self._txn, self._index, row[STATE], row[ORDER]
        order = counts[MOVES] = counts[MOVES] + 1
        counts[former] -= 1
        counts[code] += 1
        txn.delete(pack_key(former, former_order), b"", index)
        if code == READY and row[DATA]:
            order |= SUSPECT_ORDER
        row[STATE], row[ORDER] = code, order
        txn.put(key, pack_row(row), True, True, False, self._items)
        txn.put(pack_key(code, order), key, True, True, False, index)

    def _delete(self, key: bytes, row: Row) -> None:
        self._load_counts()[row[STATE]] -= 1
        self._txn.delete(pack_key(row[STATE], row[ORDER]), db=self._index)
        self._txn.delete(key, db=self._items)
