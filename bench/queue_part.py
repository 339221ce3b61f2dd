"""One process of the queue bench.

`python -m bench.queue_part real|bare producer|consumer DIRECTORY GROUP COUNT FD`
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.bare_queue import BareQueue
from bench.children import BenchError, say
from bench.rest_of_pilot import make_ranges
from espilot.model import EventRange, Output
from espilot.queue.store import Queue

EPOCH = 1
OWNER = "0000000001:1234"
OUTPUTS = (Output("/scratch/espilot-work/payload-1/output.7001-11-301-1-1", 5, 77, 100, 10**18),)
FACTS = (None, 0.001, 0.001)

Put = Callable[[list[EventRange]], None]
Take = Callable[[int], int]


def put_real(directory: Path) -> Put:
    """Puts of the queue."""
    queue = Queue(directory)

    def put(ranges: list[EventRange]) -> None:
        with queue.moves() as moves:
            moves.put_ranges(ranges, now=time.time())

    return put


def take_real(directory: Path) -> Take:
    """Take and finish of the queue, a transaction each."""
    queue = Queue(directory)

    def take(n: int) -> int:
        with queue.moves() as moves:
            taken = moves.take([OWNER] * n, epoch=EPOCH, now=time.time())
        now = time.time()
        with queue.moves() as moves:
            for event_range in taken:
                moves.finish(event_range.id, epoch=EPOCH, outputs=OUTPUTS, now=now, facts=FACTS)
        return len(taken)

    return take


def put_bare(directory: Path) -> Put:
    """Puts with bare py-lmdb."""
    return BareQueue(directory).put


def take_bare(directory: Path) -> Take:
    """Take and finish with bare py-lmdb."""
    queue = BareQueue(directory)

    def take(n: int) -> int:
        taken = queue.take(n, OWNER, EPOCH)
        queue.finish(taken, OUTPUTS)
        return len(taken)

    return take


def groups(count: int, group: int) -> Iterator[list[EventRange]]:
    """All ranges in groups."""
    ranges = list(make_ranges(count))
    for start in range(0, count, group):
        yield ranges[start : start + group]


def produce(put: Put, group: int, count: int, fd: int) -> None:
    """Put all ranges, and a byte into the pipe for each."""
    first = time.monotonic()
    for ranges in list(groups(count, group)):
        put(ranges)
        os.write(fd, b"." * len(ranges))
    say(first=first)


def consume(take: Take, group: int, count: int, fd: int) -> None:
    """Take and finish as many as the pipe says there are, at most a group at a time."""
    known = 0
    for left in range(count, 0, -group):
        wanted = min(group, left)
        while known < wanted:
            told = os.read(fd, group)
            if not told:
                raise BenchError(f"the producer ended, {left} of {count} ranges are missing")
            known += len(told)
        if take(wanted) != wanted:
            raise BenchError(f"{left} of {count} ranges are left, but not so many as were put")
        known -= wanted
    say(last=time.monotonic())


def main(kind: str, part: str, directory: Path, numbers: list[int]) -> None:
    """Be the producer or the consumer."""
    group, count, fd = numbers
    if part == "producer":
        put = put_real(directory) if kind == "real" else put_bare(directory)
        produce(put, group, count, fd)
    else:
        take = take_real(directory) if kind == "real" else take_bare(directory)
        consume(take, group, count, fd)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), [int(text) for text in sys.argv[4:7]])
