"""The yardstick of the queue: its moves written down with bare py-lmdb, without any check.

Same environment, databases, keys, rows and counters as `espilot/queue`.
"""

from __future__ import annotations

import time
from pathlib import Path
from struct import Struct
from typing import Any

import lmdb
import msgpack

from espilot.model import EventRange, Output

READY, SENT, DONE = 1, 2, 3
MOVES = 8
KEY = Struct(">BQ").pack
COUNTS = Struct("<16Q")
COUNTS_KEY = b"\0counts"


class BareQueue:
    """Three moves, one transaction each."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._env = lmdb.open(
            str(directory), map_size=1 << 30, max_dbs=4, max_readers=64, sync=False,
            metasync=False, writemap=False, readahead=False, meminit=False,
        )  # fmt: skip
        names = (b"items", b"index", b"archives", b"meta")
        self._items, self._index, *_ = (self._env.open_db(name) for name in names)
        self._pack = msgpack.Packer(use_bin_type=True).pack

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def put(self, ranges: list[EventRange]) -> None:
        """Nothing -> ready."""
        pack, items, index, now = self._pack, self._items, self._index, time.time()
        with self._env.begin(write=True) as txn:
            counts = self._counts(txn)
            for r in ranges:
                key = r.id.encode()
                order = counts[MOVES] = counts[MOVES] + 1
                fixed = pack((r.start_event, r.last_event, r.lfn, r.guid, r.scope, r.pfn))
                row = pack([READY, order, fixed, "", 0, now, None])
                txn.put(key, row, overwrite=False, db=items)
                txn.put(KEY(READY, order), key, db=index)
                counts[READY] += 1
            txn.put(COUNTS_KEY, COUNTS.pack(*counts), db=index)

    def take(self, n: int, owner: str, epoch: int) -> list[tuple[bytes, Any]]:
        """Ready -> sent; the keys and the fields of the ranges."""
        items, index, now = self._items, self._index, time.time()
        taken = []
        with self._env.begin(write=True) as txn:
            counts = self._counts(txn)
            with txn.cursor(db=index) as cursor:
                cursor.set_range(KEY(READY, 0))
                found = []
                for entry in cursor:
                    if entry[0][0] != READY:
                        break
                    found.append(entry)
                    if len(found) == n:
                        break
            for index_key, key in found:
                row = msgpack.unpackb(txn.get(key, db=items))
                taken.append((key, msgpack.unpackb(row[2])))
                self._move(
                    txn, counts, (key, index_key), [SENT, 0, row[2], owner, epoch, now, None]
                )
            txn.put(COUNTS_KEY, COUNTS.pack(*counts), db=index)
        return taken

    def finish(self, taken: list[tuple[bytes, Any]], outputs: tuple[Output, ...]) -> None:
        """Sent -> done."""
        now = time.time()
        with self._env.begin(write=True) as txn:
            counts = self._counts(txn)
            for key, _ in taken:
                _, order, fixed, owner, epoch, _, _ = msgpack.unpackb(txn.get(key, db=self._items))
                start, last, *_ = msgpack.unpackb(fixed)
                files = [(o.path, o.device, o.inode, o.size_bytes, o.mtime_ns) for o in outputs]
                data = (files, last - start + 1, 0.001, 0.001)
                row = [DONE, 0, fixed, owner, epoch, now, data]
                self._move(txn, counts, (key, KEY(SENT, order)), row)
            txn.put(COUNTS_KEY, COUNTS.pack(*counts), db=self._index)

    def _counts(self, txn: Any) -> list[int]:
        data = txn.get(COUNTS_KEY, db=self._index)
        return list(COUNTS.unpack(data)) if data else [0] * 16

    def _move(self, txn: Any, counts: list[int], keys: tuple[bytes, bytes], row: list[Any]) -> None:
        key, index_key = keys
        order = row[1] = counts[MOVES] = counts[MOVES] + 1
        counts[row[0] - 1] -= 1
        counts[row[0]] += 1
        txn.delete(index_key, db=self._index)
        txn.put(key, self._pack(row), db=self._items)
        txn.put(KEY(row[0], order), key, db=self._index)
