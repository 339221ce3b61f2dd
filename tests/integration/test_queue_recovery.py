"""A queue that a dead pilot left, and one that a crash of the machine left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_oracle import JOB, check_queue, make_outputs, make_ranges

from espilot.model import Archive, ArchiveState, FailedRange, RangeState
from espilot.queue.recovery import Proven, adopt, repair, set_aside
from espilot.queue.store import Queue

MAP_BYTES = 4 << 20


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "queue", map_bytes=MAP_BYTES)
    yield queue
    queue.close()


def test_what_was_in_hand_or_is_missing_is_ready_again(queue: Queue) -> None:
    """Sent ranges become ready, and done ones of which an output is gone; the others stay."""
    ranges = make_ranges(1, 4)
    with queue.moves() as moves:
        moves.put_ranges(ranges, now=1.0)
        moves.take(["a"] * 3, epoch=7, now=2.0)
        for each in ranges[:2]:
            moves.finish(each.id, epoch=7, outputs=make_outputs(1), now=3.0)
    lost = ranges[1].id
    found = repair(queue, lambda row: row.id != lost, final_phase="end", now=4.0)
    assert (found.returned, found.lost) == ((ranges[2].id,), (lost,))
    assert queue.ids(RangeState.DONE) == [ranges[0].id]
    assert sorted(queue.ids(RangeState.READY)) == sorted(r.id for r in ranges[1:])
    check_queue(queue)


@pytest.mark.parametrize(("phase", "unasked"), [("running", True), ("end", False)])
def test_server_is_to_be_asked_about_the_job(queue: Queue, phase: str, unasked: bool) -> None:
    """A job that was found is marked, unless only its final update is missing; its facts stay."""
    with queue.moves() as moves:
        moves.set_job(JOB, phase, {"before": 3})
    repair(queue, lambda row: True, final_phase="end", now=1.0)
    record = queue.job()
    assert record is not None and (record.job, record.phase) == (JOB, phase)
    assert (record.unasked, record.facts["before"]) == (unasked, 3)


def test_proven_archives_are_packed_under_their_names(queue: Queue) -> None:
    """A new queue holds the job and its archives as they were, with the events of each range."""
    ids = [r.id for r in make_ranges(1, 5)]
    archives = [
        Archive("a.tar", tuple(ids[:3]), 300, "00000001", 9),
        Archive("b.tar", tuple(ids[3:]), 200, "00000002", 5),
    ]
    proven = [Proven(archives[0], (2, 3, 4)), Proven(archives[1], (5, 0))]
    adopt(queue, JOB, proven, phase="settling", now=1.0)
    assert queue.archives(ArchiveState.PACKED) == archives
    record = queue.job()
    assert record is not None and (record.job, record.phase) == (JOB, "settling")
    assert queue.counts().packed == queue.counts().live == 5
    check_queue(queue)
    with queue.moves() as moves:
        moves.staged("a.tar", storage_id=1)
        moves.reported("a.tar", refused=frozenset(ids[1:2]))
    assert queue.counts().events == 6


def test_failures_are_taken_in_beside_archives(queue: Queue) -> None:
    """Failures wait to be reported; one of a range that lies in an archive is not believed."""
    ids = [r.id for r in make_ranges(1, 4)]
    proven = [Proven(Archive("a.tar", tuple(ids[:2]), 300, "00000001", 2), (1, 1))]
    failures = [FailedRange(ids[n], n == 2, 1220 + n, "why") for n in (1, 2, 3)]
    adopt(queue, JOB, proven, failures, phase="settling", now=1.0)
    assert sorted(queue.failures(), key=lambda each: each.id) == failures[1:]
    assert queue.counts().packed == 2
    check_queue(queue)


def test_two_crashed_queues_are_kept(tmp_path: Path) -> None:
    """A queue is set aside under the next number; only the newest two stay."""
    names = []
    for n in range(4):
        (tmp_path / "queue").mkdir()
        (tmp_path / "queue" / f"file-{n}").touch()
        names.append(set_aside(tmp_path / "queue").name)
    assert names == [f"queue.crashed-{n}" for n in (1, 2, 3, 4)]
    assert sorted(p.name for p in tmp_path.iterdir()) == names[2:]
    assert (tmp_path / names[3] / "file-3").exists()
