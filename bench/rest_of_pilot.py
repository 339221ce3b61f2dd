"""What stands around the dispatcher, in one process: fills the queue, then takes what is done.

`python -m bench.rest_of_pilot QUEUE RUNTIME RANGES`: outputs go the way of the stage-out worker and
the reports, in groups and woken by the doorbell, but there is no tar and no server.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import zmq

from bench.children import say
from espilot.adapters.control import Doorbells
from espilot.config import PackingConfig
from espilot.model import Archive, EventRange, Job
from espilot.pipeline.packing import Packing
from espilot.queue.store import Queue

GROUP = 500
PUT = 1000
BEAT_MS = 1000
JOB = Job(1, 1, 1, 0, 1, ("output",), "log")


def make_ranges(count: int) -> Iterator[EventRange]:
    """Ranges as a server hands them out."""
    for k in range(1, count + 1):
        yield EventRange(
            f"7001-11-301-{k}-1", k, k, "EVNT.1._000001.pool.root.1",
            "6b5e0f1c-0000-4000-8000-0123456789ab", "bench", "/data/EVNT.1._000001.pool.root.1",
        )  # fmt: skip


def fill(queue: Queue, count: int) -> None:
    """Put all ranges and say that no more will come."""
    ranges = list(make_ranges(count))
    for start in range(0, count, PUT):
        with queue.moves() as moves:
            moves.put_ranges(ranges[start : start + PUT], now=time.time())
    with queue.moves() as moves:
        moves.set_job(JOB, "exhausted", {})


class Taker:
    """Takes done ranges to their end; knows when the first and the last one were done."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._packing = Packing(queue, PackingConfig(max_ranges=GROUP))
        self._archives = 0
        self.ranges = 0
        self.first = float("inf")
        self.last = 0.0

    def look(self, *, flush: bool) -> None:
        """Take all full groups, and with `flush` the rest."""
        self._packing.refresh()
        while ids := self._packing.choose(now=time.time(), flush=flush).ids:
            self._note([row.done_at for row in self._packing.rows(ids)])
            self._take(tuple(ids))

    def _note(self, times: Iterable[float]) -> None:
        ordered = sorted(times)
        self.first = min(self.first, ordered[0])
        self.last = max(self.last, ordered[-1])
        self.ranges += len(ordered)

    def _take(self, ids: tuple[str, ...]) -> None:
        self._archives += 1
        archive = Archive(f"bench.{self._archives}.tar", ids, 100 * len(ids), "00000001", len(ids))
        self._packing.book(archive, (), now=time.time())
        self._queue.sync()
        with self._queue.moves() as moves:
            moves.staged(archive.name, storage_id=1)
        with self._queue.moves() as moves:
            moves.reported(archive.name)
        with self._queue.moves() as moves:
            moves.forget_archive(archive.name)


def take_all(taker: Taker, bells: Doorbells, count: int) -> None:
    """Take until all ranges were done, or our stdin ends."""
    poller = zmq.Poller()
    poller.register(bells.socket, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    while taker.ranges < count:
        sources = dict(poller.poll(BEAT_MS))
        if sys.stdin.fileno() in sources:
            return
        bells.clear()
        taker.look(flush=not sources)


def main(directory: Path, runtime: Path, count: int) -> None:
    """Fill, take, say."""
    queue = Queue(directory)
    bells = Doorbells(runtime, "stageout")
    fill(queue, count)
    say(state="filled")
    taker = Taker(queue)
    take_all(taker, bells, count)
    say(first=taker.first, last=taker.last, ranges=taker.ranges)
    bells.close()
    queue.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
