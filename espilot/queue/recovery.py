"""What the next pilot does with a queue before any worker opens it.

After a crash of the machine an unsynced file may open and yet be wrong: it is set aside whole, and
a new queue takes in the archives that are proven by their manifests.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from espilot.errors import QueueError
from espilot.model import UNASKED, Archive, DoneRange, EventRange, FailedRange, Job
from espilot.queue.moves import Moves
from espilot.queue.store import Queue

KEPT = 2
"""Queues that were set aside; older ones are removed."""
_CRASHED = re.compile(r"\.crashed-(\d+)")


@dataclass(frozen=True, slots=True)
class Repair:
    """Ranges that are ready again: `returned` were in hand, the outputs of `lost` are gone."""

    returned: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proven:
    """An archive that its manifest proves, with the events of each of its ranges."""

    archive: Archive
    events: tuple[int, ...]


def repair(
    queue: Queue, is_whole: Callable[[DoneRange], bool], *, final_phase: str, now: float
) -> Repair:
    """Sent -> ready, as whoever held ranges is dead; done -> ready where an output is not whole.

    The server is to be asked about the job before anything else is done with it, but in its final
    phase, in which nothing of it is live.
    """
    done, _ = queue.done()
    lost = tuple(row.id for row in done if not is_whole(row))
    record = queue.job()
    with queue.moves() as moves:
        if record is not None and record.phase != final_phase:
            moves.set_job(record.job, record.phase, record.facts | {UNASKED: True})
        returned = moves.return_sent()
        for range_id in lost:
            moves.drop(range_id, None, now=now)
    return Repair(tuple(returned), lost)


def set_aside(directory: Path) -> Path:
    """Rename a queue that cannot be trusted to `queue.crashed-N`; returns the new name."""
    try:
        former = sorted(_crashed(directory))
        for _, path in former[: len(former) + 1 - KEPT]:
            shutil.rmtree(path)
        number = former[-1][0] + 1 if former else 1
        target = directory.with_name(f"{directory.name}.crashed-{number}")
        directory.rename(target)
    except OSError as error:
        raise QueueError(f"cannot set {directory} aside: {error.strerror}") from error
    return target


def adopt(
    queue: Queue,
    job: Job,
    archives: Sequence[Proven],
    failures: Sequence[FailedRange] = (),
    *,
    phase: str,
    now: float,
) -> None:
    """Fill a new queue with a job in this phase, its packed archives and failures, and sync it."""
    facts = {"before": asdict(queue.counts())}
    packed = {range_id for proven in archives for range_id in proven.archive.ids}
    with queue.moves() as moves:
        moves.set_job(job, phase, facts)
        for proven in archives:
            _pack(moves, proven, now)
        for failure in failures:
            if failure.id not in packed:
                _take(moves, [(failure.id, 1)], now)
                moves.fail(failure, epoch=0, now=now)
    queue.sync()


def _pack(moves: Moves, proven: Proven, now: float) -> None:
    """Take the ranges of one archive through the states that they had before."""
    archive, sizes = proven.archive, proven.events
    pairs = list(zip(archive.ids, sizes, strict=True))
    _take(moves, pairs, now)
    for range_id, n in pairs:
        moves.finish(range_id, epoch=0, outputs=(), now=now, facts=(n, None, None))
    moves.pack(archive)


def _take(moves: Moves, pairs: Sequence[tuple[str, int]], now: float) -> None:
    """Put ranges, ids with their numbers of events, and have them sent."""
    moves.put_ranges([EventRange(i, 1, max(1, n), "", "", "") for i, n in pairs], now=now)
    moves.take([""] * len(pairs), epoch=0, now=now)


def _crashed(directory: Path) -> list[tuple[int, Path]]:
    found = []
    for path in directory.parent.glob(f"{directory.name}.crashed-*"):
        match = _CRASHED.fullmatch(path.name.removeprefix(directory.name))
        if match:
            found.append((int(match[1]), path))
    return found
