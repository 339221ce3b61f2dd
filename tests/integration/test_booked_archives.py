"""What the stage-out worker does with archives that the server has booked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from queue_oracle import JOB, make_outputs, make_ranges, range_id

from espilot.model import Archive
from espilot.queue.store import Queue
from espilot.workers.stageout import StageoutWorker

NAME = "one.tar"


def booked(directory: Path) -> Queue:
    """A queue with one archive that is reported."""
    queue = Queue(directory, map_bytes=4 << 20)
    with queue.moves() as moves:
        moves.put_ranges(make_ranges(1, 1), now=0.0)
        moves.set_job(JOB, "running", {})
        moves.take(["a"], epoch=1, now=0.0)
        moves.finish(range_id(1), epoch=1, outputs=make_outputs(1), now=0.0)
        moves.pack(Archive(NAME, (range_id(1),), 1, "00000001", 1))
        moves.staged(NAME, storage_id=1)
        moves.reported(NAME)
    return queue


def test_an_archive_that_cannot_be_removed_ends_nobody(tmp_path: Path) -> None:
    """It is told once and tried again; when it can be removed it is forgotten."""
    told: list[Any] = []
    worker: Any = StageoutWorker.__new__(StageoutWorker)
    queue = booked(tmp_path / "queue")
    log = SimpleNamespace(warning=lambda *words, **more: told.append((words, more)))
    worker.child = SimpleNamespace(queue=queue, log=log)
    worker._directory, worker._rest = tmp_path, set()
    (tmp_path / NAME).mkdir()
    worker._clean()
    worker._clean()
    assert [more["name"] for _, more in told] == [NAME]
    assert [archive.name for archive in queue.archives()] == [NAME]
    (tmp_path / NAME).rmdir()
    worker._clean()
    assert queue.archives() == []
    queue.close()
